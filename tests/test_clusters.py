"""The arithmetic of clusters, on clusters that no friendly stream makes."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from shared.clusters import BELIEVED, BOUND, COPIES, FIELDS, MEAN, UNCERTAINTY, WEIGHT, Clusters

SHARE = st.floats(0, 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def any_clusters(draw: st.DrawFn, most: int = 12) -> Clusters:
    """Any weights, copies, uncertainties and beliefs that may stand together without a flaw."""
    size = draw(st.integers(1, most))

    def row(numbers: st.SearchStrategy[float]) -> np.ndarray:
        return np.array(draw(st.lists(numbers, min_size=size, max_size=size)), dtype=np.float64)

    table = np.zeros((len(FIELDS), size))
    table[BOUND] = np.arange(size)
    table[MEAN] = row(st.floats(-100, 100))  # any, since those of a forger need not make sense
    table[COPIES] = row(st.integers(1, 9))
    table[WEIGHT] = table[COPIES] + row(st.integers(0, 3))
    table[WEIGHT, 0] = table[COPIES, 0]
    low, count = table[WEIGHT].cumsum(), table[WEIGHT].sum()
    high = low - table[COPIES] + row(st.integers(0, 9)) * (np.arange(size) > 0)
    high_most = count - np.maximum.accumulate(table[COPIES, ::-1])[::-1]
    high = np.minimum(np.maximum.accumulate(high), high_most)  # as counts are in order
    table[UNCERTAINTY] = high - low + table[COPIES]
    table[BELIEVED] = np.floor(table[UNCERTAINTY] * row(SHARE))
    for at in range(size - 2, -1, -1):  # so many may at most be believed to lie below each bound
        after = table[WEIGHT, at + 1] - table[COPIES, at + 1] + table[BELIEVED, at + 1]
        table[BELIEVED, at] = min(table[BELIEVED, at], after)
    return Clusters(table)


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
        sum_low, sum_high = clusters.merged(other).proven_count(x, side)
        assert (sum_low == low + other_low).all()
        assert (sum_high == high + other_high).all()


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
    table = np.zeros((len(FIELDS), 2))
    table[BOUND] = table[MEAN] = [left, right]
    table[COPIES] = 1
    table[WEIGHT] = [1, 1 + inside]
    return Clusters(table)


@given(FINITE, FINITE)
@example(-1.7e308, 1.7e308)
@example(-1e308, 1.7e308)
@example(1.0, 1.7e308)
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
