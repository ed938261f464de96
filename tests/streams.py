"""Inputs with a name: what friendly, skewed, sorted and hostile data look like. All seeded.

Each is a function of a length and a generator, and gives the values in the order they arrive.
"""

from collections.abc import Callable

import numpy as np

from shared.values import Floats

Stream = Callable[[int, np.random.Generator], Floats]

WORKERS = 8
TINY = 5e-324
HUGE = 1.7e308


def calm(n: int, rng: np.random.Generator) -> Floats:
    return rng.normal(size=n)


def each_its_own_mean(n: int, rng: np.random.Generator) -> Floats:
    return rng.normal(size=n) + 10.0 * (np.arange(n) % WORKERS)


def two_islands(n: int, rng: np.random.Generator) -> Floats:
    """Half the workers at -1, half at +1; then only one side grows."""
    low = (np.arange(n) % 2 == 0) & (np.arange(n) < n // 2)
    return rng.normal(np.where(low, -1.0, 1.0), 0.01)


def drift(n: int, rng: np.random.Generator) -> Floats:
    return rng.normal(size=n) + np.linspace(0, 10, n)


def staggered_drift(n: int, rng: np.random.Generator) -> Floats:
    """One worker after the other starts to drift."""
    start = (np.arange(n) % WORKERS) / WORKERS
    return rng.normal(size=n) + 20.0 * np.maximum(np.linspace(0, 1, n) - start, 0)


def sine(n: int, rng: np.random.Generator) -> Floats:
    values: Floats = rng.normal(size=n) + 10 * np.sin(np.linspace(0, 20, n))
    return values


def sorted_up(n: int, _rng: np.random.Generator) -> Floats:
    return np.arange(n, dtype=np.float64)


def sorted_down(n: int, _rng: np.random.Generator) -> Floats:
    return -np.arange(n, dtype=np.float64)


def inward(n: int, _rng: np.random.Generator) -> Floats:
    """Alternately from both ends: every batch lands inside one old cluster."""
    steps = np.arange(n, dtype=np.float64)
    return np.where(steps % 2 == 0, steps, 2 * n - steps)


def zig_zag(n: int, _rng: np.random.Generator) -> Floats:
    steps = np.arange(n, dtype=np.float64)
    return np.where(steps % 2 == 0, steps, -steps)


def one_value(n: int, _rng: np.random.Generator) -> Floats:
    return np.full(n, 0.1)


def two_values(n: int, rng: np.random.Generator) -> Floats:
    return rng.choice([-1.0, 1.0], size=n)


def five_values(n: int, rng: np.random.Generator) -> Floats:
    return rng.choice([0.1, 0.2, 0.3, 7.0, 1e9], size=n, p=[0.5, 0.3, 0.1, 0.0999, 0.0001])


def log_uniform(n: int, rng: np.random.Generator) -> Floats:
    """Over 600 orders of magnitude, of both signs."""
    return rng.choice([-1.0, 1.0], size=n) * 10 ** rng.uniform(-300, 300, size=n)


def pareto(n: int, rng: np.random.Generator) -> Floats:
    return rng.pareto(1.1, size=n) + 1.0


def bursts(n: int, rng: np.random.Generator) -> Floats:
    """One worker bursts, far away, while the others are quiet."""
    burst = np.arange(n) % (n // 5 + 1) > n // 8
    return np.where(burst, rng.normal(100, 0.1, size=n), rng.normal(size=n))


def tiny_beside_a_giant(n: int, rng: np.random.Generator) -> Floats:
    """Thousands of workers with a value each, beside one with nine tenths of all."""
    return np.where(rng.random(n) < 0.9, rng.normal(size=n), rng.uniform(-1000, 1000, size=n))


def atom_in_noise(n: int, rng: np.random.Generator) -> Floats:
    return np.where(rng.random(n) < 0.4, 0.25, rng.normal(size=n))


def atoms_that_come_late(n: int, rng: np.random.Generator) -> Floats:
    """Noise first; then heavy atoms inside clusters that are already there."""
    atoms = rng.choice(np.round(rng.normal(size=12), 3), size=n)
    return np.where(np.arange(n) < n // 2, rng.normal(size=n), atoms)


def subnormals(n: int, rng: np.random.Generator) -> Floats:
    return rng.integers(-(2**40), 2**40, size=n).astype(np.float64) * TINY


def zeros_of_both_signs(n: int, rng: np.random.Generator) -> Floats:
    zeros = rng.choice([0.0, -0.0], size=n)
    return np.where(rng.random(n) < 0.5, zeros, rng.normal(size=n))


def huge(n: int, rng: np.random.Generator) -> Floats:
    """So large that neither sums nor differences fit a float64."""
    return HUGE * rng.uniform(-1, 1, size=n)


STREAMS: dict[str, Stream] = {
    stream.__name__: stream
    for stream in (
        calm, each_its_own_mean, two_islands, drift, staggered_drift, sine, sorted_up, sorted_down,
        inward, zig_zag, one_value, two_values, five_values, log_uniform, pareto, bursts,
        tiny_beside_a_giant, atom_in_noise, atoms_that_come_late, subnormals, zeros_of_both_signs,
        huge,
    )
}  # fmt: skip
