"""Each value goes to exactly one worker, in order, and to the same one however it is cut."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.pacer import Deal, Split, by_hash, due_s, turns
from loadgen.scenarios import SCENARIOS, Floats, drawn

SPLITS = list(Split)
WORKERS = [1, 2, 3, 4, 5, 7, 8, 16, 17, 64]
MANY = 40_000


def cut(values: Floats, size: int) -> list[Floats]:
    return [values[at : at + size] for at in range(0, len(values), size)]


def dealt(chunks: Iterable[Floats], deal: Deal, workers: int, batch: int = 10) -> list[list[float]]:
    """What each worker receives, in order."""
    received: list[list[float]] = [[] for _ in range(workers)]
    for turn in turns(chunks, deal, workers=workers, batch=batch):
        for worker, values in turn.batches:
            assert 1 <= len(values) <= batch
            received[worker] += values.tolist()
    return received


def who_gets(split: Split, values: Floats, workers: int) -> list[int]:
    """Counts of values, by worker."""
    return [len(one) for one in dealt([values], split.deal(len(values)), workers, 1000)]


@given(
    st.sampled_from(SPLITS),
    st.integers(0, 100),
    st.sampled_from(WORKERS),
    st.integers(1, 50),
    st.integers(1, 50),
)
def test_each_value_goes_to_one_worker_in_order_however_it_is_cut(
    split: Split, n: int, workers: int, size: int, batch: int
) -> None:
    values, deal = np.arange(float(n)), split.deal(n)
    received = dealt(cut(values, size), deal, workers, batch)
    assert sorted(value for one in received for value in one) == values.tolist()
    assert all(one == sorted(one) for one in received)
    assert received == dealt([values], deal, workers, max(1, n))


def test_a_chunk_of_which_nothing_is_left_is_a_turn_of_nothing() -> None:
    nothing, some = np.array([]), np.arange(5.0)
    for split in SPLITS:
        deal = split.deal(10)
        expected = dealt([np.arange(5.0), np.arange(5.0)], deal, 3)
        assert dealt([nothing, some, nothing, some, nothing], deal, 3) == expected


@pytest.mark.parametrize("split", SPLITS)
def test_a_turn_that_is_a_multiple_of_the_batch_goes_out_in_whole_batches(split: Split) -> None:
    for turn in turns(cut(np.arange(120.0), 30), split.deal(120), workers=3, batch=10):
        counts = [0, 0, 0]
        for worker, values in turn.batches:
            assert counts[worker] % 10 == 0, "a batch that was not full came before"
            counts[worker] += len(values)
        assert sum(counts) == 30
        assert split is not Split.ROUND_ROBIN or counts == [10, 10, 10]


def test_in_turn_is_one_after_the_other() -> None:
    deal = Split.ROUND_ROBIN.deal(None)
    assert dealt([np.arange(7.0)], deal, 3) == [[0.0, 3.0, 6.0], [1.0, 4.0], [2.0, 5.0]]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("n", [1, 5, 63, 64, 1000])
def test_contiguous_shares_are_of_equal_size_and_in_order(workers: int, n: int) -> None:
    values = np.arange(float(n))
    received = dealt([values], Split.CONTIGUOUS.deal(n), workers)
    assert [value for one in received for value in one] == values.tolist()
    assert {len(one) for one in received} <= {n // workers, -(-n // workers)}


def test_contiguous_shares_of_who_knows_how_many_are_refused() -> None:
    with pytest.raises(ValueError, match="say --values, or choose another --split"):
        Split.CONTIGUOUS.deal(None)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("n", [100, 1_000, MANY])
def test_the_second_gets_half_as_many_as_the_first_and_so_on(workers: int, n: int) -> None:
    shares = 1 / np.arange(1, workers + 1)
    expected = n * shares / shares.sum()
    off = np.abs(np.array(who_gets(Split.SKEWED, np.zeros(n), workers)) - expected)
    assert off.max() < 2 + np.log(n), "multiples of the golden ratio are spread more evenly"


def test_skewed_shares_are_kept_far_down_a_stream() -> None:
    deal, at = Split.SKEWED.deal(None), np.arange(10**15, 10**15 + 8_000)
    counts = np.bincount(deal(np.zeros(8_000), at, 4), minlength=4)
    assert counts == pytest.approx(8_000 * np.array([12, 6, 4, 3]) / 25, rel=0.1)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("workers", [1, 2, 7])
def test_by_hash_equal_values_go_to_the_same_worker(name: str, workers: int) -> None:
    values = next(drawn(name, 2_000, workers=workers, seed=1, size=2_000))
    received = dealt(cut(values, 100), by_hash, workers)
    owners = [worker for worker, one in enumerate(received) for _ in set(one)]
    assert len(owners) == len(set(values.tolist()))


def test_two_zeros_are_one_to_a_hash() -> None:
    zeros = np.array([0.0, -0.0])
    for workers in WORKERS:
        assert len(set(by_hash(zeros, np.arange(2), workers).tolist())) == 1


KINDS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "whole": lambda _rng, n: np.arange(float(n)),
    "negative": lambda _rng, n: -np.arange(float(n)),
    "thousands": lambda _rng, n: 1000 * np.arange(float(n)),
    "prices": lambda _rng, n: np.linspace(0, n / 100, n + 1),
    "powers of two": lambda _rng, _n: np.ldexp(1.0, np.arange(-1074, 1024)),
    "halves": lambda _rng, n: np.arange(0, n / 2, 0.5),
    "float32": lambda rng, n: np.array(rng.normal(size=n).astype("f4"), np.float64),
    "float16": lambda _rng, _n: np.array(np.arange(0x7C00, dtype="u2").view("f2"), np.float64),
    "times": lambda _rng, n: np.arange(1.7e9, 1.7e9 + n),
    "subnormal": lambda _rng, n: np.arange(n, dtype="u8").view(np.float64),
}


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hash_spreads_distinct_values_about_evenly(
    kind: str, workers: int, rng: np.random.Generator
) -> None:
    values = np.unique(KINDS[kind](rng, MANY))
    counts = who_gets(Split.HASH, values, workers)
    fair = len(values) / workers
    assert max(abs(count - fair) for count in counts) < max(6 * fair**0.5, fair / 4)


def test_a_hash_spreads_a_few_distinct_values_over_several_workers(
    rng: np.random.Generator,
) -> None:
    for workers in (2, 3, 4, 8):
        for _ in range(100):
            first = float(rng.integers(-1000, 1000))
            values = first + np.arange(32.0)
            owners = set(by_hash(values, np.arange(32), workers).tolist())
            assert len(owners) > workers / 2


def test_a_batch_is_due_when_all_before_it_could_have_been_sent() -> None:
    assert [due_s(before, 100.0) for before in (0, 1, 250)] == [0.0, 0.01, 2.5]
    assert due_s(1000, None) == 0.0
