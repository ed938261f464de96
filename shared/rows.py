"""The rows of one stream: what the coordinator holds of each source, and their sum.

A **row** is the picture of a *prefix* of a source's values, the first `upto` of them, with the mark
of the delta that made it, and what the source was granted. Rows are values: whoever stores one,
stores what it was.

What is counted for a source
----------------------------
The largest of what it was granted on the base of its delta, by which it lives until the receipt
arrives, what the receipt grants, and the shift the delta measured. And since a value moves a shift
by at most one rank, never more than that shift plus the patience. What is counted beyond a source's
own part is taken from the pool; a grant gives each open source an equal share of it, or what is
left. So budgets are kept by counting, whatever is lost on the way: no new grant breaks one. An old
one may, once epsilon was lowered or rows were forgotten. Then the certificate says what is true.

Who may push may claim what he likes: 2**48 values, again and again, all of them shifted. So sums
over sources are whole numbers here, of values and of sixteenths of a rank, which are exact however
large they get; the pool is never larger than that of 2**48 values, so that no grant is more than a
receipt can say. A lie may use up the pool. It never breaks a sum.

What rows take
--------------
Memory, for each stream, for each source that is known, and for each knot of its row, or for as many
as are kept for it if it has fewer: `Memory` adds it up. The ledger refuses what would take more
than there may be. Where a row grows within what is kept for it, nobody can have taken that.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from shared.distribution import Distribution
from shared.picture import NOTHING, Picture, Total
from shared.protocol import (
    NO_MARK,
    SILENT_HEARTBEATS,
    UPTO_MAX,
    Cause,
    Delta,
    Form,
    Source,
    mark_of,
)
from shared.rank_shift import NO_GRANT, SIXTEEN, Estimate, Grant, floored, own_part, pool
from shared.values import Floats

NO_CAUSES = (0,) * len(Cause)

# What a coordinator's process grows by, with what stands around a row there. Measured as resident
# memory, after a median of every stream and a list of all sources were asked for:
#   10,000 sources of 2 knots in one stream   2.7 KB a source; 3.6 with the longest names there are,
#                                             and 1.8 more with as many claims as are remembered
#   the bytes of `GET /workers`, kept twice   0.5 KB a source; 1.9 with the longest names
#   5,000 streams of one such source          3.3 KB a stream beyond that
#   200 sources of 5,000 knots, 20 of 60,000  73 and 75 bytes a knot: 40 in the row, 32 in the sum
STREAM_BYTES, SOURCE_BYTES, KNOT_BYTES = 4096, 8192, 80

# What is kept for those who are in: each row is counted as if it had 3 / epsilon knots, even if it
# has fewer; and new sources get only NEW of all, the rest is for rows beyond that. Nine streams in
# batches of 1, 100 and 1,000 values, by real outboxes at epsilon 1 %: first rows have 1 to 200
# knots, the largest 20 to 1,060, while they are added to; but wholes 2 to 295 of 1,000 values or
# more, and up to 400 before. At 5 % wholes of 200 values or more have 2 to 43. No outbox adds to a
# row of KNOTS_KEPT_MAX. Of 256 MiB at 1 %, 6,200 sources can be in, and of them 1,100 rows be the
# largest at once.
KNOTS_KEPT, KNOTS_KEPT_MAX = 3, 1000
NEW = 0.75


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
    retired: bool = False  # by an operator, who knows that it will not come back
    causes: tuple[int, ...] = NO_CAUSES  # how many deltas were accepted, for each `Cause`
    bytes_: int = 0  # of those
    raw: int = 0  # bytes of values that users have sent, since the source began
    raw_before: int = 0  # of those, before anything of it was counted here
    home: int = 0  # that its last whole named

    def __repr__(self) -> str:
        return f"<row of {self.source}: {self.upto} values, mark {self.mark.hex()}>"

    @property
    def deltas(self) -> int:
        """How many were accepted."""
        return sum(self.causes)

    @property
    def closed(self) -> bool:
        """Whether nothing more is expected of it."""
        return self.final or self.retired

    @cached_property
    def counted(self) -> Grant:
        if self.final:
            return Grant(self.shift, 0)
        patience = max(self.lives_by.patience, self.granted.patience)
        allowance = max(self.lives_by.allowance, self.granted.allowance)
        return Grant(max(self.shift, min(allowance, self.shift + patience)), patience)

    @cached_property
    def median(self) -> float | None:
        """Of its picture."""
        return self.picture.value(self.picture.weight / 2) if self.upto else None

    def is_claimed_by(self, delta: Delta) -> bool:
        """Whether who says this keeps the source elsewhere than who was accepted last."""
        return self.upto > 0 and delta.form is Form.WHOLE and delta.home != self.home

    def accepts(self, delta: Delta) -> bool:
        follows = delta.since == self.upto or delta.form is Form.WHOLE
        return delta.base == self.mark and follows and delta.upto >= self.upto

    def after(self, delta: Delta, data: bytes, *, final: bool) -> "Row":
        return Row(
            source=delta.source,
            picture=delta.drawn_on(self.picture),
            upto=delta.upto,
            mark=mark_of(data),
            lives_by=self.granted,
            shift=delta.shift,
            ledger=delta.ledger,
            final=final,
            causes=self._with_one_more(delta.cause),
            bytes_=self.bytes_ + len(data),
            raw=delta.raw,
            raw_before=self._raw_before(delta),
            home=delta.home if delta.form is Form.WHOLE else self.home,
        )

    def _raw_before(self, delta: Delta) -> int:
        """A source that told others before, or a ledger that forgot, begins a row by a repair."""
        begins = self.mark == NO_MARK
        return self.raw_before if not begins else delta.raw if delta.cause is Cause.REPAIR else 0

    def _with_one_more(self, said: Cause) -> tuple[int, ...]:
        causes = list(self.causes)
        causes[said - 1] += 1  # the first is 1
        return tuple(causes)


@dataclass
class Hearing:
    """What this start of the ledger knows of when a source was heard."""

    source: Source
    number: int  # what its deltas must echo
    at: float = -math.inf
    doubted: bool = False  # something claimed to know more values than the row covers
    claims: dict[int, int] = field(default_factory=dict)  # home -> deltas of the row at its first

    def late_at(self, heartbeat_s: float) -> float:
        return self.at + SILENT_HEARTBEATS * heartbeat_s


class Attendance(NamedTuple):
    live: int
    silent: int
    until: float  # so long it stays so, if nothing is heard before


class Memory:
    """How much all rows take, and may take: None is no limit."""

    def __init__(self, epsilon: float, most: int | None = None) -> None:
        self.most, self.taken = most, 0
        self._kept = min(KNOTS_KEPT_MAX, math.ceil(KNOTS_KEPT / epsilon))

    def has(self, more: int, *, new: bool = False) -> bool:
        """Whether there is so much left, for who is new or in; what takes no more is let in."""
        if more <= 0 or self.most is None:
            return True
        return self.taken + more <= (NEW * self.most if new else self.most)

    def of_row(self, knots: int) -> int:
        """Bytes of a row with so many, beyond those of its source; of none, if it has no row."""
        return KNOT_BYTES * max(knots, self._kept) if knots else 0


class Spent(NamedTuple):
    """Of the pool, by many sources: whole numbers, as sums of grants may be beyond float64."""

    sixteenths: int = 0
    patience: int = 0

    def plus(self, grant: Grant, times: int = 1) -> "Spent":
        sixteenths = times * int(grant.allowance * SIXTEEN)
        return Spent(self.sixteenths + sixteenths, self.patience + times * grant.patience)

    @property
    def grant(self) -> Grant:
        """Exact wherever it could be within a pool."""
        return Grant(self.sixteenths / SIXTEEN, self.patience)


class Rows:
    """The rows of one stream, and their sums: exact, in whatever order they came."""

    def __init__(self, epsilon: float, memory: Memory | None = None) -> None:
        self._epsilon, self._memory = epsilon, memory or Memory(epsilon)
        self._rows: dict[int, Row] = {}
        self._open = 0  # how many have not said goodbye
        self._spent = Spent()
        self._sums: tuple[Total, float, Floats] | None = None
        self.hearings: dict[int, Hearing] = {}
        self.attendance: Attendance | None = None  # as it was when it was last taken
        self.turned_away = -math.inf  # when a source was last, for want of memory
        self.weight = 0
        self.changes = 0  # to what answers are made of

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def is_another(self) -> None:
        """Somebody came or went, fell silent or is heard again."""
        self.attendance = None
        self.changes += 1

    @property
    def sources(self) -> Iterator[Source]:
        """Of all rows, and of all that would have one had they been accepted."""
        rows = self._rows
        yield from (row.source for row in rows.values())
        yield from (
            hearing.source
            for number, hearing in self.hearings.items()
            if hearing.doubted and number not in rows
        )

    def of(self, source: Source) -> Row:
        return self._rows.get(source.number) or Row(source=source)

    def knows(self, number: int) -> bool:
        return number in self._rows or number in self.hearings

    @property
    def is_empty(self) -> bool:
        return not (self._rows or self.hearings)

    def hearing(self, source: Source, number: int) -> Hearing:
        """What is known of when it was heard; if nothing yet, it must echo this number."""
        self._make_known(source.number)
        return self.hearings.setdefault(source.number, Hearing(source, number))

    def _make_known(self, number: int) -> None:
        if not self.knows(number):
            self._memory.taken += SOURCE_BYTES

    def forget(self, number: int) -> None:
        """A source without a row."""
        del self.hearings[number]
        self._memory.taken -= SOURCE_BYTES

    def granted(self, row: Row) -> Row:
        """With the part of its own, and an equal share of the pool or what is left of that."""
        if row.closed:
            return row
        weight, open_, spent = self._without(row)
        budget = self._pool(weight + row.upto)
        left, open_ = budget.beyond(spent.grant), open_ + 1
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
        budget = self._pool(weight + row.upto)
        for more, before, all_ in zip(taken, spent.grant, budget, strict=True):
            if more and before + more > all_:
                raise BrokenInvariant(f"{row!r} was granted {row.granted}, more than is left")
        self.restore(row)

    def restore(self, row: Row) -> None:
        """As it was, whatever it was granted then."""
        old = self._rows.get(row.source.number)
        weight, open_, spent = self._without(row)
        self.weight = weight + row.upto
        self._open = open_ + (not row.closed)
        self._spent = spent.plus(self._beyond(row))
        self._make_known(row.source.number)
        before = self._memory.of_row(len(old.picture)) if old else 0
        self._memory.taken += self._memory.of_row(len(row.picture)) - before
        self._rows[row.source.number] = row
        if old is None or old.closed != row.closed:
            self.is_another()
        if old is None or (old.picture, old.counted) != (row.picture, row.counted):
            self._sums = None
            self.changes += 1

    def _pool(self, weight: int) -> Grant:
        return pool(self._epsilon, min(weight, UPTO_MAX))

    def _without(self, row: Row) -> tuple[int, int, Spent]:
        """Weight, open sources and what is spent of the pool, leaving this source out."""
        old = self._rows.get(row.source.number)
        if old is None:
            return self.weight, self._open, self._spent
        weight, open_ = self.weight - old.upto, self._open - (not old.closed)
        return weight, open_, self._spent.plus(self._beyond(old), -1)

    def _beyond(self, row: Row) -> Grant:
        return row.counted.beyond(own_part(self._epsilon, row.upto))

    def estimate(self, q: float) -> Estimate | None:
        if not self.weight:
            return None
        total, allowance, patience = self._added
        return Estimate(total, q, allowance, patience)

    @property
    def distribution(self) -> Distribution | None:
        return Distribution(*self._added) if self.weight else None

    @property
    def _added(self) -> tuple[Total, float, Floats]:
        if self._sums is None:
            rows = sorted(self._rows.values(), key=lambda row: row.source.number)
            total = Total([row.picture for row in rows])
            patience = np.array([row.counted.patience for row in rows], dtype=np.float64)
            self._sums = total, math.fsum(row.counted.allowance for row in rows), patience
        return self._sums
