"""Pictures: what the coordinator holds of a source, and their sum.

A picture is a rank function, drawn with straight lines and jumps. It has knots, in order. At each
it knows two ranks, from the left and from the right; where they differ, it jumps. From the right
of one knot to the left of the next it climbs straight.

    rank
     |                    ________ weight
     |                   /
     |          ._______/          upto
     |          |
     |         /'                  below
     |________/
     +-------knot-----knot-knot--- x

Before the first knot it is 0, after the last it is the weight, and it never falls: rounding keeps
the order in all that is computed here. What `rank` computes *is* the picture. It uses only what
IEEE 754 rounds in one way, so worker and coordinator compute the same bits from the same picture,
and the straightness of a line that was rounded is nobody's concern.

Segments are how a picture travels: a chain of knots, one of them twice where the chain jumps, and
between each two the weight gained there. All weights are whole.

Rank functions add. The sum of many is never drawn: it is evaluated picture by picture, in the order
they were given, and searched for the value where a function of all their ranks passes zero. Nothing
accumulates slopes, which for 1e-300 beside 1e300 would cancel all there is.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.lines import between, midpoint, quietly, share
from shared.values import Floats

ARRIVED_MAX = 128  # places: about what the searches for one answer pass, whoever asks for how many
WHOLE_MAX = 2**48  # sums of so many ranks, and of sixteenths of them, are exact

Height: TypeAlias = Callable[[Floats], float]
"""Of the ranks of one value in each picture, a number that never falls when a rank rises."""


@dataclass(frozen=True, eq=False)
class Picture:
    x: Floats
    below: Floats
    upto: Floats

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"<picture of {self.weight:.0f} values with {len(self)} knots>"

    @cached_property
    def weight(self) -> float:
        return float(self.upto[-1]) if len(self) else 0.0

    @cached_property
    def whole(self) -> bool:
        """Whether all its ranks are whole numbers, so that sums of them are exact: no climbs."""
        start, end = self._climbs
        return bool((start == end).all() and (self.upto % 1 == 0).all())

    @cached_property
    def _climbs(self) -> tuple[Floats, Floats]:
        return np.append(0.0, self.upto), np.append(self.below, self.weight)

    def rank(self, x: Floats) -> Floats:
        return self.ranks(x)[1]

    def rank_below(self, x: Floats) -> Floats:
        return self.ranks(x)[0]

    def ranks(self, x: Floats) -> tuple[Floats, Floats]:
        """The rank of x from the left, and from the right."""
        if not len(self):
            nothing = np.zeros(np.shape(x))
            return nothing, nothing
        index = self.x.searchsorted(x)
        left, right = self.x.take(index - 1, mode="clip"), self.x.take(index, mode="clip")
        start, end = self._climbs
        below = _climbed(x, left, right, start[index], end[index])
        return below, np.where(x == right, self.upto.take(index, mode="clip"), below)

    def value(self, rank: float) -> float:
        """The value of this rank, where there are any: that which a total of this picture has.

        A total evaluates all it holds at each step of a search. Here the knots are looked up.
        """
        at = int(self.upto.searchsorted(rank))
        if self.below[at] > rank:
            return self._climbing(rank, at)
        last = self.below.searchsorted(rank, "right") - 1  # another one on a flat stretch only
        return float(midpoint(self.x[at], self.x[last]))

    def _climbing(self, rank: float, at: int) -> float:
        """Where it passes this rank, on the climb to a knot."""
        leaving, arriving = self.upto[at - 1] - rank, self.below[at] - rank
        value = float(between(self.x[at - 1], self.x[at], leaving / (leaving - arriving)))
        return _mended(value, rank, lambda x: float(self.rank(np.array(x))))

    @quietly
    def scaled(self, weight: int) -> "Picture":
        """The same shape, of another weight."""
        factor = weight / self.weight
        below = np.minimum(self.below * factor, weight)
        upto = np.minimum(self.upto * factor, weight)
        upto[-1:] = weight
        return Picture(self.x, below, upto)

    def plus(self, other: "Picture") -> "Picture":
        if not len(self) or not len(other):
            return self if len(self) else other
        x = np.unique(np.concatenate((self.x, other.x)))
        (below, upto), (below_too, upto_too) = self.ranks(x), other.ranks(x)
        return Picture(x, below + below_too, upto + upto_too)


NOTHING = Picture(np.empty(0), np.empty(0), np.empty(0))


@dataclass(frozen=True, eq=False)
class Segments:
    """A chain of knots and the weights between them.

    `step` and `unit` say how coarse they are, which is what makes them short: most knots are whole
    multiples of 2**step, and all weights but the last of 2**unit.
    """

    knots: Floats
    weights: Floats
    step: int = 0
    unit: int = 0

    def __len__(self) -> int:
        return len(self.weights)

    @cached_property
    def weight(self) -> int:
        return int(self.weights.sum())

    @cached_property
    def picture(self) -> Picture:
        if not len(self):
            return NOTHING
        heights = np.append(0.0, self.weights.cumsum())
        first = np.append(True, self.knots[1:] != self.knots[:-1])
        last = np.append(first[1:], True)
        return Picture(self.knots[first], heights[first], heights[last])


NO_SEGMENTS = Segments(np.empty(0), np.empty(0))


class Total:
    """The sum of pictures, none of them empty, in the order given."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.pictures = pictures
        self.weights = np.array([picture.weight for picture in pictures])
        self.weight = float(self.weights.sum())
        self.whole = self.weight <= WHOLE_MAX and all(picture.whole for picture in pictures)
        self._length = np.array([len(picture) for picture in pictures], dtype=np.int64)
        self._first = self._length.cumsum() - self._length
        self._x = np.concatenate([picture.x for picture in pictures])
        self._below = np.concatenate([picture.below for picture in pictures])
        self._upto = np.concatenate([picture.upto for picture in pictures])
        self._knots = np.sort(self._x)
        self._arrived: dict[
            int, Floats
        ] = {}  # ranks at knots, as every search begins with the same

    def __len__(self) -> int:
        return len(self.weights)

    @cached_property
    def places(self) -> int:
        """How many different knots there are."""
        return 1 + int(np.count_nonzero(self._knots[1:] != self._knots[:-1]))

    def ranks(self, x: float) -> Floats:
        """The rank of x in each picture."""
        return self._ranks(x, self._x <= x)

    def ranks_below(self, x: float) -> Floats:
        """The rank just to the left of x in each picture."""
        return self._ranks(x, self._x < x)

    def _ranks(self, x: float, passed: NDArray[np.bool_]) -> Floats:
        index = np.add.reduceat(passed.view(np.int8), self._first, dtype=np.int32)
        inside = (index > 0) & (index < self._length)
        ranks = np.where(index > 0, self.weights, 0.0)
        at = self._first[inside] + index[inside]
        left, right = self._x[at - 1], self._x[at]
        ranks[inside] = _climbed(np.array(x), left, right, self._upto[at - 1], self._below[at])
        return ranks

    def passes_zero(self, height: Height) -> tuple[float, float]:
        """From which value on it is no longer negative, and up to which it is not yet positive.

        The two differ where it is zero on the way. They are -inf, inf where it is positive already
        before all values, negative still after all.
        """
        knots, end = self._knots, len(self._knots)
        first = bisect_left(range(end), True, key=lambda at: height(self._ranks_at(at)) >= 0)
        if first == end:
            return np.inf, np.inf
        before = height(np.zeros(len(self)))
        if first == 0 and before > 0:
            return -np.inf, -np.inf
        start = self._within(height, first)
        if height(self.ranks(start)) > 0 or start < knots[first]:
            return start, start
        after = bisect_left(
            range(end),
            True,
            lo=first,
            key=lambda at: height(self.ranks_below(float(knots[at]))) > 0,
        )
        return start, float(knots[-1]) if after == end else self._within(height, after)

    def _ranks_at(self, at: int) -> Floats:
        if (kept := self._arrived.get(at)) is not None:
            return kept
        ranks = self.ranks(float(self._knots[at]))
        if len(self._arrived) < ARRIVED_MAX:
            self._arrived[at] = ranks
        return ranks

    def _within(self, height: Height, at: int) -> float:
        """Where it passes zero on the way from the knot before to this one."""
        right = float(self._knots[at])
        arriving = height(self.ranks_below(right))
        if arriving <= 0:
            return right
        left = float(self._knots[at - 1])
        leaving = height(self.ranks(left))
        if leaving >= 0:
            return left
        way = leaving / (leaving - arriving)
        return float(between(np.array(left), np.array(right), np.array(way)))

    def value(self, rank: float) -> float:
        """The value of this rank: that of all smaller floats is no more, its own no less.

        On a flat stretch, where any value between two knots would do, it is the midpoint. Inside a
        climb so steep that it has few floats, rounding may miss the right one by one.
        """
        first, last = self.passes_zero(lambda ranks: float(ranks.sum()) - rank)
        value = float(midpoint(np.array(first), np.array(last)))
        return _mended(value, rank, lambda x: float(self.ranks(x).sum()))


@quietly
def _climbed(x: Floats, left: Floats, right: Floats, start: Floats, end: Floats) -> Floats:
    """The rank at x on the climb from the right of one knot to the left of the next."""
    way = share(x, left, right)
    return np.where(way < 1, np.minimum(start + (end - start) * way, end), end)


def _mended(value: float, rank: float, rank_of: Callable[[float], float]) -> float:
    """The value, or the float beside it, where rounding missed the right one by one."""
    smaller = math.nextafter(value, -math.inf)
    if rank_of(value) < rank:
        return math.nextafter(value, math.inf)
    return smaller if rank_of(smaller) > rank else value
