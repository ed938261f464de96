"""What a digest answers, refuses and remembers."""

import copy
import itertools
import math
import pickle
import statistics
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.digest import Digest
from shared.values import Floats
from tests.exact import QUANTILES, check_digest, rank_errors
from tests.streams import STREAMS

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def digest_of(values: object, rank_error: float = 0.0005) -> Digest:
    digest = Digest(rank_error)
    digest.add(values)  # type: ignore[arg-type]  # whatever a user may try
    return digest


# --- exact answers ------------------------------------------------------------------------------


@given(st.lists(FINITE, min_size=1, max_size=100))
def test_the_median_of_few_values_is_that_of_the_statistics_module(values: list[float]) -> None:
    digest = digest_of(values)
    expected = statistics.median(values)
    if math.isfinite(expected):
        assert digest.median() == expected
    else:  # the two middle values are so large that their sum is not; ours is their midpoint
        low, high = sorted(values)[len(values) // 2 - 1 :][:2]
        assert digest.median() == low / 2 + high / 2
    assert digest.rank_error == 0


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=100))
def test_the_median_of_few_integers_is_that_of_the_statistics_module(values: list[int]) -> None:
    assert digest_of(values).median() == statistics.median(values)


@given(st.lists(st.sampled_from([0.1, 0.2, 0.5, -3.0, 1e300]), min_size=1, max_size=300))
def test_quantiles_of_few_values_are_those_numpy_defines(values: list[float]) -> None:
    digest = digest_of(values)
    q = np.array([0, 1 / 4, 1 / 2, 3 / 4, 1])
    expected = np.quantile(values, q, method="averaged_inverted_cdf")
    assert digest.quantile(q) == pytest.approx(expected, rel=1e-15)  # it rounds midpoints otherwise


def test_five_distinct_values_are_five_clusters_and_exact_however_many_there_are(
    rng: np.random.Generator,
) -> None:
    values = STREAMS["five_values"](300_000, rng)
    digest = digest_of(values, rank_error=0.1)
    assert len(digest.clusters) == 5
    assert digest.rank_error == 0
    assert digest.median() == statistics.median(values)
    assert digest.rank_bounds(0.2) == (int((values <= 0.2).sum()), int((values <= 0.2).sum()))
    means, weights = digest.centroids()
    assert means.tolist() == [0.1, 0.2, 0.3, 7.0, 1e9]
    assert weights.tolist() == [np.count_nonzero(values == mean) for mean in means]


def test_it_is_exact_up_to_two_divided_by_rank_error_distinct_values(
    rng: np.random.Generator,
) -> None:
    digest = Digest(0.01)
    for _ in range(50):
        digest.add(rng.permutation(np.repeat(np.arange(200), 7)))
    assert digest.rank_error == 0
    digest.add(-1)
    assert 0 < digest.rank_error <= 0.01


def test_zeros_of_both_signs_are_one_value(rng: np.random.Generator) -> None:
    for zeros in ([-0.0], rng.choice([0.0, -0.0], size=1_000)):
        digest = digest_of(zeros)
        assert digest.clusters.bound.tolist() == [0.0]
        assert not np.signbit(digest.clusters.bound).any()
        assert digest.rank_bounds(-0.0) == (len(zeros), len(zeros))


def test_an_empty_digest_has_no_answers_and_no_doubts() -> None:
    digest = Digest()
    assert (digest.count, digest.min, digest.max, digest.median()) == (0, None, None, None)
    assert digest.quantile([0.1, 0.9]) is None
    assert digest.rank(3.0) == 0
    assert digest.rank_bounds(3.0) == (0, 0)
    assert digest.rank_error == 0
    assert [row.tolist() for row in digest.centroids()] == [[], []]


# --- how answers look ---------------------------------------------------------------------------


def test_one_question_gets_one_answer_and_an_array_an_array() -> None:
    digest = digest_of([1.0, 2.0, 2.0, 4.0])
    assert isinstance(digest.quantile(0.25), float)
    assert digest.quantile(np.float64(0.25)) == 1.5
    assert digest.quantile([0, 1]).tolist() == [1.0, 4.0]  # type: ignore[union-attr]
    assert (digest.rank(2.0), digest.rank(2.0, strict=True)) == (3.0, 1.0)
    assert digest.rank([0, 3, 9]).tolist() == [0.0, 3.0, 4.0]
    assert (digest.rank_bounds(2), digest.rank_bounds(2, strict=True)) == ((3, 3), (1, 1))
    assert [row.tolist() for row in digest.rank_bounds([-math.inf, math.inf])] == [[0, 4]] * 2


@pytest.mark.parametrize("q", [-0.001, 1.001, math.inf, [0.5, 2]])
def test_q_outside_0_to_1_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="q must be from 0 to 1"):
        digest_of([1.0]).quantile(q)


