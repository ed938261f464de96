"""Three tempting triggers, each of which breaks epsilon, on streams where ours holds.

The naive workers have every advantage: exact pictures, and nothing is rounded. All that is wrong is
the question they ask before they speak: how far have I moved ...

* ... as seen at my own median, when I spoke last?  Two islands: each worker looks the same for
  ever, while one side outnumbers the other.
* ... as seen at the median of all, when I last heard of it?  The same: all of my values are still
  on the same side of it.
* ... since I spoke last?  One lost message, and coordinator and worker never agree again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from shared.values import Floats
from tests.exact import rank_errors
from tests.sources import Sources

EPSILON = 0.05
Batch = tuple[int, Floats]


def two_islands(rng: np.random.Generator) -> Iterator[Batch]:
    """Half the workers at -1, half at +1; then only one side grows."""
    for at in range(800):
        worker = at % 8 if at < 400 else at % 4 * 2
        yield worker, rng.normal(worker % 2 * 2 - 1, 0.01, size=50)


def bursts(rng: np.random.Generator) -> Iterator[Batch]:
    """Each worker has its own mean; after a while one has much to say, then the next."""
    for at in range(800):
        worker = at % 8 if at < 80 else at // 90 % 8
        yield worker, rng.normal(10 * worker, 0.1, size=50)


@dataclass
class Naive:
    values: Floats = field(default_factory=lambda: np.empty(0))
    said: Floats = field(default_factory=lambda: np.empty(0))  # what it last spoke of
    held: Floats = field(default_factory=lambda: np.empty(0))  # what the coordinator has of that

    def moved_at(self, x: float) -> float:
        """How much larger or smaller a share of its values lies up to x than when it spoke."""
        return abs(float(np.mean(self.values <= x)) - float(np.mean(self.said <= x)))


def own_median(worker: Naive, _heard: float) -> bool:
    return worker.moved_at(float(np.median(worker.said))) > EPSILON / 2


def median_of_all(worker: Naive, heard: float) -> bool:
    return worker.moved_at(heard) > EPSILON / 2


def anything(worker: Naive, _heard: float) -> bool:
    """Right in itself: it would also speak of mere growth, and at any x."""
    grown = len(worker.values) > (1 + EPSILON / 2) * len(worker.said)
    return (
        grown or max(map(worker.moved_at, worker.values[:: len(worker.values) // 20])) > EPSILON / 2
    )


def worst_error(
    batches: Iterator[Batch], speaks: Callable[[Naive, float], bool], lost: Callable[[int], bool]
) -> float:
    workers, heard, worst, sent = [Naive() for _ in range(8)], 0.0, 0.0, 0
    for at, (name, batch) in enumerate(batches):
        worker = workers[name]
        worker.values = np.append(worker.values, batch)
        if not len(worker.said) or speaks(worker, heard):
            worker.said = worker.values
            sent += 1
            if not lost(sent):
                worker.held = worker.said
                heard = float(np.median(np.concatenate([one.held for one in workers])))
        if at >= 8:
            ordered = np.sort(np.concatenate([one.values for one in workers]))
            middle = np.array([len(ordered) / 2])
            worst = max(worst, rank_errors(np.array([heard]), ordered, middle)[0] / len(ordered))
    return worst


def never(_sent: int) -> bool:
    return False


def half_of_them(sent: int) -> bool:
    return sent > 16 and sent % 2 == 0


@pytest.mark.parametrize("stream", [two_islands, bursts])
@pytest.mark.parametrize(
    ("speaks", "lost"), [(own_median, never), (median_of_all, never), (anything, half_of_them)]
)
def test_a_tempting_trigger_breaks_epsilon(
    stream: Callable[[np.random.Generator], Iterator[Batch]],
    speaks: Callable[[Naive, float], bool],
    lost: Callable[[int], bool],
    rng: np.random.Generator,
) -> None:
    assert worst_error(stream(rng), speaks, lost) > 1.5 * EPSILON


@pytest.mark.parametrize("stream", [two_islands, bursts])
def test_the_third_is_wrong_for_no_other_reason_than_what_is_lost(
    stream: Callable[[np.random.Generator], Iterator[Batch]], rng: np.random.Generator
) -> None:
    assert worst_error(stream(rng), anything, never) < EPSILON


@pytest.mark.parametrize("stream", [two_islands, bursts])
@pytest.mark.parametrize("delay", [0, 5])
def test_the_rank_shift_against_the_receipted_picture_keeps_it(
    stream: Callable[[np.random.Generator], Iterator[Batch]],
    delay: int,
    rng: np.random.Generator,
) -> None:
    sources = Sources(EPSILON, rng, delay)
    for worker, batch in stream(rng):
        sources.add(worker, batch)
        sources.check()
