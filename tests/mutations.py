"""Bytes that are almost right: what is valid, with a few things done to it.

Each is drawn by dice that are seeded: so a case is the seed of its test and its number. What was
valid before is mutated at random places, but cut at places that mean something, as lengths and
tags are often near the beginning; and what is put in is mostly what somebody once got wrong.
"""

import math
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeAlias

import msgpack

MAX = 1.7976931348623157e308
EDGES = [
    0, 1, -1, 2**15, 2**31, 2**32 - 1, 2**48, 2**53 - 1, 2**53, 2**53 + 1, 2**63, 2**64 - 1,
    -(2**63), 0.0, -0.0, 5e-324, 1.5, MAX, -MAX, math.nextafter(MAX, 0), math.nan, math.inf,
]  # fmt: skip
ANYTHING: list[Any] = [
    *EDGES, None, True, False, "", "x", "\0", "\u202e", "x" * 101, b"", bytes(8), b"\xff" * 9, [],
    [[]], [1] * 70, {}, {"values": [1]}, msgpack.ExtType(5, b"x"), msgpack.Timestamp(0),
]  # fmt: skip
OPENINGS = [
    b"\x91", b"\x9f", b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\x81\xa1a",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x05", b"\xd7\xff",
    b"[", b"{", b'{"values":[', b'{"a":', b"(", b'"',
]  # fmt: skip
WORDS: list[bytes] = [
    *OPENINGS, *map(msgpack.packb, ANYTHING), *(repr(one).encode() for one in EDGES), b"\xc1",
    b"", b"\0", b"\n", b"\r\n", b",", b":", b" ", b"]", b"}", b"-", b"+", b".", b"e", b"1e400",
    b"1e-400", b"NaN", b"Infinity", b"-inf", b"0x1p3", b"1_0", b"9" * 5000, b"0" * 5000, b"null",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\xc0\x80", b"\xd9\xa3", b"%00",
    b"%FF", b"%", b"&", b";", b"=", b"..", b"//", struct.pack("<d", math.nan),
    b"\x7f\xf8" + bytes(6),
]  # fmt: skip

Mutation: TypeAlias = Callable[[Random, bytes, Sequence[bytes]], bytes]


def _piece(dice: Random, data: bytes) -> tuple[int, int]:
    start = (
        dice.randint(0, len(data)) if dice.random() < 0.5 else min(dice.randint(0, 8), len(data))
    )
    return start, min(len(data), start + dice.choice((0, 1, 1, 2, 4, 8, 30, len(data))))


def _flipped(dice: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = dice.randrange(len(data) or 1)
    return (
        data[:at]
        + bytes([byte ^ 1 << dice.randrange(8) for byte in data[at : at + 1]])
        + data[at + 1 :]
    )


def _cut(dice: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _piece(dice, data)
    return data[:start] + data[end:]


def _repeated(dice: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _piece(dice, data)
    return data[:start] + data[start:end] * dice.choice((2, 3, 40, 700)) + data[end:]


def _spliced(dice: Random, data: bytes, valid: Sequence[bytes]) -> bytes:
    other = dice.choice(valid)
    (at, _), (start, end) = _piece(dice, data), _piece(dice, other)
    return data[:at] + other[start:end] + data[at:]


def _replaced(dice: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _piece(dice, data)
    return data[:start] + dice.choice(WORDS) + data[end:]


def _nested(dice: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return dice.choice(OPENINGS) * dice.choice((1, 2, 50, 3000)) + data


MUTATIONS: list[Mutation] = [
    _flipped,
    _flipped,
    _cut,
    _repeated,
    _spliced,
    _replaced,
    _replaced,
    _nested,
]


def mutated(dice: Random, valid: Sequence[bytes]) -> bytes:
    """One of these, with up to four things done to it."""
    data = dice.choice(valid)
    for _ in range(dice.choice((1, 1, 2, 4))):
        data = dice.choice(MUTATIONS)(dice, data, valid)[: 2**18]
    return data


def mixed(dice: Random, fields: Sequence[Any]) -> bytes:
    """A list in MessagePack, of which some are anything at all."""
    some = [dice.choice(ANYTHING) if dice.random() < 0.1 else one for one in fields]
    return bytes(msgpack.packb(some))
