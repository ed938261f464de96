"""What users send becomes values or a reason why not, whatever the bytes, and nobody waits long."""

import json
import struct
import tracemalloc
from contextlib import AbstractContextManager
from decimal import Decimal
from unittest.mock import patch

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.values import BadValue, as_values
from worker_service import intake
from worker_service.intake import BadBody, decode

JSON = "application/json"
MSGPACK = "application/msgpack"
OCTETS = "application/octet-stream"
TEXT = "text/plain"
TYPES = [JSON, MSGPACK, OCTETS, TEXT]
LONG = b"9" * 5000
FAR = intake.SLICE + 7  # beyond the first slice; and in JSON, the first piece
EDGES = [0, -0.0, 5e-324, -2.2e-308, 1e308, 2**53, -(2**53), 1e300, 0.1, 1.8446744073709552e19]
NUMBERS = st.one_of(
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(EDGES),
)


def packed(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def wide(*values: float) -> bytes:
    """An array of MessagePack with the longest header."""
    header = b"\xdd" + struct.pack(">I", len(values))
    return header + b"".join(msgpack.packb(value) for value in values)


def small_pieces() -> AbstractContextManager[object]:
    return patch.multiple(intake, PIECE_BYTES=16, SLICE=3)


def outcome(content_type: str, body: bytes) -> list[float] | tuple[str, int | None]:
    """The values of a body, or the code and position it is refused with."""
    try:
        values = decode(content_type, body)
    except BadValue as refused:
        return refused.code, refused.position
    except BadBody as refused:
        return refused.code, None
    assert values.dtype == np.float64
    assert values.ndim == 1
    assert values.flags.c_contiguous
    assert len(values)
    assert np.isfinite(values).all()
    numbers: list[float] = values.tolist()
    return numbers


def accepted(content_type: str, body: bytes) -> bytes | None:
    """The values to the bit, so that zeros have signs; None where they are refused."""
    found = outcome(content_type, body)
    return packed(*found) if isinstance(found, list) else None


GOOD = [
    (JSON, b'{"values":[1,2.5]}', [1, 2.5]),
    (JSON, b"[1,2.5]", [1, 2.5]),
    (JSON, b"3", [3]),
    (JSON, b"-3.5e2", [-350]),
    (JSON, b' \t\r\n{ "values" :\n[ 1 ,\t2.5 ] }\r\n', [1, 2.5]),
    (JSON, b" [ 1 ] ", [1]),
    (
        JSON,
        b"[9007199254740992,-9007199254740992,18446744073709551616.0]",
        [2**53, -(2**53), 2**64],
    ),
    (
        JSON,
        b"[1e300,5e-324,1e-400,1.7976931348623157e308]",
        [1e300, 5e-324, 0, 1.7976931348623157e308],
    ),
    (JSON, b"[1." + b"0" * 5000 + b"]", [1]),
    (MSGPACK, msgpack.packb({"values": [1, 2.5]}), [1, 2.5]),
    (MSGPACK, msgpack.packb({"values": [1.5, 2.5]}), [1.5, 2.5]),
    (MSGPACK, msgpack.packb([1, 2.5]), [1, 2.5]),
    (MSGPACK, msgpack.packb([1.5, 2.5]), [1.5, 2.5]),
    (MSGPACK, msgpack.packb(3), [3]),
    (MSGPACK, msgpack.packb(-2.5), [-2.5]),
    (MSGPACK, msgpack.packb([1.5, 0.1], use_single_float=True), [1.5, float(np.float32(0.1))]),
    (MSGPACK, msgpack.packb([0] * 15), [0] * 15),
    (MSGPACK, msgpack.packb([*range(-40, 300)]), [*range(-40, 300)]),
    (MSGPACK, msgpack.packb([0.5] * 300), [0.5] * 300),
    (MSGPACK, msgpack.packb([0.5] * 70_000), [0.5] * 70_000),
    (MSGPACK, msgpack.packb([5] * 70_000), [5] * 70_000),
    (MSGPACK, msgpack.packb([2**53, -(2**53), 2.0**64]), [2**53, -(2**53), 2**64]),
    (MSGPACK, wide(1, 2.5), [1, 2.5]),
    (MSGPACK, wide(1.5, 2.5), [1.5, 2.5]),
    (MSGPACK, b"\x81\xd9\x06values\x91\x01", [1]),
    (MSGPACK, b"\xde\x00\x01\xda\x00\x06values\xdc\x00\x01\x01", [1]),
    (MSGPACK, b"\xdf\x00\x00\x00\x01\xdb\x00\x00\x00\x06values\x91\x01", [1]),
    (OCTETS, packed(1, 2.5, -0.0, 5e-324), [1, 2.5, 0, 5e-324]),
    (TEXT, b"1\n2.5", [1, 2.5]),
    (TEXT, b"1\r\n2.5\r\n", [1, 2.5]),
    (TEXT, b"\n\n 1 \n\t\n2.5\n\r\n\n", [1, 2.5]),
    (TEXT, b"+1\n.5\n1.\n1e5\n007\n-0.5E+1\n-.5e-1\n", [1, 0.5, 1, 1e5, 7, -5, -0.05]),
    (TEXT, b"+" + b"0" * 5000 + b"7\n-9007199254740992\n00", [7, -(2**53), 0]),
    (TEXT, b"1" * 5000 + b"e-4999", [float("1." + "1" * 30)]),
]

BAD = [
    (JSON, b"[1,NaN]", "not_finite", 1, "value 1 is NaN"),
    (JSON, b"[1,-Infinity]", "not_finite", 1, "value 1 is infinite"),
    (JSON, b'{"values":[1e400]}', "not_finite", 0, "value 0 is infinite"),
    (JSON, b"[true,2.5]", "not_a_number", 0, "value 0 is a boolean"),
    (JSON, b"[1,null]", "not_a_number", 1, "value 1 is missing"),
    (JSON, b'[1,"2"]', "not_a_number", 1, "value 1 is text"),
    (JSON, b'"a, b: [c]"', "not_a_number", 0, "value 0 is text"),
    (JSON, b'{"values":[1,"a:b"]}', "not_a_number", 1, "value 1 is text"),
    (JSON, b"[1,[2]]", "not_a_number", 1, "value 1 is list"),
    (JSON, b'[1,{"values":[2]}]', "not_a_number", 1, "value 1 is dict"),
    (JSON, b"9007199254740993", "not_exact", 0, "value 0 is an integer beyond 2**53"),
    (JSON, b"[1,18446744073709551616]", "not_exact", 1, "value 1 is an integer beyond"),
    (JSON, b"[1,-" + LONG + b"]", "not_exact", 1, "value 1 is an integer beyond"),
    (JSON, b'{"values":[' + LONG + b",1]}", "not_exact", 0, "value 0 is an integer beyond"),
    (JSON, b"[1," * 2 + LONG + b"]", "malformed", None, "not JSON: EOF"),
    (JSON, b"[" + LONG + b".5]", "malformed", None, "not JSON: number out of range"),
    (JSON, b"[1.5e" + b"0" * 5000 + b"1," + LONG + b"]", "not_exact", 1, "is an integer beyond"),
    (JSON, b"[1,]", "malformed", None, "not JSON: trailing comma at line 1 column 4"),
    (JSON, b"[1,,2]", "malformed", None, "not JSON: expected value at line 1 column 4"),
    (JSON, b"[1,2", "malformed", None, "not JSON: EOF while parsing a list"),
    (JSON, b"[1] 2", "malformed", None, "not JSON: trailing characters at line 1 column 5"),
    (JSON, b"[1],[2]", "malformed", None, "not JSON: trailing characters"),
    (JSON, b"01", "malformed", None, "not JSON"),
    (JSON, b"\xef\xbb\xbf[1]", "malformed", None, "not JSON"),
    (JSON, b'["\xff"]', "malformed", None, "not JSON"),
    (JSON, b"[" * 100_000, "malformed", None, "a long body is one array"),
    (JSON, b"[" * 50_000 + b"]" * 50_000, "malformed", None, "recursion limit exceeded"),
    (JSON, b"[" * 1000, "malformed", None, "recursion limit exceeded"),
    (JSON, b"[" * 100, "malformed", None, "not JSON: EOF"),
    (JSON, b'{"a":' * 100_000, "malformed", None, "a long body is one array"),
    (JSON, b'{"data":[1]}', "malformed", None, "an object has one key, values"),
    (JSON, b'{"values":[1],"unit":"s"}', "malformed", None, "an object has one key, values"),
    (JSON, b'{"values":1}', "malformed", None, "an object has one key, values"),
    (JSON, b"{}", "malformed", None, "an object has one key, values"),
    (JSON, b'{"values":[1],"values":[2]}', "malformed", None, "an object has its key only once"),
    (JSON, b'{"values":[1],"values":2}', "malformed", None, "an object has its key only once"),
    (JSON, b"", "empty", None, "there is no value; a batch has at least one"),
    (JSON, b" \n", "empty", None, "there is no value"),
    (JSON, b"[]", "empty", None, "there is no value"),
    (JSON, b'{"values":[ ]}', "empty", None, "there is no value"),
    (JSON, b" " * 70_000, "empty", None, "there is no value"),
    (JSON, b"[" + b" " * 70_000 + b"]", "empty", None, "there is no value"),
    (JSON, b"[1," + b" " * 200_000 + b"1]", "malformed", None, "after byte 1 is longer than 65536"),
    (JSON, b"1" + b" " * 70_000, "malformed", None, "a long body is one array"),
    (JSON, b"[" + b"1," * 70_000 + b"1", "malformed", None, "a long body is one array"),
    (JSON, b"[" + b"1," * 70_000 + b"1]}", "malformed", None, "a long body is one array"),
    (JSON, b'{"values":[' + b"1," * 70_000 + b"1]", "malformed", None, "a long body is one array"),
    (JSON, b"[" + b"1," * 70_000 + b"]", "malformed", None, "after byte 131077: trailing comma"),
    (JSON, b"[" + b"1," * 65_538 + b"]", "malformed", None, "131077: a comma without a number"),
    (JSON, b"[" + b"1," * 70_000 + b"x]", "malformed", None, "after byte 131077: expected value"),
    (JSON, b"[" + b"1," * 70_000 + b"true]", "not_a_number", 70_000, "value 70000 is a boolean"),
    (JSON, b"[" + b"1," * 70_000 + LONG + b"]", "not_exact", 70_000, "value 70000 is an integer"),
    (MSGPACK, msgpack.packb([1.5, float("nan")]), "not_finite", 1, "value 1 is NaN"),
    (MSGPACK, msgpack.packb([1, float("inf")]), "not_finite", 1, "value 1 is infinite"),
    (MSGPACK, msgpack.packb([True, 2.5]), "not_a_number", 0, "value 0 is a boolean"),
    (MSGPACK, msgpack.packb({"values": [1, None]}), "not_a_number", 1, "value 1 is missing"),
    (MSGPACK, msgpack.packb([1, "2"]), "not_a_number", 1, "value 1 is text"),
    (MSGPACK, b"\x92\x01\xa1\xff", "not_a_number", 1, "value 1 is text"),
    (MSGPACK, msgpack.packb(b"12"), "not_a_number", 0, "value 0 is bytes"),
    (MSGPACK, msgpack.packb([1, []]), "not_a_number", 1, "value 1 is list"),
    (MSGPACK, msgpack.packb([1, [2]]), "not_a_number", 1, "value 1 is nested or an extension"),
    (MSGPACK, msgpack.packb([1, {"a": 2}]), "not_a_number", 1, "value 1 is nested"),
    (MSGPACK, msgpack.packb([True, [2]]), "not_a_number", 0, "value 0 is a boolean"),
    (MSGPACK, msgpack.packb([1, msgpack.Timestamp(1)]), "not_a_number", 1, "or an extension"),
    (MSGPACK, msgpack.packb([1, msgpack.ExtType(5, b"")]), "not_a_number", 1, "ExtType"),
    (MSGPACK, msgpack.packb([1, msgpack.ExtType(5, b"abc")]), "not_a_number", 1, "extension"),
    (MSGPACK, msgpack.packb([5] * FAR + [[2]]), "not_a_number", FAR, f"value {FAR} is nested"),
    (MSGPACK, msgpack.packb([5] * FAR + [True]), "not_a_number", FAR, f"value {FAR} is a boolean"),
    (MSGPACK, msgpack.packb([1, 2**53 + 1]), "not_exact", 1, "value 1 is an integer beyond"),
    (MSGPACK, msgpack.packb(2**64 - 1), "not_exact", 0, "value 0 is an integer beyond"),
    (MSGPACK, msgpack.packb(-(2**63)), "not_exact", 0, "value 0 is an integer beyond"),
    (MSGPACK, b"\x92\x01", "malformed", None, "cut short: 2 values do not fit in 1 bytes"),
    (MSGPACK, b"\x92\x01\xcb\x00", "malformed", None, "cut short: not all of 2 values"),
    (MSGPACK, b"\x91\xdb\x7f\xff\xff\xff", "malformed", None, "cut short: not all of 1 values"),
    (MSGPACK, b"\x91\xc6\x7f\xff\xff\xff", "malformed", None, "cut short: not all of 1 values"),
    (MSGPACK, b"\xdc\x00", "malformed", None, "cut short: not all of 1 values"),
    (MSGPACK, b"\x92\x01\xc1", "malformed", None, "not MessagePack"),
    (MSGPACK, b"\x91\x01\x02", "malformed", None, "there are bytes after the values"),
    (MSGPACK, b"\x01\x02", "malformed", None, "there are bytes after the values"),
    (MSGPACK, msgpack.packb([1.5]) + b"\x01", "malformed", None, "there are bytes after"),
    (MSGPACK, msgpack.packb({"data": [1]}), "malformed", None, "a map has one key, values"),
    (MSGPACK, msgpack.packb({"values": 1}), "malformed", None, "a map has one key, values"),
    (MSGPACK, msgpack.packb({"values": [1], "a": 1}), "malformed", None, "a map has one key"),
    (MSGPACK, msgpack.packb({}), "malformed", None, "a map has one key, values"),
    (MSGPACK, b"\x81\xa6values", "malformed", None, "a map has one key, values"),
    (MSGPACK, b"\x91" * 100_000, "not_a_number", 0, "value 0 is nested"),
    (MSGPACK, b"\xdd\x80\x00\x00\x00\x01\x01\x01\x01\x01", "malformed", None, "cut short: 2147"),
    (MSGPACK, b"", "empty", None, "there is no value"),
    (MSGPACK, b"\x90", "empty", None, "there is no value"),
    (MSGPACK, b"\x90\x01", "malformed", None, "there are bytes after the values"),
    (MSGPACK, msgpack.packb({"values": []}), "empty", None, "there is no value"),
    (OCTETS, packed(1, float("nan")), "not_finite", 1, "value 1 is NaN"),
    (OCTETS, packed(1, 2, float("-inf")), "not_finite", 2, "value 2 is infinite"),
    (OCTETS, packed(1)[:7], "malformed", None, "7 bytes are not a multiple of 8"),
    (OCTETS, b"", "empty", None, "there is no value"),
    (TEXT, b"1\nNaN", "not_finite", 1, "value 1 is NaN"),
    (TEXT, b"1\n\n-inf", "not_finite", 1, "value 1 is infinite"),
    (TEXT, b"+Infinity", "not_finite", 0, "value 0 is infinite"),
    (TEXT, b"1e400", "not_finite", 0, "value 0 is infinite"),
    (TEXT, b"1\n\n9007199254740993", "not_exact", 1, "value 1 is an integer beyond"),
    (TEXT, b"+9007199254740993", "not_exact", 0, "value 0 is an integer beyond"),
    (TEXT, b"1\n-" + LONG, "not_exact", 1, "value 1 is an integer beyond"),
    (TEXT, b"1\n" * 70_000 + b"nan", "not_finite", 70_000, "value 70000 is NaN"),
    (TEXT, b"1\n" * 70_000 + b"x", "malformed", None, "line 70001 is not a number"),
    (TEXT, b"1\n\nabc\n", "malformed", None, "line 3 is not a number; send one number a line"),
    (TEXT, b"true", "malformed", None, "line 1 is not a number"),
    (TEXT, b"null", "malformed", None, "line 1 is not a number"),
    (TEXT, b'"1"', "malformed", None, "line 1 is not a number"),
    (TEXT, b"[1]", "malformed", None, "line 1 is not a number"),
    (TEXT, b"[1\n2]", "malformed", None, "line 1 is not a number"),
    (TEXT, b"1\n1,2", "malformed", None, "line 2 is not a number"),
    (TEXT, b"1\n1_000", "malformed", None, "line 2 is not a number"),
    (TEXT, b"1\n0x10", "malformed", None, "line 2 is not a number"),
    (TEXT, b"1 2", "malformed", None, "line 1 is not a number"),
    (TEXT, b"1\r2", "malformed", None, "line 1 is not a number"),
    (TEXT, b"1\x0b", "malformed", None, "line 1 is not a number"),
    (TEXT, b"1\n.", "malformed", None, "line 2 is not a number"),
    (TEXT, b"1e", "malformed", None, "line 1 is not a number"),
    (TEXT, b"--1", "malformed", None, "line 1 is not a number"),
    (TEXT, "\N{ARABIC-INDIC DIGIT ONE}".encode(), "malformed", None, "line 1 is not a number"),
    (TEXT, b"1" * 100_000 + b"x", "malformed", None, "line 1 is not a number"),
    (TEXT, b"1\n" + b"0" * 200_000, "malformed", None, "after byte 0 is longer than 65536"),
    (TEXT, b"", "empty", None, "there is no value"),
    (TEXT, b"\r\n \n", "empty", None, "there is no value"),
    ("", b"[1]", "unknown_content_type", None, "send application/json, application/msgpack, "),
    ("text/html", b"1", "unknown_content_type", None, "application/octet-stream or text/plain"),
    ("; charset=utf-8", b"1", "unknown_content_type", None, "send application/json"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content_type", "body", "expected"), GOOD, ids=lambda part: str(part)[:40]
)
def test_a_good_body_is_its_values(content_type: str, body: bytes, expected: list[float]) -> None:
    assert outcome(content_type, body) == expected


@pytest.mark.parametrize(
    ("content_type", "body", "code", "position", "message"), BAD, ids=lambda part: str(part)[:40]
)
def test_a_refusal_says_what_and_where(
    content_type: str, body: bytes, code: str, position: int | None, message: str
) -> None:
    assert outcome(content_type, body) == (code, position)
    with pytest.raises((BadValue, BadBody)) as refused:
        decode(content_type, body)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 150


def test_parameters_and_case_of_a_content_type_do_not_matter() -> None:
    for content_type in (
        "Application/JSON",
        "application/json; charset=utf-8",
        " application/json;",
    ):
        assert outcome(content_type, b"[1]") == [1]
    assert outcome("TEXT/PLAIN;charset=us-ascii", b"1") == [1]
    assert outcome("application/x-msgpack", b"\x01") == [1]


def test_octets_are_shared_not_copied() -> None:
    body = packed(1.5, 2.5)
    assert np.shares_memory(decode(OCTETS, body), np.frombuffer(body))


@given(
    st.lists(NUMBERS, min_size=1), st.sampled_from([None, 0, "\t"]), st.booleans(), st.booleans()
)
def test_json_in_pieces_is_what_the_standard_library_reads(
    numbers: list[float], indent: int | str | None, keyed: bool, compact: bool
) -> None:
    separators = (",", ":") if compact else (" , ", " : ")
    sent = {"values": numbers} if keyed else numbers
    body = json.dumps(sent, indent=indent, separators=separators).encode()
    read = json.loads(body)
    expected = packed(*(read["values"] if keyed else read))
    assert accepted(JSON, body) == expected
    with small_pieces():
        assert accepted(JSON, body) == expected


@given(st.lists(NUMBERS, min_size=1), st.booleans(), st.booleans())
def test_messagepack_in_slices_is_what_was_packed(
    numbers: list[float], keyed: bool, single: bool
) -> None:
    sent = [float(one) for one in numbers] if single else numbers
    body = msgpack.packb({"values": sent} if keyed else sent)
    assert accepted(MSGPACK, body) == packed(*sent)
    with small_pieces():
        assert accepted(MSGPACK, body) == packed(*sent)


LINES = st.text("0123456789+-.eE_,x \t\rnaifty[]\x0b", max_size=12) | st.one_of(
    NUMBERS.map(repr),
    st.sampled_from(["-0", "+0", "-0.0", "9007199254740993", "-9007199254740993", "1e400"]),
    st.tuples(NUMBERS, st.sampled_from(", _x\r"), NUMBERS).map("{0[0]}{0[1]}{0[2]}".format),
)


def plainly(body: str) -> bytes | None:
    """What lines are by Python's own reading, less what that allows beyond plain numbers."""
    values = []
    for line in (line.strip(" \t\r") for line in body.split("\n")):
        if line:
            if "_" in line or line != line.strip() or not line.isascii():
                return None
            try:
                value = float(line)
            except ValueError:
                return None
            if not np.isfinite(value):
                return None
            whole = not set(line) & set(".eE")
            if whole and abs(Decimal(line)) > 2**53:
                return None
            values.append(value + 0 if whole else value)
    return packed(*values) if values else None


@given(st.lists(LINES, max_size=8), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_text_is_what_python_reads_line_by_line(lines: list[str], ending: str) -> None:
    body = ending.join(lines)
    assert accepted(TEXT, body.encode()) == plainly(body)
    with small_pieces():
        assert accepted(TEXT, body.encode()) == plainly(body)


@given(st.lists(NUMBERS.map(repr)), st.lists(LINES, min_size=1, max_size=2))
def test_quick_lines_and_slow_lines_are_the_same_numbers(lines: list[str], more: list[str]) -> None:
    body = "\n".join([*lines, *more]).encode()
    quick = accepted(TEXT, body)
    with patch.object(intake, "_plain", return_value=None):
        assert accepted(TEXT, body) == quick


def spelled(sign: str, whole: str, fraction: str | None, exponent: str) -> str:
    """A number as people and programs write it."""
    point = "" if fraction is None else f".{fraction}"
    return f"{sign}{whole if whole or fraction else 0}{point}{exponent}"


DIGITS = st.sampled_from(["0", "00", "007", "5", "10", "0" * 4400 + "3"]) | st.just("")
EXPONENTS = ["", "", "e0", "E+2", "e-007", "E12", "e-4999"]
SPELLED = st.builds(
    spelled,
    st.sampled_from(["", "+", "-"]),
    DIGITS,
    st.none() | DIGITS,
    st.sampled_from(EXPONENTS),
)
LONG_FINITE = st.sampled_from(["1" * 4400 + "e-4399", "+" + "0" * 9000 + "1.", "." + "3" * 5000])
BLANKS = st.text(" \t\r", max_size=2)


@given(st.lists(st.tuples(BLANKS, SPELLED | LONG_FINITE | st.just(""), BLANKS).map("".join)))
def test_no_spelling_of_a_number_is_slow(lines: list[str]) -> None:
    """Line by line costs ten times as much: only what is refused in the end is looked at so."""
    body = "\n".join(lines)
    with patch.object(intake, "_lines", side_effect=AssertionError):
        assert accepted(TEXT, body.encode()) == plainly(body)
        with small_pieces():
            assert accepted(TEXT, body.encode()) == plainly(body)


ODDLY_WRONG = [".", "+.", "-.", "1..", "1.5.", "..5", "1+", "+-1", "-+1", "++1", "e5", ".e5", "1.e"]
ODDLY_WRONG += ["1e+", "00x", "1 1", "+ 1", "- 1", "1\x0b"]


@pytest.mark.parametrize("wrong", ODDLY_WRONG)
def test_what_is_no_number_does_not_become_one_among_odd_spellings(wrong: str) -> None:
    for around in ("1", "+1", ".5", "1.", "007", ""):
        body = "\n".join([around, around, wrong, around]).encode()
        assert outcome(TEXT, body) == ("malformed", None)
        with pytest.raises(BadBody, match="line 3 is not"):
            decode(TEXT, body)


@given(st.sampled_from(TYPES), st.binary())
def test_any_bytes_are_values_or_refused(content_type: str, body: bytes) -> None:
    outcome(content_type, body)
    with small_pieces():
        outcome(content_type, body)


TOKENS = st.sampled_from(
    [*'{}[],:"\\ \n0123456789-+.eE', *('"values"', "true", "null", "NaN", "[1,2]", '{"values":[')]
).map(str.encode)


PLAIN = st.lists(st.sampled_from([b"1,", b"-2.5,", b"12 ,"]), min_size=3).map(b"".join)
ODD = st.sampled_from([b"", b"]", b"[", b"}", b"{", b"],[", b'"']) | TOKENS
ALMOST = st.tuples(st.just(b"["), PLAIN, ODD, PLAIN, st.just(b"1"), ODD, st.just(b"]"), ODD)


@given(st.lists(TOKENS, max_size=30).map(b"".join) | ALMOST.map(b"".join))
def test_what_looks_like_json_is_values_or_refused_whole_and_in_pieces(body: bytes) -> None:
    for given_body in (body, b"[" + body + b"]", b'{"values":[' + body + b"]}"):
        whole = accepted(JSON, given_body)
        with small_pieces():
            in_pieces = accepted(JSON, given_body)
        if given_body.lstrip()[:1] in {b"[", b"{"}:
            assert in_pieces == whole


@pytest.mark.parametrize("blank", ["", " "])
def test_a_comma_too_many_is_refused_wherever_a_cut_falls(blank: str) -> None:
    for length in range(1, 40):
        numbers = [f"{blank}1"] * length
        for at in range(length + 1):
            body = "[" + ",".join([*numbers[:at], blank, *numbers[at:]]) + "]"
            with small_pieces():
                assert outcome(JSON, body.encode()) == ("malformed", None)


@given(st.lists(NUMBERS, min_size=9), st.booleans(), st.data())
def test_a_wrong_byte_is_not_judged_otherwise_in_pieces(
    numbers: list[float], packs: bool, data: st.DataObject
) -> None:
    compact = json.dumps(numbers, separators=(",", ":")).encode()
    kind, body = (MSGPACK, msgpack.packb(numbers)) if packs else (JSON, compact)
    at = data.draw(st.integers(0, len(body) - 1))
    bytewise = st.sampled_from(b"0123456789,.-e ") | st.integers(0, 255)
    wrong = body[:at] + bytes([data.draw(bytewise)]) + body[at + 1 :]
    whole = accepted(kind, wrong)
    with small_pieces():
        in_pieces = accepted(kind, wrong)
    if kind == MSGPACK or wrong.lstrip()[:1] in {b"[", b"{"}:
        assert in_pieces == whole


@given(st.lists(NUMBERS, min_size=1), st.booleans())
def test_a_body_cut_short_is_never_accepted(numbers: list[float], keyed: bool) -> None:
    given_values = {"values": numbers} if keyed else numbers
    for content_type, body in (
        (JSON, json.dumps(given_values).encode()),
        (MSGPACK, msgpack.packb(given_values)),
    ):
        for length in range(len(body)):
            assert accepted(content_type, body[:length]) is None
            with small_pieces():
                assert accepted(content_type, body[:length]) is None


@given(st.lists(NUMBERS, min_size=1), st.sampled_from([b"true", b"null", b'"1"', b"NaN", LONG]))
def test_the_first_bad_value_is_named_in_whatever_piece_it_is(
    numbers: list[float], bad: bytes
) -> None:
    parts = [json.dumps(one).encode() for one in numbers]
    body = b"[" + b",".join([*parts, bad, *parts, b"true"]) + b"]"
    with small_pieces():
        found = outcome(JSON, body)
    assert found == outcome(JSON, body)
    assert found[1] == len(numbers)


def test_json_is_never_parsed_in_more_than_a_piece() -> None:
    sizes = []

    def recorded(piece: bytes) -> object:
        sizes.append(len(piece))
        return json.loads(piece)

    numbers = [one + 0.125 for one in range(40_000)]
    with patch.object(intake, "from_json", recorded):
        assert outcome(JSON, json.dumps(numbers).encode()) == numbers
        assert outcome(TEXT, "\n".join(map(str, numbers)).encode()) == numbers
    assert len(sizes) > 10
    assert max(sizes) < intake.PIECE_BYTES + 100


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (MSGPACK, b"\xdd\x80\x00\x00\x00\x01\x01\x01\x01\x01"),
        (MSGPACK, b"\x81\xa6values\xdd\xff\xff\xff\xff\x01"),
        (MSGPACK, b"\x92\x01\xdd\x7f\xff\xff\xff"),
        (MSGPACK, b"\x92\x01\xdd\x01\x00\x00\x00"),
        (MSGPACK, b"\x92\x01\xdf\x7f\xff\xff\xff"),
        (MSGPACK, b"\x92\x01\xc6\x7f\xff\xff\xff"),
        (MSGPACK, b"\x92\x01\xdb\x7f\xff\xff\xff"),
        (MSGPACK, b"\x92\x01\xc9\x7f\xff\xff\xff\x05"),
        (MSGPACK, b"\xdd\x7f\xff\xff\xff" * 20_000),
        (JSON, b"[" * 100_000),
        (JSON, b"[1," * 100_000),
        (TEXT, b"[" * 100_000),
    ],
    ids=lambda part: str(part)[:40],
)
def test_what_a_hostile_body_claims_costs_no_memory(content_type: str, body: bytes) -> None:
    tracemalloc.start()
    assert accepted(content_type, body) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * len(body) + 2**20


@pytest.mark.parametrize("content_type", TYPES)
def test_memory_is_a_small_multiple_of_body_and_values(content_type: str) -> None:
    numbers = [one + 0.125 for one in range(60_000)]
    body = {
        JSON: json.dumps(numbers).encode(),
        MSGPACK: msgpack.packb([*numbers[1:], 1]),
        OCTETS: packed(*numbers),
        TEXT: "\n".join(map(str, numbers)).encode(),
    }[content_type]
    tracemalloc.start()
    decode(content_type, body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(body) + 2 * 8 * len(numbers) + 2**20


def test_the_number_of_values_in_a_long_body_is_what_was_sent() -> None:
    numbers = list(range(200_000))
    for content_type, body in (
        (JSON, json.dumps(numbers, indent=1).encode()),
        (MSGPACK, msgpack.packb(numbers)),
        (TEXT, "\r\n".join(map(str, numbers)).encode()),
    ):
        assert decode(content_type, body).tobytes() == as_values(numbers).tobytes()
