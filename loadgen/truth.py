"""The truth: all values, and what an answer is held against.

The promise: the rank of the served median among all n acknowledged values is within
`rank_error * n` of n/2, and `rank_error <= epsilon`. A value that occurs often has many ranks, all
from #(values < m) to #(values <= m): the nearest of them counts.

A batch in flight, posted and not yet acknowledged, may or may not be counted, whole. So while some
are in flight there are several states of which an answer may speak, and it is broken only if it is
wrong in all of them. While none is, there is one state, and no excuse. That of an answer that says
it is not complete is: nobody can promise what a silent worker received.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from loadgen.streams import Floats


@dataclass(frozen=True)
class Answer:
    """What the coordinator answers, as far as it is checked."""

    median: float | None
    count: int
    epsilon: float
    rank_error: float
    complete: bool


@dataclass(frozen=True)
class Ranks:
    """Where a value stands among `count` others."""

    count: int
    below: int
    upto: int

    def __add__(self, other: "Ranks") -> "Ranks":
        return Ranks(self.count + other.count, self.below + other.below, self.upto + other.upto)

    @property
    def error(self) -> float:
        """How far its ranks are from those of the median, as a share of all."""
        half = self.count / 2
        return max(self.below - half, half - self.upto, 0.0) / max(1, self.count)


@dataclass(frozen=True)
class Verdict:
    error: float
    """The true rank error; in the most favourable state, where there are several."""
    breach: str | None
    """Which promise is broken, in a sentence; None: none is."""


class Values:
    """All values acknowledged so far, in the order they came."""

    def __init__(self, most: int) -> None:
        self._room = np.empty(most)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def all(self) -> Floats:
        return self._room[: self._count]

    def add(self, batch: Floats) -> None:
        self._room[self._count : self._count + len(batch)] = batch
        self._count += len(batch)

    def median(self) -> float:
        """The exact one: of an even number of values, the mean of the two in the middle."""
        return float(np.median(self.all))


def judged(answer: Answer, values: Floats, flying: Sequence[Floats] = ()) -> Verdict:
    """An answer, held against all acknowledged values and batches in flight."""
    median = np.nan if answer.median is None else answer.median
    states = list(_states(_ranks(median, values), [_ranks(median, batch) for batch in flying]))
    error = min(state.error for state in states)
    return Verdict(error, _breach(answer, error, most=states[-1].count))


def _ranks(median: float, values: Floats) -> Ranks:
    """NaN is nowhere: it has no ranks, and so the largest error."""
    below, upto = np.count_nonzero(values < median), np.count_nonzero(values <= median)
    return Ranks(len(values), int(below), int(upto))


def _states(known: Ranks, flying: Sequence[Ranks]) -> Iterable[Ranks]:
    """What is known, with any of the batches in flight; last, with all of them."""
    for size in range(len(flying) + 1):
        for counted in combinations(flying, size):
            yield sum(counted, known)


def _breach(answer: Answer, error: float, *, most: int) -> str | None:
    if answer.count > most:
        return f"{answer.count:,} values are counted, but only {most:,} were sent"
    if not answer.complete:
        return None
    if not error <= answer.rank_error:
        return (
            f"the served median {answer.median} is off by {error:.4%} of all ranks, "
            f"but its certificate says at most {answer.rank_error:.4%}"
        )
    if not answer.rank_error <= answer.epsilon:
        return f"the certificate {answer.rank_error:.4%} is beyond epsilon, {answer.epsilon:.4%}"
    return None
