"""Drawing the fewest segments, and measuring how far off they are, against exact multisets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clusters import Clusters
from shared.digest import Digest
from shared.picture import NOTHING, Picture, Segments
from shared.protocol import SEGMENTS_MAX
from shared.rank_shift import gained_exactly, more, rank_shift, whole
from shared.values import Floats
from tests.exact import TALLY
from tests.streams import STREAMS
from tests.test_clusters import any_clusters

RANK_ERROR = 0.002
ROUNDED = 1 + 1 / 16  # ranks: what whole heights cost, either side; and certificates in sixteenths


def clusters_of(values: Floats, rank_error: float = RANK_ERROR) -> Clusters:
    digest = Digest(rank_error)
    for batch in np.array_split(values, 7):
        digest.add(batch)
        assert digest.clusters.count
    return digest.clusters


def true_shift(values: Floats, picture: Picture) -> float:
    """The largest |R - n F| over all real x: R stands still and F never falls between points."""
    ordered = np.sort(values) + 0.0
    x = np.unique(np.concatenate((ordered, picture.x)))
    factor = len(ordered) / picture.weight
    upto = ordered.searchsorted(x, "right") - picture.rank(x) * factor
    below = ordered.searchsorted(x) - picture.rank_below(x) * factor
    return float(max(abs(upto).max(), abs(below).max()))


def check_segments(segments: Segments, weight: int) -> None:
    assert segments.weight == weight
    assert (segments.weights >= 0).all()
    assert (segments.weights == np.floor(segments.weights)).all()
    assert (segments.weights[:-1] % 2**segments.unit == 0).all()
    assert (segments.knots[1:] >= segments.knots[:-1]).all()
    assert (segments.knots[2:] > segments.knots[:-2]).all(), "a knot three times"


def check_certificate(values: Floats, clusters: Clusters, picture: Picture) -> float:
    certified = rank_shift(clusters, picture)
    true = true_shift(values, picture)
    assert TALLY.all(np.array(true <= certified + len(values) * 2.0**-45))
    assert certified <= true + 2 * clusters.widest + ROUNDED, "far more than there is to prove"
    return certified


def least(clusters: Clusters, tolerance: float) -> float:
    """What a drawing with so much tolerance can be held to, given what the clusters prove."""
    return max(tolerance, clusters.widest * 16 / 27) + ROUNDED


@pytest.mark.parametrize("tolerance", [0.0, 0.7, 5.0, 40.0, 300.0])
@pytest.mark.parametrize("name", STREAMS)
def test_a_whole_is_as_close_as_was_asked(
    name: str, tolerance: float, rng: np.random.Generator
) -> None:
    values = STREAMS[name](6_000, rng)
    clusters = clusters_of(values)
    segments = whole(clusters, tolerance, SEGMENTS_MAX)
    check_segments(segments, len(values))
    certified = check_certificate(values, clusters, segments.picture)
    assert certified <= least(clusters, tolerance)
    if not (tolerance or clusters.widest):
        assert certified == 0


@pytest.mark.parametrize("name", STREAMS)
def test_what_is_added_mends_an_older_picture(name: str, rng: np.random.Generator) -> None:
    values = STREAMS[name](6_000, rng)
    old = whole(clusters_of(values[:4_000]), 12.0, SEGMENTS_MAX).picture
    clusters = clusters_of(values)
    drawn = 0
    for tolerance in (3.0, 30.0, 60.0, 120.0):
        segments = more(clusters, old, tolerance)
        if segments is None:
            continue
        drawn += 1
        check_segments(segments, 2_000)
        picture = old.plus(segments.picture)
        assert picture.weight == len(values)
        assert check_certificate(values, clusters, picture) <= least(clusters, tolerance)
    assert drawn >= 3


@pytest.mark.parametrize("name", STREAMS)
def test_an_old_picture_scaled_is_certified_too(name: str, rng: np.random.Generator) -> None:
    values = STREAMS[name](6_000, rng)
    old = whole(clusters_of(values[:2_500]), 12.0, SEGMENTS_MAX).picture
    clusters = clusters_of(values)
    certified = check_certificate(values, clusters, old)
    assert abs(check_certificate(values, clusters, old.scaled(6_000)) - certified) <= 1 / 16


@pytest.mark.parametrize("name", STREAMS)
def test_values_that_travel_as_they_are_keep_a_picture_exact(
    name: str, rng: np.random.Generator
) -> None:
    values, picture = STREAMS[name](400, rng), NOTHING
    for count in (1, 2, 30, 31, 200, 400):
        clusters = clusters_of(values[:count])
        segments = gained_exactly(clusters, picture)
        check_segments(segments, count - int(picture.weight))
        picture = picture.plus(segments.picture)
        assert picture.whole
        assert rank_shift(clusters, picture) == true_shift(values[:count], picture) == 0


def test_nothing_can_be_added_where_too_much_is_drawn_already() -> None:
    clusters = clusters_of(np.arange(100.0))
    left = Segments(np.array([0.0, 0.0]), np.array([50.0])).picture
    right = Segments(np.array([99.0, 99.0]), np.array([50.0])).picture
    for picture in (left, right.plus(left)):
        assert more(clusters, picture, 20.0) is None
        assert more(clusters, picture, 60.0) is not None
    above = Segments(np.array([200.0, 200.0]), np.array([50.0])).picture
    assert more(clusters, above, 20.0) is None
    before = Segments(np.array([-9.0, -9.0]), np.array([50.0])).picture
    assert more(clusters, before, 20.0) is None


@pytest.mark.parametrize(("tolerance", "most"), [(20.0, 130), (50.0, 45), (500.0, 8), (5_000.0, 3)])
def test_calm_data_take_few_segments(tolerance: float, most: int, rng: np.random.Generator) -> None:
    segments = whole(clusters_of(rng.normal(size=20_000), 0.0002), tolerance, SEGMENTS_MAX)
    assert len(segments) <= most


def test_sorted_data_take_one_segment_and_an_atom_one_more() -> None:
    values = np.arange(1_000.0)
    assert len(whole(clusters_of(values, 0.0005), 8.0, SEGMENTS_MAX)) == 1
    atom = np.append(values, np.full(500, 300.5))
    assert len(whole(clusters_of(atom, 0.0005), 8.0, SEGMENTS_MAX)) == 3
    assert len(whole(clusters_of(np.full(9, 0.1)), 0.0, SEGMENTS_MAX)) == 1


def test_a_whole_never_has_more_segments_than_allowed(rng: np.random.Generator) -> None:
    values = rng.normal(size=6_000)
    clusters = clusters_of(values)
    for most in (1, 5, 50):
        segments = whole(clusters, 0.0, most)
        check_segments(segments, 6_000)
        assert len(segments) <= most
        check_certificate(values, clusters, segments.picture)


def fewest(x: list[int], floor: Floats, ceiling: Floats, weight: int) -> int:
    """Slowly: of all lines whose knots are places and whose heights are whole."""
    last = len(x) - 1
    layer, seen, steps = {(0, 0)}, {(0, 0)}, 0
    while (last, weight) not in seen:
        steps += 1
        after = set()
        for at, height in layer:  # the line has come to this place, from the left
            after |= {(at, up) for up in range(height + 1, weight + 1)}
            if height < floor[at]:
                continue
            least, most = 0.0, np.inf
            for to in range(at + 1, last + 1):
                run = x[to] - x[at]
                ends = range(height, min(int(np.floor(ceiling[to])), weight) + 1)
                after |= {(to, up) for up in ends if least <= (up - height) / run <= most}
                least = max(least, (floor[to] - height) / run)
                most = min(most, (ceiling[to] - height) / run)
        layer = after - seen
        seen |= after
    return steps


@pytest.mark.parametrize("case", range(60))
def test_there_are_hardly_more_segments_than_the_fewest(
    case: int, rng: np.random.Generator
) -> None:
    size, tolerance = int(rng.integers(2, 11)), float(rng.choice([1.2, 2.3, 3.6]))
    x = np.sort(rng.choice(60, size=size, replace=False))
    copies = rng.integers(1, 4, size=size) + (rng.random(size) < 0.2) * rng.integers(0, 9, size)
    clusters = clusters_of(np.repeat(x, copies).astype(np.float64))
    segments = whole(clusters, tolerance, SEGMENTS_MAX)
    spare = tolerance * 7 / 8  # as the tunnel is narrowed for rounding
    low = clusters.low
    floor, ceiling = low - spare, np.append(0.0, low[:-1]) + spare
    optimum = fewest(x.tolist(), floor, ceiling, clusters.count)
    assert optimum <= len(segments) + 1, "the oracle is no optimum"
    assert len(segments) <= 1.5 * optimum + 1, f"case {case}"


@given(any_clusters(), st.sampled_from([0.0, 0.5, 1.0, 3.0, 10.0]), st.integers(1, 50))
def test_of_any_clusters_a_whole_and_what_is_added_keep_within_the_tolerance(
    clusters: Clusters, tolerance: float, scale: int
) -> None:
    segments = whole(clusters, tolerance, SEGMENTS_MAX)
    check_segments(segments, clusters.count)
    assert rank_shift(clusters, segments.picture) <= least(clusters, tolerance)
    twice = clusters.merged(clusters)
    added = more(twice, segments.picture, tolerance * scale)
    if added is not None:
        check_segments(added, clusters.count)
        picture = segments.picture.plus(added.picture)
        assert rank_shift(twice, picture) <= least(twice, tolerance * scale)


def test_places_near_zero_beside_huge_ones_are_drawn_too(rng: np.random.Generator) -> None:
    """Slopes overflow, and differences vanish, for all that is done against it."""
    for _ in range(100):
        x = np.concatenate((rng.integers(-6, 6, 20) * 5e-324, 1.7e308 * rng.uniform(-1, 1, 3)))
        values = rng.choice(np.append(x, [1e-300, 1e-310, 1.0]), 200)
        clusters = clusters_of(values, 0.01)
        for tolerance in (1.0, 3.0, 5.0, 10.0):
            segments = whole(clusters, tolerance, SEGMENTS_MAX)
            check_segments(segments, 200)
            certified = check_certificate(values, clusters, segments.picture)
            assert certified <= least(clusters, tolerance)
