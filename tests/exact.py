"""The oracle: a digest held against the exact multiset it was given."""

from fractions import Fraction

import numpy as np

from shared.clusters import Clusters
from shared.digest import Digest
from shared.values import Floats

QUANTILES = np.unique(np.concatenate((np.linspace(0, 1, 101), [1e-6, 0.001, 0.999, 1 - 1e-6])))


class Tally:
    """How many comparisons with the exact answer were made: a promise kept how often?"""

    def __init__(self) -> None:
        self.checks = 0

    def all(self, kept: np.ndarray) -> bool:
        self.checks += kept.size
        return bool(kept.all())


TALLY = Tally()


def rank_errors(values: Floats, ordered: Floats, targets: Floats) -> Floats:
    """How far each target rank is from its value's true ranks, [#(< value), #(<= value)]."""
    below, upto = ordered.searchsorted(values), ordered.searchsorted(values, "right")
    errors: Floats = np.maximum(np.maximum(below - targets, targets - upto), 0)
    return errors


def check_digest(digest: Digest, given: Floats, *, also: Floats = QUANTILES) -> None:
    """Everything that must hold of a digest that was given these values, in any order."""
    ordered = np.sort(given)
    clusters = digest.clusters
    assert clusters.flaw() is None
    assert (digest.count, digest.min, digest.max) == (len(ordered), ordered[0], ordered[-1])
    proven = Fraction(clusters.widest, digest.count)
    assert proven <= Fraction(digest.rank_error) <= Fraction(digest.rank_error_max)
    _check_quantiles(digest, ordered, also)
    _check_ranks(digest, ordered)
    means, weights = digest.centroids()
    assert weights.sum() == digest.count
    assert (means[1:] >= means[:-1]).all()
    assert digest.min <= means[0] <= means[-1] <= digest.max


def _check_quantiles(digest: Digest, ordered: Floats, also: Floats) -> None:
    seams = np.concatenate((digest.clusters.upto, digest.clusters.below)) / digest.count
    q = np.unique(np.clip(np.concatenate((also, seams)), 0, 1))
    values = digest.quantile(q)
    assert values is not None
    errors = rank_errors(values, ordered, q * digest.count)
    assert TALLY.all(errors <= digest.clusters.widest), (
        f"quantile {q[errors.argmax()]}: off by {errors.max()} ranks"
    )
    assert (values[1:] >= values[:-1]).all(), "quantiles decrease"
    assert ordered[0] <= values[0] <= values[-1] <= ordered[-1]


def _check_ranks(digest: Digest, ordered: Floats) -> None:
    """At, just beside, between and beyond the bounds, and at received values; both sides of all."""
    x = points_to_try(digest.clusters, ordered)
    for strict, truth in (
        (False, ordered.searchsorted(x, "right")),
        (True, ordered.searchsorted(x)),
    ):
        low, high = digest.rank_bounds(x, strict=strict)
        wrong = (truth < low) | (truth > high)
        assert TALLY.all(~wrong), f"{truth[wrong]} of {x[wrong]} not in {low[wrong]}, {high[wrong]}"
        rank = digest.rank(x, strict=strict)
        assert ((low <= rank) & (rank <= high)).all(), "the estimate contradicts the proof"
        assert (rank[1:] >= rank[:-1]).all(), "ranks decrease"
        assert (high - low <= digest.clusters.widest).all(), "wider than the widest"


def points_to_try(clusters: Clusters, ordered: Floats) -> Floats:
    bound = clusters.bound
    between = bound[:-1] / 2 + bound[1:] / 2
    with np.errstate(over="ignore"):  # beside the largest float64 lies infinity
        beside = [np.nextafter(bound, toward) for toward in (-np.inf, np.inf)]
    some = ordered[:: max(1, len(ordered) // 200)]
    beyond = [-np.inf, -1.79e308, 1.79e308, np.inf]
    return np.sort(np.concatenate((bound, between, *beside, some, beyond)))
