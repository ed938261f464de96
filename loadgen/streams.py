"""What is played: two islands, then a drift, as rounds of batches. Seeded; no clock, no network.

These are hard to follow. Between two islands of the same weight there is nothing: one value more on
either side, and the median is on the other island. Who looks only at how far the median moved, or
only at how many values came, is wrong by an order of magnitude. And a drift makes old news false.

A round is one batch for each worker that receives in it. A whole plan is whole rounds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

BATCH = 5_000  # values
NOISE = 0.05  # a standard deviation: far less than the sea between the islands
FALL = 10.0  # so far that the median falls from the upper island to the lower, and beyond


@dataclass(frozen=True)
class Phase:
    name: str
    what: str
    share: float
    """Of all values."""
    lower_receive: bool = True
    fall: float = 0.0

    def receivers(self, workers: int) -> range:
        return range(0 if self.lower_receive else workers // 2, workers)

    def rounds(self, values: int, workers: int) -> int:
        return max(1, round(values * self.share / (len(self.receivers(workers)) * BATCH)))


PHASES = (
    Phase("two islands", "half of the workers receive values near -1, half near +1", 0.15),
    Phase("one side grows", "only those near +1 receive any more", 0.15, lower_receive=False),
    Phase("drift", "all receive again, and what they receive falls and falls", 0.7, fall=FALL),
)


@dataclass(frozen=True, eq=False)
class Round:
    phase: Phase
    batches: dict[int, Floats]
    """A batch for each worker that receives one; workers are numbered from zero."""


def planned(values: int, workers: int) -> int:
    """How many values the rounds hold: about as many as were asked for."""
    return sum(
        phase.rounds(values, workers) * len(phase.receivers(workers)) * BATCH for phase in PHASES
    )


def rounds(values: int, workers: int, seed: int) -> Iterator[Round]:
    rng = np.random.default_rng(seed)
    for phase in PHASES:
        number = phase.rounds(values, workers)
        for at in range(number):
            fallen = phase.fall * at / number
            means = {one: _island(one, workers) - fallen for one in phase.receivers(workers)}
            yield Round(phase, {one: rng.normal(means[one], NOISE, BATCH) for one in means})


def _island(worker: int, workers: int) -> float:
    return -1.0 if worker < workers // 2 else 1.0