NO_POINTS = [math.nan, "0.5", True, None, Decimal("0.5"), 2**53 + 1, [0.5, 2**53 + 1], 1j]


@pytest.mark.parametrize("rank_error", [0, -1, 0.5, 1e-7, math.inf, [0.1]])
def test_a_rank_error_that_cannot_be_promised_is_refused(rank_error: float) -> None:
    with pytest.raises(ValueError, match=r"must be one number from 1e-06 to below 0\.5, not"):
        Digest(rank_error)


@pytest.mark.parametrize("rank_error", [math.nan, "0.01", None, True, Fraction(1, 3)])
def test_a_rank_error_that_is_no_number_is_refused(rank_error: float) -> None:
    with pytest.raises(ValueError, match="rank_error: value 0 is "):
        Digest(rank_error)


def test_only_a_digest_is_merged() -> None:
    digest = digest_of([1.0])
    with pytest.raises(TypeError, match="merge takes a Digest, not bytes"):
        digest.merge(digest.to_bytes())  # type: ignore[arg-type]  # the likeliest slip


def test_it_says_what_it_is() -> None:
    digest = digest_of([1.0, 2.0])
    assert repr(digest) == "<Digest of 2 values, rank error at most 0.0005>"
    assert repr(digest.clusters) == "<2 clusters of 2 values, the widest of 0>"


def pickled(digest: Digest) -> Digest:
    again: Digest = pickle.loads(pickle.dumps(digest))  # noqa: S301  our own, made just now
    return again


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_goes_its_own_way(clone: Callable[[Digest], Digest]) -> None:
    digest = digest_of([1.0, 2.0])
    other = clone(digest)
    other.add(9.0)
    assert (digest.count, digest.max, other.count, other.max) == (2, 2.0, 3, 9.0)


def test_the_clusters_it_shows_cannot_be_changed() -> None:
    clusters = digest_of([1.0, 2.0]).clusters
    for row in (clusters.table, clusters.low, clusters.high, clusters.width, clusters.below):
        with pytest.raises(ValueError, match="read-only"):
            row[0] = 1


# --- what it accepts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "position"),
    [([1.0, math.nan], 1), (math.inf, 0), ([1, True], 1), (["1"], 0), (2**53 + 1, 0), (None, 0)],
)
def test_what_is_refused_names_its_position_and_changes_nothing(bad: object, position: int) -> None:
    digest = digest_of([1.0, 2.0])
    before = digest.to_bytes()
    with pytest.raises(ValueError, match=f"^value {position} is "):
        digest.add(bad)  # type: ignore[arg-type]  # the point of the test
    assert (digest.count, digest.to_bytes()) == (2, before)


def test_an_array_may_be_changed_once_it_was_added() -> None:
    values = np.arange(10.0)
    digest = digest_of(values)
    values[:] = -1
    check_digest(digest, np.arange(10.0))


def test_adding_does_not_change_the_array() -> None:
    values = np.arange(100_000.0)[::-1].copy()
    digest_of(values)
    assert values.tolist() == list(range(99_999, -1, -1))


def test_the_same_values_in_the_same_order_make_the_same_digest_in_any_batches(
    rng: np.random.Generator,
) -> None:
    values = rng.normal(size=70_000)
    """While nobody asks, that is: a question gives the buffer to the clusters."""
    at_once, in_batches, singly = Digest(0.01), Digest(0.01), Digest(0.01)
    at_once.add(values)
    for batch in np.split(values, np.sort(rng.integers(0, len(values), size=100))):
        in_batches.add(batch)
    for value, kind in zip(values.tolist(), itertools.cycle([float, np.float64, list])):
        singly.add([value] if kind is list else kind(value))
    assert at_once.to_bytes() == in_batches.to_bytes() == singly.to_bytes()


# --- merging ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
def test_merging_never_costs_certainty(name: str, rng: np.random.Generator) -> None:
    values = STREAMS[name](30_000, rng)
    total = Digest(0.01)
    for part in np.split(values, np.sort(rng.integers(0, len(values), size=29))):
        total.merge(digest_of(part, 0.01))
    check_digest(total, values)
    assert len(total.clusters) <= 25 / 0.01


def test_merged_digests_go_on_receiving_and_join_again(rng: np.random.Generator) -> None:
    digests = [digest_of(rng.normal(size=4_000), 0.01) for _ in range(32)]
    while len(digests) > 1:
        for one, other in zip(digests[::2], digests[1::2], strict=True):
            one.merge(other)
        digests = digests[::2]
    merged = len(digests[0].clusters)
    digests[0].add(rng.normal(size=1_000_000))
    assert len(digests[0].clusters) < merged / 3


