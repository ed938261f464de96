"""Scenarios: what friendly, skewed, sorted and hostile data look like. Seeded; no clock.

A scenario is a function of places. Place 0 is the first value that arrives, and so on; a place also
knows how many there are in all, and among how many workers they are dealt out in turn, so that
every value of some worker can differ from those of others. So one of any length is drawn a chunk
at a time. The same seed, chunks and number of workers draw the same.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

SMALLEST = 5e-324
HUGE = 1.7e308
ISLAND_WIDTH = 0.01  # a standard deviation: far less than the sea between them


class Places(NamedTuple):
    at: Floats
    """From 0, whole."""
    of: int
    workers: int

    @property
    def share(self) -> Floats:
        """How much of all lies before each."""
        return self.at / self.of

    @property
    def worker(self) -> Floats:
        return self.at % self.workers

    @property
    def is_upper(self) -> NDArray[np.bool_]:
        """Whether its worker is in the upper half of them; every other place where there is one."""
        halves = max(2, self.workers)
        return self.at % halves >= halves // 2


Scenario: TypeAlias = Callable[[Places, np.random.Generator], Floats]


def calm(places: Places, rng: np.random.Generator) -> Floats:
    """The same normal distribution all the time"""
    return rng.normal(size=len(places.at))


def each_its_own_mean(places: Places, rng: np.random.Generator) -> Floats:
    """Each worker lives far from all others"""
    return calm(places, rng) + 10.0 * places.worker


def two_islands(places: Places, rng: np.random.Generator) -> Floats:
    """Half of the workers near -1, half near +1; then all near +1"""
    lower = ~places.is_upper & (places.share < 0.5)
    return rng.normal(np.where(lower, -1.0, 1.0), ISLAND_WIDTH)


def drift(places: Places, rng: np.random.Generator) -> Floats:
    """What all receive rises slowly"""
    return calm(places, rng) + 10.0 * places.share


def staggered_drift(places: Places, rng: np.random.Generator) -> Floats:
    """One worker after the other begins to drift"""
    start = places.worker / places.workers
    return calm(places, rng) + 20.0 * np.maximum(places.share - start, 0)


def sine(places: Places, rng: np.random.Generator) -> Floats:
    """Up and down, three times"""
    values: Floats = calm(places, rng) + 10 * np.sin(20 * places.share)
    return values


def sorted_(places: Places, _rng: np.random.Generator) -> Floats:
    """Each value larger than all before"""
    return places.at


def sorted_down(places: Places, _rng: np.random.Generator) -> Floats:
    """Each value smaller than all before"""
    return -places.at


def inward(places: Places, _rng: np.random.Generator) -> Floats:
    """Alternately from both ends: every batch lands inside one old cluster"""
    return np.where(places.at % 2 == 0, places.at, 2 * places.of - places.at)


def zig_zag(places: Places, _rng: np.random.Generator) -> Floats:
    """Alternately further up and further down"""
    return np.where(places.at % 2 == 0, places.at, -places.at)


def one_value(places: Places, _rng: np.random.Generator) -> Floats:
    """The same value all the time"""
    return np.full(len(places.at), 0.1)


def two_values(places: Places, rng: np.random.Generator) -> Floats:
    """-1 or 1, by the toss of a coin"""
    return rng.choice([-1.0, 1.0], size=len(places.at))


def five_values(places: Places, rng: np.random.Generator) -> Floats:
    """Five values, some of them rare"""
    values = [0.1, 0.2, 0.3, 7.0, 1e9]
    return rng.choice(values, size=len(places.at), p=[0.5, 0.3, 0.1, 0.0999, 0.0001])


def log_uniform(places: Places, rng: np.random.Generator) -> Floats:
    """Over 600 orders of magnitude, of both signs"""
    return two_values(places, rng) * 10 ** rng.uniform(-300, 300, size=len(places.at))


def pareto(places: Places, rng: np.random.Generator) -> Floats:
    """A tail so heavy that it hardly has a mean"""
    return rng.pareto(1.1, size=len(places.at)) + 1.0


def bursts(places: Places, rng: np.random.Generator) -> Floats:
    """Calm, and five times for a while far away"""
    is_burst = places.at % (places.of // 5 + 1) > places.of // 8
    return np.where(is_burst, rng.normal(100, 0.1, size=len(places.at)), calm(places, rng))


def outliers(places: Places, rng: np.random.Generator) -> Floats:
    """Nine tenths are calm, the others a thousand times as far"""
    far = rng.uniform(-1000, 1000, size=len(places.at))
    return np.where(rng.random(len(places.at)) < 0.9, calm(places, rng), far)


def atom_in_noise(places: Places, rng: np.random.Generator) -> Floats:
    """Two in five are the same value"""
    return np.where(rng.random(len(places.at)) < 0.4, 0.25, calm(places, rng))


def atoms_that_come_late(places: Places, rng: np.random.Generator) -> Floats:
    """Noise first; then heavy atoms inside clusters that are already there"""
    atoms = rng.choice(np.round(np.linspace(-1.6, 1.6, 12), 3), size=len(places.at))
    return np.where(places.share < 0.5, calm(places, rng), atoms)


def subnormals(places: Places, rng: np.random.Generator) -> Floats:
    """So small that floats lose their digits"""
    return rng.integers(-(2**40), 2**40, size=len(places.at)).astype(np.float64) * SMALLEST


def zeros_of_both_signs(places: Places, rng: np.random.Generator) -> Floats:
    """Half of them are 0.0 or -0.0"""
    zeros = rng.choice([0.0, -0.0], size=len(places.at))
    return np.where(rng.random(len(places.at)) < 0.5, zeros, calm(places, rng))


def huge(places: Places, rng: np.random.Generator) -> Floats:
    """So large that neither sums nor differences fit a float64"""
    return HUGE * rng.uniform(-1, 1, size=len(places.at))


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__.rstrip("_"): scenario
    for scenario in (
        calm, each_its_own_mean, two_islands, drift, staggered_drift, sine,
        sorted_, sorted_down, inward, zig_zag, one_value, two_values, five_values, log_uniform,
        pareto, bursts, outliers, atom_in_noise, atoms_that_come_late, subnormals,
        zeros_of_both_signs, huge,
    )
}  # fmt: skip


def drawn(name: str, of: int, *, workers: int, seed: int, size: int) -> Iterator[Floats]:
    """So many values of a scenario, in chunks of so many."""
    rng = np.random.default_rng(seed)
    for start in range(0, of, size):
        at = np.arange(start, min(start + size, of), dtype=np.float64)
        yield SCENARIOS[name](Places(at, of, workers), rng)
