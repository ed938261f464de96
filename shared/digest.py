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

Why it stays true
-----------------
*Receiving.* A value goes to the first cluster whose bound is not below it. It is then in no cluster
later than a bound above it, so each uncertainty stands as it is, and each bound has counted the
batch exactly, on either side.
*Splitting.* A new bound inside a cluster starts with no values of its own, and with the width of
the cluster as its uncertainty: so many earlier values may lie on either side of it.
*Joining.* Neighbours become one by dropping the bound of the left. Nothing else changes.
*Merging.* Digests that are split at each other's bounds have the same bounds; then weights, copies
and uncertainties add up.

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
answer only with bounds. Half as wide, any value inside will do, and we may interpolate: errors on
smooth data are then about a hundredth of what is proven (docs/decisions/0001-half-as-wide.md).
Interpolation needs a belief: of its uncertainty, a bound remembers the part believed to lie below
it, as read off the straight line when it became a bound.

How large it gets
-----------------
Joining leaves a part of the room under the limit free, and the more certain a bound, the more. A
rule much like it is proven to keep O(log(rank_error * count) / rank_error) clusters [4]. For ours
this is measured: `python -m benchmarks.digest sizes`, rank_error 0.001, two million values, asked
after each 1,000 and, in brackets, after each 20,000; the most clusters at any time, times
rank_error:

    calm, pareto, huge, subnormals, tiny beside a giant   2.0 (1.6)
    sorted up or down, zig-zag, staggered drift           2.8 (2.6)
    bursts 3.9 (2.9)     drift 4.6 (4.2)     sine 6.1 (3.7)     inward 14.1 (8.9)
    one, two or five values                               1, 2 or 5 clusters, and exact

A cluster takes 48 bytes here and about 23 in `to_bytes`. The buffer comes on top: 8 bytes for each
of 32 / rank_error values, at least 128 KiB and at most 1 MiB, once that many were added unasked.

[1] T. Dunning, O. Ertl: Computing extremely accurate quantiles using t-digests, 2019. Their scale
    function k0, the flat one, is ours.
