"""Pictures and their sum, held against exact fractions."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ledger import Ledger
from shared.picture import NO_SEGMENTS, NOTHING, Picture, Segments, Total
from shared.protocol import NO_MARK, Cause, Delta, Form, Source, pack_delta
from shared.values import Floats
from tests.exact import TALLY

TINY, HUGE = 5e-324, 1.79e308
PLACES = [-HUGE, -1e300, -1.0, -1e-300, -TINY, 0.0, TINY, 3 * TINY, 1e-300, 1.0, 1.5, 1e300, HUGE]
KNOT = st.sampled_from(PLACES) | st.integers(-4, 4).map(float)
CLOSE = 2.0**-50  # of the weight: a few roundings inside a climb


@st.composite
def any_segments(draw: st.DrawFn, most: int = 6) -> Segments:
    places = sorted(draw(st.sets(KNOT, min_size=1, max_size=most)))
    twice = [len(places) == 1 or draw(st.booleans()) for _ in places]
    knots = np.repeat(places, [1 + one for one in twice])
    few = len(knots) - 1
    weights = draw(st.lists(st.integers(0, 7), min_size=few, max_size=few))
    weights[-1] += 1
    return Segments(knots, np.array(weights, dtype=np.float64))


any_picture = any_segments().map(lambda segments: segments.picture)


def exact_rank(picture: Picture, x: float, *, strict: bool) -> Fraction:
    """Slowly: what the docstring says a picture is."""
    before = Fraction(0)
    start: float | None = None
    for knot, below, upto in zip(
        picture.x.tolist(), picture.below.tolist(), picture.upto.tolist(), strict=True
    ):
        if x < knot or (x == knot and strict):
            if start is None or x == knot:
                return Fraction(below) if x == knot else before
            way = (Fraction(x) - Fraction(start)) / (Fraction(knot) - Fraction(start))
            return before + (Fraction(below) - before) * way
        start, before = knot, Fraction(upto)
    return before


def points(*pictures: Picture) -> Floats:
    x = np.concatenate([[-HUGE, 0.3, HUGE], *(picture.x for picture in pictures)])
    x = np.concatenate((x, x[:-1] / 2 + x[1:] / 2))
    with np.errstate(over="ignore"):
        x = np.concatenate((x, np.nextafter(x, -np.inf), np.nextafter(x, np.inf)))
    return np.unique(x[np.isfinite(x)])


def check_ranks(picture: Picture, slack: float = CLOSE) -> None:
    x = points(picture)
    for strict, ranks in ((True, picture.rank_below(x)), (False, picture.rank(x))):
        assert (ranks[1:] >= ranks[:-1]).all(), "the ranks decrease"
        exact = [exact_rank(picture, one, strict=strict) for one in x.tolist()]
        off = np.array([float(abs(Fraction(a) - b)) for a, b in zip(ranks, exact, strict=True)])
        assert TALLY.all(off <= slack * picture.weight)
        if not strict or (picture.below % 1 == 0).all():  # the end of a climb may be an ulp off
            assert (off[np.isin(x, picture.x)] == 0).all(), "a knot has another rank"
    assert (picture.rank_below(x) <= picture.rank(x)).all()
    assert picture.rank(np.array([-np.inf, np.inf])).tolist() == [0, picture.weight]


@given(any_segments())
def test_segments_travel_as_a_picture_with_their_weight(segments: Segments) -> None:
    picture = segments.picture
    assert picture.weight == segments.weight == segments.weights.sum()
    assert (picture.x[1:] > picture.x[:-1]).all()
    assert set(picture.x) == set(segments.knots)
    before, after = segments.weights.cumsum() - segments.weights, segments.weights.cumsum()
    jumps = segments.knots[1:] == segments.knots[:-1]
    for knot, low, high in zip(segments.knots[1:][jumps], before[jumps], after[jumps], strict=True):
        assert (picture.rank_below(knot), picture.rank(knot)) == (low, high)
    for knot, low, high in zip(segments.knots, [0, *after], [*after, after[-1]], strict=True):
        assert low in (picture.rank(knot), picture.rank_below(knot)) or low == high


@given(any_picture)
def test_ranks_are_what_the_lines_say_and_never_decrease(picture: Picture) -> None:
    check_ranks(picture)


@given(any_picture, st.integers(1, 2**53 - 1))
def test_a_scaled_picture_has_the_weight_exactly_and_the_same_shape(
    picture: Picture, weight: int
) -> None:
    scaled = picture.scaled(weight)
    assert scaled.weight == weight
    check_ranks(scaled)
    x = points(picture)
    for mine, theirs in ((scaled.rank, picture.rank), (scaled.rank_below, picture.rank_below)):
        off = mine(x) - theirs(x) / picture.weight * weight
        assert (abs(off) <= CLOSE * weight).all()


@given(any_picture)
def test_a_picture_scaled_to_its_own_weight_is_itself(picture: Picture) -> None:
    scaled = picture.scaled(int(picture.weight))
    assert (scaled.below == picture.below).all()
    assert (scaled.upto == picture.upto).all()


@given(any_picture, any_picture, any_picture)
def test_pictures_add_up(one: Picture, two: Picture, three: Picture) -> None:
    both = one.plus(two)
    assert both.weight == one.weight + two.weight
    check_ranks(both)
    at = both.x
    assert set(at) == set(one.x) | set(two.x)
    assert (both.rank(at) == one.rank(at) + two.rank(at)).all()
    assert (both.rank_below(at) == one.rank_below(at) + two.rank_below(at)).all()
    left, right = both.plus(three), one.plus(two.plus(three))
    assert left.weight == right.weight
    x = points(left)
    assert (abs(left.rank(x) - right.rank(x)) <= 4 * CLOSE * left.weight).all()
    assert (abs(left.rank(x) - one.rank(x) - two.rank(x) - three.rank(x)) <= CLOSE * 50).all()


@given(any_picture)
def test_nothing_is_neutral(picture: Picture) -> None:
    assert NOTHING.plus(picture) is picture
    assert picture.plus(NOTHING) is picture


def test_nothing_has_no_ranks_and_no_weight() -> None:
    assert NO_SEGMENTS.picture is NOTHING
    assert (NOTHING.weight, len(NOTHING), NO_SEGMENTS.weight, len(NO_SEGMENTS)) == (0, 0, 0, 0)
    assert NOTHING.rank(np.array([-1.0, np.inf])).tolist() == [0, 0]
    assert NOTHING.rank_below(np.array(0.0)) == 0
    assert repr(NOTHING) == "<picture of 0 values with 0 knots>"


def test_only_jumps_of_whole_weights_have_whole_ranks_everywhere() -> None:
    jumps = Segments(np.array([1.0, 1, 2, 2]), np.array([3.0, 0, 2])).picture
    assert jumps.whole
    assert not jumps.scaled(7).whole
    assert not Segments(np.array([1.0, 2]), np.array([3.0])).picture.whole
    assert NOTHING.whole


@given(st.lists(any_picture, min_size=1, max_size=5))
def test_in_a_total_each_picture_has_its_own_ranks_to_the_last_bit(
    pictures: list[Picture],
) -> None:
    total = Total(pictures)
    assert (len(total), total.weight) == (len(pictures), sum(p.weight for p in pictures))
    assert total.whole == all(picture.whole for picture in pictures)
    for x in [*points(*pictures).tolist(), -np.inf, np.inf]:
        at = np.array(x)
        assert total.ranks(x).tolist() == [picture.rank(at) for picture in pictures]
        assert total.ranks_below(x).tolist() == [picture.rank_below(at) for picture in pictures]


def exact_total(pictures: list[Picture], x: float, *, strict: bool) -> Fraction:
    return sum((exact_rank(one, x, strict=strict) for one in pictures), Fraction(0))


def crowded(knots: list[float], m: float) -> bool:
    """Whether the way to a neighbouring knot has so few floats that each is a share of its rank."""
    at = knots.index(m)
    with np.errstate(over="ignore"):  # what is too long for a float has many
        ways = np.abs(np.diff(knots[max(0, at - 1) : at + 2]))
    return bool((ways < np.spacing(abs(m)) / (8 * CLOSE)).any())


def check_value(pictures: list[Picture], rank: float) -> None:
    """P(m-) <= rank <= P(m), and the middle of the flat stretch if there is one."""
    total = Total(pictures)
    m, slack = total.value(rank), Fraction(4 * CLOSE * total.weight)
    knots = np.unique(np.concatenate([picture.x for picture in pictures])).tolist()
    assert knots[0] <= m <= knots[-1]
    if m in knots and not crowded(knots, m):
        slack = Fraction(0) if all(picture.whole for picture in pictures) else slack
        assert exact_total(pictures, m, strict=True) <= rank + slack
        assert exact_total(pictures, m, strict=False) >= rank - slack
    else:  # a value cannot be told more exactly than its neighbours can
        before, after = np.nextafter(m, -np.inf), np.nextafter(m, np.inf)
        assert exact_total(pictures, before, strict=False) <= rank + slack
        assert exact_total(pictures, after, strict=False) >= rank - slack
    reached = [knot for knot in knots if exact_total(pictures, knot, strict=False) == rank]
    left = [knot for knot in knots if exact_total(pictures, knot, strict=True) == rank]
    if reached and left and reached[0] < left[-1]:
        middle = (Fraction(reached[0]) + Fraction(left[-1])) / 2
        assert abs(Fraction(m) - middle) <= abs(middle) / 2**52 + Fraction(TINY)


@given(st.lists(any_picture, min_size=1, max_size=4), st.data())
def test_the_value_of_a_rank_has_that_rank(pictures: list[Picture], data: st.DataObject) -> None:
    weight = int(sum(picture.weight for picture in pictures))
    check_value(pictures, data.draw(st.integers(0, weight)))
    check_value(pictures, data.draw(st.floats(0, weight)))


@given(any_picture, st.data())
def test_the_value_of_a_rank_is_the_same_in_one_picture_and_in_a_total_of_it(
    picture: Picture, data: st.DataObject
) -> None:
    total, ranks = Total([picture]), st.floats(0, picture.weight)
    whole = st.integers(0, 2 * int(picture.weight)).map(lambda twice: twice / 2)
    for rank in [0.0, picture.weight / 2, picture.weight, *data.draw(st.lists(ranks | whole))]:
        assert picture.value(rank) == total.value(rank)


def test_where_a_climb_has_but_one_float_inside_the_nearest_value_is_told() -> None:
    climb = Segments(np.array([-TINY, TINY]), np.array([3.0])).picture
    for rank in (0, 1, 1.5, 2, 3):
        check_value([climb], rank)
        assert climb.value(rank) == Total([climb]).value(rank)


def test_a_climb_longer_than_any_float_has_its_values_where_they_are() -> None:
    climb = Segments(np.array([-1.7e308, 1.7e308]), np.array([3.0])).picture
    for rank in (0, 1, 1.5, 2, 3):
        check_value([climb], rank)


@given(st.lists(any_picture, min_size=1, max_size=4))
def test_the_first_rank_is_the_minimum_and_the_last_the_maximum(pictures: list[Picture]) -> None:
    """Or the middle of what is flat before the first value or after the last."""
    total = Total(pictures)
    for rank in (0.0, total.weight):
        check_value(pictures, rank)
    start, end = np.array([0.0, 1.0]), np.array([0.0, 2.0])
    plain = [*pictures, Picture(np.array([-HUGE, HUGE]), start, end)]
    assert Total(plain).value(0) == -HUGE
    assert Total(plain).value(Total(plain).weight) == HUGE


def test_of_an_even_count_the_median_is_between_the_two_in_the_middle() -> None:
    def jump(x: float) -> Picture:
        return Segments(np.array([x, x]), np.array([1.0])).picture

    assert Total([jump(1.0), jump(2.0), jump(4.0), jump(9.0)]).value(2) == 3
    assert Total([jump(1e-300), jump(1e300)]).value(1) == 5e299
    assert Total([jump(-HUGE), jump(HUGE)]).value(1) == 0
    assert Total([jump(1e-300), jump(1e300)]).value(0.5) == 1e-300
    assert Total([jump(1e-300), jump(1e300), jump(1e300)]).value(1.5) == 1e300


def plus(offset: float) -> Callable[[Floats], float]:
    return lambda ranks: float(ranks.sum()) + offset


@pytest.mark.parametrize(
    ("offset", "passed"),
    [
        (1.0, (-np.inf, -np.inf)),  # positive before all values
        (0.0, (1.0, 1.0)),
        (-1.0, (2.0, 2.0)),  # inside the climb
        (-2.0, (3.0, 4.0)),  # flat
        (-3.0, (4.0, 4.0)),  # inside the jump
        (-4.0, (4.0, 4.0)),
        (-4.5, (np.inf, np.inf)),  # negative after all
    ],
)
def test_where_a_height_passes_zero(offset: float, passed: tuple[float, float]) -> None:
    total = Total([Segments(np.array([1.0, 3, 4, 4]), np.array([2.0, 0, 2])).picture])
    assert total.passes_zero(plus(offset)) == passed


def test_thousands_of_pictures_have_the_value_that_their_jumps_sorted_have(
    rng: np.random.Generator,
) -> None:
    values = rng.normal(size=(3_000, 3))
    values.sort(axis=1)
    weights = np.array([1.0, 0, 1, 0, 1])
    total = Total([Segments(np.repeat(row, 2), weights).picture for row in values])
    ordered = np.sort(values, axis=None)
    for rank in (0.5, 1.5, 4_499.5, 4_500.5, 8_999.5):
        assert total.value(rank) == ordered[int(rank)]
    assert total.value(4_500) == (ordered[4_499] + ordered[4_500]) / 2


def a_row(number: int, segments: Segments, shift: float) -> bytes:
    return pack_delta(
        Delta(
            source=Source("w", "default", number), base=NO_MARK, since=0, upto=segments.weight,
            form=Form.WHOLE, segments=segments, shift=shift,
            digest_error=1e-6, ledger=1, cause=Cause.SHIFT,
        )
    )  # fmt: skip


def test_the_order_in_which_rows_came_never_changes_the_answer_by_one_bit(
    rng: np.random.Generator,
) -> None:
    rows = []
    for number in range(40):
        knots = np.sort(rng.normal(size=9) * 10.0 ** rng.integers(-300, 300))
        segments = Segments(knots, rng.integers(1, 1_000, size=8).astype(np.float64))
        rows.append(a_row(number, segments, rng.integers(0, 99) / 16))

    def answers(ledger: Ledger) -> list[tuple[float, ...]]:
        estimates = [ledger.answer(q, now=0.0).estimate for q in (0.0, 0.1, 0.5, 0.99, 1.0)]
        return [(e.value, e.low, e.high, e.rank_error) for e in estimates if e]

    first = Ledger(0.05, number=1, now=0.0)
    for row in rows:
        first.receive(row, now=0.0)
    assert len(answers(first)) == 5
    held = list(first.rows)
    for _ in range(5):
        shuffled = [held[at] for at in rng.permutation(len(held))]
        assert answers(Ledger(0.05, number=1, now=0.0, rows=shuffled)) == answers(first)
        late = Ledger(0.05, number=1, now=0.0)  # where grants differ, but not the values
        for at in rng.permutation(len(rows)):
            late.receive(rows[at], now=0.0)
        assert [a[0] for a in answers(late)] == [a[0] for a in answers(first)]
