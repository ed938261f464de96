"""A t-digest that knows how wrong it is.

What a cluster is
-----------------
A t-digest [1] keeps a stream as clusters, each a set of received values of which it remembers the
weight and the mean. How wrong its answers are it cannot say: values hide on the wrong side of a
mean, and an adversary who reads the means can hide almost half of all values there [2]. Two more
numbers end that. A cluster here also remembers its **bound**, the largest of its values, and its
**uncertainty**: how many values of later clusters may lie below that bound.

What is always true
-------------------
Clusters stand in the order of their bounds, and each value belongs to exactly one. With `low` for
the weight of all clusters up to and including this one,

    #(values <= bound) >= low
    #(values <  bound) <= low - copies of the bound + uncertainty  =: high

The first, because each of those values is at most the bound of its own cluster. The second, because
of those values the copies of the bound do not lie below it, and of all others at most `uncertainty`
do. So for x between two neighbouring bounds both counts lie between `low` of the left one and
`high` of the right one; that interval is the `width` of the cluster between them:

    width = weight - copies + uncertainty

A cluster of equal values is all copies. Its width is its uncertainty, mostly 0: nobody flags it.

Of its uncertain values, a bound **believes** some number to lie below it. It may be wrong, but
keeps within what is proven, and in order with its neighbours:

    0 <= believed <= uncertainty
    low + believed  <=  (low - copies + believed) of the next cluster

Why it stays true
-----------------
*Receiving.* A value goes to the first cluster whose bound is not below it. It is then in no cluster
later than a bound above it, so uncertainty and belief stand as they are, and each bound has counted
the batch exactly, on either side.
*Splitting.* A new bound inside a cluster starts with no values of its own, and with the width of
the cluster as its uncertainty: so many earlier values may lie on either side of it. It believes
what a straight line through the cluster says, rounded to a whole number.
*Joining.* Neighbours become one by dropping the bound of the left. Nothing else changes.
*Merging.* Digests that are split at each other's bounds have the same bounds; then weights, copies,
uncertainties and beliefs add up.

Why one rule suffices
---------------------
    width <= rank_error * count        for each cluster, at all times

Clusters are split where a batch would break it, and joined only where it allows. Now ask for the
value of rank t. Either the answer lies inside a cluster, and the interval from `low` to `high`
holds both t and the truth about the answer: they are at most `width` apart. Or it is a bound, and
t lies between the counts believed to be below and up to it. The one is in the interval of the
cluster to its left, the other in that to its right, so t is off by at most the larger of two
widths. Thus every quantile, of any input, at any time, is within `rank_error`.

This is the invariant of Greenwald and Khanna [3]. They let clusters be twice as wide, and then may
answer only with bounds. Half as wide, any value inside will do, and we may interpolate: on smooth
data the mean error is about a hundredth of what is proven (docs/decisions/0001-half-as-wide.md).

How large it gets
-----------------
Joining leaves a part of the room under the limit free, and the more certain a bound, the more. A
rule much like it is proven to keep O(log(rank_error * count) / rank_error) clusters [4]. For ours
it is measured: clusters * rank_error, the most at any time, of two million values at rank_error
0.001, asked after each 1,000 and, in brackets, each 20,000 (`python -m benchmarks.digest sizes`).

    calm, each its own mean, log-uniform, pareto, tiny beside a giant     2.0 (1.6)
    subnormals, huge, atoms that come late                                2.0 (1.6)
    atom in noise 1.8 (1.0)    zeros of both signs 1.5 (0.8)    two islands 2.1 (2.1)
    sorted up, sorted down, zig-zag 2.6 (2.0)       staggered drift 2.7 (2.6)
    bursts 3.9 (2.9)    drift 4.6 (4.2)    sine 6.1 (3.7)    inward 14.1 (8.9)
    one value, two, five: 1, 2, 5 clusters, and exact

The worst that a search over adaptive streams found is inward, with a question after each batch, the
smaller the worse: about 2.2 ln(rank_error * count), five more for each ten times as many values.

A cluster takes 48 bytes here, about as much again while questions are asked, and about 23 in
`to_bytes`. The buffer comes on top: 8 bytes for each of 32 / rank_error values, at least 128 KiB
and at most 1 MiB, once that many were added unasked.

[1] T. Dunning, O. Ertl: Computing extremely accurate quantiles using t-digests, 2019. Their scale
    function k0, the flat one, is ours.
[2] G. Cormode, A. Mishra, J. Ross, P. Vesely: Theory meets practice at the median, KDD 2021.
[3] M. Greenwald, S. Khanna: Space-efficient online computation of quantile summaries, SIGMOD 2001.
[4] E. Gribelyuk, P. Sawettamalya, H. Wu, H. Yu: Simple & optimal quantile sketch: combining
    Greenwald-Khanna with Khanna-Greenwald, SIGMOD 2024.
"""

