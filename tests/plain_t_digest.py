"""The twin that should fail: a merging t-digest with the flat scale function k0, and no more.

The textbook algorithm: sort the means with what is new, then join from the left while the joined
weight stays within the limit. It keeps no bounds, so it cannot know how wrong it is.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared.values import Floats


class PlainTDigest:
    def __init__(self, weight_limit: float) -> None:
        self.weight_limit = weight_limit  # of a cluster, as a share of the count
        self.means: list[float] = []
        self.weights: list[int] = []

    @property
    def count(self) -> int:
        return sum(self.weights)

    def add(self, values: ArrayLike) -> None:
        new = np.atleast_1d(np.asarray(values, dtype=np.float64)).tolist()
        means, weights = self.means + new, self.weights + [1] * len(new)
        limit = self.weight_limit * sum(weights)
        self.means, self.weights = [], []
        for at in np.argsort(means, kind="stable").tolist():
            if self.weights and self.weights[-1] + weights[at] <= limit:
                self.weights[-1] += weights[at]
                share = weights[at] / self.weights[-1]
                self.means[-1] += (means[at] - self.means[-1]) * share
            else:
                self.means.append(means[at])
                self.weights.append(weights[at])

    def centroids(self) -> tuple[Floats, NDArray[np.int64]]:
        return np.array(self.means), np.array(self.weights)

    def quantile(self, q: ArrayLike) -> Floats:
        """Half of a centroid's weight lies on either side of its mean; straight lines between."""
        weights = np.array(self.weights)
        middle = weights.cumsum() - weights / 2
        values: Floats = np.interp(np.asarray(q) * self.count, middle, self.means)
        return values
