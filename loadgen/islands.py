"""What the demo plays: two islands, then a drift. Seeded; no clock, no network.

These are hard to follow. Between two islands of the same weight there is nothing: one value more on
either side, and the median is on the other island. Who looks only at how far the median moved, or
only at how many values came, is wrong by an order of magnitude. And a drift makes old news false.

It goes turn by turn, and a whole plan is whole turns.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from loadgen.pacer import Turn

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

    def turns(self, values: int, workers: int) -> int:
        return max(1, round(values * self.share / (len(self.receivers(workers)) * BATCH)))


PHASES = (
    Phase("two islands", "half of the workers receive values near -1, half near +1", 0.15),
    Phase("one side grows", "only those near +1 receive any more", 0.15, lower_receive=False),
    Phase("drift", "all receive again, and what they receive falls and falls", 0.7, fall=FALL),
)


def planned(values: int, workers: int) -> int:
    """How many values the turns hold: about as many as were asked for."""
    return sum(
        phase.turns(values, workers) * len(phase.receivers(workers)) * BATCH for phase in PHASES
    )


def turns(values: int, workers: int, seed: int) -> Iterator[Turn]:
    rng = np.random.default_rng(seed)
    for phase in PHASES:
        number = phase.turns(values, workers)
        for at in range(number):
            fallen = phase.fall * at / number
            means = {one: _island(one, workers) - fallen for one in phase.receivers(workers)}
            batches = [(one, rng.normal(means[one], NOISE, BATCH)) for one in means]
            yield Turn(batches, phase.name, phase.what)


def _island(worker: int, workers: int) -> float:
    return -1.0 if worker < workers // 2 else 1.0
