"""The whole system in one process: an outbox for each node, one ledger, and bytes between them.

Nothing is simulated but the network. A node says what its outbox wants said, packed as it would be
for the wire; the ledger judges the bytes; the receipt goes back the same way. Nobody waits for
anybody here, so no time passes: no heartbeats, no silence, and every value is acknowledged when
`add_value` returns.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared.digest import Digest
from shared.ledger import Ledger
from shared.outbox import Outbox
from shared.protocol import (
    Receipt,
    Source,
    digest_error_for,
    pack_request,
    pack_response,
    unpack_request,
    unpack_response,
)
from shared.rank_shift import Estimate
from shared.rows import BrokenInvariant
from shared.values import BadValue, Floats, as_values

NOW = 0.0


@dataclass
class Communication:
    """What the nodes have said so far: deltas, goodbyes too, and the bytes of their bodies.

    Headers and responses are not in `bytes`. `raw_bytes` is what the values themselves take.
    """

    deltas: int = 0
    bytes: int = 0
    raw_bytes: int = 0


class MedianTracker:
    """The running median of all nodes' values, proven to within epsilon of all ranks.

    A node is whatever can be a key of a dictionary; it begins with its first batch. `epsilon` is
    from 0.0005 to below 0.5; 5 % is 0.05.
    """

    def __init__(self, epsilon: float = 0.05) -> None:
        self._epsilon = _number("epsilon", epsilon)
        self.communication = Communication()
        self._ledger = Ledger(self._epsilon, number=1, now=NOW)
        self._nodes: dict[Hashable, Outbox] = {}
        self._begun = 0
        self._median: Estimate | None = None

    def __repr__(self) -> str:
        return f"<MedianTracker of {len(self._nodes)} nodes, epsilon {self.epsilon}>"

    @property
    def epsilon(self) -> float:
        return self._epsilon

    def add_value(self, node_id: Hashable, value: float) -> None:
        self.add_values(node_id, value)

    def add_values(self, node_id: Hashable, values: ArrayLike) -> None:
        """Add a number, or a one-dimensional array-like of any length, to what a node received.

        If one is not a value, none is added: `BadValue`, a `ValueError`, names the first.
        """
        outbox = self._nodes.get(node_id) or self._new()
        before = outbox.count
        self.communication.raw_bytes += 8 * (outbox.add(values, now=NOW) - before)
        self._nodes[node_id] = outbox
        if outbox.due:
            self._speak(outbox)

    def remove_node(self, node_id: Hashable) -> None:
        """The node says goodbye; `KeyError` if there is none. Its values stay counted.

        Under the same name another may begin, with nothing of its own.
        """
        outbox = self._node(node_id)
        outbox.goodbye()
        self._speak(outbox)
        del self._nodes[node_id]

    def estimate_median(self) -> float | None:
        """The median of all values so far; None while there are none."""
        median = self._estimate()
        return None if median is None else median.value

    @property
    def rank_error(self) -> float:
        """The certificate: the median's rank is proven to be no further off than this share.

        It is of what was said, and 0 while there is nothing to be wrong about.
        """
        median = self._estimate()
        return median.rank_error if median else 0.0

    def quantile(self, q: float) -> float | None:
        """The value whose rank is q of all; None while there are none."""
        estimate = self.estimate(q)
        return None if estimate is None else estimate.value

    def estimate(self, q: float) -> Estimate | None:
        """A quantile, its own certificate, and two values that certainly enclose the true one.

        These are infinite where nothing encloses it: beyond what was said there may be more.
        """
        return self._ledger.answer(_number("q", q), now=NOW).estimate

    def local_median(self, node_id: Hashable) -> float | None:
        """What the node itself takes for the median of its own values."""
        return self._node(node_id).digest.median()

    def _estimate(self) -> Estimate | None:
        self._median = self._median or self.estimate(0.5)
        return self._median

    def _node(self, node_id: Hashable) -> Outbox:
        if node_id not in self._nodes:
            raise KeyError(f"there is no node {node_id!r}")
        return self._nodes[node_id]

    def _new(self) -> Outbox:
        self._begun += 1
        source = Source(f"node-{self._begun}", "default", self._begun)
        return Outbox(source, Digest(digest_error_for(self.epsilon)), now=NOW)

    def _speak(self, outbox: Outbox) -> None:
        while outbox.due and (delta := outbox.delta(now=NOW)):
            self.communication.deltas += 1
            self.communication.bytes += len(delta)
            requested = unpack_request(pack_request([delta]))
            answers = [self._ledger.receive(data, now=NOW) for data in requested]
            for answer in unpack_response(pack_response(answers)):
                if not isinstance(answer, Receipt):
                    raise BrokenInvariant(answer.sentence)
                outbox.receive(answer, now=NOW)
        self._median = None


def simulate(
    N: int,  # noqa: N803  the number of streams, as the problem is stated
    epsilon: float,
    data_streams: Sequence[ArrayLike],
    queries: Sequence[int],
    arrival: Literal["round_robin", "sequential"] = "round_robin",
) -> list[float]:
    """The median after the first t values, for each t in queries, proven to within epsilon.

    Values arrive one from each stream in turn, while it lasts, or stream after stream; none of the
    streams is empty. Queries count values, from 1, in any order; they may repeat.
    """
    streams = _streams(N, _listed("data_streams", data_streams))
    source, place = _arrivals(streams, arrival)
    wanted = _queries(_listed("queries", queries), len(source))
    tracker, medians, before = MedianTracker(epsilon), dict[int, float](), 0
    for t in sorted(set(wanted)):
        new, at, counts = np.unique(source[before:t], return_index=True, return_counts=True)
        for node, first, count in zip(new, place[before:t][at], counts, strict=True):
            tracker.add_values(int(node), streams[node][first : first + count])
        medians[t], before = cast(float, tracker.estimate_median()), t  # t >= 1: there is one
    return [medians[t] for t in wanted]


def _number(name: str, given: object) -> float:
    if isinstance(given, int | float | np.integer | np.floating) and not isinstance(given, bool):
        try:
            return float(given)
        except OverflowError:
            raise ValueError(f"{name} must be a number that a float can hold") from None
    raise ValueError(f"{name} must be a number, not {given!r}")


def _listed(name: str, given: Any) -> list[Any]:
    """What has an order and a length; numbers packed in bytes, keys and sets have not."""
    listed = given.ndim > 0 if isinstance(given, np.ndarray) else isinstance(given, Sequence)
    if listed and not isinstance(given, str | bytes | bytearray):
        return list(given)
    raise ValueError(f"{name} must be a list, a tuple or an array, not {given!r}")


def _streams(number: object, given: list[Any]) -> list[Floats]:
    if type(number) is not int or number < 1:
        raise ValueError(f"N must be a whole number of at least 1, not {number!r}")
    if len(given) != number:
        raise ValueError(f"N is {number}, but there are {len(given)} data_streams")
    streams = []
    for at, stream in enumerate(given):
        numbers = (
            stream if isinstance(stream, np.ndarray) else _listed(f"data_streams[{at}]", stream)
        )
        try:
            streams.append(as_values(numbers))
        except BadValue as error:
            raise ValueError(f"data_streams[{at}]: {error}") from None
        if not len(streams[-1]):
            raise ValueError(f"data_streams[{at}] is empty: each needs at least one value")
    return streams


def _arrivals(streams: Sequence[Floats], arrival: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """From which stream each value comes, and from which place in it, in the order they arrive."""
    source = np.repeat(np.arange(len(streams)), [len(stream) for stream in streams])
    place = np.concatenate([np.arange(len(stream)) for stream in streams])
    if arrival == "sequential":
        return source, place
    if arrival == "round_robin":
        order = np.lexsort((source, place))
        return source[order], place[order]
    raise ValueError(f"arrival is 'round_robin' or 'sequential', not {arrival!r}")


def _queries(given: list[Any], most: int) -> list[int]:
    for at, t in enumerate(given):
        if type(t) is bool or not isinstance(t, (int, np.integer)) or not 1 <= t <= most:
            raise ValueError(f"queries[{at}] must be a whole number from 1 to {most}, not {t!r}")
    return [int(t) for t in given]
