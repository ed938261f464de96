"""The theorem, and what follows from it: what a worker measures, what a coordinator may promise.

The theorem
-----------
Source i has received n_i values; R_i(x) of them are <= x. The coordinator holds its picture: of the
first p_i of them, drawn with any lines whatever, with F_i for the picture's rank function divided
by p_i. `pending_i` = n_i - p_i. Asked for quantile q, the coordinator answers the m where
sum p_i F_i(m) = q p, with p for sum p_i. How wrong is that, for R = sum R_i and n = sum n_i?

    | R(m) - q n |  <=  sum rank_shift_i  +  sum pending_i |F_i(m) - q|

    rank_shift_i  :=  sup over x of | R_i(x) - n_i F_i(x) |

*Proof.*  R_i(m) - q n_i  =  p_i (F_i(m) - q)  +  pending_i (F_i(m) - q)  +  (R_i(m) - n_i F_i(m)).
Sum over i: the first terms add up to nothing, by the choice of m. []

New values cost nothing while they look like the old ones; that is the first sum. Their number costs
only where a source's own quantile is far from that of all; that is the second. Where F_i jumps at
m, take any number from F_i(m-) to F_i(m): the proof does not mind. And pending values are never
fewer than none, so the second sum may be split by sign, and only the larger part counts:

    max( sum pending_i (F_i(m-) - q)+ ,  sum pending_i (q - F_i(m))+ )

Measuring a rank shift
----------------------
A digest does not know R, but between two neighbouring bounds v_j and v_{j+1} it proves
low_j <= R <= high_{j+1}. F never falls, so on that stretch the two are furthest apart at its ends:

    rank_shift  =  max over j of  high_{j+1} - n F(v_j)  and  n F(v_{j+1}-) - low_j

with 0 before the first bound and n after the last. That is an upper bound over all real x, both
sides of every jump, from what is proven, rounded up to a sixteenth of a rank. One more value moves
it by at most one rank: R by 0 or 1, n F(x) by F(x).

Budgets
-------
A source lives by a grant: its rank shift is at most `allowance`, its pending values at most
`patience`, the one in sixteenths of a rank, the other a whole number. Each source has a part of its
own and a share of a pool, so that a small one among giants hardly ever speaks:

    allowance   own 0.3 epsilon * p_i     pool 0.3 epsilon * p
    patience    own 1.2 epsilon * p_i     pool 0.2 epsilon * p

Then the median is proven to within epsilon. The allowances add up to 0.6 epsilon * p at most. Of
the second sum, the pool adds at most half its patience, 0.1 epsilon * p, as |F_i - 1/2| <= 1/2. The
own parts add 1.2 epsilon times sum p_i (F_i(m-) - q)+, or its mirror image. The terms p_i (F_i - q)
balance to nothing at m, and none is above p_i (1-q) or below -p_i q; so the positive ones add up to
most where a part q of all weight is at the top and the rest at the bottom: to q (1-q) p, a quarter.
For any other quantile the same sums stay below 1.009 epsilon.

A billionth of each budget is kept back for the rounding of floats.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from shared.clusters import Clusters
from shared.drawing import COARSENESS, drawn, jumps
from shared.picture import NOTHING, Picture, Segments, Total
from shared.values import Floats

# What sums of float64 may be off by, as a share of what is summed. NumPy adds in blocks of 128 and
# pairs of blocks: fewer than 2**7 roundings of 2**-53 each for any number of rows there can be.
ROUNDING = 2.0**-46
KEPT_BACK = 1 - 1e-9
SIXTEEN = 16

LOOKS = 256  # places in a batch

OWN, POOL = (0.3, 1.2), (0.3, 0.2)  # of epsilon: allowance and patience


class Grant(NamedTuple):
    """How far a source may move before it must speak: ranks of shift, values pending.

    Ranks come in sixteenths here, so that sums of them are exact, in whatever order.
    """

    allowance: float
    patience: int

    def plus(self, other: "Grant") -> "Grant":
        return Grant(self.allowance + other.allowance, self.patience + other.patience)

    def beyond(self, other: "Grant") -> "Grant":
        """What there is more of here, if any."""
        return Grant(
            max(0, self.allowance - other.allowance), max(0, self.patience - other.patience)
        )


NO_GRANT = Grant(0, 0)


def own_part(epsilon: float, weight: int) -> Grant:
    """What a source of this weight is always granted."""
    return _parts(OWN, epsilon * weight)


def pool(epsilon: float, weight: int) -> Grant:
    """What all sources of a stream of this weight share, beyond their own parts."""
    return _parts(POOL, epsilon * weight)


def _parts(of: tuple[float, float], ranks: float) -> Grant:
    allowance, patience = of
    return Grant(floored(allowance * KEPT_BACK * ranks), math.floor(patience * KEPT_BACK * ranks))


def floored(ranks: float) -> float:
    return math.floor(ranks * SIXTEEN) / SIXTEEN


def rank_shift(clusters: Clusters, picture: Picture) -> float:
    """Of the values in the clusters against the picture: at most so many ranks."""
    count = clusters.count
    factor = count / picture.weight
    below, upto = picture.ranks(clusters.bound)
    below, upto = np.append(below * factor, count), np.append(0.0, upto * factor)
    low, high = np.append(0.0, clusters.low), np.append(clusters.high, count)
    most = max(float((high - upto).max()), float((below - low).max()))
    rounding = 0.0 if factor == 1 and picture.whole else count * ROUNDING
    return math.ceil((most + rounding) * SIXTEEN) / SIXTEEN


def batch_shift(batch: Floats, picture: Picture) -> float:
    """By so many ranks, at most, can a batch that is added move a rank shift.

    Of old values and new the shifts add up, and this is that of the new ones by themselves, looked
    at in some places: between two of them at most as many values lie as were passed over.
    """
    count = len(batch)
    at = np.arange(0, count, -(-count // LOOKS))
    below, upto = picture.ranks(np.sort(batch)[at])
    factor = count / picture.weight
    below, upto = np.append(below * factor, count), np.append(0.0, upto * factor)
    low, high = np.append(0.0, at + 1), np.append(at, count)
    most = max(float((high - upto).max()), float((below - low).max()))
    return math.ceil((most + count * ROUNDING) * SIXTEEN) / SIXTEEN


def whole(clusters: Clusters, tolerance: float, segments_max: int) -> Segments:
    """The fewest segments that draw the clusters, off by no more than the tolerance.

    Or than what the clusters prove, or what so many segments can do, whichever is most.
    """
    tolerance = max(tolerance, clusters.widest / (2 - 5 * COARSENESS))
    while True:
        segments = more(clusters, NOTHING, tolerance)
        if segments is not None and len(segments) <= segments_max:
            return segments
        tolerance = 2 * tolerance + 1


def more(clusters: Clusters, picture: Picture, tolerance: float) -> Segments | None:
    """The fewest segments to add to a picture so that it is off by no more than the tolerance.

    None where none will do, because too much is drawn already.
    """
    x, count = clusters.bound, clusters.count
    high, low = np.append(clusters.high[1:], count), np.append(0.0, clusters.low[:-1])
    below, upto = picture.ranks(x)
    floor, ceiling = high - tolerance - upto, low + tolerance - below
    return drawn(x, floor, ceiling, count - int(picture.weight), tolerance)


def gained_exactly(clusters: Clusters, picture: Picture) -> Segments:
    """The values that a picture lacks, one jump each, where it and the clusters are exact."""
    x = clusters.bound
    below, upto = picture.ranks(x)
    gained = clusters.weight - (upto - below)
    new = np.flatnonzero(gained)
    weights = np.zeros(2 * len(new) - 1)
    weights[::2] = gained[new]
    return jumps(x[new], weights)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A quantile of all values in the sources of a total, and how wrong it can be.

    `allowance` is the sum of what the sources live by, `patience` has one number for each.
    """

    total: Total
    q: float
    allowance: float
    patience: Floats

    def __repr__(self) -> str:
        return f"<quantile {self.q} is {self.value}, proven to within {self.rank_error}>"

    @property
    def _target(self) -> float:
        return self.q * self.total.weight

    @cached_property
    def value(self) -> float:
        return self.total.value(self._target)

    @cached_property
    def rank_error(self) -> float:
        """The certificate: the rank of the value is off by at most this share of all ranks."""
        smaller = math.nextafter(self.value, -math.inf)  # values < x are values <= this
        below, upto = self.total.ranks(smaller), self.total.ranks(self.value)
        residual = max(0.0, float(below.sum()) - self._target, self._target - float(upto.sum()))
        pending = max(self._over(below), self._under(upto))
        ranks = self.allowance + pending + residual + self._rounding
        return min(1.0, math.nextafter(ranks / self.total.weight, math.inf)) if ranks else 0.0

    @cached_property
    def low(self) -> float:
        """The true quantile is certainly no less: of all smaller floats the rank is too small.

        What is evaluated is convex between two knots, so that a straight line is not below it.
        """
        margin = self._target - self.allowance - self._rounding

        def most(ranks: Floats) -> float:
            return float(ranks.sum()) - margin + self._over(ranks)

        low = self.total.passes_zero(most)[0]
        smaller = math.nextafter(low, -math.inf)
        return min(smaller if most(self.total.ranks(smaller)) > 0 else low, self.value)

    @cached_property
    def high(self) -> float:
        """The true quantile is certainly no more: its own rank is large enough."""
        margin = self._target + self.allowance + self._rounding

        def least(ranks: Floats) -> float:
            return float(ranks.sum()) - margin - self._under(ranks)

        high = self.total.passes_zero(least)[1]
        larger = math.nextafter(high, math.inf)
        return max(larger if least(self.total.ranks(high)) < 0 else high, self.value)

    def let_go(self) -> None:
        """Work all of it out, and hold no longer what it was made of: who keeps it keeps little."""
        self.value, self.rank_error, self.low, self.high  # noqa: B018  each is kept once it is known
        for name in ("total", "patience"):
            vars(self).pop(name)

    def _over(self, ranks: Floats) -> float:
        return float((self.patience * np.maximum(ranks / self.total.weights - self.q, 0)).sum())

    def _under(self, ranks: Floats) -> float:
        return float((self.patience * np.maximum(self.q - ranks / self.total.weights, 0)).sum())

    @cached_property
    def _rounding(self) -> float:
        """A bound of what rounding adds; nothing where all that is summed is whole."""
        total = self.total
        whole = total.whole and not self.patience.any()
        if whole and is_product(self.q, total.weight, self._target):
            return 0.0
        return (total.weight + float(self.patience.sum())) * ROUNDING


def is_product(q: float, weight: float, product: float) -> bool:
    """Whether q times a whole weight is exactly this, with nothing rounded away."""
    (one, one_of), (other, other_of) = q.as_integer_ratio(), product.as_integer_ratio()
    return one * int(weight) * other_of == other * one_of
