"""The certificate, what encloses the quantile, and budgets, against exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.digest import Digest
from shared.picture import Picture, Segments, Total
from shared.rank_shift import (
    LOOKS,
    NO_GRANT,
    Estimate,
    Grant,
    batch_shift,
    own_part,
    pool,
    rank_shift,
    whole,
)
from shared.values import Floats
from tests.exact import TALLY
from tests.streams import STREAMS
from tests.test_picture import any_picture, exact_rank

ROUNDING = Fraction(1, 2**40)


def exact_heights(
    estimate: Estimate, pictures: list[Picture], x: float
) -> tuple[Fraction, Fraction, Fraction]:
    """P(x) - q p, and what is pending above and below q, each weighed."""
    q, gap, over, under = Fraction(estimate.q), Fraction(0), Fraction(0), Fraction(0)
    for picture, patience in zip(pictures, estimate.patience.tolist(), strict=True):
        share = exact_rank(picture, x, strict=False) / Fraction(picture.weight) - q
        gap += share * Fraction(picture.weight)
        over += Fraction(patience) * max(share, Fraction(0))
        under += Fraction(patience) * max(-share, Fraction(0))
    return gap, over, under


def check_estimate(estimate: Estimate, pictures: list[Picture]) -> None:
    m, allowance, slack = estimate.value, Fraction(estimate.allowance), ROUNDING * 2**10
    weight = Fraction(estimate.total.weight)
    knots = np.unique(np.concatenate([picture.x for picture in pictures])).tolist()
    below, over, _ = exact_heights(estimate, pictures, math.nextafter(m, -math.inf))
    upto, _, under = exact_heights(estimate, pictures, m)
    exact = allowance + max(over, under) + max(below, -upto, Fraction(0))
    assert min(Fraction(1), exact / weight) <= Fraction(estimate.rank_error) + ROUNDING / 2**12
    assert estimate.rank_error <= exact / weight + ROUNDING
    assert estimate.low <= m <= estimate.high
    for x in knots:
        smaller = math.nextafter(x, -math.inf)
        gap, over, under = exact_heights(estimate, pictures, x)
        left, left_over, left_under = exact_heights(estimate, pictures, smaller)
        if x < estimate.low:
            assert gap + over + allowance < slack, "the quantile may be less than low"
        elif smaller > estimate.low:
            assert left + left_over + allowance >= -slack, "low could be more"
        if x > estimate.high:
            assert left - left_under - allowance > -slack, "the quantile may be more than high"
        elif math.nextafter(x, math.inf) < estimate.high:
            assert gap - under - allowance <= slack, "high could be less"


@given(st.lists(any_picture, min_size=1, max_size=4), st.data())
def test_an_estimate_says_what_the_theorem_says(
    pictures: list[Picture], data: st.DataObject
) -> None:
    counts = st.lists(st.integers(0, 9), min_size=len(pictures), max_size=len(pictures))
    patience = np.array(data.draw(counts | st.just([0] * len(pictures))), dtype=np.float64)
    q = data.draw(st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]) | st.floats(0, 1))
    allowance = data.draw(st.integers(0, 80)) / 16
    check_estimate(Estimate(Total(pictures), q, allowance, patience), pictures)


def jumps(*places: float) -> Picture:
    weights = np.zeros(2 * len(places) - 1)
    weights[::2] = 1
    return Segments(np.repeat(np.array(places), 2), weights).picture


def test_where_all_is_exact_the_estimate_is_and_says_so() -> None:
    total = Total([jumps(1.0, 2.0), jumps(4.0, 9.0)])
    estimate = Estimate(total, 0.5, 0.0, np.zeros(2))
    assert (estimate.value, estimate.low, estimate.high, estimate.rank_error) == (3, 2, 4, 0)
    assert repr(estimate) == "<quantile 0.5 is 3.0, proven to within 0.0>"
    third = Estimate(Total([jumps(1.0, 2.0, 3.0)]), 1 / 3, 0.0, np.zeros(1))
    assert 0 < third.rank_error < 1e-12  # as a third of three is not one, in floats
    certain = Estimate(total, 0.5, 0.0, np.ones(2))
    assert 0.125 < certain.rank_error < 0.126
    assert Estimate(total, 0.5, 99.0, np.zeros(2)).rank_error == 1
    assert Estimate(total, 0.5, 99.0, np.zeros(2)).low == -np.inf
    assert Estimate(total, 0.5, 99.0, np.zeros(2)).high == np.inf


@pytest.mark.parametrize("name", STREAMS)
def test_no_answer_is_ever_further_off_than_its_certificate(
    name: str, rng: np.random.Generator
) -> None:
    """Of sources that moved on, each in its own way, since their pictures were drawn."""
    values = STREAMS[name](4_000, rng)
    pictures, shifts, pending = [], [], []
    for source in range(8):
        mine = values[source::8]
        seen = int(rng.integers(len(mine) // 2, len(mine)))
        digest = Digest(0.005)
        digest.add(mine[:seen])
        picture = whole(digest.clusters, float(rng.choice([0.0, 4.0, 20.0])), 4096).picture
        digest.add(mine[seen:])
        pictures.append(picture)
        shifts.append(rank_shift(digest.clusters, picture))
        pending.append(float(len(mine) - seen))
    ordered = np.sort(values)
    for q in (0.0, 0.01, 0.25, 0.5, 0.77, 1.0):
        estimate = Estimate(Total(pictures), q, sum(shifts), np.array(pending))
        target = q * len(ordered)
        below, upto = (
            ordered.searchsorted(estimate.value),
            ordered.searchsorted(estimate.value, "right"),
        )
        error = max(below - target, target - upto, 0)
        # its ranks are of all that is covered, where the truth has what is pending too
        assert TALLY.all(np.array(error <= estimate.rank_error * estimate.total.weight + 1e-9))
        true = ordered[[max(0, int(np.ceil(target)) - 1), min(len(ordered) - 1, int(target))]]
        assert estimate.low <= true[0]
        assert true[1] <= estimate.high


EPSILON = st.floats(1e-4, 0.499)


def granted(pictures: list[Picture], epsilon: float, takers: list[int]) -> tuple[float, list[int]]:
    """All that may be granted: own parts, and the pool in equal shares to those who take one."""
    own = [own_part(epsilon, int(picture.weight)) for picture in pictures]
    all_ = pool(epsilon, int(sum(picture.weight for picture in pictures)))
    patience = [grant.patience for grant in own]
    for taker in takers:
        patience[taker] += all_.patience // len(takers)
    return sum(grant.allowance for grant in own) + all_.allowance, patience


@given(
    st.lists(any_picture, min_size=1, max_size=6), st.integers(1, 10**12), EPSILON, st.floats(0, 1),
    st.data(),
)  # fmt: skip
def test_within_budget_every_quantile_keeps_the_promise(
    pictures: list[Picture], scale: int, epsilon: float, q: float, data: st.DataObject
) -> None:
    spread = [Picture(np.arange(float(len(one.x))), one.below, one.upto) for one in pictures]
    pictures = [one.scaled(int(one.weight) * scale) for one in spread]
    places = st.integers(0, len(pictures) - 1)
    takers = sorted(data.draw(st.sets(places, min_size=1)))
    allowance, patience = granted(pictures, epsilon, takers)
    total = Total(pictures)
    assert Estimate(total, 0.5, allowance, np.array(patience, float)).rank_error <= epsilon
    assert Estimate(total, q, allowance, np.array(patience, float)).rank_error < 1.009 * epsilon


@pytest.mark.parametrize(("q", "part"), [(0.5, 1.0), (7 / 12, 1.00833), (5 / 12, 1.00833)])
def test_the_promise_is_used_up_where_the_sources_lie_apart(q: float, part: float) -> None:
    """So it is not kept by promising less than was said."""
    weight = 12_000_000
    low = Segments(np.array([-1.0, -1.0]), np.array([float(round(weight * q))])).picture
    high = Segments(np.array([1.0, 1.0]), np.array([weight - low.weight])).picture
    worst = 0.0
    for taker in (0, 1):
        allowance, patience = granted([low, high], 0.1, [taker])
        estimate = Estimate(Total([low, high]), q, allowance, np.array(patience, float))
        worst = max(worst, estimate.rank_error / 0.1)
    assert part - 1e-4 < worst <= part + 1e-4


@given(EPSILON, st.integers(0, 2**50))
def test_budgets_are_the_parts_of_epsilon_that_are_said_rounded_down(
    epsilon: float, weight: int
) -> None:
    ranks = Fraction(epsilon) * weight
    for grant, allowance, patience in (
        (own_part(epsilon, weight), Fraction(3, 10), Fraction(12, 10)),
        (pool(epsilon, weight), Fraction(3, 10), Fraction(2, 10)),
    ):
        kept_back = 1 - Fraction(2, 10**9)
        assert allowance * ranks * kept_back - Fraction(1, 16) <= grant.allowance
        assert grant.allowance <= allowance * ranks
        assert patience * ranks * kept_back - 1 <= grant.patience <= patience * ranks
        assert grant.allowance * 16 % 1 == grant.patience % 1 == 0


def test_grants_add_up_and_what_is_beyond_is_never_negative() -> None:
    one, two = Grant(1.5, 3), Grant(2.0, 1)
    assert one.plus(two) == (3.5, 4)
    assert one.beyond(two) == (0, 2)
    assert two.beyond(one) == (0.5, 0)
    assert one.plus(NO_GRANT) == one == one.beyond(NO_GRANT)


def test_a_shift_of_ranks_inside_a_climb_is_rounded_up() -> None:
    """Where a climb is an ulp below a whole rank, a difference of ranks loses that ulp."""
    digest = Digest()
    digest.add([0.0, 1.0, 1.0])
    picture = Segments(np.array([0.0, 0.0, 1.0]), np.array([1.0, 2.0])).picture
    below = Segments(np.array([0.0, np.nextafter(0.5, 0) * 2, 2.0]), np.array([1.0, 2.0])).picture
    assert rank_shift(digest.clusters, picture) == 2.0625
    ranks = below.rank(np.array([0.0, 1.0])).tolist()
    certified = Fraction(rank_shift(digest.clusters, below))
    assert certified >= max(Fraction(1) - Fraction(ranks[0]), Fraction(3) - Fraction(ranks[1]))


@given(any_picture, st.lists(st.sampled_from([-1e300, -1.0, 0.0, 0.5, 2.0, 3.0, 1e9]), min_size=1))
def test_what_a_batch_moves_is_never_less_than_is_said(
    picture: Picture, values: list[float]
) -> None:
    batch = np.array(values)
    exact = exact_shift(batch, picture)
    assert exact <= Fraction(batch_shift(batch, picture)) <= exact + Fraction(1, 8)


def exact_shift(batch: Floats, picture: Picture) -> Fraction:
    """The sup over all real x of | #(values <= x) - n F(x) |, at and just before each place."""
    factor = len(batch) / Fraction(picture.weight)
    gaps = [
        abs(
            (batch < x if strict else batch <= x).sum()
            - exact_rank(picture, x, strict=strict) * factor
        )
        for x in {*batch.tolist(), *picture.x.tolist()}
        for strict in (True, False)
    ]
    return max(map(Fraction, gaps))


def test_a_large_batch_is_looked_at_in_some_places_and_is_off_by_what_lies_between(
    rng: np.random.Generator,
) -> None:
    for size in (LOOKS, LOOKS + 1, 3 * LOOKS - 1, 5_000):
        batch = rng.integers(0, 50, size).astype(np.float64)
        picture = Segments(np.array([0.0, 20.0, 50.0]), np.array([10.0, 30.0])).picture
        exact = exact_shift(batch, picture)
        assert exact <= Fraction(batch_shift(batch, picture)) <= exact + size // LOOKS + 1
