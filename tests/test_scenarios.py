"""Each stream is what it says it is, at any length, for any workers, in any chunks."""

import warnings

import numpy as np
import pytest

from loadgen.scenarios import HUGE, ISLAND_WIDTH, SCENARIOS, SMALLEST, Floats, Places, drawn

N = 20_000
CHUNK = 1_000
PLACED = {"sorted", "sorted_down", "inward", "zig_zag", "one_value"}  # nothing is rolled


def whole(name: str, of: int = N, *, workers: int = 4, seed: int = 1, size: int = CHUNK) -> Floats:
    return np.concatenate([[], *drawn(name, of, workers=workers, seed=seed, size=size)])


def per_worker(name: str, workers: int = 4) -> list[Floats]:
    return [whole(name, workers=workers)[worker::workers] for worker in range(workers)]


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("of", [0, 1, 2, 5, 7, 1001])
def test_any_number_of_values_is_drawn_and_all_are_values(name: str, workers: int, of: int) -> None:
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        chunks = list(drawn(name, of, workers=workers, seed=1, size=3))
    assert [len(chunk) for chunk in chunks] == [3] * (of // 3) + [of % 3] * (of % 3 > 0)
    assert all(chunk.dtype == np.float64 and np.isfinite(chunk).all() for chunk in chunks)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_seed_draws_the_same_and_another_another(name: str) -> None:
    first, again, other = (whole(name, seed=seed) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert (first.tobytes() == other.tobytes()) == (name in PLACED)
    assert len(set(first.tolist())) > N / 4 or name in {"one_value", "two_values", "five_values"}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_stream_says_what_it_is(name: str) -> None:
    assert SCENARIOS[name].__doc__


def test_where_nothing_is_rolled_chunks_do_not_matter() -> None:
    for name in PLACED:
        assert whole(name, size=7).tolist() == whole(name, size=N).tolist()


def test_half_of_the_workers_are_upper_and_of_one_every_other_place() -> None:
    for workers, upper in ((1, "01"), (2, "01"), (3, "011"), (4, "0011"), (5, "00111")):
        is_upper = Places(np.arange(10.0), 10, workers).is_upper
        expected = [one == "1" for one in (upper * 10)[:10]]
        assert is_upper.tolist() == expected


def is_normal(values: Floats, mean: float = 0.0, sd: float = 1.0) -> bool:
    near = abs(values.mean() - mean) < 6 * sd / len(values) ** 0.5
    return bool(near) and values.std() == pytest.approx(sd, rel=6 / len(values) ** 0.5)


def test_calm_is_the_same_normal_distribution_all_the_time() -> None:
    for part in np.array_split(whole("calm"), 4):
        assert is_normal(part)


@pytest.mark.parametrize("workers", [1, 4])
def test_each_its_own_mean_puts_each_worker_far_from_all_others(workers: int) -> None:
    for worker, values in enumerate(per_worker("each_its_own_mean", workers)):
        assert is_normal(values, 10.0 * worker)


@pytest.mark.parametrize("workers", [1, 2, 4, 5])
def test_two_islands_become_one(workers: int) -> None:
    values = whole("two_islands", workers=workers)
    first, second = np.split(values, 2)
    is_low = np.arange(N // 2) % max(2, workers) < max(2, workers) // 2
    assert is_normal(first[is_low], -1.0, ISLAND_WIDTH)
    assert is_normal(first[~is_low], 1.0, ISLAND_WIDTH)
    assert is_normal(second, 1.0, ISLAND_WIDTH)


def test_drift_rises_slowly_for_all() -> None:
    for values in per_worker("drift"):
        assert is_normal(values - 10 * np.arange(len(values)) / len(values))


def test_staggered_drift_begins_with_one_worker_after_the_other() -> None:
    for worker, values in enumerate(per_worker("staggered_drift")):
        share = np.arange(len(values)) / len(values)
        starts = worker / 4
        assert worker == 0 or is_normal(values[share < starts])
        assert is_normal(values - 20 * np.clip(share - starts, 0, None))
        assert values[share > starts].max() > 20 * (1 - starts) - 3


def test_sine_goes_up_and_down_three_times() -> None:
    smooth = whole("sine").reshape(-1, 200).mean(axis=1)
    signs = np.sign(smooth[np.abs(smooth) > 2])
    assert np.count_nonzero(np.diff(signs)) == 6
    assert 9 < smooth.max() < 11
    assert -11 < smooth.min() < -9


def test_sorted_streams_are_sorted_strictly() -> None:
    assert (np.diff(whole("sorted")) > 0).all()
    assert (np.diff(whole("sorted_down")) < 0).all()


def test_inward_comes_alternately_from_both_ends() -> None:
    values = whole("inward")
    low, high = values[::2], values[1::2]
    assert (np.diff(low) > 0).all()
    assert (np.diff(high) < 0).all()
    assert low[-1] < high[-1]


def test_zig_zag_goes_alternately_further_up_and_further_down() -> None:
    values = whole("zig_zag")
    assert (np.diff(values[::2]) > 0).all()
    assert (np.diff(values[1::2]) < 0).all()
    assert values[2:].reshape(-1, 2).min(axis=0)[0] > 0 > values[1::2].max()


def test_of_few_values_each_has_its_share() -> None:
    shares = {
        "one_value": {0.1: 1.0},
        "two_values": {-1.0: 0.5, 1.0: 0.5},
        "five_values": {0.1: 0.5, 0.2: 0.3, 0.3: 0.1, 7.0: 0.0999, 1e9: 0.0001},
    }
    for name, expected in shares.items():
        found, counts = np.unique(whole(name, 10 * N), return_counts=True)
        assert found.tolist() == list(expected)
        deviations = (10 * N * np.array(list(expected.values()))) ** 0.5
        off = counts - 10 * N * np.array(list(expected.values()))
        assert (np.abs(off) < 6 * deviations).all()


def test_log_uniform_is_spread_over_600_orders_of_magnitude() -> None:
    values = whole("log_uniform")
    orders = np.log10(np.abs(values))
    assert -300 <= orders.min() < -299
    assert 299 < orders.max() <= 300
    assert np.histogram(orders, 10)[0] == pytest.approx(N / 10, rel=0.2)
    assert np.count_nonzero(values > 0) == pytest.approx(N / 2, rel=0.1)


def test_pareto_has_a_heavy_tail() -> None:
    values = whole("pareto")
    assert values.min() >= 1
    for far in (2.0, 10.0, 100.0):
        assert np.count_nonzero(values > far) == pytest.approx(N * far**-1.1, rel=0.3)


def test_bursts_are_five_times_far_away() -> None:
    far = whole("bursts") > 50
    assert np.count_nonzero(np.diff(far.astype(int)) == 1) == 5
    assert is_normal(whole("bursts")[~far])
    assert is_normal(whole("bursts")[far], 100, 0.1)


def test_one_in_ten_outliers_is_a_thousand_times_as_far() -> None:
    far = np.abs(whole("outliers")) > 6
    assert np.count_nonzero(far) == pytest.approx(N / 10, rel=0.15)
    assert np.abs(whole("outliers")).max() > 990


def test_two_in_five_of_an_atom_in_noise_are_the_same_value() -> None:
    values = whole("atom_in_noise")
    assert np.count_nonzero(values == 0.25) == pytest.approx(0.4 * N, rel=0.05)
    assert is_normal(values[values != 0.25])


def test_atoms_come_late_and_inside_what_is_there() -> None:
    noise, atoms = np.split(whole("atoms_that_come_late"), 2)
    assert is_normal(noise)
    found, counts = np.unique(atoms, return_counts=True)
    assert len(found) == 12
    assert counts.min() > N / 2 / 12 * 0.8
    assert noise.min() < found.min() < found.max() < noise.max()


def test_subnormals_are_subnormal_and_of_both_signs() -> None:
    values = whole("subnormals")
    assert np.abs(values).max() < np.finfo(np.float64).tiny
    assert (values % SMALLEST == 0).all()
    assert np.count_nonzero(values > 0) == pytest.approx(N / 2, rel=0.1)


def test_half_are_zeros_of_both_signs() -> None:
    values = whole("zeros_of_both_signs")
    zeros = values[values == 0]
    assert len(zeros) == pytest.approx(N / 2, rel=0.1)
    assert np.count_nonzero(np.signbit(zeros)) == pytest.approx(N / 4, rel=0.1)
    assert is_normal(values[values != 0])


def test_neither_sums_nor_differences_of_the_huge_fit() -> None:
    values = whole("huge")
    assert np.abs(values).max() <= HUGE
    with np.errstate(over="ignore"):
        assert np.isinf(values.max() - values.min())
        assert np.isinf(values.max() + values.max())