import math
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias, overload

import msgpack
import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared.clusters import COUNT_MAX, FIELDS, NONE, Clusters, Side
from shared.values import EXACT_MAX, BadValue, Floats, as_values

One: TypeAlias = float | np.floating[Any] | np.integer[Any]
Many: TypeAlias = Sequence[float] | NDArray[Any]
Counts: TypeAlias = NDArray[np.int64]
Widths: TypeAlias = tuple[str, ...]

RANK_ERROR_MIN = 1e-6

# The buffer is FLUSH / rank_error values, within the limits. Batches of 10,000, ns a value and, in
# brackets, clusters * rank_error, `python -m benchmarks.digest constants`, here for calm and drift:
#   rank_error 0.0005:  FLUSH      8   31 (1.8), 45 (4.3)     16   19 (1.6), 30 (4.0)
#                                 32   14 (1.5), 23 (3.9)     64   13 (1.3), 19 (3.7)
#   rank_error 0.01:    FLUSH_MIN  4,096   31 (1.6), 35 (4.1)    8,192   18 (1.4), 21 (4.0)
#                                 16,384   12 (1.3), 14 (3.9)   32,768   10 (1.3), 11 (4.2)
FLUSH, FLUSH_MIN, FLUSH_MAX = 32, 16_384, 131_072

# Join again once clusters times values have grown by this factor: with more clusters there is more
# to gain, and with more values more is allowed. As above, for drift and inward at 0.0005:
#   1     32 (3.9), 52 (7.6)     1.25   22 (3.9), 38 (8.0)
#   1.5   20 (4.0), 32 (9.1)     2      19 (4.8), 28 (12.6)
JOIN_GROWTH = 1.25

REAL: Widths = ("<f8",)
WHOLE: Widths = ("<u1", "<u2", "<u4", "<u8")
LAYOUT = {field: REAL if field in {"bound", "mean"} else WHOLE for field in FIELDS}


class MalformedDigest(ValueError):
    """These bytes are not a digest."""


