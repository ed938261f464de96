"""One law: bytes are a valid message or `MalformedMessage`, in memory of the order of the bytes."""

import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.protocol import (
    ARRAY_MAX,
    DELTA_BYTES_MAX,
    FORMER_MAX,
    REQUEST_BYTES_MAX,
    MalformedMessage,
    Refusal,
    pack_delta,
    pack_receipt,
    pack_request,
    pack_response,
    unpack_delta,
    unpack_receipt,
    unpack_request,
    unpack_response,
)
from tests.test_protocol import FIELDS, HOME, RECEIPT_FIELDS, comparable, packed, receipt

SAME = packed(since=1, form=0, knots=None, weights=None, upto=1)
MORE = packed(since=1, form=1, upto=10, knots=[0, -(2**52), None, 1e-300, 1.5], worker="\u00e4")
REQUEST = pack_request([SAME, packed()])
RESPONSE = pack_response([unpack_receipt(receipt()), Refusal("malformed", "no")])

KINDS: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], bytes]]] = {
    "delta": (unpack_delta, pack_delta),
    "receipt": (unpack_receipt, pack_receipt),
    "request": (unpack_request, pack_request),
    "response": (unpack_response, pack_response),
}
VALID = [
    ("delta", packed()), ("delta", SAME), ("delta", MORE), ("delta", packed(home=HOME)),
    ("receipt", receipt()),
    ("request", REQUEST), ("response", RESPONSE),
]  # fmt: skip
PAIRS = [(kind, data) for kind in KINDS for _, data in VALID]


def keeps_the_law(kind: str, data: bytes) -> bool:
    """Whether it is a message, which then packs and unpacks to itself."""
    unpack, pack = KINDS[kind]
    try:
        message = unpack(data)
    except MalformedMessage:
        return False
    again = unpack(pack(message))
    if kind == "delta":
        message, again = comparable(message), comparable(again)
    assert again == message
    return True


@pytest.mark.parametrize(("kind", "data"), VALID)
def test_a_message_cut_anywhere_is_malformed(kind: str, data: bytes) -> None:
    assert keeps_the_law(kind, data)
    assert not any(keeps_the_law(kind, data[:length]) for length in range(len(data)))
    assert not any(keeps_the_law(kind, data + bytes([more])) for more in range(256))


@pytest.mark.parametrize(("kind", "data"), VALID)
def test_a_message_with_any_byte_changed_keeps_the_law(kind: str, data: bytes) -> None:
    for at in range(len(data)):
        for byte in {0, 1, 0x7F, 0xC0, 0xFF, *(data[at] ^ 2**bit for bit in range(8))}:
            keeps_the_law(kind, data[:at] + bytes([byte]) + data[at + 1 :])


@pytest.mark.parametrize(("kind", "data"), PAIRS)
def test_one_message_is_never_taken_for_another(kind: str, data: bytes) -> None:
    assert keeps_the_law(kind, data) == ((kind, data) in VALID)


@given(st.sampled_from(sorted(KINDS)), st.binary(max_size=120))
def test_any_bytes_keep_the_law(kind: str, data: bytes) -> None:
    keeps_the_law(kind, data)
    keeps_the_law(kind, b"\x91" + data)


@given(st.sampled_from(VALID), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=5))
def test_any_changed_bytes_keep_the_law(
    valid: tuple[str, bytes], changes: list[tuple[int, int]]
) -> None:
    kind, data = valid[0], bytearray(valid[1])
    for position, byte in changes:
        data[position % len(data)] = byte
    keeps_the_law(kind, bytes(data))


ODD: list[Any] = [
    None, True, False, -1, 0, 1, 2**53 - 1, 2**53, 2**64 - 1, -(2**63), 0.0, -0.0, 1.0, 5e-324,
    1.7e308, math.nan, math.inf, "", "x", "\0", "x" * 101, b"", bytes(8), [], [[]], [1], [0, 1, 2],
    [0, 0, 0], [-1074, 1, 2], [1023, 1, 2], [0, math.nan, 1], [1] * 4098, [[[]]], {},
    msgpack.ExtType(5, b""), msgpack.ExtType(5, b"x"), msgpack.Timestamp(0),
]  # fmt: skip


