"""Who gets which values, and when: pure functions of a value and its place in the stream.

The schedule is open: when a batch is due depends on how many values stand before it, and never on
how quickly earlier ones were answered. A batch that leaves late, because others are still on their
way, is late; its latency counts from when it was due. So a slow server cannot hide.

A **turn** is what is sent before the next is looked at: batches, for each worker that receives in
it, in the order of their values.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from loadgen.scenarios import Floats

Whole: TypeAlias = NDArray[np.int64]
Deal: TypeAlias = Callable[[Floats, Whole, int], Whole]
"""Of values, at these places, among so many workers: which worker gets each."""

# 2**64 times the golden ratio: the fractions of its multiples are spread evenly, whatever part one
# takes, and neighbours end up far apart.
MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, eq=False)
class Turn:
    batches: list[tuple[int, Floats]]
    """Workers are numbered from 0."""
    phase: str = ""
    what: str = ""


def round_robin(_values: Floats, at: Whole, workers: int) -> Whole:
    """One after the other"""
    return at % workers


def by_hash(values: Floats, _at: Whole, workers: int) -> Whole:
    """Equal values to the same worker"""
    bits = (values + 0.0).view(np.uint64)  # of two zeros, one
    return ((bits ^ bits >> np.uint64(32)) * MIX >> np.uint64(33)).astype(np.int64) % workers


def skewed(_values: Floats, at: Whole, workers: int) -> Whole:
    """The second gets half as many as the first, the third a third"""
    share = (1 / np.arange(1, workers + 1)).cumsum()
    fractions = (at.astype(np.uint64) * MIX >> np.uint64(11)) / 2.0**53
    return np.searchsorted(share / share[-1], fractions, side="right")


def contiguous(of: int, _values: Floats, at: Whole, workers: int) -> Whole:
    """All of the first before any of the second"""
    return at * workers // of


class Split(StrEnum):
    ROUND_ROBIN = "round_robin"
    HASH = "hash"
    SKEWED = "skewed"
    CONTIGUOUS = "contiguous"

    def deal(self, of: int | None) -> Deal:
        """Of so many values, where that is known."""
        match self:
            case Split.ROUND_ROBIN:
                return round_robin
            case Split.HASH:
                return by_hash
            case Split.SKEWED:
                return skewed
        if of is None:
            raise ValueError(
                "To split contiguously one must know beforehand how many values there are: "
                "say --values, or choose another --split."
            )
        return partial(contiguous, of)


def turns(chunks: Iterable[Floats], deal: Deal, *, workers: int, batch: int) -> Iterator[Turn]:
    """A turn for each chunk; no batch is larger than that."""
    before = 0
    for values in chunks:
        who = deal(values, np.arange(before, before + len(values)), workers)
        yield Turn(list(_batches(values, who, workers, batch)))
        before += len(values)


def _batches(values: Floats, who: Whole, workers: int, batch: int) -> Iterator[tuple[int, Floats]]:
    ordered = values[np.argsort(who, kind="stable")]
    ends = np.bincount(who, minlength=workers).cumsum().tolist()
    for worker, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        for at in range(start, end, batch):
            yield worker, ordered[at : min(at + batch, end)]


def due_s(before: int, rate: float | None) -> float:
    """When a batch is due, after the start, that has so many values before it."""
    return before / rate if rate else 0.0
