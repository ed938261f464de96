"""Answers: what the ledger knows, as its readers see it; the median as bytes, until it changes.

An answer is made anew when something was heard that may change it, or when the time has come at
which somebody turns silent. So it is never older than the last receipt before it was asked for, and
costs nothing while nothing happens. `as_of` is when it was made: two answers with the same `as_of`
are the same.

While deltas stream in, every question would have it made anew, which takes milliseconds where there
are a thousand rows; then questions would leave no time to hear deltas. So it rests for as long as
it took to make. Who asks meanwhile waits, and all who wait are told the one that is made then.
"""

import json
import math
from asyncio import sleep
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.distribution import NO_POINTS
from shared.ledger import Answer, Ledger
from shared.protocol import Cause
from shared.rows import Row
from shared.serving.logs import as_of

Clock = Callable[[], float]
Rendered = Callable[[], bytes]
STREAMS_MAX = 1000  # whose medians are kept as bytes: those made last
REST_S_MAX = 0.25  # a process may have stood still while it made one


@dataclass(frozen=True)
class Kept:
    """An answer as it was made: what the ledger said, and the bytes that readers get."""

    answer: Answer
    body: bytes
    changes: int
    made: float
    rests_until: float


class Answers:
    def __init__(self, ledger: Ledger, *, clock: Clock, wall: Clock) -> None:
        self._ledger, self._clock, self._wall = ledger, clock, wall
        self._kept: dict[str, Kept] = {}

    async def median(self, stream: str) -> Kept:
        """The median of a stream, as it is now."""
        asked = self._clock()
        while (kept := self._kept.get(stream)) and not (kept.made > asked or self._holds(kept)):
            pause = kept.rests_until - self._clock()
            if pause <= 0:
                return self._made(stream)
            await sleep(pause)
        return kept or self._made(stream)

    def median_at_once(self, stream: str) -> Kept:
        """The same for who cannot wait."""
        kept = self._kept.get(stream)
        return kept if kept and self._holds(kept) else self._made(stream)

    def _holds(self, kept: Kept) -> bool:
        """Whether it would be the same if it were made now."""
        unchanged = kept.changes == self._ledger.changes(kept.answer.stream)
        return unchanged and self._clock() < kept.answer.until

    def _made(self, stream: str) -> Kept:
        changes, now = self._ledger.changes(stream), self._clock()
        answer = self._ledger.answer(stream=stream, now=now)
        found = self._found(answer)
        fields = {"stream": stream, "median": found.pop("value")} | found | self._fields(answer)
        body, done = as_json(fields), self._clock()
        if answer.estimate:
            answer.estimate.let_go()
        rests_until = done + min(done - now, REST_S_MAX)
        kept = Kept(answer, body, changes, now, rests_until)
        self._kept.pop(stream, None)
        self._kept[stream] = kept
        if len(self._kept) > STREAMS_MAX:
            del self._kept[next(iter(self._kept))]
        return kept

    def quantiles(self, stream: str, qs: Sequence[float]) -> Rendered:
        """The answer to `GET /quantile`; for a thread to work out."""
        answers = self._ledger.answers(qs, stream=stream, now=self._clock())
        fields = self._fields(answers[0])

        def written() -> bytes:
            found = [{"q": answer.q} | self._found(answer) for answer in answers]
            return as_json({"stream": stream, "quantiles": found} | fields)

        return written

    def _fields(self, answer: Answer) -> dict[str, Any]:
        return {
            "count": answer.count,
            "epsilon": answer.epsilon,
            "exact": answer.exact,
            "complete": answer.complete,
            "workers": {"live": answer.live, "silent": answer.silent},
            "as_of": as_of(self._wall()),
        }

    @staticmethod
    def _found(answer: Answer) -> dict[str, Any]:
        estimate = answer.estimate
        if estimate is None:
            return {"value": None, "low": None, "high": None, "rank_error": 0.0}
        return {
            "value": estimate.value,
            "low": finite(estimate.low),
            "high": finite(estimate.high),
            "rank_error": estimate.rank_error,
        }

    def streams(self) -> Rendered:
        """The answer to `GET /streams`; for a thread to add up."""
        rows = list(self._ledger.rows)

        def written() -> bytes:
            counts, sources = Tally[str](), Tally[str]()
            for row in rows:
                counts[row.source.stream] += row.upto
                sources[row.source.stream] += 1
            found = [
                {"stream": stream, "count": counts[stream], "sources": sources[stream]}
                for stream in sorted(counts)
            ]
            return as_json({"streams": found})

        return written

    def cdf(self, stream: str, points: int) -> Rendered:
        """The answer to `GET /cdf`; for a thread to work out."""
        answer = self._ledger.answer(stream=stream, now=self._clock())
        distribution = self._ledger.distribution(stream)
        fields = {"stream": stream} | self._fields(answer)

        def written() -> bytes:
            found = distribution.points(points) if distribution else NO_POINTS
            columns = {name: column.tolist() for name, column in found._asdict().items()}
            straight = distribution is None or distribution.is_straight(found)
            return as_json(fields | {"straight": straight, "points": columns})

        return written

    def workers(self, stream: str | None) -> Rendered:
        """One entry for each source, by worker and stream; for a thread to write down."""
        now, known = self._clock(), self._ledger.known
        rows = [row for row in known if stream in (None, row.source.stream)]

        def written() -> bytes:
            rows.sort(key=lambda row: row.source)
            return as_json({"workers": [self._source(row, now) for row in rows]})

        return written

    def _source(self, row: Row, now: float) -> dict[str, Any]:
        heard_at = self._ledger.heard_at(row.source)
        return {
            "worker": row.source.worker,
            "stream": row.source.stream,
            "source": f"{row.source.number:016x}",
            "state": self.state(row, now),
            "count": row.upto,
            "median": row.median,
            "allowance": row.counted.allowance,
            "patience": row.counted.patience,
            "rank_shift": row.shift,
            "deltas": row.deltas,
            "causes": _causes(row),
            "bytes": row.bytes_,
            "raw_bytes": row.raw - row.raw_before,
            "last_heard_s": finite(round(now - heard_at, 3)),
        }

    def state(self, row: Row, now: float) -> str:
        if self._ledger.is_silent(row, now=now):
            return "silent"
        return "gone" if row.final else "retired" if row.retired else "live"

    def explain(self, stream: str, q: float) -> Rendered:
        """An answer, and all it was made of: who wants may compute it again.

        Row by row: as objects, knots take four times as much as in the text that is made of them.
        """
        now = self._clock()
        answer = self._ledger.answer(q, stream=stream, now=now)
        rows = [row for row in self._ledger.rows if row.source.stream == stream]
        fields = {"stream": stream, "q": q} | self._found(answer) | self._fields(answer)

        def written() -> bytes:
            rows.sort(key=lambda row: row.source.number)
            head = as_json(fields).removesuffix(b"}")
            told = [as_json(self._source(row, now) | _share(row, answer)) for row in rows]
            return b"".join((head, b',"rows":[', b",".join(told), b"]}"))

        return written


def _causes(row: Row) -> dict[str, int]:
    """How many of its deltas were said for each, of those that there were."""
    counted = zip(Cause, row.causes, strict=True)
    return {cause.name.lower(): many for cause, many in counted if many}


def _share(row: Row, answer: Answer) -> dict[str, Any]:
    """How much of a row lies below the answer, and up to it; and its picture."""
    value = np.array(answer.estimate.value if answer.estimate else math.nan)
    below, upto = row.picture.ranks(value)
    return {
        "share_below": float(below) / row.upto,
        "share_upto": float(upto) / row.upto,
        "picture": {
            "x": row.picture.x.tolist(),
            "below": row.picture.below.tolist(),
            "upto": row.picture.upto.tolist(),
        },
    }


def as_json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def finite(value: float) -> float | None:
    """JSON has no infinity: where nothing bounds the answer there is nothing."""
    return value if math.isfinite(value) else None