class Digest:
    """Quantiles of everything added, each with a rank error proven to be at most `rank_error`.

    Exact, with `rank_error` 0, while there are at most 2 / rank_error distinct values (and no
    coarser digest was merged that was not exact). Values are buffered; a question first gives the
    buffer to the clusters, which takes about 0.2 ms however few they are, and may change later
    answers within what is proven. Not for several threads at once.
    """

    def __init__(self, rank_error: float = 0.0005) -> None:
        asked = _points("rank_error", rank_error)
        if asked.ndim or not RANK_ERROR_MIN <= asked < 0.5:
            range_ = f"one number from {RANK_ERROR_MIN} to below 0.5"
            raise ValueError(f"rank_error must be {range_}, not {asked}")
        self._rank_error_max = float(asked)
        self._buffer = array("d")
        self._joined_at = 0.0
        self._keep(NONE)

    def __repr__(self) -> str:
        return f"<Digest of {self.count} values, rank error at most {self.rank_error_max}>"

    def __reduce__(self) -> tuple[Callable[[bytes], Self], tuple[bytes]]:
        """Copies and pickles are what `from_bytes` makes of `to_bytes`."""
        return type(self).from_bytes, (self.to_bytes(),)

    def add(self, values: ArrayLike) -> None:
        """Add a number, or a one-dimensional array-like of any length.

        If one is not a value, none is added: `BadValue`, a `ValueError`, names the first.
        """
        buffer = self._buffer
        one: Any = values
        if type(one) is float and one * 0.0 == 0.0 and len(buffer) < self._buffer_most:
            buffer.append(one)  # the quick way: a float, finite (inf * 0 is NaN), and room for it
        elif type(one) in {float, int, np.float64} and abs(one) <= EXACT_MAX:
            self._make_room(1)
            self._buffer.append(one)
        else:
            self._add_batch(as_values(values))

    def _add_batch(self, batch: Floats) -> None:
        self._make_room(len(batch))
        while len(batch) > (room := self._buffer_most - len(self._buffer)):
            self._buffer.frombytes(batch[:room].view(np.uint8).data)
            self._flush()
            batch = batch[room:]
        self._buffer.frombytes(batch.view(np.uint8).data)

    def merge(self, other: "Digest") -> None:
        """Add all that the other digest has seen. Costs clusters, never certainty.

        Uncertainties add up and leave less room to join. One after the other, 256 digests of calm
        or drifting data hold 13 to 20 / rank_error clusters; in pairs, then pairs of pairs, calm
        ones 40, twice as many for each four times as many digests; `python -m benchmarks.digest
        merges` shows it. At worst clusters just add up: each digest may have one wide cluster where
        all others have their values. They join again as values come.
        A coarser digest is refused with a `ValueError`, and nothing changes, where clusters would
        be wider than this one allows.
        """
        if not isinstance(other, Digest):
            raise TypeError(f"merge takes a Digest, not {type(other).__name__}")
        self._check_count(other.count)
        self._keep(self._joined(self.clusters.merged(other.clusters)))

    @property
    def clusters(self) -> Clusters:
        """What is known, for those who compute with it; a value that never changes."""
        self._flush()
        return self._clusters

    @property
    def rank_error_max(self) -> float:
        """The rank error asked for: that of any answer, now and later, is at most this."""
        return self._rank_error_max

    @property
    def count(self) -> int:
        """How many values were added."""
        return self._clusters.count + len(self._buffer)

    @property
    def min(self) -> float | None:
        """The least value, exactly; None while empty."""
        return self.quantile(0)

    @property
    def max(self) -> float | None:
        """The greatest value, exactly; None while empty."""
        return self.quantile(1)

    @property
    def rank_error(self) -> float:
        """What is proven now of every quantile, in ranks divided by count, rounded up; 0: exact."""
        widest, count = self.clusters.widest, max(self.count, 1)
        numerator, denominator = (widest / count).as_integer_ratio()
        rounded_down = numerator * count < widest * denominator
        return math.nextafter(widest / count, 1) if rounded_down else widest / count

    def median(self) -> float | None:
        """The value in the middle, or the mean of the two in the middle; None while empty."""
        return self.quantile(0.5)

    @overload
    def quantile(self, q: One) -> float | None: ...
    @overload
    def quantile(self, q: Many) -> Floats | None: ...
    def quantile(self, q: One | Many) -> float | Floats | None:
        """The value whose rank is q * count, for one q or an array of them; None while empty."""
        wanted = _points("q", q)
        beyond = wanted[(wanted < 0) | (wanted > 1)]
        if len(beyond):
            raise ValueError(f"q must be from 0 to 1, not {beyond[0]}")
        if self.count == 0:
            return None
        values = self.clusters.value_at(wanted * self.count)
        return values if wanted.ndim else float(values)

    @overload
    def rank(self, x: One, *, strict: bool = False) -> float: ...
    @overload
    def rank(self, x: Many, *, strict: bool = False) -> Floats: ...
    def rank(self, x: One | Many, *, strict: bool = False) -> float | Floats:
        """How many values are <= x, or if strict < x, by estimate; for one x or an array."""
        points = _points("x", x)
        counts = self.clusters.believed_count(points, _side(strict))
        return counts if points.ndim else float(counts)

    @overload
    def rank_bounds(self, x: One, *, strict: bool = False) -> tuple[int, int]: ...
    @overload
    def rank_bounds(self, x: Many, *, strict: bool = False) -> tuple[Counts, Counts]: ...
    def rank_bounds(
        self, x: One | Many, *, strict: bool = False
    ) -> tuple[int, int] | tuple[Counts, Counts]:
        """At least and at most so many values are <= x, or if strict < x: this is proven.

        The two are never more than rank_error * count apart.
        """
        points = _points("x", x)
        low, high = self.clusters.proven_count(points, _side(strict))
        if points.ndim:
            return low.astype(np.int64), high.astype(np.int64)
        return int(low), int(high)

    def centroids(self) -> tuple[Floats, Counts]:
        """The mean and the weight of each cluster, by mean, as other t-digests hold them."""
        clusters = self.clusters
        pure = clusters.copies == clusters.weight
        means = np.where(pure, clusters.bound, clusters.mean)  # a mean of equals may be an ulp off
        means = np.clip(means, clusters.bound[:1], clusters.bound[-1:])
        order = np.argsort(means, kind="stable")
        return means[order], clusters.weight[order].astype(np.int64)

    def to_bytes(self) -> bytes:
        """MessagePack of {"digest": 1, "rank_error", "joined_at", and each field of the clusters}.

        Bounds and means are little-endian f8, counts the narrowest unsigned integers they fit.
        """
        fields = zip(LAYOUT.items(), self.clusters.table, strict=True)
        packed = {name: _packed(numbers, widths) for (name, widths), numbers in fields}
        head = {"digest": 1, "rank_error": self.rank_error_max, "joined_at": self._joined_at}
        data: bytes = msgpack.packb(head | packed)
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The digest that wrote these bytes; `MalformedDigest` if none did.

        Time and memory are of the order of the bytes given, whatever they claim to hold.
        """
        rank_error, joined_at, table = _unpacked(data)
        digest, clusters = cls(rank_error), Clusters(table)
        flaw = clusters.flaw()
        if flaw is None and clusters.widest > digest._limit(clusters.count):
            flaw = "a cluster is wider than the rank error allows"
        if flaw is None and not 0 <= joined_at <= len(clusters) * clusters.count:
            flaw = "its clusters were joined when there were more"
        if flaw is not None:
            raise MalformedDigest(f"this digest contradicts itself: {flaw}")
        digest._joined_at = joined_at
        digest._keep(clusters)
        return digest

    def _limit(self, count: int) -> int:
        """How wide a cluster may be: rank_error * count, rounded down, without a float's error."""
        numerator, denominator = self.rank_error_max.as_integer_ratio()
        return numerator * count // denominator

    def _check_count(self, more: int) -> None:
        if self.count + more > COUNT_MAX:
            raise ValueError("a digest counts up to 2**53 - 1 values, and these would be more")

    def _make_room(self, more: int) -> None:
        self._check_count(more)
        if len(self._buffer) >= self._buffer_most:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            self._keep(self._received(np.sort(np.frombuffer(self._buffer))))

    def _keep(self, clusters: Clusters) -> None:
        """Clusters that hold all there is: no value is buffered any more."""
        most = min(max(FLUSH_MIN, int(FLUSH / self.rank_error_max)), FLUSH_MAX)
        self._buffer_most = min(most, COUNT_MAX - clusters.count)
        self._clusters, self._buffer = clusters, array("d")

    def _received(self, batch: Floats) -> Clusters:
        """While all is exact it stays so, each new value a bound, until there are too many."""
        clusters = self._clusters
        if not clusters.widest:
            return self._joined(clusters.received_exactly(batch))
        limit = self._limit(clusters.count + len(batch))
        return self._joined(clusters.split(clusters.bounds_needed(batch, limit)).received(batch))

    def _joined(self, clusters: Clusters) -> Clusters:
        """These clusters, or fewer; and the one place that sees to the rule."""
        limit = self._limit(clusters.count)
        if clusters.widest > limit:
            proven = clusters.widest / clusters.count
            what = f"together they prove {proven:.3g}, not {self.rank_error_max:.3g}"
            raise ValueError(f"the other digest is too coarse for this one: {what}")
        size = len(clusters) * clusters.count
        if len(clusters) > 2 / self.rank_error_max and size > JOIN_GROWTH * self._joined_at:
            clusters = clusters.joined(limit)
            self._joined_at = float(len(clusters) * clusters.count)
        return clusters


