"""Decoding what users send: bytes become values, or the reason why not.

Rules for this file:

* One law: bytes of any content type are float64, at least one, all of them values, or `BadValue`
  names the first that is none, or `BadBody` says what else is wrong. Never anything else.
* `shared.values` decides what a value is. Here a number comes out of its bytes as what it was sent
  as, integer or float, and is judged as that: nothing is rounded on the way.
* Nobody waits long. While C code parses, the whole process stands still, so a long body is parsed
  in pieces. A piece ends where a number ends, at a comma or a newline, and is judged at once.
* Nothing is believed that costs memory. What a length in the body declares must be there; what is
  nested is not entered.

An array of JSON is cut at commas without a look at what holds them. That is safe: each piece, in
brackets of its own, must be a JSON array of numbers alone, so nothing was there to hold a comma.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import msgpack
import numpy as np
from pydantic_core import from_json

from shared.values import BadValue, Floats, as_values

# Nanoseconds a value, the best of five runs or more on a shared machine of two cores, where a run
# can take twice as long; floats of 17 digits unless said:
#
#     values in a body    JSON    JSON 0..999    text    text, +1.5    octets    doubles    mixed
#                  100      91             94     121            430     23         45        106
#               10,000      63             54      79            410      0.4        1.3       50
#            1,000,000      67             58      82            440      0.2        0.8       52
#
# Text as JSON does not spell it, here with a plus, is respelled first; short numbers, as `007` and
# `+1`, take 250 and 190. Line by line they took 1600 and 760.
#
# The last two are MessagePack: of float64 alone, and with one integer. The longest single call in a
# JSON body of a million integers, which are short and so most to a piece, by a clock around each
# call that parses or judges, the least of five runs:
#
#     piece                 16 KiB    64 KiB    256 KiB    1 MiB    the whole
#     longest call, ms         0.3       0.7        1.9      7.6           35
#     nanoseconds a value       62        60         64       72           74
#
# A slice of 4096 is unpacked in 0.14 ms and judged in 0.2. With 256, a value costs a quarter more.
PIECE_BYTES = 2**16
NUMBER_BYTES_MAX = 2**16  # with the blanks around it, where a body is cut into pieces
SLICE = 4096  # values that msgpack unpacks in one call
SHAPES = 'send [1, 2.5], {"values": [1, 2.5]} or a number'

JSON_OPENING = re.compile(rb'[ \t\r\n]*+(\{[ \t\r\n]*+"values"[ \t\r\n]*+:[ \t\r\n]*+)?+\[')
JSON_CLOSING = re.compile(rb"[ \t\r\n]*+(\}[ \t\r\n]*+)?+")
LONG_INTEGER = re.compile(rb"(?<![.0-9])([1-9][0-9]{16})[0-9]{4000,}+(?![.eE])")

MSGPACK_OPENING = re.compile(
    rb"(?:(?:\x81|\xde\x00\x01|\xdf\x00\x00\x00\x01)"
    rb"(?:\xa6|\xd9\x06|\xda\x00\x06|\xdb\x00\x00\x00\x06)values)?"
    rb"(?:([\x90-\x9f])|\xdc(..)|\xdd(....))",
    re.DOTALL,
)
MSGPACK_MAP = re.compile(rb"[\x80-\x8f\xde\xdf]")
MSGPACK_FLOAT64 = 0xCB
MSGPACK_DOUBLE = np.dtype([("tag", "u1"), ("number", ">f8")])

NUMBER = re.compile(
    rb"[+-]?(?:(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?|(?i:nan|inf(?:inity)?))"
)
INTEGER = re.compile(rb"([+-]?)0*+([0-9]*+)")  # of what is a NUMBER
NUMBERS = re.compile(  # or blank; a line each, and all finite as they are spelled
    rb"(?:[ \t\r]*+"
    rb"(?:[+-]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?+[0-9]++)?+)?+"
    rb"[ \t\r]*+(?:\n|\Z))*+"
)
LONG = 4000  # bytes of a number: JSON takes no more than 4300 digits
ZEROS = (  # that JSON does not know; nor these points:
    (re.compile(rb"\n0+(?=[0-9])"), b"\n"),
    (re.compile(rb"\n-0+(?=[0-9])"), b"\n-"),
)
POINTS = (
    (b"\n.", b"\n0."),
    (b"\n-.", b"\n-0."),
    (b".\n", b".0\n"),
    (b".e", b".0e"),
    (b".E", b".0E"),
)


class BadBody(ValueError):
    """A body is no batch of values: `code` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


