"""Straight lines between float64 numbers: in order, within their ends, whatever the numbers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.lines import between, midpoint, share
from shared.values import Floats

TINY, HUGE = 5e-324, 1.79e308
EXTREMES = [-HUGE, -1e300, -1.0, -1e-300, -TINY, 0.0, TINY, 2 * TINY, 1e-300, 1.0, 1e300, HUGE]
FINITE = st.sampled_from(EXTREMES) | st.floats(allow_nan=False, allow_infinity=False)
ENDS = st.tuples(FINITE, FINITE).map(sorted)
SHARES = np.sort(np.append(np.linspace(0, 1, 41), [TINY, 1e-300, 1e-16, 1 - 1e-16, 1 / 3]))
ULPS = Fraction(4, 2**52)


def around(left: float, right: float, some: list[float]) -> Floats:
    """In order: the ends, their neighbours, what is between and beyond, and infinity."""
    inside = [left / 2 + right / 2, left / 3 + right / 3 * 2, *some]
    with np.errstate(over="ignore"):
        beside = [np.nextafter(end, to) for end in (left, right) for to in (-np.inf, np.inf)]
    return np.sort(np.array([left, right, -np.inf, np.inf, *inside, *beside]))


def shares(x: Floats, left: float, right: float) -> Floats:
    return share(x, np.full_like(x, left), np.full_like(x, right))


def betweens(left: float, right: float) -> Floats:
    return between(np.full_like(SHARES, left), np.full_like(SHARES, right), SHARES)


@given(ENDS, st.lists(FINITE, max_size=5))
@example([-HUGE, HUGE], [0.0])
@example([0.0, TINY], [])
def test_a_share_is_the_part_of_the_way_that_is_done(ends: list[float], some: list[float]) -> None:
    left, right = ends
    x = around(left, right, some)
    got = shares(x, left, right)
    assert (got[1:] >= got[:-1]).all()
    if left == right:
        assert (got == 0).all()
        return
    assert (got[x <= left] == 0).all()
    assert (got[x >= right] == 1).all()
    inside = (x > left) & (x < right)
    for one, part in zip(x[inside].tolist(), got[inside].tolist(), strict=True):
        exact = (Fraction(one) - Fraction(left)) / (Fraction(right) - Fraction(left))
        assert abs(Fraction(part) - exact) <= ULPS * exact + Fraction(TINY)


@given(st.lists(st.tuples(FINITE, FINITE, FINITE), min_size=1, max_size=6))
@example([(TINY, 0.0, TINY), (0.0, -HUGE, HUGE)])
def test_a_share_is_the_same_whatever_else_is_asked_at_once(
    asked: list[tuple[float, float, float]],
) -> None:
    x, left, right = np.array([(x, *sorted(ends)) for x, *ends in asked]).T
    alone = [share(x[[at]], left[[at]], right[[at]])[0] for at in range(len(x))]
    assert share(x, left, right).tolist() == alone


@given(ENDS)
@example([-HUGE, HUGE])
@example([-HUGE, HUGE / 2])
@example([1e-300, 1e300])
def test_what_is_between_keeps_the_order_and_both_ends(ends: list[float]) -> None:
    left, right = ends
    values = betweens(left, right)
    assert (values[1:] >= values[:-1]).all()
    assert (values[0], values[-1]) == (left, right)
    largest = max(abs(Fraction(left)), abs(Fraction(right)))
    for part, value in zip(SHARES.tolist(), values.tolist(), strict=True):
        exact = Fraction(left) * (1 - Fraction(part)) + Fraction(right) * Fraction(part)
        assert abs(Fraction(value) - exact) <= ULPS * largest + 2 * Fraction(TINY)


@given(ENDS, st.lists(FINITE, max_size=5))
def test_neighbouring_shares_are_in_order_too(ends: list[float], some: list[float]) -> None:
    left, right = ends
    parts = np.array([0.25, 0.5, 1 / 3, 1 - 1e-9, *np.clip(np.abs(some), 0, 1)])
    parts = np.sort(np.concatenate((parts, np.nextafter(parts, 0), np.nextafter(parts, 1))))
    values = between(np.full_like(parts, left), np.full_like(parts, right), parts)
    assert (values[1:] >= values[:-1]).all()
    assert ((left <= values) & (values <= right)).all()


@given(ENDS)
@example([HUGE, HUGE])
@example([TINY, TINY])
@example([-HUGE, HUGE])
def test_a_midpoint_is_the_nearest_float_to_the_middle(ends: list[float]) -> None:
    left, right = ends
    middle = float(midpoint(np.array(left), np.array(right)))
    assert left <= middle <= right
    exact = (Fraction(left) + Fraction(right)) / 2
    assert abs(Fraction(middle) - exact) <= abs(exact) * Fraction(2, 2**53) + Fraction(TINY) / 2


@pytest.mark.parametrize("end", [-np.inf, np.inf])
def test_the_midpoint_of_nothing_but_infinity_is_infinity(end: float) -> None:
    assert midpoint(np.array(end), np.array(end)) == end


def test_arithmetic_that_overflows_is_quiet_whatever_the_caller_set() -> None:
    with np.errstate(all="raise"):
        ends, to = np.array([-HUGE, 1e-300]), np.array([HUGE, 1e300])
        assert share(np.array([0.0, 1e300]), ends, to).tolist() == [0.5, 1.0]
        assert between(ends, to, np.array([0.5, 1.0])).tolist() == [0.0, 1e300]
        assert midpoint(np.full(2, HUGE), np.full(2, HUGE)).tolist() == [HUGE, HUGE]
