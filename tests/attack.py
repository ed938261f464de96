"""The attack that t-digests without bounds do not survive: it reads the centroids and aims.

Values hide on the wrong side of zero. Take the cluster with the largest mean below zero, a = -mean,
and fill it up with -a. Then insert a cluster's worth of new values just above -a: a few at
-a (1 - 1e-11), and most at +a * shrink. No old cluster has room for them, so they become one. Its
mean is still negative, though most of its members are not. Now that cluster is the nearest to zero:
again, with smaller numbers. Each round pushes more positive values under the zero.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared.values import Floats


class Victim(Protocol):
    @property
    def count(self) -> int: ...
    def add(self, values: ArrayLike) -> None: ...
    def centroids(self) -> tuple[Floats, NDArray[np.int64]]: ...


@dataclass(frozen=True)
class Attack:
    start: float  # the magnitude it begins with
    decoys: float  # the share of a cluster that goes to just above -a
    shrink: float  # the others go to +a * shrink, where shrink < decoys / (1 - decoys)
    rounds: int = 250
    count_max: int = 200_000

    def on(self, victim: Victim, weight_limit: float) -> Floats:
        """All that was inserted; `weight_limit` of a cluster is given as a share of the count."""
        size = int(20 / weight_limit)
        sent = [np.repeat([-self.start, self.start], size)]
        victim.add(sent[0])
        for _ in range(self.rounds):
            if victim.count > self.count_max:
                break
            means, weights = victim.centroids()
            target = np.flatnonzero(means < 0)[-1]
            size = int(weight_limit * victim.count)
            filling = _near(means[target], max(0, size - weights[target]))
            hidden = self._hidden(-means[target], size)
            victim.add(filling)
            victim.add(hidden)
            sent += [filling, hidden]
        return np.concatenate(sent)

    def _hidden(self, magnitude: float, size: int) -> Floats:
        decoys = int(self.decoys * size)
        above = _near(-magnitude * (1 - 1e-11), decoys)
        return np.append(above, _near(magnitude * self.shrink, size - decoys))


def _near(value: float, size: int) -> Floats:
    """All distinct, and almost the same: copies would be too easy to count."""
    return value * np.linspace(1, 1 + 1e-12, size)
