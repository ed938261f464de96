"""The ledger: the coordinator's half of the protocol, without I/O.

One **row** for each source: the picture of a *prefix* of its values, the first `upto` of them, the
mark of the delta that made it, and what the source was granted. Rows are values: whoever stores
one, stores what it was.

When a delta changes a row
--------------------------
    base == mark of the row,  and  since == upto of the row  or, of a whole, upto >= upto of the row

Anything else changes nothing. Either way the answer is the receipt of the row as it then is: a pure
function of the row, so that a repeated delta gets the same receipt, with the same grants, again. An
accepted delta, even an empty one, makes a new mark, and earns a new grant.

What is counted for a source
----------------------------
The largest of what it was granted on the base of its delta, by which it lives until the receipt
arrives, what the receipt grants, and the shift the delta measured. And since a value moves a shift
by at most one rank, never more than that shift plus the patience. What is counted beyond a source's
own part is taken from the pool; a grant gives each open source an equal share of it, or what is
left. So budgets are kept by counting, whatever is lost on the way: no new grant breaks one. An old
one may, once epsilon was lowered or rows were forgotten. Then the certificate says what is true.

Who is silent
-------------
A source is heard when a delta of it is accepted; a repeat is not news. It is live while its last
delta echoes this start of the ledger, was heard within three heartbeats, did not say `unbound`, and
nothing since claimed to know more values than the row covers. One that said goodbye stays live. An
answer is complete when all sources are live, and the ledger has listened for three heartbeats.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from shared.picture import NOTHING, Picture, Total
from shared.protocol import (
    COARSEST,
    EPSILON_MIN,
    NO_MARK,
    SEGMENTS_MAX,
    SILENT_HEARTBEATS,
    Delta,
    Form,
    MalformedMessage,
    Receipt,
    Refusal,
    Source,
    mark_of,
    unpack_delta,
)
from shared.rank_shift import NO_GRANT, Estimate, Grant, floored, own_part, pool
from shared.values import Floats

Key: TypeAlias = tuple[str, int]
"""A stream, and the number of a source in it."""

ROW_KNOTS_MAX = 2 * SEGMENTS_MAX  # many more than any outbox lets a row have


class BrokenInvariant(RuntimeError):
    """The ledger is about to break what it promises. This is a bug, never the input's fault."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Row:
    source: Source
    picture: Picture = NOTHING
    upto: int = 0
    mark: bytes = NO_MARK
    lives_by: Grant = NO_GRANT  # granted on its base: the source keeps to it until the receipt
    granted: Grant = NO_GRANT  # by the receipt
    shift: float = 0.0
    ledger: int = 0
    final: bool = False
    unbound: bool = False
    deltas: int = 0  # accepted
    bytes_: int = 0  # of those
    raw: int = 0

    def __repr__(self) -> str:
        return f"<row of {self.source}: {self.upto} values, mark {self.mark.hex()}>"

    @cached_property
    def counted(self) -> Grant:
        if self.final:
            return Grant(self.shift, 0)
        patience = max(self.lives_by.patience, self.granted.patience)
        allowance = max(self.lives_by.allowance, self.granted.allowance)
        return Grant(max(self.shift, min(allowance, self.shift + patience)), patience)

    def accepts(self, delta: Delta) -> bool:
        follows = delta.since == self.upto or delta.form is Form.WHOLE
        return delta.base == self.mark and follows and delta.upto >= self.upto

    def after(self, delta: Delta, data: bytes) -> "Row":
        return Row(
            source=delta.source,
            picture=delta.drawn_on(self.picture),
            upto=delta.upto,
            mark=mark_of(data),
            lives_by=self.granted,
            shift=delta.shift,
            ledger=delta.ledger,
            final=delta.final,
            unbound=delta.unbound,
            deltas=self.deltas + 1,
            bytes_=self.bytes_ + len(data),
            raw=delta.raw,
        )


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A quantile of all values in a stream; `estimate` is None while there are none."""

    stream: str
    q: float
    count: int
    epsilon: float
    estimate: Estimate | None
    exact: bool
    complete: bool
    live: int
    silent: int


class Rows:
    """The rows of one stream, and their sums: exact, in whatever order they came."""

    def __init__(self, epsilon: float) -> None:
        self._epsilon = epsilon
        self._rows: dict[int, Row] = {}
        self._open = 0  # how many have not said goodbye
        self._spent = NO_GRANT  # of the pool
        self._sums: tuple[Total, float, Floats] | None = None
        self.weight = 0

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def of(self, source: Source) -> Row:
        return self._rows.get(source.number) or Row(source=source)

    def granted(self, row: Row) -> Row:
        """With the part of its own, and an equal share of the pool or what is left of that."""
        if row.final:
            return row
        weight, open_, spent = self._without(row)
        budget = pool(self._epsilon, weight + row.upto)
        left, open_ = budget.beyond(spent), open_ + 1
        share = Grant(
            min(floored(budget.allowance / open_), left.allowance),
            min(budget.patience // open_, left.patience),
        )
        return replace(row, granted=own_part(self._epsilon, row.upto).plus(share))

    def keep(self, row: Row) -> None:
        """In place of the one before it, if it keeps what is promised of it."""
        old = self.of(row.source)
        if row.upto < old.upto or row.picture.weight != row.upto:
            raise BrokenInvariant(f"{row!r} after {old!r} is no picture of a longer prefix")
        weight, _, spent = self._without(row)
        taken = row.granted.beyond(own_part(self._epsilon, row.upto))
        budget = pool(self._epsilon, weight + row.upto)
        for more, before, all_ in zip(taken, spent, budget, strict=True):
            if more and before + more > all_:
                raise BrokenInvariant(f"{row!r} was granted {row.granted}, more than is left")
        self.restore(row)

    def restore(self, row: Row) -> None:
        """As it was, whatever it was granted then."""
        weight, open_, spent = self._without(row)
        self.weight = weight + row.upto
        self._open = open_ + (not row.final)
        self._spent = spent.plus(self._beyond(row))
        self._rows[row.source.number] = row
        self._sums = None

    def _without(self, row: Row) -> tuple[int, int, Grant]:
        """Weight, open sources and what is spent of the pool, leaving this source out."""
        old = self._rows.get(row.source.number)
        if old is None:
            return self.weight, self._open, self._spent
        weight, open_ = self.weight - old.upto, self._open - (not old.final)
        return weight, open_, self._spent.beyond(self._beyond(old))

    def _beyond(self, row: Row) -> Grant:
        return row.counted.beyond(own_part(self._epsilon, row.upto))

    def estimate(self, q: float) -> Estimate | None:
        if not self.weight:
            return None
        if self._sums is None:
            rows = sorted(self._rows.values(), key=lambda row: row.source.number)
            total = Total([row.picture for row in rows])
            patience = np.array([row.counted.patience for row in rows], dtype=np.float64)
            self._sums = total, sum(row.counted.allowance for row in rows), patience
        total, allowance, patience = self._sums
        return Estimate(total, q, allowance, patience)


class Ledger:
    """Takes deltas, gives receipts, and knows every quantile of every stream."""

    def __init__(
        self,
        epsilon: float,
        *,
        number: int,
        now: float,
        heartbeat_s: float = 10.0,
        rows: Iterable[Row] = (),
    ) -> None:
        if not EPSILON_MIN <= epsilon < 0.5:
            raise ValueError(f"epsilon must be from {EPSILON_MIN} to below 0.5, not {epsilon}")
        self.epsilon, self.number, self.heartbeat_s = epsilon, number, heartbeat_s
        self._started = now
        self._streams: dict[str, Rows] = {}
        self._heard: dict[Key, float] = {}
        self._doubted: set[Key] = set()
        for row in rows:
            self._begun(row.source.stream).restore(row)

    def _begun(self, stream: str) -> Rows:
        return self._streams.setdefault(stream, Rows(self.epsilon))

    def _rows(self, stream: str) -> Rows:
        return self._streams.get(stream) or Rows(self.epsilon)

    @property
    def rows(self) -> Iterator[Row]:
        return (row for rows in self._streams.values() for row in rows)

    @property
    def streams(self) -> list[str]:
        return sorted(self._streams)

    def row(self, source: Source) -> Row:
        """What is held of a source; an empty row if nothing is."""
        return self._rows(source.stream).of(source)

    def receive(self, data: bytes, *, now: float) -> Receipt | Refusal:
        """Take one delta for what it is, and say what the row now is."""
        try:
            delta = unpack_delta(data)
        except MalformedMessage as error:
            return Refusal("malformed", str(error))
        row = self.row(delta.source)
        if mark_of(data) != row.mark:
            if refusal := self._refusal(row, delta):
                self._doubt(row, delta)
                return refusal
            row = self._changed(row, delta, data, now)
        return self._receipt(row)

    def _refusal(self, row: Row, delta: Delta) -> Refusal | None:
        most = self.epsilon * COARSEST
        if delta.digest_error > most * (1 + 1e-9):
            what = (
                f"a digest with a rank error of {delta.digest_error} is too coarse for an epsilon"
            )
            return Refusal("too_coarse", f"{what} of {self.epsilon}: it must be at most {most}")
        if delta.form is Form.MORE and len(row.picture) + len(delta.segments) > ROW_KNOTS_MAX:
            return Refusal("too_long", f"a row has at most {ROW_KNOTS_MAX} knots: send a whole")
        return None

    def _changed(self, row: Row, delta: Delta, data: bytes, now: float) -> Row:
        if row.accepts(delta):
            rows = self._begun(delta.source.stream)
            row = rows.granted(row.after(delta, data))
            rows.keep(row)
            self._heard[delta.source.key] = now
            self._doubted.discard(delta.source.key)
        else:
            self._doubt(row, delta)
        return row

    def _doubt(self, row: Row, delta: Delta) -> None:
        """It knows of more values than the row covers, unless it has said goodbye since."""
        if delta.upto > row.upto and not (row.final and row.ledger == self.number):
            self._doubted.add(delta.source.key)

    def _receipt(self, row: Row) -> Receipt:
        return Receipt(
            upto=row.upto,
            mark=row.mark,
            grant=row.granted,
            epsilon=self.epsilon,
            heartbeat_s=self.heartbeat_s,
            ledger=self.number,
        )

    def is_silent(self, row: Row, *, now: float) -> bool:
        if row.source.key in self._doubted:
            return True
        if row.final:
            return False
        heard = self._heard.get(row.source.key, -np.inf)
        late = now - heard > SILENT_HEARTBEATS * self.heartbeat_s
        return late or row.unbound or row.ledger != self.number

    def answer(self, q: float = 0.5, *, stream: str = "default", now: float) -> Answer:
        """A quantile of all values in a stream, and how wrong it can be."""
        if not 0 <= q <= 1:
            raise ValueError(f"q must be from 0 to 1, not {q}")
        rows = self._rows(stream)
        silent = {row.source.key for row in rows if self.is_silent(row, now=now)}
        silent |= {key for key in self._doubted if key[0] == stream}
        listened = now - self._started >= SILENT_HEARTBEATS * self.heartbeat_s
        return Answer(
            stream=stream,
            q=q,
            count=rows.weight,
            epsilon=self.epsilon,
            estimate=rows.estimate(q),
            exact=not silent and listened and all(row.counted == NO_GRANT for row in rows),
            complete=not silent and listened,
            live=sum(not row.final and row.source.key not in silent for row in rows),
            silent=len(silent),
        )
