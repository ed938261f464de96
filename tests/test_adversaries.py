"""Input made by somebody who knows the system, and reads its answers."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from shared.digest import Digest
from shared.ledger import Ledger
from shared.outbox import Outbox
from shared.protocol import Receipt, Source
from shared.rows import Row
from shared.values import Floats
from tests.attack import Attack
from tests.exact import TALLY, rank_errors
from tests.sources import NOW, Sources
from tests.storm import true_shift

EPSILON = 0.05


@dataclass
class Attacked:
    """Three nodes that get the same, as if they were one digest with the centroids of the first."""

    sources: Sources

    @property
    def count(self) -> int:
        return self.sources.nodes[0].outbox.count

    def centroids(self) -> tuple[Floats, NDArray[np.int64]]:
        return self.sources.nodes[0].outbox.digest.centroids()

    def add(self, values: ArrayLike) -> None:
        batch = np.asarray(values, dtype=np.float64)
        for name in range(3):
            if len(batch):
                self.sources.add(name, batch)
        self.sources.check()


@pytest.mark.parametrize("decoys", [0.2, 0.5])
def test_the_attack_on_t_digests_gets_nowhere(decoys: float, rng: np.random.Generator) -> None:
    attack = Attack(start=1e150, decoys=decoys, shrink=0.125, rounds=60, count_max=20_000)
    victim = Attacked(Sources(EPSILON, rng))
    attack.on(victim, weight_limit=EPSILON / 20)
    assert victim.count > 10_000


def as_many_as_stay_silent(outbox: Outbox, x: float) -> int:
    """How many copies of x it takes without a word."""
    spoken, silent = 1, 0
    while not copy.deepcopy(outbox_with(outbox, x, spoken)).due:
        silent, spoken = spoken, 2 * spoken
    while spoken - silent > 1:
        middle = (spoken + silent) // 2
        if outbox_with(outbox, x, middle).due:
            spoken = middle
        else:
            silent = middle
    return silent


def outbox_with(outbox: Outbox, x: float, copies: int) -> Outbox:
    tried = copy.deepcopy(outbox)
    tried.add(np.full(copies, x), now=NOW)
    return tried


@pytest.mark.parametrize("side", [-1.0, 1.0])
@pytest.mark.parametrize("far", [1e-9, 1e9])
def test_pushing_all_workers_at_once_to_just_below_their_triggers_stays_within_epsilon(
    side: float, far: float, rng: np.random.Generator
) -> None:
    sources, worst = Sources(EPSILON, rng), 0.0
    for name in range(4):
        sources.add(name, rng.normal(size=5_000))
    for _ in range(8):
        answer = sources.ledger.answer(now=NOW).estimate
        assert answer
        for name, node in sources.nodes.items():
            silent = as_many_as_stay_silent(node.outbox, answer.value + side * far)
            sources.add(name, np.full(silent, answer.value + side * far))
            sources.check()
        ordered = sources.truth()
        error = rank_errors(np.array([answer.value]), ordered, np.array([len(ordered) / 2]))
        worst = max(worst, error[0] / len(ordered))
        for name in sources.nodes:
            sources.add(name, rng.normal(size=200))
            sources.check()
    assert worst > 0.2 * EPSILON, "the adversary has no bite"


def furthest_off(outbox: Outbox, row: Row) -> float:
    """Where one more value adds most to the shift against the picture in the ledger."""
    clusters = outbox.digest.clusters
    below, upto = row.picture.scaled(clusters.count).ranks(clusters.bound)
    too_few = np.append(clusters.high[1:], clusters.count) - upto
    too_many = below - np.append(0.0, clusters.low[:-1])
    most = too_few if too_few.max() >= too_many.max() else too_many
    return float(clusters.bound[most.argmax()])


@pytest.mark.parametrize("case", range(30))
def test_pushing_while_the_receipt_is_late_keeps_the_promise_of_the_new_picture(
    case: int, rng: np.random.Generator
) -> None:
    """Others join meanwhile, so that the late receipt grants less than it lives by."""
    ledger, now = Ledger(0.1, number=1, now=NOW), 0.0
    outbox = Outbox(Source("w", "default", 1), Digest(0.005), now=NOW)
    values = [rng.normal(size=rng.integers(500, 5_000))]

    def add(outbox: Outbox, batch: Floats) -> None:
        outbox.add(batch, now=now)
        while outbox.due and (delta := outbox.delta(now=now)):
            outbox.receive(received(ledger, delta), now=now)

    add(outbox, values[0])
    for number in range(case % 4):
        joins = Outbox(Source("w", "default", 2 + number), Digest(0.005), now=NOW)
        add(joins, rng.normal(size=5))
    for _ in range(6):
        while not outbox.due and rng.random() < 0.95:
            values.append(np.full(rng.integers(1, 40), rng.choice([-9.0, 9.0, 0.1])))
            outbox.add(values[-1], now=now)
        now += 2.0
        if delta := outbox.delta(now=now):
            receipt, row = received(ledger, delta), ledger.row(outbox.source)
            place = furthest_off(outbox, row) if rng.random() < 0.5 else rng.choice([-9.0, 9.0])
            while outbox.acknowledged == outbox.count:
                values.append(np.array([place]))
                outbox.add(values[-1], now=now)
            truth = np.concatenate(values)[: max(row.upto, outbox.acknowledged)]
            assert len(truth) - row.upto <= row.counted.patience
            shift = true_shift(truth, row.picture.scaled(len(truth)))
            assert TALLY.all(np.array(shift <= row.counted.allowance + 1e-6))
            outbox.receive(receipt, now=now)
            add(outbox, np.array([0.0]))
            values.append(np.array([0.0]))


def received(ledger: Ledger, delta: bytes) -> Receipt:
    receipt = ledger.receive(delta, now=NOW)
    assert isinstance(receipt, Receipt)
    return receipt
