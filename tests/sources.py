"""Streams spread over sources: who receives what, who joins, leaves and restarts, and when.

The network here delays and loses nothing: a delta is cut now, arrives some batches later, and its
receipt some batches after that. Batches meanwhile are acknowledged or wait, as the outboxes decide.
(What a network can do worse, `storm.py` does.) After each batch, `check` holds every answer to the
exact multiset of what is acknowledged or covered.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from shared.digest import Digest
from shared.ledger import Ledger
from shared.outbox import Outbox
from shared.protocol import Receipt, Source, unpack_delta
from shared.values import Floats
from tests.exact import TALLY, rank_errors

NOW = 0.0
QUANTILES = (0.5, 0.01, 0.25, 0.9, 0.99)
OTHERS_MAX = 1.009  # of epsilon: what the certificate of any other quantile may reach


@dataclass(eq=False)
class Node:
    """A source, what it was given, and how many of that the deltas so far cover."""

    outbox: Outbox
    values: list[Floats] = field(default_factory=list)
    posted: bytes | None = None

    @property
    def source(self) -> Source:
        return self.outbox.source


class Sources:
    """Nodes and a ledger, with `delay` batches from a cut to its arrival, and to its receipt."""

    def __init__(self, epsilon: float, rng: np.random.Generator, delay: int = 0) -> None:
        self.rng, self.epsilon, self.delay = rng, epsilon, delay
        self.ledger = Ledger(epsilon, number=1, now=NOW)
        self.nodes: dict[int, Node] = {}
        self.all: list[Node] = []
        self.refused = 0
        self._post: deque[tuple[int, Node, bytes]] = deque()
        self._back: deque[tuple[int, Node, bytes, Receipt]] = deque()
        self._turn = 0

    def add(self, name: int, batch: Floats) -> None:
        node = self.nodes.get(name) or self._begun(name)
        node.outbox.add(batch, now=NOW)
        node.values.append(batch)
        self._turn += 1
        self.carry(node)

    def leave(self, name: int) -> None:
        """Says goodbye; the delta is carried at once."""
        node = self.nodes.pop(name)
        self.settle(node)
        node.outbox.goodbye()
        self.settle(node)
        assert node.outbox.closed

    def restart(self, name: int) -> None:
        """Comes back from its digest alone, and is heard before it takes more."""
        node = self.nodes[name]
        digest = Digest.from_bytes(node.outbox.digest.to_bytes())
        node.outbox = Outbox(node.source, digest, now=NOW)
        node.posted = None
        self.settle(node)

    def settle(self, node: Node) -> None:
        while node.outbox.due or node.posted:
            self._turn += self.delay
            self.carry(node)

    def carry(self, node: Node) -> None:
        if node.posted is None and (delta := node.outbox.delta(now=NOW)):
            node.posted = delta
            self._post.append((self._turn + self.delay, node, delta))
        while self._post and self._post[0][0] <= self._turn:
            _, sender, delta = self._post.popleft()
            receipt = self.ledger.receive(delta, now=NOW)
            assert isinstance(receipt, Receipt)
            self.refused += receipt.upto != unpack_delta(delta).upto
            self._back.append((self._turn + self.delay, sender, delta, receipt))
        while self._back and self._back[0][0] <= self._turn:
            _, sender, delta, receipt = self._back.popleft()
            if sender.posted == delta:
                sender.posted = None
                sender.outbox.receive(receipt, now=NOW)
                self.carry(sender)

    def _begun(self, name: int) -> Node:
        source = Source(f"w{name}", "default", int(self.rng.integers(2**63)))
        node = Node(Outbox(source, Digest(self.epsilon / 20), now=NOW))
        self.nodes[name] = node
        self.all.append(node)
        return node

    def truth(self) -> Floats:
        """Every acknowledged value, and every value a row covers."""
        parts = [np.empty(0)]
        for node in self.all:
            counted = max(node.outbox.acknowledged, self.ledger.row(node.source).upto)
            parts.append(np.concatenate([np.empty(0), *node.values])[:counted])
        return np.sort(np.concatenate(parts))

    def check(self) -> None:
        ordered = self.truth()
        for q in QUANTILES:
            estimate = self.ledger.answer(q, now=NOW).estimate
            if estimate is None:
                assert not len(ordered)
                return
            target = q * len(ordered)
            error = rank_errors(np.array([estimate.value]), ordered, np.array([target]))
            assert TALLY.all(error <= estimate.rank_error * len(ordered)), f"quantile {q}: {error}"
            assert estimate.rank_error <= self.epsilon * (1 if q == 0.5 else OTHERS_MAX)
            if q == QUANTILES[0]:
                assert ordered.searchsorted(estimate.low) <= target
                assert ordered.searchsorted(estimate.high, "right") >= target