def decode(content_type: str, body: bytes) -> Floats:
    """The values of a body, contiguous; where they are the body's own bytes, these are shared."""
    parts = PARTS.get(content_type.partition(";")[0].strip().lower())
    if parts is None:
        raise BadBody("unknown_content_type", f"content type not known; send {KNOWN}")
    return _joined(parts(body))


def _joined(parts: Iterable[object]) -> Floats:
    found, count = [], 0
    for part in parts:
        try:
            values = as_values(part)
        except BadValue as error:
            raise error.moved(count) from None
        found.append(values)
        count += len(values)
    if not count:
        raise BadBody("empty", "there is no value; a batch has at least one")
    return found[0] if len(found) == 1 else np.concatenate(found)


def _cut(body: bytes, mark: bytes, start: int, end: int) -> int:
    """Where the piece that begins at `start` ends: at a mark or at the end, and soon."""
    stop = body.find(mark, start + PIECE_BYTES, end)
    stop = end if stop < 0 else stop
    if stop - start > PIECE_BYTES + NUMBER_BYTES_MAX:
        raise _malformed(f"a number after byte {start} is longer than {NUMBER_BYTES_MAX} bytes")
    return stop


def _octets(body: bytes) -> Iterator[Floats]:
    if len(body) % 8:
        raise _malformed(f"{len(body)} bytes are not a multiple of 8; send little-endian float64")
    yield np.frombuffer(body, dtype="<f8")


def _json(body: bytes) -> Iterator[Any]:
    if not body or body.isspace():
        return
    if len(body) > PIECE_BYTES:
        yield from _json_pieces(body)
        return
    given = _parsed(body, "")
    if not isinstance(given, dict):
        yield given
        return
    if not JSON_OPENING.match(body) or len(given) > 1:
        raise _malformed(f"an object has one key, values, and an array there; {SHAPES}")
    yield given["values"]
    if body.count(b":") > 1:  # numbers have none: it was of a key, which has been overwritten
        raise _malformed("an object has its key only once")


def _json_pieces(body: bytes) -> Iterator[Any]:
    opening, end = JSON_OPENING.match(body), body.rfind(b"]")
    closing = JSON_CLOSING.fullmatch(body, end + 1)
    if not opening or not closing or (opening[1] is None) != (closing[1] is None):
        raise _malformed(f"a long body is one array, or an object with one; {SHAPES}")
    start = first = opening.end()
    while start <= end:
        stop = _cut(body, b",", start, end)
        piece = _parsed(b"[%b]" % body[start:stop], f" after byte {start}")
        if not piece and stop - start < end - first:
            raise _malformed(f"not JSON after byte {start}: a comma without a number")
        yield piece
        start = stop + 1


def _parsed(piece: bytes, where: str) -> Any:
    try:
        return from_json(piece)
    except ValueError as error:
        shorter = LONG_INTEGER.sub(rb"\1", piece)
        if shorter != piece:  # integers too long to parse: 17 digits are as far beyond 2**53
            return _parsed(shorter, where)
        why = str(error).partition(" at line")[0] if where else str(error)
        raise _malformed(f"not JSON{where}: {why}") from error


def _msgpack(body: bytes) -> Iterator[Any]:
    opening = MSGPACK_OPENING.match(body)
    if not opening and MSGPACK_MAP.match(body):
        raise _malformed(f"a map has one key, values, and an array there; {SHAPES}")
    start, count = (opening.end(), _length(opening)) if opening else (0, min(1, len(body)))
    size = len(body) - start
    if count > size:
        raise _malformed(f"cut short: {count} values do not fit in {size} bytes")
    if count and size == count * MSGPACK_DOUBLE.itemsize:
        doubles = np.frombuffer(body, MSGPACK_DOUBLE, offset=start)
        if (doubles["tag"] == MSGPACK_FLOAT64).all():
            yield doubles["number"].astype(np.float64)
            return
    yield from _unpacked(memoryview(body)[start:], count)


