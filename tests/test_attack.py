"""An adaptive adversary moves the median of a plain t-digest by a quarter of all ranks, ours never.

The same attack runs on both: if the twin withstood it, it would prove nothing about ours.
"""

from itertools import product

import numpy as np
import pytest
from numpy.typing import ArrayLike

from shared.digest import Digest
from shared.values import Floats
from tests.attack import Attack
from tests.exact import check_digest, rank_errors
from tests.plain_t_digest import PlainTDigest

ATTACKS = [
    Attack(start, decoys, shrink)
    for start, (decoys, shrink) in product(
        (1e150, 1.0, 1e300), ((0.1, 1 / 16), (0.2, 1 / 8), (0.3, 1 / 4), (0.4, 1 / 2))
    )
]


class Watched(Digest):
    """Held against the exact multiset again and again while the attack goes on."""

    def __init__(self, rank_error: float) -> None:
        super().__init__(rank_error)
        self.given: list[Floats] = []

    def add(self, values: ArrayLike) -> None:
        super().add(values)
        self.given.append(np.asarray(values))
        if len(self.given) % 25 == 0:
            check_digest(self, np.concatenate(self.given))


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
@pytest.mark.parametrize("rank_error", [0.05, 0.01, 0.004])
@pytest.mark.parametrize("aim", [0.5, 1, 2])
def test_the_attack_never_pushes_the_error_over_the_bound(
    attack: Attack, rank_error: float, aim: float
) -> None:
    digest = Watched(rank_error)
    check_digest(digest, attack.on(digest, aim * rank_error))


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
@pytest.mark.parametrize("weight_limit", [0.05, 0.01, 0.004])
def test_the_attack_bites_a_plain_t_digest(attack: Attack, weight_limit: float) -> None:
    twin = PlainTDigest(weight_limit)
    sent = np.sort(attack.on(twin, weight_limit))
    error = rank_errors(twin.quantile([0.5]), sent, np.array([len(sent) / 2]))
    assert error[0] / len(sent) > 0.05
