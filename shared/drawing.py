"""Drawing with the fewest segments that stay within a tunnel.

Given are places x, in order, and what the line G to be drawn must keep to:

    G(x_j) >= floor_j        G(x_j-) <= ceiling_j        G never falls, from 0 to the weight

A line can pass place j straight where floor_j <= ceiling_j, once both are made monotone. Where not,
many values are equal, and G must jump.

    |            : ceiling     One greedy pass (a "swing filter"). From where the pen stands, keep
    |        :   :    '        the slopes with which a straight line passes every place so far.
    |    :   : __--'  :        The interval only shrinks. When it closes, the segment ends at the
    |   _:_--'   '    : floor  last place it can reach, at one of the heights it can have there.
    |--'  '                    Which is best, only the next segment knows: it starts from several
    +----x---x---x----x---- x  of them, and stays with the one that gets furthest.

Numbers with few digits travel in few bytes. So heights are multiples of a power of two, `unit`, and
knots where G does not jump are moved to multiples of another, `step`. Either costs a sixteenth of
the tolerance, and the caller's tunnel is narrowed by both. Nobody relies on that: whoever draws
measures afterwards how far off the drawing is.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.lines import quietly
from shared.picture import Segments
from shared.values import Floats

# How many heights a segment tries to start from, and the part of the tolerance that rounding the
# heights may cost, and rounding the knots as much. Share of the raw bytes as in `wording.py`:
#   HEIGHTS      1     3.38  4.35  3.59 | 1.14  1.91  2.06
#                3     3.28  4.29  3.59 | 1.14  1.90  2.06
#                7     3.27  4.30  3.59 | 1.14  1.87  2.06
#                15    3.24  4.28  3.59 | 1.14  1.90  2.06
#   COARSENESS   1/64  3.30  4.23  3.61 | 1.14  1.97  2.06
#                1/32  3.28  4.19  3.59 | 1.14  1.96  2.06
#                1/16  3.27  4.30  3.59 | 1.14  1.87  2.06
#                1/8   3.34  4.88  3.68 | 1.14  1.83  2.18
HEIGHTS = 7
COARSENESS = 1 / 16
AHEAD = 16  # places looked at first; twice as many each time that all of them can be passed
DIGITS = 2.0**52  # a multiple of the step with more digits than that is not shorter
EXPONENT = 1000  # of the largest place, while drawing: no difference overflows, hardly any slope
EXPONENT_MIN, EXPONENT_MAX = -1074, 1023  # of the smallest float64, and of the largest
NEAR = 2.0**-960  # places so near, while drawing, are not told apart: no slope overflows


class Reach(NamedTuple):
    """How far a segment gets, and between which heights it may end there."""

    place: int
    low: float
    high: float


def drawn(
    x: Floats, floor: Floats, ceiling: Floats, weight: int, tolerance: float
) -> Segments | None:
    """The line through a tunnel drawn so far from the truth; None where nothing gets through."""
    spare = 2 * COARSENESS * tolerance
    floor = np.maximum.accumulate(np.maximum(floor + spare, 0))
    ceiling = np.minimum.accumulate(np.minimum(ceiling - spare, weight)[::-1])[::-1]
    if ceiling[0] < 0 or floor[-1] > weight or (floor[:-1] > ceiling[1:]).any():
        return None
    floor[-1] = weight
    unit = max(0, math.floor(math.log2(2 * COARSENESS * max(tolerance, 1))))
    if (floor > ceiling).all():
        knots, heights = _stairs(x, floor, 2**unit)
    else:
        knots, heights = Pen(x, floor, ceiling, 2**unit).line()
    knots, step = _rounded(knots, heights, COARSENESS * tolerance)
    return _chain(knots, heights, step, unit)


def _stairs(x: Floats, floor: Floats, unit: int) -> tuple[Floats, Floats]:
    """Jumps only."""
    upto = np.minimum(np.ceil(floor / unit) * unit, floor[-1] // unit * unit)
    upto[-1] = floor[-1]
    return np.repeat(x, 2), np.append(0.0, np.repeat(upto, 2)[:-1])


def jumps(x: Floats, weights: Floats) -> Segments:
    """Jumps at each x, flat between: weights of jumps and, in between, of nothing."""
    return Segments(np.repeat(x, 2), weights, _lowest_bit(x), 0)


class Pen:
    """Draws one line, from left to right."""

    def __init__(self, x: Floats, floor: Floats, ceiling: Floats, unit: int) -> None:
        self._x, _ = _scaled(x)
        self._floor, self._ceiling, self._unit = floor, ceiling, unit
        self._top = floor[-1] // unit * unit
        self._last = len(x) - 1
        self._knots = x
        self._places: list[int] = []
        self._heights: list[float] = []

    def line(self) -> tuple[Floats, Floats]:
        end = float(self._floor[-1])
        reach = Reach(0, 0.0, 0.0)
        while reach.place < self._last:
            reach = self._segment(reach)
        if reach.high < end:
            self._to(reach.place, self._height(reach))
        self._to(reach.place, end)
        return self._knots[self._places], np.array(self._heights)

    def _to(self, place: int, height: float) -> None:
        self._places.append(place)
        self._heights.append(height)

    def _segment(self, start: Reach) -> Reach:
        """Settle where, within reach, the last segment ends; see how far the next one gets."""
        place, low, high = start
        if high < self._floor[place]:
            low = self._height(start)
            high = self._ceiling[place + 1]
            self._to(place, low)
        heights = self._choices(max(low, self._floor[place]), high)
        height, reach = self._furthest(place, heights)
        self._to(place, height)
        return reach

    def _height(self, reach: Reach) -> float:
        """A height in the middle of what can be reached."""
        middle = round((reach.low + reach.high) / 2 / self._unit) * self._unit
        return float(min(middle, self._top))

    def _choices(self, low: float, high: float) -> Floats:
        first, last = math.ceil(low / self._unit), math.floor(min(high, self._top) / self._unit)
        if first >= last:
            return np.array([self._height(Reach(0, low, high))])
        return np.unique(np.rint(np.linspace(first, last, HEIGHTS))) * self._unit

    @quietly
    def _furthest(self, place: int, heights: Floats) -> tuple[float, Reach]:
        """The height to start from, and how far that gets."""
        ahead, passed = AHEAD, np.zeros(0)
        end = place
        while end < self._last:
            end = min(place + ahead, self._last)
            along = self._x[place + 1 : end + 1] - self._x[place]
            least = (self._floor[place + 1 : end + 1] - heights[:, None]) / along
            least = np.maximum.accumulate(np.maximum(least, 0), axis=1)
            most = self._ceiling[place + 1 : end + 1] - heights[:, None]
            most = np.maximum(most, 0) / along  # a height may be rounded to above the ceiling
            most = np.minimum.accumulate(most, axis=1)
            passed = np.logical_and.accumulate(least <= most, axis=1).sum(axis=1)
            if passed.max() < len(along):
                break
            ahead *= 2
        best = int(passed.argmax())
        height, end = float(heights[best]), int(passed[best]) - 1
        if end < 0 or along[end] < NEAR:
            return height, Reach(place + 1, height, float(self._ceiling[place + 1]))
        low, high = least[best, end], most[best, end]
        if end + 1 < len(along) and low <= most[best, end + 1] and self._jumps(place + end + 2):
            end, high = end + 1, most[best, end + 1]
        low, high = height + low * along[end], height + high * along[end]
        return height, Reach(place + end + 1, float(low), float(high))

    def _jumps(self, place: int) -> bool:
        """Where the line jumps anyway, a segment may end that cannot pass."""
        return bool(self._floor[place] > self._ceiling[place])


@quietly
def _rounded(knots: Floats, heights: Floats, cost: float) -> tuple[Floats, int]:
    """Move the knots where the line does not jump, by what costs at most so many ranks."""
    same = knots[1:] == knots[:-1]
    jump = np.append(False, same) | np.append(same, False)
    if jump.all():
        return knots, _lowest_bit(knots)
    scaled, exponent = _scaled(knots)
    slope = np.diff(heights) / np.where(same, 1, np.diff(scaled))
    steepest = np.maximum(np.append(0, slope), np.append(slope, 0))
    finest = float(np.min(2 * cost / steepest[~jump]))  # rounding moves a knot by half a step
    step = EXPONENT_MIN  # where a slope overflows
    if finest > 0:
        largest = math.frexp(min(finest, 2.0**EXPONENT))[1] - 1 - exponent
        step = min(max(step, largest), EXPONENT_MAX)
    multiple = np.rint(np.ldexp(knots, -step))
    moved = np.ldexp(multiple, step) + 0.0  # so that -0.0 never is a knot
    round_ = ~jump & (abs(multiple) < DIGITS) & np.isfinite(moved)
    moved = np.where(round_, moved, knots)
    lower = np.maximum.accumulate(np.where(round_, -np.inf, knots))
    upper = np.minimum.accumulate(np.where(round_, np.inf, knots)[::-1])[::-1]
    return np.clip(moved, lower, upper), step


def _scaled(x: Floats) -> tuple[Floats, int]:
    """By a power of two, so that no difference overflows, and next to no slope."""
    exponent = EXPONENT - int(np.frexp(x)[1].max())
    return np.ldexp(x, exponent), exponent


def _lowest_bit(knots: Floats) -> int:
    """The exponent of the largest power of two that all of them are multiples of."""
    mantissa, exponent = np.frexp(knots[knots != 0])
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    bits = np.frexp((whole & -whole).astype(np.float64))[1] - 1 + exponent - 53
    return int(bits.min(initial=0))


def _chain(knots: Floats, heights: Floats, step: int, unit: int) -> Segments:
    """Of knots that fell together, the first and the last stay: a jump."""
    inner = np.zeros(len(knots), dtype=np.bool_)
    inner[1:-1] = (knots[1:-1] == knots[:-2]) & (knots[1:-1] == knots[2:])
    kept: NDArray[np.bool_] = ~inner
    return Segments(knots[kept], np.diff(heights[kept]), step, unit)
