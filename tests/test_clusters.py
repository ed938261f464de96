"""The arithmetic of clusters, on clusters that no friendly stream makes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.clusters import BELIEVED, BOUND, COPIES, MEAN, ROWS, UNCERTAINTY, WEIGHT, Clusters

SHARE = st.floats(0, 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def any_clusters(draw: st.DrawFn, most: int = 12) -> Clusters:
    """Any weights, copies, uncertainties and beliefs that may stand together without a flaw."""
    size = draw(st.integers(1, most))

    def row(numbers: st.SearchStrategy[float]) -> np.ndarray:
        return np.array(draw(st.lists(numbers, min_size=size, max_size=size)), dtype=np.float64)

    rows = np.zeros((ROWS, size))
    rows[BOUND] = np.arange(size)
    rows[MEAN] = row(st.floats(-100, 100))  # any, since those of a forger need not make sense
    rows[COPIES] = row(st.integers(1, 9))
    rows[WEIGHT] = rows[COPIES] + row(st.integers(0, 3))
    rows[WEIGHT, 0] = rows[COPIES, 0]
    low, count = rows[WEIGHT].cumsum(), rows[WEIGHT].sum()
    high = low - rows[COPIES] + row(st.integers(0, 9)) * (np.arange(size) > 0)
    high_most = count - np.maximum.accumulate(rows[COPIES, ::-1])[::-1]
    high = np.minimum(np.maximum.accumulate(high), high_most)  # as counts are in order
    rows[UNCERTAINTY] = high - low + rows[COPIES]
    rows[BELIEVED] = np.floor(rows[UNCERTAINTY] * row(SHARE))
    for at in range(size - 2, -1, -1):  # so many may at most be believed to lie below each bound
        after = rows[WEIGHT, at + 1] - rows[COPIES, at + 1] + rows[BELIEVED, at + 1]
        rows[BELIEVED, at] = min(rows[BELIEVED, at], after)
    return Clusters(rows)


@given(any_clusters())
def test_these_clusters_have_no_flaw(clusters: Clusters) -> None:
    assert clusters.flaw() is None


@given(any_clusters(), st.integers(0, 20))
def test_joining_keeps_every_cluster_within_the_limit(clusters: Clusters, above: int) -> None:
    limit = clusters.widest + above
    joined = clusters.joined(limit)
    assert joined.flaw() is None
    assert joined.widest <= limit
    assert joined.count == clusters.count
    assert set(joined.bound) <= set(clusters.bound)
    assert (joined.bound[0], joined.bound[-1]) == (clusters.bound[0], clusters.bound[-1])


@given(any_clusters(), any_clusters(), st.integers(1, 5))
def test_what_is_proven_after_an_operation_holds_whatever_the_values_were(
    clusters: Clusters, other: Clusters, every: int
) -> None:
    """Nobody knows the values behind such clusters: then no operation may claim to know more."""
    x = np.arange(-1, 14, 0.25)
    for side in ("left", "right"):
        low, high = clusters.proven_count(x, side)
        for less in (clusters.joined(10**6), clusters.split(np.linspace(0.5, 5.5, every))):
            less_low, less_high = less.proven_count(x, side)
            assert (less_low <= low).all()
            assert (high <= less_high).all()
        other_low, other_high = other.proven_count(x, side)
        union_low, union_high = clusters.union(other).proven_count(x, side)
        assert (union_low == low + other_low).all()
        assert (union_high == high + other_high).all()


@given(any_clusters())
def test_estimates_never_contradict_the_proof_and_never_decrease(clusters: Clusters) -> None:
    x = np.sort(np.concatenate((np.arange(-1, 14, 0.3), clusters.bound, [-np.inf, np.inf])))
    for side in ("left", "right"):
        low, high = clusters.proven_count(x, side)
        believed = clusters.believed_count(x, side)
        assert ((low <= believed) & (believed <= high)).all()
        assert (believed[1:] >= believed[:-1]).all()
    values = clusters.value_at(np.linspace(0, clusters.count, 101))
    assert (values[1:] >= values[:-1]).all()
    assert clusters.bound[0] <= values[0] <= values[-1] <= clusters.bound[-1]


def a_cluster_between(left: float, right: float, inside: int = 100) -> Clusters:
    """The least value, and a cluster with so many values on the way to the greatest."""
    rows = np.zeros((ROWS, 2))
    rows[BOUND] = rows[MEAN] = [left, right]
    rows[COPIES] = 1
    rows[WEIGHT] = [1, 1 + inside]
    return Clusters(rows)


@given(FINITE, FINITE)
def test_estimates_inside_a_cluster_run_straight_from_end_to_end(one: float, two: float) -> None:
    left, right = sorted((one, two + 0.0))
    if left == right:
        return
    clusters = a_cluster_between(left, right)
    ranks = np.linspace(1, 101, 1001)
    values = clusters.value_at(ranks)
    assert (values[1:] >= values[:-1]).all()
    assert values[-1] == right
    step = right / 1000 - left / 1000
    straight = np.array([left / 1000 * (1000 - i) + right / 1000 * i for i in range(1001)])
    tolerance = 1e-12 * max(abs(left), abs(right)) + 2000 * 5e-324
    assert (abs(values - straight)[1:] <= tolerance).all()
    if step > tolerance:
        assert abs(clusters.believed_count(values[1:], "right")[:-1] - ranks[1:-1]).max() < 0.01


def test_where_every_value_between_two_would_do_the_midpoint_is_the_answer() -> None:
    for left, right in ((1.0, 2.0), (-1.0, 4.0), (1.5e308, 1.7e308), (5e-324, 1.5e-323)):
        middle = a_cluster_between(left, right, inside=0).value_at(np.array(1.0))
        assert middle == left + (right - left) / 2
