"""Clusters of values, and the four things that happen to them: split, receive, merge, join.

The theory - what a cluster is and why its counts are proven - opens `digest.py`. This file is its
arithmetic. `Clusters` is a value, never changed once made: a table of float64, six fields of each
cluster, in the order of their bounds. Whole numbers up to 2**53 are exact in it.

    bound          the largest value in the cluster, and one really received; no two are equal
    mean           of the values in the cluster
    weight         how many there are
    copies         how many of them are known to equal the bound
    uncertainty    how many values of later clusters may lie below the bound
    believed       how many of those are believed to

Four running counts follow: two that are proven, and an estimate that lies between them.

    low            at least so many values are <= bound           weight, summed up to here
    high           at most so many values are <  bound            low - copies + uncertainty
    upto, below    so many are believed to be <= bound, < bound   low + believed, upto - copies

Between two neighbouring bounds the proven counts stand still, from `low` of the left one to `high`
of the right one, `width` apart. The estimate climbs straight from `upto` of the left one to `below`
of the right one, and there it jumps, by the copies, to `upto`.

    count
      |      . - - - - - - - - - - - high
      |      :              ______---  below
      |      :     ______---
      |     upto---
      |      :
      |     low - - - - - - - - - - - .
      +----bound--------------------bound---- x
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.lines import between, midpoint, quietly, share
from shared.values import EXACT_MAX, Floats

Side: TypeAlias = Literal["left", "right"]
"""Which count: `left` counts the values < x, `right` those <= x, as `numpy.searchsorted` says."""

FIELDS = ("bound", "mean", "weight", "copies", "uncertainty", "believed")
BOUND, MEAN, WEIGHT, COPIES, UNCERTAINTY, BELIEVED = range(len(FIELDS))

COUNT_MAX = EXACT_MAX - 1  # so that a sum in float64 that is no larger is exact

# The part of the room left under the limit that a split or a join may use up. In what stays free
# the next values land without a split, and merged clusters join. Clusters * rank_error for calm
# and drift, at rank_error 0.0005 and 0.01, by `python -m benchmarks.digest constants`:
#   0.5   1.9, 5.7 and 2.0, 5.8     0.65   1.6, 4.4 and 1.6, 4.4     0.8   1.5, 3.9 and 1.3, 3.9
#   0.9   1.6, 3.7 and 1.4, 3.7     1      1.9, 3.6 and 2.0, 3.7
ROOM = 0.8


def _frozen(array: Floats) -> Floats:
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class Clusters:
    table: Floats

    def __post_init__(self) -> None:
        _frozen(self.table)

    def __len__(self) -> int:
        return len(self.bound)

    def __repr__(self) -> str:
        return f"<{len(self)} clusters of {self.count} values, the widest of {self.widest}>"

    @property
    def bound(self) -> Floats:
        return self._field(BOUND)

    @property
    def mean(self) -> Floats:
        return self._field(MEAN)

    @property
    def weight(self) -> Floats:
        return self._field(WEIGHT)

    @property
    def copies(self) -> Floats:
        return self._field(COPIES)

    @property
    def uncertainty(self) -> Floats:
        return self._field(UNCERTAINTY)

    @property
    def believed(self) -> Floats:
        return self._field(BELIEVED)

    def _field(self, which: int) -> Floats:
        field: Floats = self.table[which]
        return field

    @cached_property
    def count(self) -> int:
        return int(self.weight.sum())

    @cached_property
    def low(self) -> Floats:
        return _frozen(self.weight.cumsum())

    @cached_property
    def high(self) -> Floats:
        return _frozen(self.low - self.copies + self.uncertainty)

    @cached_property
    def width(self) -> Floats:
        return _frozen(self.weight - self.copies + self.uncertainty)

    @cached_property
    def widest(self) -> int:
        """The proven rank error of any quantile, in ranks; 0: every count is exact."""
        return int(np.max(self.width, initial=0))

    @cached_property
    def upto(self) -> Floats:
        return _frozen(self.low + self.believed)

    @cached_property
    def below(self) -> Floats:
        return _frozen(self.upto - self.copies)

    def proven_count(self, x: Floats, side: Side) -> tuple[Floats, Floats]:
        """At least and at most so many values are <= x (`right`) or < x (`left`)."""
        index = self.bound.searchsorted(x, side)
        return _after(0, self.low)[index], np.append(self.high, self.count)[index]

    def believed_count(self, x: Floats, side: Side) -> Floats:
        """So many values are believed to be <= x (`right`) or < x (`left`)."""
        if not len(self):
            return np.zeros_like(x)
        index = self.bound.searchsorted(x, side)
        fewest, most = _after(0, self.upto)[index], np.append(self.below, self.count)[index]
        left = self.bound.take(index - 1, mode="clip")
        right = self.bound.take(index, mode="clip")
        count: Floats = fewest + (most - fewest) * share(x, left, right)
        return count

    def value_at(self, rank: Floats) -> Floats:
        """The value believed to have this rank, a number from 0 to count.

        On a flat stretch, where any value between two bounds would do, it is the midpoint.
        """
        index = self.upto.searchsorted(rank)  # if 0, both ends of the ramp are the first bound
        left, right = self.bound.take(index - 1, mode="clip"), self.bound[index]
        beyond = self.bound.take(index + 1, mode="clip")
        start = self.upto.take(index - 1, mode="clip")
        ramp = between(left, right, share(rank, start, self.below[index]))
        flat = (rank == self.upto[index]) & (rank == self.below.take(index + 1, mode="clip"))
        jump = np.where(flat, midpoint(right, beyond), right)
        value: Floats = np.where(rank <= self.below[index], ramp, jump)
        return value

    def split(self, at: Floats) -> "Clusters":
        """Add bounds, in order and not yet there, each with an empty cluster below it.

        Nothing was received, so nothing is learnt: `low` stands still from one bound to the next
        new one, and whatever the cut cluster may hold is now uncertain.
        """
        index = self.bound.searchsorted(at)
        low, width = _after(0, self.low)[index], np.append(self.width, 0)[index]
        fresh = np.zeros((len(FIELDS), len(at)))
        fresh[BOUND] = fresh[MEAN] = at
        fresh[UNCERTAINTY] = width
        fresh[BELIEVED] = np.rint(self.believed_count(at, "right")) - low
        return Clusters(np.insert(self.table, index, fresh, axis=1))

    def bounds_needed(self, batch: Floats, limit: int) -> Floats:
        """The values of a sorted batch that must be bounds before the clusters may receive it.

        Those are its ends, where they lie beyond the first and the last bound, and where a cluster
        would become too wide, each `step`th of the values that fall inside. Each part is then
        as wide as the cluster was, plus the values between two that were picked: fewer than `step`,
        so that it keeps within the limit.
        """
        first, last = _ranks(batch, self.bound)
        start, stop = _after(0, last), np.append(first, len(batch))
        width = np.append(self.width, 0)
        crowded = np.flatnonzero(width + stop - start > limit)
        step = 1 + (ROOM * (limit - width[crowded])).astype(np.int64)
        pieces = (stop - start)[crowded] // step
        nth = np.arange(pieces.sum()) - np.repeat(pieces.cumsum() - pieces, pieces)
        position = np.repeat(start[crowded] - 1, pieces) + (nth + 1) * np.repeat(step, pieces)
        ends = batch[[0, -1]]
        ends = ends[(ends < self.bound[0]) | (ends > self.bound[-1])]
        return np.unique(np.append(batch[position], ends)) + 0.0  # so that -0.0 never is a bound

    @quietly
    def received(self, batch: Floats) -> "Clusters":
        """Each value of a sorted batch goes to the first cluster whose bound is not below it."""
        first, last = _ranks(batch, self.bound)
        landed = np.diff(last, prepend=0)
        busy = np.flatnonzero(landed)
        table = self.table.copy()
        table[COPIES] += last - first
        table[WEIGHT] += landed
        total = np.add.reduceat(batch, (last - landed)[busy])
        total += self.mean[busy] * self.weight[busy]
        table[MEAN, busy] = _mean(total, table[WEIGHT, busy], table[BOUND, busy])
        return Clusters(table)

    def received_exactly(self, batch: Floats) -> "Clusters":
        """Each distinct value of a sorted batch is a bound. For clusters that are all copies."""
        first = np.flatnonzero(np.append(True, batch[1:] != batch[:-1]))
        values = batch[first] + 0.0  # so that -0.0 never is a bound
        table = np.zeros((len(FIELDS), len(values)))
        table[BOUND] = table[MEAN] = values
        table[WEIGHT] = table[COPIES] = np.diff(first, append=len(batch))
        index = self.bound.searchsorted(values)
        known = np.append(self.bound, np.nan)[index] == values
        old = self.table.copy()
        old[WEIGHT : COPIES + 1, index[known]] += table[WEIGHT : COPIES + 1, known]
        return Clusters(np.insert(old, index[~known], table[:, ~known], axis=1))

    @quietly
    def merged(self, other: "Clusters") -> "Clusters":
        """Both, each split at the other's bounds: then all that is known simply adds up."""
        mine = self.split(np.setdiff1d(other.bound, self.bound, assume_unique=True))
        theirs = other.split(np.setdiff1d(self.bound, other.bound, assume_unique=True))
        table = mine.table.copy()
        table[WEIGHT:] += theirs.table[WEIGHT:]
        total = mine.mean * mine.weight + theirs.mean * theirs.weight
        table[MEAN] = _mean(total, table[WEIGHT], table[BOUND])
        return Clusters(table)

    @quietly
    def joined(self, limit: int) -> "Clusters":
        """Join neighbours from the left, each time as many as leave the room they should.

        A joined cluster keeps the bound, copies and uncertainty of its last part. Dropping a bound
        loses what was known about it and changes nothing that is known of the others.
        """
        room = np.floor(ROOM * (limit - self.uncertainty))
        needs_low = np.maximum.accumulate(self.low - self.copies - room)
        reach = needs_low.searchsorted(self.low, "right") - 1
        kept = _strides(np.maximum(reach, np.arange(1, len(self) + 1)))
        start = _after(0, kept[:-1] + 1)
        table = self.table[:, kept]
        table[WEIGHT] = np.add.reduceat(self.weight, start)
        total = np.add.reduceat(self.mean * self.weight, start)
        table[MEAN] = _mean(total, table[WEIGHT], table[BOUND])
        return Clusters(table)

    def flaw(self) -> str | None:
        """What no digest could have made of any input, in words; None where all is well."""
        counts = self.table[WEIGHT:]
        laws = {
            "there is a number that is not finite": np.isfinite(self.table).all(),
            "the bounds are not in order": (self.bound[1:] > self.bound[:-1]).all(),
            "there is a count that is negative or not whole": (
                (counts == np.floor(counts)) & (counts >= 0)
            ).all(),
            "a cluster does not hold its own bound": (self.copies >= 1).all(),
            "a cluster holds more copies than values": (self.copies <= self.weight).all(),
            "there are more values than can be counted": not len(self) or self.low[-1] <= COUNT_MAX,
            "an uncertainty is more than the values there are": (
                self.uncertainty <= self.count - self.low
            ).all(),
            "the proven counts are not in order": (self.high[1:] >= self.high[:-1]).all(),
            "the least value is not the first bound": (self.width[:1] == 0).all(),
            "a belief is not possible": (self.believed <= self.uncertainty).all(),
            "the beliefs are not in order": (self.below[1:] >= self.upto[:-1]).all(),
        }
        return next((flaw for flaw, kept in laws.items() if not kept), None)


NONE = Clusters(np.empty((len(FIELDS), 0)))


def _after(first: float, rest: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate(([first], rest))


def _ranks(batch: Floats, x: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many values of a sorted batch are < x, and how many <= x."""
    first = batch.searchsorted(x)
    last = first.copy()
    equal = np.flatnonzero(batch.take(first, mode="clip") == x)
    last[equal] = batch.searchsorted(x[equal], "right")  # mostly few, so a short search
    return first, last


def _strides(reach: NDArray[np.int64]) -> NDArray[np.int64]:
    """From the first cluster to the last, as far at each step as `reach` allows."""
    last, steps = len(reach) - 1, reach.tolist()
    at = [0]
    while at[-1] < last:
        at.append(min(steps[at[-1]], last))
    return np.array(at)


def _mean(total: Floats, weight: Floats, bound: Floats) -> Floats:
    """The mean; of values so large that their sum is not finite, the bound."""
    return np.where(np.isfinite(total), total / weight, bound)
