"""The truth: all values, and what an answer is held against.

The promise: the rank of the served median among all n acknowledged values is within
`rank_error * n` of n/2, `rank_error <= epsilon`, and the true median lies from `low` to `high`. A
value that occurs often has many ranks, from #(values < m) to #(values <= m): the nearest counts.

A batch that was in flight while the answer was made, posted and not yet acknowledged, may or may
not be covered, whole. So there are many states of which an answer may speak, and it is broken only
if it is wrong in all of them. With b values below m and c in all, m is too high by a share of r or
less in some state exactly if

    b - (1/2 + r) c,  summed over what is known and those batches where it is negative,  <=  0

and not too low likewise: a batch counts where that helps. That looks for the best state on either
side, so what it calls wrong is wrong. While nothing is in flight there is one state, and no excuse.
An answer that says it is not complete is not judged: nobody can promise what a silent worker has.

All values are kept, sorted in runs of the same length, in a file that the system removes: memory
holds one run, and what it likes to cache. All runs are searched at once.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadgen.scenarios import Floats

RUN = 2**16  # values; sorting one takes a millisecond
STEP = 2**10  # values; every so many of a run enclose those that are looked at
ROUNDING = 1e-6  # ranks: what r * c may be off by, far less than the half that ranks differ by
HALVINGS = 40


class CannotKeep(RuntimeError):
    """There is no room for all values."""


@dataclass(frozen=True)
class Answer:
    """What the coordinator answers, as far as it is checked."""

    median: float | None
    low: float | None
    high: float | None
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


@dataclass(frozen=True)
class Verdict:
    error: float
    """The true rank error; in the most favourable state, where there are several."""
    breach: str | None
    """Which promise is broken, in a sentence; None: none is."""


class Values:
    """All values acknowledged so far."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(  # noqa: SIM115  open as long as this lives
            prefix="running-median-"
        )
        self._mapped: NDArray[np.float64] = np.empty((0, RUN))
        self._run = np.empty(RUN)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def close(self) -> None:
        self._file.close()

    def add(self, batch: Floats) -> None:
        while len(batch):
            at = self._count % RUN
            some = batch[: RUN - at]
            self._run[at : at + len(some)] = some
            self._count += len(some)
            batch = batch[len(some) :]
            if self._count % RUN == 0:
                self._keep(np.sort(self._run))

    def _keep(self, run: Floats) -> None:
        try:
            self._file.write(run.tobytes())
            self._file.flush()
        except OSError as error:
            what = f"all values must be kept to verify answers, and {error.strerror}"
            raise CannotKeep(f"{what}: is there another disk, which TMPDIR could name?") from None

    def ranks(self, value: float) -> Ranks:
        """NaN is nowhere: it has no ranks, and so the largest error."""
        below = self._places(value, equal=False).sum() + np.count_nonzero(self._last < value)
        upto = self._places(value, equal=True).sum() + np.count_nonzero(self._last <= value)
        return Ranks(self._count, int(below), int(upto))

    def median(self) -> float | None:
        """The exact one: of an even number of values, the mean of the two in the middle."""
        if not self._count:
            return None
        low, high = self._ranked((self._count - 1) // 2), self._ranked(self._count // 2)
        return low if low == high else low / 2 + high / 2

    def _ranked(self, at: int) -> float:
        """The value that has so many before it, found among those that every so many enclose."""
        runs = self._runs()
        steps = np.sort(
            runs[:, STEP - 1 :: STEP], axis=None
        )  # of all up to it, each stands for STEP
        before = at // STEP - len(runs) - RUN // STEP
        low = steps[before] if before >= 0 else -np.inf
        high = steps[at // STEP] if at // STEP < len(steps) else np.inf
        starts, ends = self._places(low, equal=False), self._places(high, equal=True)
        some = [run[a:b] for run, a, b in zip(runs, starts, ends, strict=True)]
        last = self._last
        some.append(last[(low <= last) & (last <= high)])
        at -= int(starts.sum() + np.count_nonzero(last < low))
        return float(np.partition(np.concatenate(some), at)[at])

    def _places(self, value: float, *, equal: bool) -> NDArray[np.int64]:
        """How many of each run are less, or equal too: halving steps, through all at once."""
        runs = self._runs()
        rows, at, step = np.arange(len(runs)), np.zeros(len(runs), np.int64), RUN
        while step:
            then = at + step
            there = runs[rows, np.minimum(then, RUN) - 1]
            is_less = there <= value if equal else there < value
            at = np.where((then <= RUN) & is_less, then, at)
            step //= 2
        return at

    def _runs(self) -> NDArray[np.float64]:
        rows = self._count // RUN
        if rows != len(self._mapped):
            mapped = np.memmap(self._file, np.float64, "r", shape=(rows, RUN))
            self._mapped = np.asarray(mapped)  # a plain array is indexed ten times as quickly
        return self._mapped

    @property
    def _last(self) -> Floats:
        """The run that is not full yet; not sorted."""
        return self._run[: self._count % RUN]


class States:
    """Where a value stands: among what is known, with any of the batches in flight.

    `q` says which quantile it is said to be; the median, unless another is named.
    """

    def __init__(
        self, value: float, values: Values, flying: Sequence[Floats], *, q: float = 0.5
    ) -> None:
        self._q = q
        some = [(len(one), (one < value).sum(), (one <= value).sum()) for one in flying]
        known = values.ranks(value)
        self._count, self._below, self._upto = known.count, known.below, known.upto
        self._counts, self._belows, self._uptos = np.array(some, float).reshape(-1, 3).T

    @property
    def most(self) -> int:
        return self._count + int(self._counts.sum())

    def too_high(self, error: float) -> float:
        """By how many ranks it is more than so far above the quantile, in the best state."""
        share = self._q + error
        helped = np.minimum(self._belows - share * self._counts, 0.0).sum()
        return float(self._below - share * self._count + helped)

    def too_low(self, error: float) -> float:
        share = self._q - error
        helped = np.minimum(share * self._counts - self._uptos, 0.0).sum()
        return float(share * self._count - self._upto + helped)

    def allow(self, error: float) -> bool:
        return self.too_high(error) <= ROUNDING and self.too_low(error) <= ROUNDING

    def error(self) -> float:
        """The least that is allowed."""
        low, high = 0.0, 1.0
        if self.allow(low):
            return low
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.allow(middle) else (middle, high)
        return high


def judged(answer: Answer, values: Values, flying: Sequence[Floats] = ()) -> Verdict:
    """An answer, held against all acknowledged values and batches in flight."""

    def states(value: float | None, without: float) -> States:
        return States(without if value is None else value, values, flying)

    median = states(answer.median, np.nan)
    low, high = states(answer.low, -np.inf), states(answer.high, np.inf)
    error = median.error()
    if answer.count > median.most:
        what = f"{answer.count:,} values are counted, but only {median.most:,} were sent"
        return Verdict(error, what)
    return Verdict(error, _breach(answer, median, low, high) if answer.complete else None)


def _breach(answer: Answer, median: States, low: States, high: States) -> str | None:
    if not median.allow(answer.rank_error):
        return (
            f"the served median {answer.median} is off by {median.error():.4%} of all ranks, "
            f"but its certificate says at most {answer.rank_error:.4%}"
        )
    if not answer.rank_error <= answer.epsilon:
        return f"the certificate {answer.rank_error:.4%} is beyond epsilon, {answer.epsilon:.4%}"
    if low.too_high(0.0) > ROUNDING:
        return f"the true median is below {answer.low}, which is said to be certainly no more"
    if high.too_low(0.0) > ROUNDING:
        return f"the true median is above {answer.high}, which is said to be certainly no less"
    return None