def _length(opening: re.Match[bytes]) -> int:
    few, some, many = opening.groups()
    return few[0] & 0x0F if few else int.from_bytes(some or many, "big")


def _unpacked(data: memoryview, count: int) -> Iterator[list[Any]]:
    unpacker = msgpack.Unpacker(
        unicode_errors="replace",
        max_buffer_size=max(1, len(data)),
        max_array_len=0,
        max_map_len=0,
        max_ext_len=0,
    )
    unpacker.feed(data)
    for done in range(0, count, SLICE):
        numbers: list[Any] = []
        size = min(SLICE, count - done)
        try:
            numbers.extend(islice(unpacker, size))  # which keeps what came before an error
        except msgpack.FormatError as error:
            raise _malformed("not MessagePack: there is a byte that begins nothing") from error
        except ValueError as error:
            yield numbers  # one of these may be the first that is bad
            what = "is nested or an extension, not a number"
            raise BadValue("not_a_number", what, done + len(numbers)) from error
        if len(numbers) < size:
            raise _malformed(f"cut short: not all of {count} values are there")
        yield numbers
    if unpacker.tell() < len(data):
        raise _malformed("there are bytes after the values")


def _text(body: bytes) -> Iterator[Any]:
    start, line = 0, 1
    while start < len(body):
        stop = _cut(body, b"\n", start, len(body))
        piece = body[start:stop]
        values = _plain(piece)
        values = _plain(_respelled(piece)) if values is None else values
        yield _lines(piece, line) if values is None else values
        start, line = stop + 1, line + piece.count(b"\n") + 1


def _plain(piece: bytes) -> Floats | None:
    """Lines that JSON knows for numbers too, at its speed; whatever else, line by line decides."""
    if b"," in piece:
        return None
    try:
        return as_values(from_json(b"[%b]" % piece.removesuffix(b"\n").replace(b"\n", b",")))
    except ValueError:
        return None


def _respelled(piece: bytes) -> bytes:
    """Lines as JSON spells them, if each is a number or blank, and else as they are."""
    if not NUMBERS.fullmatch(piece):
        return piece
    lines = b"\n".join(map(_short, piece.split()))
    lines = b"\n%b\n" % lines.replace(b"+", b"")
    for zeros, none in ZEROS:
        lines = zeros.sub(none, lines)
    for ours, theirs in POINTS:
        lines = lines.replace(ours, theirs)
    return lines.strip(b"\n")


def _short(number: bytes) -> bytes:
    """The same, in digits that JSON takes: what Python writes, it reads as it was."""
    return number if len(number) < LONG else repr(_number(number, 0)).encode()


def _lines(piece: bytes, first: int) -> list[float]:
    lines = ((at, line.strip(b" \t\r")) for at, line in enumerate(piece.split(b"\n"), first))
    return [_number(line, at) for at, line in lines if line]


def _number(line: bytes, at: int) -> float:
    if not NUMBER.fullmatch(line):
        raise _malformed(f"line {at} is not a number; send one number a line")
    integer = INTEGER.fullmatch(line)
    if not integer:
        return float(line)
    sign, digits = integer.groups()
    return int(sign + (digits[:17] or b"0"))  # 17 are as far beyond 2**53 as any more


def _malformed(message: str) -> BadBody:
    return BadBody("malformed", message)


KNOWN = "application/json, application/msgpack, application/octet-stream or text/plain"
PARTS: dict[str, Callable[[bytes], Iterator[object]]] = {
    "application/json": _json,
    "application/msgpack": _msgpack,
    "application/x-msgpack": _msgpack,
    "application/octet-stream": _octets,
    "text/plain": _text,
}
