"""The distribution: each share and its certificate, against exact fractions and exact multisets."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shared.distribution
from shared.digest import Digest
from shared.distribution import BY_X, MIDDLE, Distribution, Points, bends, places
from shared.ledger import Ledger
from shared.lines import between, share
from shared.picture import Picture, Segments, Total
from shared.rank_shift import ROUNDING, whole
from shared.values import Floats
from tests.exact import TALLY
from tests.sources import OTHERS_MAX, Sources
from tests.storm import Storm
from tests.streams import STREAMS
from tests.test_picture import CLOSE, any_picture, exact_total, points
from tests.test_rank_shift import exact_shift

SLACK = Fraction(1, 2**40)
ALL = 10**6


def jumps(values: Floats) -> Picture:
    """A picture of these values that is exact."""
    knots, counts = np.unique(values, return_counts=True)
    weights = np.zeros(2 * len(knots) - 1)
    weights[::2] = counts
    return Segments(np.repeat(knots, 2), weights).picture


def distribution(
    pictures: Sequence[Picture], allowance: float = 0.0, patience: Sequence[float] | None = None
) -> Distribution:
    return Distribution(Total(pictures), allowance, np.array(patience or [0.0] * len(pictures)))


def check_columns(told: Points, most: int) -> None:
    """What a plot takes for granted."""
    assert len({len(column) for column in told}) == 1
    assert 1 <= len(told.x) <= most
    assert (told.x[1:] > told.x[:-1]).all()
    assert (told.below <= told.upto).all()
    assert (told.upto[:-1] <= told.below[1:]).all()
    assert (told.below[0], told.upto[-1]) == (0, 1)
    assert ((told.rank_error >= 0) & (told.rank_error <= 1)).all()


# What a share is, and how wrong


def exact_share(
    pictures: Sequence[Picture], patience: Sequence[float], x: float, *, strict: bool
) -> tuple[Fraction, Fraction]:
    """P(x) / p, and the larger of the two sums of what is pending."""
    weight = sum(Fraction(picture.weight) for picture in pictures)
    told, over, under = (
        exact_total(list(pictures), x, strict=strict) / weight,
        Fraction(),
        Fraction(),
    )
    for picture, pending in zip(pictures, patience, strict=True):
        apart = exact_total([picture], x, strict=strict) / Fraction(picture.weight) - told
        over += Fraction(pending) * max(apart, Fraction(0))
        under += Fraction(pending) * max(-apart, Fraction(0))
    return told, max(over, under)


@given(st.lists(any_picture, min_size=1, max_size=4), st.data())
def test_a_point_says_what_the_theorem_says(pictures: list[Picture], data: st.DataObject) -> None:
    counts = st.lists(st.integers(0, 9), min_size=len(pictures), max_size=len(pictures))
    patience = list(map(float, data.draw(counts | st.just([0] * len(pictures)))))
    allowance = data.draw(st.integers(0, 40)) / 16
    told = distribution(pictures, allowance, patience).points(ALL)
    check_columns(told, ALL)
    assert told.x.tolist() == sorted({x for picture in pictures for x in picture.x.tolist()})
    weight = sum(Fraction(picture.weight) for picture in pictures)
    for x, below, upto, error in zip(*(column.tolist() for column in told), strict=True):
        most = Fraction(0)
        for said, strict in ((below, True), (upto, False)):
            exact, pending = exact_share(pictures, patience, x, strict=strict)
            off = abs(Fraction(said) - exact)
            assert off <= SLACK
            most = max(most, (Fraction(allowance) + pending) / weight + off)
        assert min(most, Fraction(1)) <= Fraction(error) <= most + SLACK


@given(st.lists(any_picture, min_size=1, max_size=3), st.data())
def test_no_share_of_any_values_is_further_off_than_is_said(
    pictures: list[Picture], data: st.DataObject
) -> None:
    """Whatever the pictures have to do with the values: what they are off by is known."""
    value = st.sampled_from([-1e300, -1.0, -1e-300, 0.0, 0.5, 1.0, 2.0, 1e9])
    given_, pending = [], []
    for picture in pictures:
        fewest = int(picture.weight)
        given_.append(np.array(data.draw(st.lists(value, min_size=fewest, max_size=fewest + 9))))
        pending.append(float(len(given_[-1]) - fewest))
    off = [exact_shift(one, picture) for one, picture in zip(given_, pictures, strict=True)]
    allowance = sum(float(np.ceil(float(shift) * 16 + 0.01) / 16) for shift in off)
    told = distribution(pictures, allowance, pending).points(ALL)
    check_columns(told, ALL)
    check_truth(told, np.sort(np.concatenate(given_)))


def check_truth(told: Points, ordered: Floats) -> None:
    """Nowhere further off than is said, in exact fractions where floats do not tell."""
    below, upto = ordered.searchsorted(told.x), ordered.searchsorted(told.x, "right")
    for said, true in ((told.below, below), (told.upto, upto)):
        kept = np.abs(true / len(ordered) - said) <= told.rank_error * (1 - 2.0**-40)
        for at in np.flatnonzero(~kept):
            off = abs(Fraction(int(true[at]), len(ordered)) - Fraction(said[at]))
            kept[at] = off <= Fraction(told.rank_error[at])
        assert TALLY.all(kept), (told.x[~kept], true[~kept], said[~kept])


def check_between(told: Points, ordered: Floats) -> None:
    """Where no knot lies between, shares and errors on the lines are as good as at their ends."""
    left, right = told.x[:-1], told.x[1:]
    for part in (0.1, 0.5, 0.9):
        x = between(left, right, np.array(part))
        inside = (x > left) & (x < right)
        way = share(x, left, right)
        height = told.upto[:-1] + way * (told.below[1:] - told.upto[:-1])
        error = told.rank_error[:-1] + way * (told.rank_error[1:] - told.rank_error[:-1])
        off = np.abs(ordered.searchsorted(x, "right") / len(ordered) - height)
        assert TALLY.all((off <= error + 1e-12)[inside])


def test_where_all_is_exact_nothing_is_off_and_that_is_said() -> None:
    told = distribution([jumps(np.array([1.0, 2.0])), jumps(np.array([2.0, 9.0]))]).points(ALL)
    assert told.x.tolist() == [1, 2, 9]
    assert told.below.tolist() == [0, 0.25, 0.75]
    assert told.upto.tolist() == [0.25, 0.75, 1]
    assert told.rank_error.tolist() == [0, 0, 0]


def test_a_third_is_no_float_and_so_it_is_off_by_a_rounding() -> None:
    third = distribution([jumps(np.array([1.0, 2.0, 3.0]))]).points(ALL)
    assert (third.rank_error > 0).tolist() == [True, True, True]
    assert third.rank_error.max() < 1e-12
    check_truth(third, np.array([1.0, 2.0, 3.0]))


def test_what_rounding_takes_from_a_certificate_is_added_to_it() -> None:
    """Where the share itself is a float, and what is off by it is none."""
    allowed = distribution([jumps(np.full(3, 7.0))], 1.0).points(ALL)
    assert Fraction(allowed.rank_error[0]) >= Fraction(1, 3)
    for few in range(1, 40):
        many = few + 1
        pictures = [jumps(np.repeat([1.0, 2.0], [one, few + many - one])) for one in (few, many)]
        for patience in ([1.0, 0.0], [0.0, 1.0]):
            told = distribution(pictures, 0.0, patience).points(ALL)
            assert told.upto[0] == 0.5
            off = (Fraction(many, few + many) - Fraction(1, 2)) / (2 * (few + many))
            assert off <= Fraction(told.rank_error[0]) <= off + SLACK


def test_of_thousands_of_sources_the_sums_are_off_by_no_more_than_rounding_is_said_to_be() -> None:
    """Were they added one after the other, these would be off by two dozen times as much."""
    climb, place = Segments(np.array([0.0, 10.0]), np.array([1.0])).picture, jumps(np.array([1.0]))
    told = distribution([climb] * 20_000 + [place]).points(ALL)
    exact = (20_000 * Fraction(0.1) + 1) / 20_001
    assert told.x.tolist() == [0, 1, 10]
    assert abs(Fraction(told.upto[1]) - exact) <= Fraction(ROUNDING) <= Fraction(told.rank_error[1])


def test_what_is_pending_costs_where_the_sources_lie_apart() -> None:
    low, high = jumps(np.full(100, -1.0)), jumps(np.full(100, 1.0))
    told = distribution([low, high], 0.0, [10.0, 20.0]).points(ALL)
    assert told.upto.tolist() == [0.5, 1]
    assert told.rank_error == pytest.approx([20 * 0.5 / 200, 20 * 0.5 / 200])
    alike = distribution([low, low], 0.0, [10.0, 20.0]).points(ALL)
    assert alike.rank_error.max() < 1e-12


def test_what_is_allowed_beyond_all_there_is_bounds_nothing() -> None:
    told = distribution([jumps(np.array([1.0, 2.0]))], 99.0).points(ALL)
    assert told.rank_error.tolist() == [1, 1]


@given(st.lists(any_picture, min_size=1, max_size=3), st.data())
def test_between_two_knots_the_line_between_their_errors_bounds_the_error(
    pictures: list[Picture], data: st.DataObject
) -> None:
    counts = st.lists(st.integers(0, 5), min_size=len(pictures), max_size=len(pictures))
    patience = list(map(float, data.draw(counts)))
    told = distribution(pictures, 0.0, patience).points(ALL)
    weight = sum(Fraction(picture.weight) for picture in pictures)
    for x in points(*pictures).tolist():
        at = int(told.x.searchsorted(x))
        if 0 < at < len(told.x) and x != told.x[at] and told.rank_error[at - 1 : at + 1].max() < 1:
            left, right = np.array(told.x[at - 1]), np.array(told.x[at])
            way = Fraction(float(share(np.array(x), left, right)))
            line = exact_between(told.rank_error, at, way)
            drawn = Fraction(told.upto[at - 1]) * (1 - way) + Fraction(told.below[at]) * way
            exact, pending = exact_share(pictures, patience, x, strict=False)
            assert abs(drawn - exact) <= SLACK
            assert pending / weight <= line + SLACK


def exact_between(column: Floats, at: int, way: Fraction) -> Fraction:
    return Fraction(column[at - 1]) * (1 - way) + Fraction(column[at]) * way


def test_however_few_places_are_evaluated_at_once_the_points_are_the_same(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [jumps(rng.normal(size=20)) for _ in range(5)]
    one = distribution(pictures, 1.0, [1.0, 2.0, 3.0, 4.0, 5.0])
    at_once = one.points(50)
    for cells in (1, 35):
        monkeypatch.setattr(shared.distribution, "CELLS", cells)
        for column, same in zip(one.points(50), at_once, strict=True):
            assert (column == same).all()


# Which places


def check_places(pictures: Sequence[Picture], most: int, slack: float = 0.0) -> None:
    """The guarantees that the head of `distribution.py` gives."""
    knots = np.unique(np.concatenate([picture.x for picture in pictures]))
    chosen = places(pictures, most)
    assert (chosen[1:] > chosen[:-1]).all()
    assert np.isin(chosen, knots).all()
    if len(knots) <= most:
        assert chosen.tolist() == knots.tolist()
        return
    assert len(chosen) <= most
    assert (chosen[0], chosen[-1]) == (knots[0], knots[-1])
    weight = sum(picture.weight for picture in pictures)
    only_jump = all((np.append(0, one.upto[:-1]) == one.below).all() for one in pictures)
    steps = most - 1 - most // BY_X
    bound = weight * ((1 if only_jump else 2) / steps + slack)
    check_lines(pictures, chosen, knots, bound)
    check_width(pictures, chosen, knots, most // BY_X)


def summed(pictures: Sequence[Picture], x: Floats) -> tuple[Floats, Floats]:
    both = [picture.ranks(x) for picture in pictures]
    below: Floats = np.sum([one for one, _ in both], axis=0)
    upto: Floats = np.sum([one for _, one in both], axis=0)
    return below, upto


def check_lines(pictures: Sequence[Picture], chosen: Floats, knots: Floats, bound: float) -> None:
    """No knot is further from the lines, on either side, than the bound; no larger jump is lost."""
    left_out = knots[~np.isin(knots, chosen)]
    below, upto = summed(pictures, left_out)
    starts, ends = summed(pictures, chosen)[1], summed(pictures, chosen)[0]
    at = chosen.searchsorted(left_out)
    way = share(left_out, chosen[at - 1], chosen[at])
    drawn = starts[at - 1] + (ends[at] - starts[at - 1]) * way
    assert (np.maximum(np.abs(drawn - below), np.abs(drawn - upto)) <= bound).all()
    assert (upto - below <= bound).all()


def check_width(pictures: Sequence[Picture], chosen: Floats, knots: Floats, by_x: int) -> None:
    """In the middle, knots that are left out between two places lie within one step of x."""
    at = knots.searchsorted(np.concatenate([picture.x for picture in pictures]))
    bent = np.bincount(at, np.concatenate([bends(picture) for picture in pictures])).cumsum()
    left, right = (float(knots[bent >= part * bent[-1]][0]) for part in MIDDLE)
    for one, next_ in pairwise(chosen.tolist()):
        middle = (knots > max(one, left)) & (knots < min(next_, right))
        if by_x > 1 and middle.any():
            first, last = knots[middle][[0, -1]].tolist()
            width = (Fraction(right) - Fraction(left)) / (by_x - 1)
            assert Fraction(last) - Fraction(first) <= width * (1 + Fraction(CLOSE))


@given(st.lists(any_picture, min_size=1, max_size=5), st.integers(2, 12))
def test_lines_between_the_places_are_as_close_to_the_sum_as_is_said(
    pictures: list[Picture], most: int
) -> None:
    check_places(pictures, most, slack=8 * CLOSE)


@pytest.mark.parametrize("name", STREAMS)
def test_of_any_stream_places_are_chosen_that_lose_nothing_a_plot_would_show(
    name: str, rng: np.random.Generator
) -> None:
    values = STREAMS[name](4_000, rng)
    rough, exact = [], []
    for source in range(8):
        digest = Digest(0.005)
        digest.add(values[source::8])
        rough.append(whole(digest.clusters, float(rng.choice([0.0, 4.0, 20.0])), 4096).picture)
        exact.append(jumps(values[source::8]))
    for most in (2, 3, 10, 50, 200):
        check_places(rough, most, slack=8 * CLOSE)
        check_places(exact, most)


def test_a_large_jump_among_thousands_of_knots_is_a_place(rng: np.random.Generator) -> None:
    values = np.concatenate((rng.normal(size=5_000), np.repeat([0.125, 70.0], 300), [80.0]))
    told = distribution([jumps(values)]).points(50)
    at = told.x.searchsorted([0.125, 70.0])
    assert told.x[at].tolist() == [0.125, 70.0]
    assert told.upto[at] - told.below[at] == pytest.approx(300 / 5_601)


# Against exact multisets


def check_distribution(ledger: Ledger, ordered: Floats, stream: str = "default") -> bool:
    """Whether more values are counted here than there."""
    found = ledger.distribution(stream)
    if found is None:
        assert not len(ordered)
        return False
    told, every = found.points(60), found.points(ALL)
    check_columns(told, 60)
    check_truth(told, ordered)
    bounded = bool((every.rank_error < 1).all())
    assert found.is_straight(every) == bounded
    assert found.is_straight(told) == (bounded and len(told.x) == len(every.x))
    if bounded:
        check_between(every, ordered)
    return bool(len(ordered) > found.total.weight)


def check_promise(sources: Sources) -> bool:
    """The same, of sources that keep within the budgets: then the certificate does."""
    found = sources.ledger.distribution("default")
    if found is not None:
        assert (found.points(60).rank_error < OTHERS_MAX * sources.epsilon).all()
    return check_distribution(sources.ledger, sources.truth())


def log_uniform(n: int, rng: np.random.Generator) -> Floats:
    return rng.choice([-1.0, 1.0], size=n) * 10.0 ** rng.uniform(-300, 300, size=n)


ALL_STREAMS = STREAMS | {"log-uniform": log_uniform}


@pytest.mark.parametrize("name", ALL_STREAMS)
@pytest.mark.parametrize("count", [1, 8])
def test_no_share_is_ever_further_off_than_its_certificate(
    name: str, count: int, rng: np.random.Generator
) -> None:
    """Of sources that grow batch by batch, with deltas and receipts on their way."""
    values = ALL_STREAMS[name](6_000, rng)
    sources = Sources(0.1, rng, delay=count - 1)
    check_promise(sources)
    pending = 0
    for at in range(0, len(values), 100):
        batch = values[at : at + 100]
        for one in range(count):
            if len(part := batch[one::count]):
                sources.add(one, part)
        pending += check_promise(sources)
    assert pending > 3, "nothing was ever pending: nothing was tried"


def test_when_one_of_two_islands_grows_the_shares_stay_within_what_is_said(
    rng: np.random.Generator,
) -> None:
    sources, pending = Sources(0.1, rng, delay=3), 0
    for at in range(120):
        for one in range(8):
            if at < 40 or one >= 4:
                sources.add(one, rng.normal(-1.0 if one < 4 else 1.0, 0.01, size=10))
        pending += check_promise(sources)
    assert pending > 10


def test_of_one_value_and_of_two_the_distribution_is_exact(rng: np.random.Generator) -> None:
    sources = Sources(0.1, rng)
    assert sources.ledger.distribution("default") is None
    sources.add(0, np.array([3.0]))
    found = sources.ledger.distribution("default")
    assert found is not None
    assert [column.tolist() for column in found.points(2)] == [[3], [0], [1], [0]]
    sources.add(1, np.array([-3.0]))
    found = sources.ledger.distribution("default")
    assert found is not None
    assert [one.tolist() for one in found.points(2)] == [[-3, 3], [0, 0.5], [0.5, 1], [0, 0]]
    check_promise(sources)


class StormOfShares(Storm):
    """Where the plain one looks at quantiles, this one looks at shares."""

    def _check_answers(self, stream: str, truth: Floats) -> None:
        answer = self._ledger.answer(stream=stream, now=self._clock.show(self.time))
        if answer.complete:
            self.seen["shares looked at"] += 1
            self.seen["more values than told"] += check_distribution(self._ledger, truth, stream)


def test_in_a_storm_too_no_share_is_further_off(pytestconfig: pytest.Config) -> None:
    seen, first = Counter[str](), pytestconfig.getoption("--seed")
    for seed in range(first, first + 8):
        storm = StormOfShares(seed)
        try:
            storm.run()
        except Exception as error:
            error.add_note(f"in storm {seed}, after {storm.time:.1f} s")
            raise
        seen.update(storm.seen)
    assert min(seen["shares looked at"], seen["more values than told"]) > 10
