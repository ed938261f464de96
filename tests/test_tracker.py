"""MedianTracker and simulate(): what users hold in their hands."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ledger import Ledger
from shared.protocol import EPSILON_MIN, Refusal
from shared.rows import BrokenInvariant
from shared.tracker import MedianTracker, simulate
from shared.values import BadValue, Floats
from tests.exact import TALLY, rank_errors
from tests.streams import STREAMS


def true_rank_error(value: float, values: Floats, q: float = 0.5) -> float:
    ordered = np.sort(values)
    targets = np.array([q * len(ordered)])
    return float(rank_errors(np.array([value]), ordered, targets)[0] / len(ordered))


def test_before_the_first_value_there_is_no_median() -> None:
    tracker = MedianTracker()
    assert tracker.estimate_median() is None
    assert tracker.quantile(0.9) is None
    assert tracker.rank_error == 0


def test_few_values_are_exact() -> None:
    tracker = MedianTracker(epsilon=0.01)
    for node, value in [("a", 3), ("b", 1.5), ("a", 10), (("any", "key"), -2)]:
        tracker.add_value(node, value)
    assert tracker.estimate_median() == (1.5 + 3) / 2
    assert (tracker.quantile(0), tracker.quantile(1), tracker.rank_error) == (-2, 10, 0)
    assert tracker.local_median("a") == 6.5


@pytest.mark.parametrize("epsilon", [0.1, 0.01])
@pytest.mark.parametrize("name", ["calm", "two_islands", "pareto", "sorted", "five_values"])
def test_the_median_is_within_its_certificate_and_that_within_epsilon(
    name: str, epsilon: float, rng: np.random.Generator
) -> None:
    values, tracker = STREAMS[name](30_000, rng), MedianTracker(epsilon)
    for end in range(300, len(values) + 1, 300):
        tracker.add_values(end // 300 % 7, values[end - 300 : end])
        median = tracker.estimate_median()
        assert median is not None
        error = true_rank_error(median, values[:end])
        assert TALLY.all(np.array(error <= tracker.rank_error <= epsilon))


def test_other_quantiles_bring_their_own_certificate(rng: np.random.Generator) -> None:
    tracker, values = MedianTracker(0.05), rng.normal(size=20_000)
    for node, part in enumerate(np.split(values, 20)):
        tracker.add_values(node % 3, part)
    for q in (0.01, 0.25, 0.9, 0.99):
        estimate = tracker.estimate(q)
        assert estimate is not None
        assert true_rank_error(estimate.value, values, q) <= estimate.rank_error <= 0.0505
        assert estimate.low <= np.quantile(values, q) <= estimate.high
        assert tracker.quantile(q) == estimate.value


def test_a_removed_node_stays_counted_and_may_come_again() -> None:
    tracker = MedianTracker(0.01)
    tracker.add_values("a", [1.0, 2.0, 3.0])
    tracker.add_value("b", 10.0)
    tracker.remove_node("a")
    assert tracker.estimate_median() == 2.5
    with pytest.raises(KeyError, match="no node 'a'"):
        tracker.local_median("a")
    tracker.add_value("a", 11.0)
    assert tracker.estimate_median() == 3.0
    assert tracker.local_median("a") == 11.0


def test_what_is_not_a_value_is_refused_and_changes_nothing() -> None:
    tracker = MedianTracker()
    with pytest.raises(BadValue, match="value 1 is NaN"):
        tracker.add_values("a", [1.0, float("nan")])
    assert tracker.estimate_median() is None
    with pytest.raises(KeyError, match="no node 'a'"):
        tracker.remove_node("a")


@pytest.mark.parametrize("epsilon", [0.0, 0.5, EPSILON_MIN / 2, float("nan")])
def test_an_epsilon_beyond_its_limits_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon must be"):
        MedianTracker(epsilon)


@given(st.floats(EPSILON_MIN, 0.4999))
def test_any_epsilon_works(epsilon: float) -> None:
    tracker = MedianTracker(epsilon)
    tracker.add_values("a", [1.0, 2.0, 4.0])
    assert tracker.estimate_median() == 2.0
    assert tracker.epsilon == epsilon


@pytest.mark.parametrize("epsilon", ["0.05", None, True, [0.05], np.complex128(0.05)])
def test_an_epsilon_that_is_no_number_is_refused(epsilon: Any) -> None:
    with pytest.raises(ValueError, match="epsilon must be a number"):
        MedianTracker(epsilon)


@pytest.mark.parametrize("number", [10**400, -(10**400)], ids=["large", "small"])
def test_a_number_beyond_all_floats_is_refused_in_words(number: int) -> None:
    with pytest.raises(ValueError, match="epsilon must be a number that"):
        MedianTracker(number)
    with pytest.raises(ValueError, match="q must be a number that"):
        MedianTracker().quantile(number)
    with pytest.raises(ValueError, match="epsilon must be a number that"):
        simulate(1, number, [[1.0]], [1])


@pytest.mark.parametrize("q", ["0.5", None, True, [0.5], 2, -1, float("nan")])
def test_a_q_that_is_none_is_refused_even_while_there_is_nothing(q: Any) -> None:
    tracker = MedianTracker()
    for _ in range(2):
        with pytest.raises(ValueError, match="q must be"):
            tracker.quantile(q)
        tracker.add_value("a", 1.0)


def test_its_smallest_epsilon_works() -> None:
    for spread in (1.0, 300.0):
        tracker = MedianTracker(EPSILON_MIN)
        for node, size in enumerate((1001, 20_000, 50_000)):
            tracker.add_values(node, 10 ** np.linspace(-spread, spread, size))
            assert tracker.rank_error <= EPSILON_MIN


def test_it_says_what_it_has_said(rng: np.random.Generator) -> None:
    tracker = MedianTracker(0.05)
    for _ in range(200):
        for node in range(4):
            tracker.add_values(node, rng.normal(size=1_000))
    said = tracker.communication
    assert said.raw_bytes == 8 * 800_000
    assert 40 < said.bytes / said.deltas < 400
    assert said.bytes < 0.01 * said.raw_bytes
    before = said.deltas
    tracker.add_value(0, 0.0)
    assert said.deltas == before, "one more value among so many is not worth a word"
    assert repr(tracker) == "<MedianTracker of 4 nodes, epsilon 0.05>"


def test_thousands_of_nodes(rng: np.random.Generator) -> None:
    tracker, values = MedianTracker(0.05), rng.normal(size=3_000)
    for node, value in enumerate(values):
        tracker.add_value(node, float(value))
    median = tracker.estimate_median()
    assert median is not None
    assert true_rank_error(median, values) <= tracker.rank_error <= 0.05


def test_a_ledger_that_refuses_its_own_nodes_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "receive", lambda *_, **__: Refusal("no", "a sentence"))
    with pytest.raises(BrokenInvariant, match="a sentence"):
        MedianTracker().add_value(1, 1.0)


# simulate


def arrived(streams: Sequence[Floats], arrival: str) -> Floats:
    """The dumb twin: what has arrived when, one by one."""
    if arrival == "sequential":
        return np.concatenate(streams)
    longest = max(map(len, streams))
    return np.array([one[at] for at in range(longest) for one in streams if at < len(one)])


@pytest.mark.parametrize("arrival", ["round_robin", "sequential"])
@pytest.mark.parametrize("epsilon", [0.1, 0.01])
def test_each_answer_is_within_epsilon(
    arrival: Any, epsilon: float, rng: np.random.Generator
) -> None:
    streams = [rng.normal(node, 1 + node, size=rng.integers(1, 900)) for node in range(9)]
    values = arrived(streams, arrival)
    queries = [*rng.integers(1, len(values) + 1, size=60).tolist(), 1, len(values), 1]
    answers = simulate(9, epsilon, streams, queries, arrival)
    for t, answer in zip(queries, answers, strict=True):
        assert TALLY.all(np.array(true_rank_error(answer, values[:t]) <= epsilon))
    assert answers[-1] == answers[-3] == values[0]


def test_lists_of_integers_will_do() -> None:
    assert simulate(2, 0.01, [[1, 2, 3], [10, 20]], [1, 2, 5]) == [1.0, 5.5, 3.0]
    assert simulate(2, 0.01, [[1, 2, 3], [10, 20]], [2], arrival="sequential") == [1.5]
    assert simulate(1, 0.01, [[7]], []) == []


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((3, 0.1, [[1], [2]], [1]), "N is 3, but there are 2 data_streams"),
        ((0, 0.1, [], [1]), "N must be a whole number of at least 1, not 0"),
        ((2.0, 0.1, [[1], [2]], [1]), "N must be a whole number of at least 1, not 2.0"),
        (("2", 0.1, [[1], [2]], [1]), "N must be a whole number of at least 1, not '2'"),
        ((1, 0.1, iter([[1]]), [1]), "data_streams must be a list"),
        ((1, 0.1, {0: [1]}, [1]), "data_streams must be a list"),
        ((1, 0.1, b"1", [1]), "data_streams must be a list"),
        ((1, 0.1, [5], [1]), r"data_streams\[0\] must be a list"),
        ((1, 0.1, [[1, 2]], iter([1])), "queries must be a list"),
        ((1, 0.1, [[1, 2]], {1}), "queries must be a list"),
        ((1, 0.1, [[1, 2]], 1), "queries must be a list"),
        ((1, 0.5, [[1]], [1]), "epsilon must be"),
        ((1, 0.0, [[1]], []), "epsilon must be"),
        ((1, 0.1, [[]], [1]), r"data_streams\[0\] is empty"),
        ((2, 0.1, [[1], [float("inf")]], [1]), r"data_streams\[1\]: value 0 is infinite"),
        ((1, 0.1, [[1, True]], [1]), r"data_streams\[0\]: value 1 is a boolean"),
        ((1, 0.1, [[1, 2]], [1, 3]), r"queries\[1\] must be a whole number from 1 to 2, not 3"),
        ((1, 0.1, [[1, 2]], [0]), r"queries\[0\]"),
        ((1, 0.1, [[1, 2]], [1.5]), r"queries\[0\]"),
        ((1, 0.1, [[1, 2]], [True]), r"queries\[0\]"),
        ((1, 0.1, [[1, 2]], [1], "random"), "arrival is 'round_robin' or 'sequential'"),
    ],
)
def test_what_makes_no_sense_is_named(arguments: tuple[Any, ...], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        simulate(*arguments)