[2] G. Cormode, A. Mishra, J. Ross, P. Vesely: Theory meets practice at the median, KDD 2021.
[3] M. Greenwald, S. Khanna: Space-efficient online computation of quantile summaries, SIGMOD 2001.
[4] E. Gribelyuk, P. Sawettamalya, H. Wu, H. Yu: Simple & optimal quantile sketch, SIGMOD 2024.
"""

import math
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias, overload

import msgpack
import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared.clusters import NONE, ROWS, Clusters, Side
from shared.values import EXACT_MAX, Floats, as_values

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

# Join again when clusters times values have grown by so much: both what joining could win and what
# it costs. As above, for drift and inward at 0.0005:
#   1     32 (3.9), 52 (7.6)     1.25   22 (3.9), 38 (8.0)
#   1.5   20 (4.0), 32 (9.1)     2      19 (4.8), 28 (12.6)
JOIN_GROWTH = 1.25

REAL: Widths = ("<f8",)
WHOLE: Widths = ("<u1", "<u2", "<u4", "<u8")
LAYOUT = {
    "bound": REAL,
    "mean": REAL,
    "weight": WHOLE,
    "copies": WHOLE,
    "uncertainty": WHOLE,
    "believed": WHOLE,
}


class MalformedDigest(ValueError):
    """These bytes are not a digest."""


class Digest:
    """Quantiles of everything added, each with a rank error proven to be at most `rank_error`.

    Exact, with `rank_error` 0, while there are at most 2 / rank_error distinct values.
    Values are buffered; a question first gives the buffer to the clusters. Not for several threads.
    """

    def __init__(self, rank_error: float = 0.0005) -> None:
        if not RANK_ERROR_MIN <= rank_error < 0.5:
            range_ = f"from {RANK_ERROR_MIN} to below 0.5"
            raise ValueError(f"rank_error must be {range_}, not {rank_error}")
        self.rank_error_max = float(rank_error)
        self._clusters = NONE
        self._joined_at = 0
        self._buffer = array("d")
        self._buffer_most = min(max(FLUSH_MIN, int(FLUSH / rank_error)), FLUSH_MAX)

    def __repr__(self) -> str:
        return f"<Digest of {self.count} values, rank error at most {self.rank_error_max}>"

    def __reduce__(self) -> tuple[Callable[[bytes], Self], tuple[bytes]]:
        """Copies and pickles are what `from_bytes` makes of `to_bytes`."""
        return type(self).from_bytes, (self.to_bytes(),)

    def add(self, values: ArrayLike) -> None:
        """Add a number, or a one-dimensional array-like of any length: all of it, or none.

        `BadValue`, a `ValueError`, names the first position that does not hold a value.
        """
        buffer = self._buffer
        if type(values) is float and values * 0.0 == 0.0:  # finite: inf * 0 and NaN * 0 are NaN
            buffer.append(values)
        else:
            batch = as_values(values)
            while len(batch) > (room := self._buffer_most - len(buffer)):
                buffer.frombytes(batch[:room].view(np.uint8).data)
                self._flush()
                batch = batch[room:]
            buffer.frombytes(batch.view(np.uint8).data)
        if len(buffer) == self._buffer_most:
            self._flush()

    def merge(self, other: "Digest") -> None:
        """Add all that the other digest has seen. Costs clusters, never certainty.

        Uncertainties add up, which leaves less room to join. Of calm data, 256 merged digests hold
        13 / rank_error clusters, merged in pairs, then pairs of pairs, 40 / rank_error; one that
        was given all the values holds 1.5 / rank_error (`python -m benchmarks.digest merges`).
        They join again as values come. A coarser digest is refused with a `ValueError`, and nothing
        changes, where it would break this one's promise.
        """
        if self.count + other.count > EXACT_MAX:
            raise ValueError("more than 2**53 values: too many to count")
        self._hold(self.clusters.union(other.clusters))

    @property
    def clusters(self) -> Clusters:
        """What is known, for those who compute with it; a value that never changes."""
        self._flush()
        return self._clusters

    @property
    def count(self) -> int:
        return self._clusters.count + len(self._buffer)

    @property
    def min(self) -> float | None:
        return self.quantile(0)

    @property
    def max(self) -> float | None:
        return self.quantile(1)

    @property
    def rank_error(self) -> float:
        """The rank error proven now, for every quantile, as a share of count; 0: all is exact."""
        return self.clusters.widest / max(self.count, 1)

    def median(self) -> float | None:
        return self.quantile(0.5)

    @overload
    def quantile(self, q: float) -> float | None: ...
    @overload
    def quantile(self, q: Many) -> Floats | None: ...
    def quantile(self, q: float | Many) -> float | Floats | None:
        """The value whose rank is q * count, for one q or an array of them; None while empty."""
        share = np.asarray(q, dtype=np.float64)
        if not ((share >= 0) & (share <= 1)).all():
            raise ValueError(f"q must be from 0 to 1, not {q}")
        if self.count == 0:
            return None
        values = self.clusters.value_at(share * self.count)
        return values if share.ndim else float(values)

    @overload
    def rank(self, x: float, *, strict: bool = False) -> float: ...
    @overload
    def rank(self, x: Many, *, strict: bool = False) -> Floats: ...
    def rank(self, x: float | Many, *, strict: bool = False) -> float | Floats:
        """How many values are <= x, or if strict < x, by estimate; for one x or an array."""
        points, side = _points(x), _side(strict)
        counts = self.clusters.believed_count(points, side)
        return counts if points.ndim else float(counts)

    @overload
    def rank_bounds(self, x: float, *, strict: bool = False) -> tuple[int, int]: ...
    @overload
    def rank_bounds(self, x: Many, *, strict: bool = False) -> tuple[Counts, Counts]: ...
    def rank_bounds(
        self, x: float | Many, *, strict: bool = False
    ) -> tuple[int, int] | tuple[Counts, Counts]:
        """At least and at most so many values are <= x, or if strict < x: this is proven."""
        points, side = _points(x), _side(strict)
        low, high = self.clusters.proven_count(points, side)
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
        """MessagePack of {"digest": 1, "rank_error": ..., and each row of the clusters by name}.

        Bounds and means are little-endian f8, counts the narrowest unsigned integers they fit.
        """
        rows = zip(LAYOUT.items(), self.clusters.rows, strict=True)
        packed = {name: _packed(row, widths) for (name, widths), row in rows}
        data: bytes = msgpack.packb({"digest": 1, "rank_error": self.rank_error_max, **packed})
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The digest that wrote these bytes; `MalformedDigest` if none did.

        Time and memory are of the order of the bytes given, whatever they claim to hold.
        """
        rank_error, rows = _unpacked(data)
        digest, clusters = cls(rank_error), Clusters(rows)
        flaw = clusters.flaw()
        if flaw is None and clusters.widest > digest._limit(clusters.count):
            flaw = "a cluster is wider than the rank error allows"
        if flaw is not None:
            raise MalformedDigest(f"this digest contradicts itself: {flaw}")
        digest._clusters = clusters
        return digest

    @property
    def _distinct_most(self) -> int:
        return math.ceil(2 / self.rank_error_max)

    def _limit(self, count: int) -> int:
        """How wide a cluster may be: rank_error * count, rounded down, without a float's error."""
        numerator, denominator = self.rank_error_max.as_integer_ratio()
        return numerator * count // denominator

    def _flush(self) -> None:
        if self._buffer:
            self._receive(np.sort(np.frombuffer(self._buffer)))
            del self._buffer[:]

    def _receive(self, batch: Floats) -> None:
        """While all is exact it stays so, each new value a bound, until there are too many."""
        clusters = self._clusters
        limit = self._limit(clusters.count + len(batch)) if clusters.widest else 0
        self._hold(clusters.split(clusters.bounds_needed(batch, limit)).received(batch))

    def _hold(self, clusters: Clusters) -> None:
        """The one place where clusters become the digest's own, and where the rule is kept."""
        limit = self._limit(clusters.count)
        if clusters.widest > limit:
            proven = clusters.widest / clusters.count
            raise ValueError(f"too coarse: proves {proven:.3g}, not {self.rank_error_max:.3g}")
        due = JOIN_GROWTH * self._joined_at
        if len(clusters) > self._distinct_most and len(clusters) * clusters.count > due:
            clusters = clusters.joined(limit)
            self._joined_at = len(clusters) * clusters.count
        self._clusters = clusters


