"""Asks for the median meanwhile, and holds every answer against the truth.

An answer is judged by what was known when it was asked for. What was in flight then, or was sent or
acknowledged until it came, may be covered or not. An answer that comes while nothing is in flight
has no excuse. Nor has the last one, after all workers said what they have: then each acknowledged
value must be counted once.

All runs on one event loop, so what is done between two waits is done at once.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from loadgen.calls import PATIENCE_S, BadReply, Calls, NoReply, Target, Traffic
from loadgen.report import Report
from loadgen.scenarios import Floats
from loadgen.truth import Answer, Values, judged

ASK_S = 0.2
TRAFFIC_S = 1.0
COMPLETE_S_MAX = 60.0  # three heartbeats of any sensible length
HISTORY = 100_000  # of what was acknowledged when

Show: TypeAlias = Callable[[Report], None]


class Books:
    """What is in flight; and with `keeps`, all that is acknowledged."""

    def __init__(self, *, keeps: bool) -> None:
        self.values = Values() if keeps else None
        self._flying: dict[int, Floats] = {}
        self._unsure: dict[int, Floats] = {}
        self._landed: list[Floats] | None = None

    def sent(self, number: int, batch: Floats) -> None:
        self._flying[number] = batch
        if self._landed is not None:
            self._unsure[number] = batch

    def acknowledged(self, number: int) -> Floats:
        batch = self._flying.pop(number)
        if self._landed is None:
            self._add(batch)
        else:
            self._landed.append(batch)
        return batch

    def begin(self) -> None:
        """An answer is asked for: from here on its truth is unsure, by what is in flight."""
        self._landed, self._unsure = [], dict(self._flying)

    def end(self) -> None:
        for batch in self._landed or []:
            self._add(batch)
        self._landed, self._unsure = None, {}

    @property
    def unsure(self) -> list[Floats]:
        return list(self._unsure.values())

    def _add(self, batch: Floats) -> None:
        if self.values is not None:
            self.values.add(batch)


class Auditor:
    def __init__(self, calls: Calls, target: Target, report: Report) -> None:
        self._calls, self._target, self._report = calls, target, report
        self._books = Books(keeps=report.verify)
        self._acknowledged = [0 for _ in target.workers]
        self._is_complete = False
        self._names: list[str] = []
        self._traffic_before, self._counted_before = Traffic(), 0
        self._known_since: deque[tuple[float, int]] = deque(maxlen=HISTORY)
        self._asking = asyncio.Lock()

    def close(self) -> None:
        if self._books.values is not None:
            self._books.values.close()

    async def begin(self) -> None:
        """Who is there, and what they count already; nobody can verify what others sent."""
        calls, target, verify = self._calls, self._target, self._report.verify
        self._names = [await calls.name(worker) for worker in target.workers]
        await calls.meet(target.coordinator)
        answer = await calls.median(target.coordinator, target.stream)
        if verify:
            self._check_that_it_can_be(answer)
            for worker, name in zip(target.workers, self._names, strict=True):
                calls.mean(worker, name)
            await calls.ready(target.coordinator)
        self._counted_before = answer.count
        self._traffic_before = sum((await self._traffic()).values(), Traffic())

    def _check_that_it_can_be(self, answer: Answer) -> None:
        """Verified, that is."""
        name, times = Counter(self._names).most_common(1)[0]
        if times > 1:
            raise BadReply(
                f"{times} addresses lead to a worker that calls itself {name!r}: to verify, name "
                "each worker once, and let each have a name of its own"
            )
        if answer.count:
            raise BadReply(
                f"stream {self._target.stream!r} already has {answer.count:,} values that nobody "
                "here knows, so no answer can be verified: choose another --stream"
            )

    def sent(self, number: int, batch: Floats) -> None:
        self._books.sent(number, batch)
        self._report.requests, self._report.sent = number + 1, self._report.sent + len(batch)

    def acknowledged(self, number: int, worker: int) -> None:
        count, report = len(self._books.acknowledged(number)), self._report
        self._acknowledged[worker] += count
        report.acknowledged += count
        self._known_since.append((time.monotonic(), report.acknowledged))

    async def keep_asking(self) -> None:
        traffic_at = 0.0
        while True:
            await self.ask()
            if time.monotonic() >= traffic_at or not self._report.traffic.raw_bytes:
                with suppress(NoReply):
                    await self._count_traffic(patience_s=0.0)
                traffic_at = time.monotonic() + TRAFFIC_S
            await asyncio.sleep(ASK_S)

    async def keep_showing(self, show: Show) -> None:
        while True:
            self.look_around()
            show(self._report)
            await asyncio.sleep(ASK_S)

    def look_around(self) -> None:
        self._report.repeated = self._calls.repeated
        self._report.look_at_the_clock()

    async def ask(self, patience_s: float = 0.0) -> None:
        async with self._asking:
            self._books.begin()
            asked = time.monotonic()
            try:
                answer = await self._calls.median(
                    self._target.coordinator, self._target.stream, patience_s=patience_s
                )
            except NoReply:
                self._report.unanswered += 1
                self._is_complete = False
            else:
                self._note(answer, asked)
            finally:
                self._books.end()

    def _note(self, answer: Answer, asked: float) -> None:
        report = self._report
        report.asked.add(time.monotonic() - asked)
        report.median, report.epsilon = answer.median, answer.epsilon
        report.certificate = answer.rank_error
        report.counted = answer.count - self._counted_before
        report.incomplete += not answer.complete
        self._is_complete = answer.complete
        self._note_age(asked)
        if self._books.values is not None:
            self._judge(answer, self._books.values)

    def _note_age(self, asked: float) -> None:
        """Since when, at least, more was acknowledged than the answer covers.

        It may cover batches in flight instead: their count is all that it tells.
        """
        report, known = self._report, self._known_since
        while known and known[0][1] <= report.counted:
            known.popleft()
        report.stale.add(max(0.0, asked - known[0][0]) if known else 0.0)
        missing = (report.acknowledged - report.counted) / max(1, report.acknowledged)
        report.missing_share_max = max(report.missing_share_max, missing)

    def _judge(self, answer: Answer, values: Values) -> None:
        report, unsure = self._report, self._books.unsure
        verdict = judged(answer, values, unsure)
        report.error = verdict.error
        if not unsure:
            report.exact, report.beside_exact = values.median(), answer.median
            report.beside_error = verdict.error
        if verdict.breach:
            report.breach(verdict.breach)
        if answer.complete and answer.count:
            report.checked += 1
            report.quiet += not unsure
            report.error_max = max(report.error_max, verdict.error)
            report.certificate_max = max(report.certificate_max, answer.rank_error)

    async def settle(self) -> None:
        """All workers say what they have; then one more answer, and the counts."""
        target, report = self._target, self._report
        for worker, acknowledged in zip(target.workers, self._acknowledged, strict=True):
            if acknowledged:
                await self._calls.flush(worker, target.stream)
        if report.verify and report.acknowledged:
            await self._until_complete()
        await self.ask(PATIENCE_S)
        counted = await self._count_traffic()
        if report.verify:
            self._compare(counted)

    def _compare(self, counted: dict[str, int]) -> None:
        """Nothing is proven of what a silent worker has, so nothing is broken either."""
        report, sent = self._report, Counter[str]()
        for name, acknowledged in zip(self._names, self._acknowledged, strict=True):
            sent[name] += acknowledged
        report.settled = self._is_complete and report.checked > 0
        what = (
            f"acknowledged were {dict(+sent)}, in all {report.acknowledged:,}; "
            f"counted are {counted}, in all {report.counted:,}"
        )
        if not report.acknowledged:
            report.failed = "nothing was sent, so there was no answer to check"
        elif not report.settled:
            report.failed = f"the last answer is missing, or not complete: {what}"
        elif counted != +sent or report.counted != report.acknowledged:
            report.breach(what)

    async def _until_complete(self) -> None:
        """Or until it was waited for long enough."""
        end = time.monotonic() + COMPLETE_S_MAX
        while time.monotonic() < end:
            answer = await self._calls.median(self._target.coordinator, self._target.stream)
            if answer.complete:
                return
            await asyncio.sleep(ASK_S)

    async def _count_traffic(self, patience_s: float = PATIENCE_S) -> dict[str, int]:
        """How many values of each worker are counted."""
        traffic = await self._traffic(patience_s)
        self._report.traffic = sum(traffic.values(), Traffic()) - self._traffic_before
        return {name: one.count for name, one in traffic.items()}

    async def _traffic(self, patience_s: float = PATIENCE_S) -> dict[str, Traffic]:
        target = self._target
        return await self._calls.traffic(target.coordinator, target.stream, patience_s=patience_s)
