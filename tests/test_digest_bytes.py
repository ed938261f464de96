"""A digest's bytes: they come back as they were, and anything else is `MalformedDigest`."""

import tracemalloc
from collections.abc import Callable

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clusters import (
    BELIEVED,
    BOUND,
    COPIES,
    COUNT_MAX,
    FIELDS,
    MEAN,
    UNCERTAINTY,
    WEIGHT,
    Clusters,
)
from shared.digest import LAYOUT, Digest, MalformedDigest
from shared.values import Floats
from tests.exact import check_digest
from tests.streams import STREAMS
from tests.test_clusters import any_clusters


def digest_of(values: Floats, rank_error: float = 0.01) -> Digest:
    digest = Digest(rank_error)
    digest.add(values)
    return digest


FIVE = digest_of(np.arange(5.0)).clusters


def fields_of(clusters: Clusters) -> dict[str, bytes]:
    """As a forger would write them: counts in eight bytes, whatever they are."""
    fields = zip(LAYOUT.items(), clusters.table, strict=True)
    with np.errstate(invalid="ignore"):
        return {name: numbers.astype(widths[-1]).tobytes() for (name, widths), numbers in fields}


def packed(clusters: Clusters = FIVE, **changes: object) -> bytes:
    message = {"digest": 1, "rank_error": 0.01, "joined_at": 0.0} | fields_of(clusters) | changes
    written: bytes = msgpack.packb(message)
    return written


VALID = digest_of(np.random.default_rng(1).normal(size=1_000)).to_bytes()


@pytest.mark.parametrize("name", STREAMS)
def test_a_digest_comes_back_as_it_was(name: str, rng: np.random.Generator) -> None:
    values = STREAMS[name](20_000, rng)
    digest = digest_of(values)
    again = Digest.from_bytes(digest.to_bytes())
    assert again.to_bytes() == digest.to_bytes()
    assert again.rank_error_max == digest.rank_error_max
    again.add(values)
    check_digest(again, np.repeat(values, 2))


def test_an_empty_digest_comes_back_empty() -> None:
    assert Digest.from_bytes(Digest(0.02).to_bytes()).to_bytes() == Digest(0.02).to_bytes()


def test_what_is_still_buffered_is_in_the_bytes() -> None:
    digest = Digest()
    digest.add(3.0)
    assert Digest.from_bytes(digest.to_bytes()).median() == 3.0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xc0",
        VALID[:-1],
        VALID + b"\0",
        msgpack.packb([1, 2, 3]),
        packed(digest=2),
        packed(digest="1"),
        packed(rank_error=0),
        packed(rank_error=0.5),
        packed(rank_error=float("nan")),
        packed(rank_error="0.01"),
        packed(joined_at=0),
        packed(joined_at=None),
        packed(weight=b"\0" * 7),
        packed(weight=b""),
        packed(mean=b"\0" * 20),
        packed(bound=b"\0" * 7),
        packed(bound="text"),
        packed(bound=None),
        packed(copies=5),
        packed(extra=1),
        msgpack.packb({1: 2}),
        msgpack.packb({"digest": 1, "rank_error": 0.01}),
        packed(mean=msgpack.ExtType(1, b"")),
        b"\xdd\xff\xff\xff\xff" * 1_000,  # arrays in arrays, each said to be 4 G long
        b"\x91" * 100_000,  # nested deeply
        b"\xc6\xff\xff\xff\xff",  # bytes, said to be 4 G long
        b"\xdf\xff\xff\xff\xff",  # a map, likewise
    ],
)
def test_what_no_digest_wrote_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedDigest, match="are not a digest, or not one of version 1"):
        Digest.from_bytes(data)


@pytest.mark.parametrize(
    ("row", "column", "value", "flaw"),
    [
        (BOUND, 0, np.nan, "not finite"),
        (MEAN, 3, np.inf, "not finite"),
        (BOUND, 1, 0.0, "the bounds are not in order"),
        (COPIES, 2, 0, "does not hold its own bound"),
        (WEIGHT, 2, 0, "more copies than values"),
        (WEIGHT, 2, 2.0**53, "more values than can be counted"),
        (WEIGHT, 2, 2.0**63, "more values than can be counted"),
        (UNCERTAINTY, 2, 3, "an uncertainty is more than the values there are"),
        (UNCERTAINTY, 2, 2, "the proven counts are not in order"),
        (WEIGHT, 0, 2, "the least value is not the first bound"),
        (BELIEVED, 2, 1, "a belief is not possible"),
        (WEIGHT, 1, 2, "wider than the rank error allows"),
    ],
)
def test_a_digest_that_contradicts_itself_is_malformed(
    row: int, column: int, value: float, flaw: str
) -> None:
    table = FIVE.table.copy()
    table[row, column] = value
    with pytest.raises(MalformedDigest, match=flaw):
        Digest.from_bytes(packed(Clusters(table)))


def test_beliefs_that_contradict_each_other_are_malformed() -> None:
    table = FIVE.table.copy()
    table[UNCERTAINTY, 2:4] = [1, 1]
    table[BELIEVED, 2] = 1
    with pytest.raises(MalformedDigest, match="the beliefs are not in order"):
        Digest.from_bytes(packed(Clusters(table), rank_error=0.4))