def test_fields_of_any_kind_in_any_place_keep_the_law() -> None:
    longest = [*FIELDS, HOME, *range(1, 1 + FORMER_MAX)]
    for kind, fields in (("delta", longest), ("receipt", RECEIPT_FIELDS)):
        for at in range(len(fields)):
            for odd in ODD:
                data = msgpack.packb([*fields[:at], odd, *fields[at + 1 :]])
                keeps_the_law(kind, data)
                keeps_the_law("response", b"\x91" + data)
                shorter = msgpack.packb([*fields[:at], *fields[at + 1 :]])
                assert keeps_the_law(kind, shorter) == (at >= 14), "one home less"
                assert not keeps_the_law(kind, msgpack.packb([*fields, odd]))


NUMBERS = st.integers(-(2**10), 2**10) | st.integers(-(2**54) - 2, 2**54 + 2)
KNOTS = st.lists(NUMBERS | st.floats() | st.none(), max_size=6)


@given(st.integers(-1080, 1030), KNOTS, st.lists(NUMBERS, max_size=6), NUMBERS, NUMBERS)
def test_any_segments_keep_the_law(
    step: int, knots: list[float | None], weights: list[int], since: int, upto: int
) -> None:
    fits = weights[: max(0, len(knots) - 1)]
    for form in range(3):
        data = packed(
            knots=[step, *knots],
            weights=fits,
            since=since if form == 1 else 0,
            upto=upto,
            form=form,
        )
        keeps_the_law("delta", data)


def nested(opening: bytes, most: int) -> bytes:
    return (opening * (most // len(opening)))[:most]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "opening",
    [
        b"\x91", b"\x9f", b"\xdc\x10\x00", b"\xdc\x20\x00", b"\xdc\xff\xff",
        b"\xdd\x00\x00\x10\x00",
        b"\xdd\xff\xff\xff\xff", b"\x81", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x05", b"\xc6\x00\x00\x20\x00", b"\xc1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [600, 6_000, DELTA_BYTES_MAX])
def test_what_bytes_claim_to_hold_takes_no_memory(kind: str, opening: bytes, size: int) -> None:
    """Neither at the top nor inside a message that is valid up to there."""
    bombs = [nested(opening, size), b"\x91" + nested(opening, size - 1)]
    bombs.append((packed()[:30] + nested(opening, size))[:size])
    tracemalloc.start()
    for bomb in bombs:
        assert not keeps_the_law(kind, bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000 + 4 * size  # of which msgpack keeps a tenth of a megabyte for its stack


def test_a_request_as_large_as_any_takes_memory_of_its_own_order() -> None:
    rows = msgpack.packb([[0] * 4_000] * 2_000)
    assert len(rows) <= REQUEST_BYTES_MAX
    tracemalloc.start()
    assert not keeps_the_law("request", rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * len(rows)  # 8 bytes of memory for the shortest of fields, and the bytes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("tiny", "times"),
    [
        (b"\x80", 12), (b"\x90", 12), (b"\xdc\0\0", 12), (b"\xc0", 12), (b"\xa2ab", 24),
        (b"\xc7\0\5", 32),
    ],
)  # fmt: skip
def test_what_is_tiny_in_bytes_and_large_in_memory_takes_little(
    kind: str, tiny: bytes, times: int
) -> None:
    """As many as one array may hold, in more than one."""
    array = b"\xdd" + ARRAY_MAX.to_bytes(4, "big") + tiny * ARRAY_MAX
    bombs = array, b"\x92" + array * 2
    tracemalloc.start()
    for bomb in bombs:
        assert not keeps_the_law(kind, bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000 + times * len(bombs[1])