def test_a_digest_may_be_merged_with_an_empty_one_and_with_itself(
    rng: np.random.Generator,
) -> None:
    values = rng.normal(size=5_000)
    digest = digest_of(values, 0.01)
    digest.merge(Digest(0.01))
    check_digest(digest, values)
    digest.merge(digest)
    check_digest(digest, np.repeat(values, 2))
    empty = Digest(0.01)
    empty.merge(digest)
    check_digest(empty, np.repeat(values, 2))


def test_a_stored_digest_goes_on_as_the_one_it_was_stored_from(rng: np.random.Generator) -> None:
    values = STREAMS["drift"](60_000, rng)
    digest = Digest(0.01)
    for batch in np.split(values, 60):
        digest.add(batch)
        again = Digest.from_bytes(digest.to_bytes())
        for one in (digest, again):
            one.add(batch[::-1])
        assert again.to_bytes() == digest.to_bytes()


def test_merging_leaves_the_other_as_it_was(rng: np.random.Generator) -> None:
    other = digest_of(rng.normal(size=5_000), 0.01)
    before = other.to_bytes()
    digest_of(rng.normal(size=5_000), 0.01).merge(other)
    assert other.to_bytes() == before


def test_a_coarser_digest_is_refused_only_where_it_would_break_the_promise(
    rng: np.random.Generator,
) -> None:
    values = rng.normal(size=5_000)
    fine, coarse, few = digest_of(values, 0.01), digest_of(values, 0.1), digest_of([1.0] * 9, 0.1)
    before = fine.to_bytes()
    with pytest.raises(ValueError, match=r"too coarse .* not 0\.01"):
        fine.merge(coarse)
    assert fine.to_bytes() == before
    fine.merge(few)
    check_digest(fine, np.append(values, [1.0] * 9))


# --- how good, how large ------------------------------------------------------------------------

SMOOTH: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.uniform(size=n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "lognormal": lambda rng, n: rng.lognormal(size=n),
}


@pytest.mark.parametrize("draw", SMOOTH.values(), ids=SMOOTH)
@pytest.mark.parametrize("rank_error", [0.01, 0.001])
def test_on_smooth_data_the_error_is_typically_less_than_a_tenth_of_the_bound(
    draw: Callable[[np.random.Generator, int], Floats], rank_error: float, rng: np.random.Generator
) -> None:
    values = draw(rng, 500_000)
    digest = digest_of(values, rank_error)
    answers = digest.quantile(QUANTILES)
    assert answers is not None
    errors = rank_errors(answers, np.sort(values), QUANTILES * len(values)) / len(values)
    assert np.quantile(errors, 0.95) < rank_error / 15
    assert np.mean(errors) < rank_error / 40


@pytest.mark.parametrize("rank_error", [0.01, 0.001])
def test_on_smooth_data_merged_digests_estimate_as_well_as_one(
    rank_error: float, rng: np.random.Generator
) -> None:
    values = rng.normal(size=500_000)
    total = Digest(rank_error)
    for part in np.split(values, 20):
        total.merge(digest_of(part, rank_error))
    answers = total.quantile(QUANTILES)
    assert answers is not None
    errors = rank_errors(answers, np.sort(values), QUANTILES * len(values)) / len(values)
    assert np.mean(errors) < rank_error / 40


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize(("rank_error", "batch"), [(0.05, 20), (0.02, 1_000), (0.002, 1_000)])
def test_clusters_grow_with_the_logarithm_of_the_count_at_most(
    name: str, rank_error: float, batch: int, rng: np.random.Generator
) -> None:
    digest = Digest(rank_error)
    for values in np.split(STREAMS[name](400 * batch, rng), 400):
        digest.add(values)
        certain = 2 + 2.5 * math.log(1 + rank_error * digest.count)
        assert len(digest.clusters) <= certain / rank_error


@pytest.mark.parametrize("name", [name for name in STREAMS if name not in {"huge", "log_uniform"}])
def test_the_means_are_means(name: str, rng: np.random.Generator) -> None:
    values = STREAMS[name](100_000, rng)
    means, weights = digest_of(values, 0.01).centroids()
    scale = math.fsum(abs(values))
    assert math.fsum(means * weights) == pytest.approx(math.fsum(values), abs=1e-12 * scale)


def test_where_a_sum_does_not_fit_a_float64_the_mean_is_still_one_of_the_values_range(
    rng: np.random.Generator,
) -> None:
    values = STREAMS["huge"](100_000, rng)
    means, _ = digest_of(values, 0.01).centroids()
    assert np.isfinite(means).all()
    assert values.min() <= means[0] <= means[-1] <= values.max()
    assert 0.7e308 < np.median(abs(means)) < 1e308  # most of them far from zero
