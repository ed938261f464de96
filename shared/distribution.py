"""The distribution: which share of all values lies up to x, at some places, and how wrong that is.

The theorem of `rank_shift.py` asks for a quantile and finds the value. Here the value is given and
its share is asked for; that needs no search, and so no residual.

The certificate
---------------
Source i has received n_i values, R_i(x) of them <= x. Its picture, divided by its weight p_i, is
F_i; pending_i = n_i - p_i. R, n and p are sums over all sources, and P(x) = sum p_i F_i(x). The
share that is told is s = P(x) / p. How far is it from the true one, R(x) / n?

    | R(x)/n - s |  <=  ( sum rank_shift_i  +  max( sum pending_i (F_i(x) - s)+ ,
                                                    sum pending_i (s - F_i(x))+ ) ) / n

*Proof.*  R_i(x) - s n_i  =  p_i (F_i(x) - s)  +  pending_i (F_i(x) - s)  +  (R_i(x) - n_i F_i(x)).
Sum over i: the first terms add up to P(x) - s p, which is nothing. The second lie between minus the
one sum in the maximum and the other, as no source has fewer pending than none. What is left is at
most the sum of rank shifts. Divide by n. []

The coordinator knows neither n nor what is pending, but that rank_shift_i is at most the allowance
it counts, and pending_i at most the patience. All are larger, and p is no more than n, so with them
and divided by p the bound is larger. A rank shift is a supremum over all x, so it bounds the limits
from the left too: with F_i(x-) for F_i(x), all of this holds for the share of values *below* x.
`rank_error` is the larger of the two, and what rounding adds.

Between two places c < d the share only rises. So it is at least that up to c less its error, and at
most that below d with its error. And where no knot lies between, straight lines bound it as they
are drawn: there each F_i is straight, and so is s; then F_i - s is straight, its positive part is
convex, and so are sums and the larger of two; what is convex is never above the line between its
ends. (All this but for rounding, and where no error is 1: more is not said, as it bounds nothing.)

The places
----------
Between two neighbouring knots of all pictures their sum is straight. So if all knots are told, the
lines through them are the sum, but for rounding. If they are too many, which may be left out?

Let c < d be told and some knots between them not. A picture that has no knot there is straight, and
adds nothing to what is wrong. One that has, rises there by no more than it does from the knot
before the first of these to the knot after the last, and a line between the same ends is off by no
more than that. So say that a picture *bends*, at each knot, by all that it rises from the knot
before, from the right, to the knot after, from the left:

    bend_j  =  below_{j+1} - upto_{j-1}         (0 before the first knot, the weight after the last)

Then the line from c to d is off by at most the sum of all bends strictly between. All bends of a
picture are at most twice its weight, as each climb belongs to two knots and each jump to one. So a
place wherever the sum of bends passes one more m-th of it, and the last knot, make lines that are
nowhere off by more than 2/m of all weight, and by 1/m if all pictures jump only. A jump of more is
never between two places: it is a place. []

Steps of bends are steps of rank, more or less. A few places are spread by x instead, over the
middle of the bends, where a plot has its width: of the knots there that lie between two neighbours
and are left out, all lie within one such step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from shared.lines import between
from shared.picture import Picture, Total
from shared.rank_shift import ROUNDING, is_product
from shared.values import Floats

BY_X = 4  # one place of so many is chosen by x
MIDDLE = 0.01, 0.99  # of all bends

# Ranks that are held at once, places times pictures: 8 MiB for each array of them. With a quarter
# of that 1,000 points take twice as long, as each picture is looked up more often; with more, the
# same. Of a thousand pictures with 8,185 knots, 200 points take 26 ms and 1,000 take 70; with
# 401,000 knots, as of young sources, 45 and 107. (The best of five, on two cores with other work.)
CELLS = 2**20


class Points(NamedTuple):
    """Columns: at each x, the share of all values below it, and up to it, and how wrong either is.

    Shares never fall, from one column to the other or from one x to the next.
    """

    x: Floats
    below: Floats
    upto: Floats
    rank_error: Floats


NO_POINTS = Points(*np.empty((4, 0)))


@dataclass(frozen=True, eq=False)
class Distribution:
    """The sum of pictures as shares, each with its certificate.

    `allowance` is the sum of what the sources live by, `patience` has one number for each.
    """

    total: Total
    allowance: float
    patience: Floats

    def points(self, most: int) -> Points:
        """At no more places than this, from the first knot to the last."""
        x = places(self.total.pictures, most)
        size = max(1, CELLS // len(self.total))
        parts = [self._told(x[at : at + size]) for at in range(0, len(x), size)]
        return Points(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def is_straight(self, points: Points) -> bool:
        """Whether lines between the points are the sum, and lines between their errors bound it."""
        return len(points.x) == self.total.places and bool((points.rank_error < 1).all())

    def _told(self, x: Floats) -> Points:
        # A row of these is one place: along rows NumPy adds as `ROUNDING` says, down columns not.
        below, upto = np.empty((2, len(x), len(self.total)))
        for at, picture in enumerate(self.total.pictures):
            below[:, at], upto[:, at] = picture.ranks(x)
        (share_below, off_below), (share_upto, off_upto) = self._shares(below), self._shares(upto)
        return Points(x, share_below, share_upto, np.maximum(off_below, off_upto))

    def _shares(self, ranks: Floats) -> tuple[Floats, Floats]:
        """Of the ranks of each place in each picture: the share of all, and how wrong that is."""
        heights, weight = ranks.sum(axis=1), self.total.weight
        shares = heights / weight
        apart = ranks / self.total.weights - shares[:, None]
        over = (self.patience * np.maximum(apart, 0)).sum(axis=1)
        under = (self.patience * np.maximum(-apart, 0)).sum(axis=1)
        off = self.allowance + np.maximum(over, under) + self._rounding(heights, shares)
        error: Floats = np.where(off > 0, np.nextafter(off / weight, np.inf), 0)
        return shares, np.minimum(error, 1)

    def _rounding(self, heights: Floats, shares: Floats) -> Floats:
        """A bound of what rounding adds; nothing where all that is summed is whole."""
        weight = self.total.weight
        slack = np.full(len(heights), (weight + float(self.patience.sum())) * ROUNDING)
        if self.total.whole and not self.patience.any():
            both = zip(shares.tolist(), heights.tolist(), strict=True)
            slack[[is_product(share, weight, height) for share, height in both]] = 0
        return slack


def places(pictures: Sequence[Picture], most: int) -> Floats:
    """All knots of these pictures, if they are no more than this; else some, as said above."""
    x = np.concatenate([picture.x for picture in pictures])
    order = x.argsort()
    last = np.append(x[order[1:]] != x[order[:-1]], True)
    knots: Floats = x[order[last]]
    if len(knots) <= most:
        return knots
    bent = np.concatenate([bends(picture) for picture in pictures])[order].cumsum()[last]
    by_x = most // BY_X
    steps = most - 1 - by_x
    by_bend = bent.searchsorted(bent[-1] * np.arange(steps) / steps)
    left, right = knots[bent.searchsorted(bent[-1] * np.array(MIDDLE))]
    spread = knots.searchsorted(between(left, right, np.linspace(0, 1, by_x)))
    chosen: Floats = knots[np.unique(np.concatenate((by_bend, spread, [len(knots) - 1])))]
    return chosen


def bends(picture: Picture) -> Floats:
    """How far it rises, at each knot, from the one before to the one after."""
    after, before = np.append(picture.below[1:], picture.weight), np.append(0.0, picture.upto[:-1])
    bends: Floats = after - before
    return bends