@pytest.mark.parametrize("count", [1.5, -1.0])
def test_counts_that_are_not_whole_are_a_flaw_too(count: float) -> None:
    """Bytes cannot say so, but one who computes with clusters can."""
    table = FIVE.table.copy()
    table[UNCERTAINTY, 2] = count
    assert Clusters(table).flaw() == "there is a count that is negative or not whole"


@pytest.mark.parametrize("joined_at", [-1.0, 25.1, float("nan"), float("inf")])
def test_clusters_cannot_have_been_joined_when_there_were_more(joined_at: float) -> None:
    assert Digest.from_bytes(packed(joined_at=25.0)).count == 5
    with pytest.raises(MalformedDigest, match="joined when there were more"):
        Digest.from_bytes(packed(joined_at=joined_at))


def nearly_full(room: int) -> Digest:
    table = digest_of(np.arange(2.0)).clusters.table.copy()
    table[WEIGHT] = table[COPIES] = [2.0**52, COUNT_MAX - 2.0**52 - room]
    return Digest.from_bytes(packed(Clusters(table)))


def test_a_digest_of_more_values_than_can_be_counted_is_malformed() -> None:
    assert nearly_full(room=0).count == COUNT_MAX
    with pytest.raises(MalformedDigest, match="more values than can be counted"):
        nearly_full(room=-1)


def test_a_digest_counts_to_the_last_value_it_can_and_then_says_so() -> None:
    digest = nearly_full(room=3)
    digest.add(0.0)
    digest.add([1.0, 1.0])
    assert digest.count == COUNT_MAX
    before = digest.to_bytes()
    one = digest_of(np.arange(1.0))
    attempts: list[Callable[[], None]] = [
        lambda: digest.add(1.0),
        lambda: digest.add([1.0]),
        lambda: digest.merge(one),
    ]
    for more in attempts:
        with pytest.raises(ValueError, match=r"counts up to 2\*\*53 - 1 values"):
            more()
    assert digest.to_bytes() == before
    assert Digest.from_bytes(before).rank_bounds(0.0) == (2**52 + 1, 2**52 + 1)


def test_one_batch_too_many_is_refused_whole() -> None:
    digest = nearly_full(room=30_000)
    with pytest.raises(ValueError, match=r"counts up to 2\*\*53 - 1 values"):
        digest.add(np.zeros(30_001))
    digest.add(np.zeros(30_000))
    assert digest.count == digest.clusters.count == COUNT_MAX


def survives(data: bytes) -> None:
    """The law: a digest that answers everything, or `MalformedDigest`."""
    try:
        digest = Digest.from_bytes(data)
    except MalformedDigest:
        return
    assert digest.clusters.flaw() is None
    assert digest.rank_error <= digest.rank_error_max
    if digest.count < COUNT_MAX - 5:
        digest.add([0.0, 1.0])
        digest.merge(digest_of(np.arange(3.0), digest.rank_error_max))
    values = digest.quantile(np.linspace(0, 1, 11))
    assert values is not None
    assert (values[1:] >= values[:-1]).all()
    for strict in (False, True):
        x = np.array([-np.inf, -1.0, 0.0, 0.5, np.inf])
        low, high = digest.rank_bounds(x, strict=strict)
        rank = digest.rank(x, strict=strict)
        assert (low <= rank).all()
        assert (rank <= high).all()
        assert (rank[1:] >= rank[:-1]).all()
    means, weights = digest.centroids()
    assert weights.sum() == digest.count
    assert np.array_equal(means, np.clip(np.sort(means), values[0], values[-1]))
    Digest.from_bytes(digest.to_bytes())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_digest_or_malformed(data: bytes) -> None:
    survives(data)


@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=8))
def test_changed_bytes_are_a_digest_or_malformed(changes: list[tuple[int, int]]) -> None:
    data = bytearray(VALID)
    for position, byte in changes:
        data[position] = byte
    survives(bytes(data))


COUNTS = st.one_of(st.integers(0, 5), st.integers(0, 2**63), st.just(2**52)).map(float)
CLUSTERS = st.tuples(
    st.floats() | st.integers(-3, 3).map(float), st.floats(), COUNTS, COUNTS, COUNTS, COUNTS
)


@given(st.lists(CLUSTERS, max_size=6), st.floats(1e-6, 0.499))
def test_any_clusters_are_a_digest_or_malformed(
    clusters: list[tuple[float, ...]], rank_error: float
) -> None:
    table = np.array(clusters).reshape(-1, len(FIELDS)).T
    survives(packed(Clusters(table), rank_error=rank_error))


@given(any_clusters())
def test_clusters_without_a_flaw_are_a_digest(clusters: Clusters) -> None:
    """Almost all random tables are refused at once; many of these come through, and must answer."""
    survives(packed(clusters, rank_error=0.3))


@pytest.mark.parametrize("kind", [0xDD, 0xDF, 0xC6, 0xDB], ids=["array", "map", "bytes", "text"])
def test_what_bytes_claim_to_hold_takes_no_memory(kind: int) -> None:
    """Nested, each claim no longer than the bytes themselves: so it is not refused for its size."""
    claim = bytes([kind]) + (10_000).to_bytes(4, "big")
    bomb = b"\x83\xa6digest" + claim * 10_000
    tracemalloc.start()
    with pytest.raises(MalformedDigest):
        Digest.from_bytes(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(bomb)