def _points(x: float | Many) -> Floats:
    points = np.asarray(x, dtype=np.float64)
    if np.isnan(points).any():
        raise ValueError("x must be a number, not NaN")
    return points


def _side(strict: bool) -> Side:
    return "left" if strict else "right"


def _packed(row: Floats, widths: Widths) -> bytes:
    most = int(row.max(initial=0)) if len(widths) > 1 else 0
    width = next(width for width in widths if np.can_cast(np.min_scalar_type(most), width))
    return row.astype(width).tobytes()


def _unpacked(data: bytes) -> tuple[float, Floats]:
    """The rank error and the rows; what they say is for the caller to check."""
    try:
        message = msgpack.unpackb(
            data, max_map_len=2 + ROWS, max_array_len=0, max_ext_len=0, max_str_len=16
        )
        match message:
            case {"digest": 1, "rank_error": float(rank_error), **rows} if (
                rows.keys() == LAYOUT.keys() and RANK_ERROR_MIN <= rank_error < 0.5
            ):
                return rank_error, _unpacked_rows(rows)
    except (ValueError, TypeError) as error:
        raise MalformedDigest(f"not the MessagePack of a digest: {error}") from None
    raise MalformedDigest("not the MessagePack of a digest")


def _unpacked_rows(rows: dict[Any, Any]) -> Floats:
    clusters = len(rows["bound"]) // 8
    return np.array([_unpacked_row(rows[name], clusters, LAYOUT[name]) for name in LAYOUT])


def _unpacked_row(packed: bytes, clusters: int, widths: Widths) -> Floats:
    for width in widths:
        if len(packed) == clusters * np.dtype(width).itemsize:
            return np.frombuffer(packed, width).astype(np.float64)
    raise ValueError("its rows differ in length")