def _points(name: str, given: One | Many) -> Floats:
    try:
        points = as_values(given, infinite=True)
    except BadValue as error:
        raise ValueError(f"{name}: {error}") from None
    return points if np.ndim(given) else points.reshape(())


def _side(strict: bool) -> Side:
    return "left" if strict else "right"


def _packed(numbers: Floats, widths: Widths) -> bytes:
    most = int(numbers.max(initial=0)) if widths is WHOLE else 0
    width = next(width for width in widths if np.can_cast(np.min_scalar_type(most), width))
    return numbers.astype(width).tobytes()


def _unpacked(data: bytes) -> tuple[float, float, Floats]:
    """The rank error, `joined_at` and the table; what they say is for the caller to check."""
    try:
        message = msgpack.unpackb(
            data, max_map_len=3 + len(FIELDS), max_array_len=0, max_ext_len=0, max_str_len=16
        )
        match message:
            case {
                "digest": 1,
                "rank_error": float(asked),
                "joined_at": float(joined),
                **fields,
            } if fields.keys() == LAYOUT.keys() and RANK_ERROR_MIN <= asked < 0.5:
                return asked, joined, _unpacked_table(fields)
    except (ValueError, TypeError, BufferError):
        pass
    raise MalformedDigest("these bytes are not a digest, or not one of version 1")


def _unpacked_table(fields: dict[Any, Any]) -> Floats:
    clusters = len(fields["bound"]) // 8
    return np.array([_unpacked_field(fields[name], clusters, LAYOUT[name]) for name in FIELDS])


def _unpacked_field(packed: bytes, clusters: int, widths: Widths) -> Floats:
    for width in widths:
        if len(packed) == clusters * np.dtype(width).itemsize:
            return np.frombuffer(packed, width).astype(np.float64)
    raise ValueError("its fields differ in length")
