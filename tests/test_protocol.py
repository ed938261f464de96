"""The messages: they come back as they were, and anything else is `MalformedMessage`."""

import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clusters import COUNT_MAX
from shared.digest import Digest
from shared.picture import NO_SEGMENTS, NOTHING, Segments
from shared.protocol import (
    A_NAME,
    DELTA_BYTES_MAX,
    DELTAS_MAX,
    FORMER_MAX,
    HEARTBEAT_S_MAX,
    HEARTBEAT_S_MIN,
    HOME_MAX,
    ID_MAX,
    MARK_BYTES,
    NAME_MAX,
    NO_MARK,
    REQUEST_BYTES_MAX,
    SEGMENTS_MAX,
    SIXTEENTHS_MAX,
    UPTO_MAX,
    Cause,
    Delta,
    Form,
    MalformedMessage,
    Receipt,
    Refusal,
    Source,
    is_name,
    mark_of,
    pack_delta,
    pack_receipt,
    pack_request,
    pack_response,
    unpack_delta,
    unpack_receipt,
    unpack_request,
    unpack_response,
)
from shared.rank_shift import Grant, rank_shift, whole
from tests.test_picture import any_segments

COUNT = st.integers(0, COUNT_MAX) | st.integers(0, 9)
NUMBER = st.integers(0, ID_MAX)
MARK = st.binary(min_size=MARK_BYTES, max_size=MARK_BYTES)
NAME = st.text(min_size=1, max_size=NAME_MAX).filter(is_name)
HOMES = st.lists(st.integers(1, HOME_MAX), min_size=1, max_size=1 + FORMER_MAX) | st.just([0])
RANKS = COUNT.map(lambda sixteenths: sixteenths / 16)
GRANT = st.builds(Grant, RANKS, COUNT)
SECONDS = st.floats(HEARTBEAT_S_MIN, HEARTBEAT_S_MAX)
RECEIPT = st.builds(
    Receipt, upto=COUNT, mark=MARK, grant=GRANT, heartbeat_s=SECONDS, ledger=NUMBER,
    epsilon=st.floats(0, 0.5, exclude_min=True, exclude_max=True),
)  # fmt: skip
REFUSAL = st.builds(Refusal, NAME, NAME)


@st.composite
def any_delta(draw: st.DrawFn) -> Delta:
    form = draw(st.sampled_from(Form))
    segments = NO_SEGMENTS if form is Form.SAME else draw(any_segments())
    since = 0 if form is Form.WHOLE else draw(st.integers(1, UPTO_MAX - 10**6))
    upto = since + (segments.weight or draw(st.integers(0, 100)))
    homes = draw(HOMES) if form is Form.WHOLE else [0]
    return Delta(
        source=Source(draw(NAME), draw(NAME), draw(NUMBER)), base=draw(MARK), since=since,
        upto=upto, form=form, segments=segments, shift=draw(st.integers(0, 16 * upto)) / 16,
        digest_error=draw(st.integers(1, 500_000)) / 1_000_000, ledger=draw(NUMBER),
        cause=draw(st.sampled_from(Cause)), final=draw(st.booleans()), raw=draw(NUMBER),
        home=homes[0], former=tuple(homes[1:]),
    )  # fmt: skip


def comparable(delta: Delta) -> dict[str, Any]:
    segments = delta.segments
    drawn = segments.knots.tolist(), segments.weights.tolist(), segments.step, segments.unit
    return {**asdict(delta), "segments": drawn}


# knots 1, 1, 1.25 with steps of a quarter, and 7e300; weights 2, 4 and what is missing to 9
FIELDS = [
    2, "worker", "stream", 7, b"basebase", 0, 9, 2, [-2, 4, None, 1, 7e300], [1, 1, 2],
    8, 500, 3, 17, 72,
]  # fmt: skip
NAMES = ("version", "worker", "stream", "number", "base", "since", "upto", "form", "knots",
         "weights", "shift", "digest_error", "ledger", "cause_and_final", "raw",
)  # fmt: skip
HOME = 0xC0FFEE11
RECEIPT_FIELDS = [2, 9, b"markmark", 16, 5, 0.01, 10.0, 3]
RECEIPT_NAMES = (
    "version", "upto", "mark", "allowance", "patience", "epsilon", "heartbeat_s", "ledger"
)  # fmt: skip


def packed(**changes: object) -> bytes:
    data: bytes = msgpack.packb(list({**dict(zip(NAMES, FIELDS, strict=True)), **changes}.values()))
    return data


def receipt(**changes: object) -> bytes:
    fields = {**dict(zip(RECEIPT_NAMES, RECEIPT_FIELDS, strict=True)), **changes}
    data: bytes = msgpack.packb(list(fields.values()))
    return data


def test_a_delta_is_what_its_bytes_are_said_to_be() -> None:
    delta = unpack_delta(packed())
    assert delta.source == ("worker", "stream", 7)
    assert (delta.base, delta.since, delta.upto, delta.form) == (b"basebase", 0, 9, Form.WHOLE)
    assert delta.segments.knots.tolist() == [1, 1, 1.25, 7e300]
    assert delta.segments.weights.tolist() == [2, 4, 3]
    assert (delta.shift, delta.digest_error) == (0.5, 0.0005)
    assert (delta.ledger, delta.cause, delta.final, delta.raw) == (3, Cause.GOODBYE, True, 72)
    assert pack_delta(delta) == packed()
    assert unpack_receipt(receipt()) == Receipt(
        upto=9, mark=b"markmark", grant=Grant(1.0, 5), epsilon=0.01, heartbeat_s=10.0, ledger=3
    )


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("cause", Cause)
def test_a_delta_tells_its_cause_at_no_additional_byte(cause: Cause, final: bool) -> None:
    data = packed(cause_and_final=2 * cause + final)
    delta = unpack_delta(data)
    assert (delta.cause, delta.final) == (cause, final)
    assert pack_delta(delta) == data
    assert len(data) == len(packed(cause_and_final=final)), "as long as with final alone"


def test_a_whole_names_its_home_if_it_has_one() -> None:
    delta = unpack_delta(packed(home=HOME))
    assert delta.home == HOME
    assert pack_delta(delta) == packed(home=HOME)
    assert packed(home=HOME)[3:] == packed()[1:] + msgpack.packb(HOME), "a field after the others"
    assert pack_delta(replace(delta, home=0)) == packed()
    assert unpack_delta(packed()).home == 0


def test_a_whole_names_the_homes_before_newest_first() -> None:
    data = packed(home=HOME, last=3, first=2**31)
    assert unpack_delta(data).former == (3, 2**31)
    assert pack_delta(unpack_delta(data)) == data
    most = {f"former {at}": at for at in range(1, 1 + FORMER_MAX)}
    assert len(unpack_delta(packed(home=HOME, **most)).former) == FORMER_MAX
    for wrong in ({**most, "one more": 1}, {"zero": 0}, {"large": HOME_MAX + 1}, {"none": None}):
        malformed(unpack_delta, packed(home=HOME, **wrong), "former home|not a delta")


def test_what_begins_nothing_anew_names_no_home() -> None:
    same = {"since": 1, "form": 0, "knots": None, "weights": None, "upto": 1}
    for fields in (same, {"since": 1, "form": 1, "upto": 10}):
        unpack_delta(packed(**fields))
        malformed(unpack_delta, packed(**fields, home=HOME), "only a whole has a home")


@given(any_delta())
def test_a_delta_comes_back_as_it_was(delta: Delta) -> None:
    data = pack_delta(delta)
    again = unpack_delta(data)
    assert comparable(again) == comparable(delta)
    assert pack_delta(again) == data


@given(st.lists(RECEIPT | REFUSAL, max_size=5), st.lists(st.binary(), min_size=1, max_size=5))
def test_receipts_requests_and_responses_come_back_as_they_were(
    answers: list[Receipt | Refusal], deltas: list[bytes]
) -> None:
    assert unpack_response(pack_response(answers)) == answers
    assert unpack_request(pack_request(deltas)) == deltas
    for one in answers:
        if isinstance(one, Receipt):
            assert unpack_receipt(pack_receipt(one)) == one


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(FINITE, min_size=2, max_size=9, unique=True), st.integers(-1074, 1023))
def test_knots_come_back_whatever_their_step(places: list[float], step: int) -> None:
    knots = np.sort(np.unique(places)) + 0.0
    segments = Segments(knots, np.ones(len(knots) - 1), step)
    if len(segments):
        delta = replace(unpack_delta(packed()), segments=segments, upto=len(segments))
        assert unpack_delta(pack_delta(delta)).segments.knots.tolist() == knots.tolist()


def test_a_jump_near_zero_keeps_its_place_beside_knots_that_are_huge(
    rng: np.random.Generator,
) -> None:
    digest = Digest()
    digest.add(np.repeat([-1e-200, 1e-200], 4_000))
    digest.add(rng.uniform(-1, 1, 8_000) * 1e300)
    drawn = whole(digest.clusters, 100.0, SEGMENTS_MAX)
    delta = replace(unpack_delta(packed()), segments=drawn, upto=digest.count)
    again = unpack_delta(pack_delta(delta))
    assert again.segments.knots.tolist() == drawn.knots.tolist()
    assert rank_shift(digest.clusters, again.drawn_on(NOTHING)) <= 100


def test_each_form_makes_of_a_picture_what_it_says() -> None:
    old = Segments(np.array([0.0, 4.0]), np.array([8.0])).picture
    new = unpack_delta(packed())
    same = replace(new, form=Form.SAME, since=8, upto=16, segments=NO_SEGMENTS).drawn_on(old)
    more = replace(new, form=Form.MORE, since=8, upto=17).drawn_on(old)
    assert same.rank(np.array([2.0, 4.0])).tolist() == [8, 16]
    assert more.rank(np.array([0.0, 1.0, 4.0])).tolist()[:2] == [0, 4]
    assert (more.weight, new.drawn_on(old).weight) == (17, 9)
    assert new.drawn_on(old).x.tolist() == [1, 1.25, 7e300]


def test_a_mark_changes_with_any_byte() -> None:
    data = packed()
    marks = {mark_of(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) for at in range(len(data))}
    marks |= {mark_of(data), mark_of(data + b"\0"), mark_of(data[:-1]), NO_MARK}
    assert len(marks) == len(data) + 4
    assert {len(mark) for mark in marks} == {MARK_BYTES}
    assert mark_of(packed()) == mark_of(data)


NO_WHOLE: list[Any] = [None, True, 1.0, "1", b"1", [], -1]
WRONG_NAMES = [None, 1, b"name", "", "a\n", "\x7f", "a\ufffd", "x" * (NAME_MAX + 1), ["name"]]
WRONG_MARKS = [None, "basebase", b"", b"sevenby", b"nine byte", 0]
BAD: list[tuple[str, list[Any], str]] = [
    ("version", [0, 1, 3, True, 2.0, None, "2"], "not a delta, or not one of version 2"),
    ("worker", WRONG_NAMES, f"worker is not a name of {re.escape(A_NAME)}"),
    ("stream", WRONG_NAMES, f"stream is not a name of {re.escape(A_NAME)}"),
    ("number", [*NO_WHOLE, -(2**63)], "number is not a whole number from 0 to"),
    ("base", WRONG_MARKS, "base is not a mark of 8 bytes"),
    ("since", [*NO_WHOLE, UPTO_MAX + 1], "since is not a whole number"),
    ("since", [1, 9, 10], "contradicts itself|weigh more"),
    ("upto", [*NO_WHOLE, UPTO_MAX + 1], "upto is not a whole number"),
    ("upto", [0, 5], "the segments weigh more than the values"),
    ("form", [*NO_WHOLE, 3], "form is not a whole number from 0 to 2"),
    ("form", [0, 1], "a delta of form (same|more) contradicts itself"),
    ("shift", [*NO_WHOLE, SIXTEENTHS_MAX + 1], "shift is not a whole number"),
    ("shift", [16 * 9 + 1], "shift is more than all values there are"),
    ("digest_error", [*NO_WHOLE, 0, 500_001], "digest error is not a whole number from 1"),
    ("ledger", NO_WHOLE, "ledger is not a whole number"),
    ("cause_and_final", [*NO_WHOLE, 0, 1, 18], "cause and final is not a whole number from 2"),
    ("raw", NO_WHOLE, "raw is not a whole number"),
    ("home", [*NO_WHOLE, 0, HOME_MAX + 1], "home is not a whole number from 1 to 4294967295"),
    ("weights", [None, 5, b"", {}, [], [1, 1], [1, 1, 2, 3]], "one knot more than weights"),
    ("weights", [[one, 1, 2] for one in [*NO_WHOLE, 53]], "unit is not a whole number from 0 to"),
    ("weights", [[0, one, 2] for one in [*NO_WHOLE, COUNT_MAX + 1]], "weight is not a whole"),
    ("weights", [[0, 8, 2], [52, 1, 0], [3, 1, 1]], "the segments weigh more than the values"),
    ("knots", [None, 5, b"", "knots", [], [-2, 4, None, 1]], "one knot more than weights"),
    ("knots", [[one, 4, None, 1, 2] for one in [None, True, 1.0, "1", -1075, 1024]],
        "the step of the knots is from -1074 to 1023"),
    ("knots", [[0, 4, 1, one, 1] for one in [True, "1", b"", [], 2**54 + 1, 2**53, -(2**54)]],
        "a knot is not a number, nor the one before"),
    ("knots", [[0, 2**53, None, 1e300, 1e301], [0, None, 1, 1, 1], [0, 4, None, None, 1],
        [0, 4, 1, None, None]],
        "a knot is not a number, nor the one before"),
    ("knots", [[0, 4, 0, 1, 1], [0, 4, 1, -1, 1], [0, 4.0, 3.0, 5.0, 6.0], [0, 4.0, 4.0, 5.0, 6.0],
        [0, 0.0, -0.0, 1, 1]], "not in order"),
    ("knots", [[0, 4, 1, 1, one] for one in [math.nan, math.inf]] + [[0, -math.inf, 4, 1, 1],
        [1023, 0, 1, 1, 1]], "not finite"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "says"), [(name, one, says) for name, all_, says in BAD for one in all_]
)
def test_each_field_of_a_delta_is_looked_at(name: str, value: object, says: str) -> None:
    with pytest.raises(MalformedMessage, match=says):
        unpack_delta(packed(**{name: value}))


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("version", [0, 1, 3, True, 2.0, None], "not a receipt, or not one of version 2"),
        ("upto", [*NO_WHOLE, COUNT_MAX + 1], "upto is not a whole number"),
        ("mark", WRONG_MARKS, "mark is not a mark of 8 bytes"),
        ("allowance", [*NO_WHOLE, SIXTEENTHS_MAX + 1], "allowance is not a whole number"),
        ("patience", [*NO_WHOLE, COUNT_MAX + 1], "patience is not a whole number"),
        ("epsilon", [0.0, 0.5, -0.01, math.nan, math.inf], "epsilon is not between"),
        ("epsilon", [0, 1, True, None, "0.01"], "not a receipt"),
        ("heartbeat_s", [0.0, -1.0, math.nan, math.inf, 60.001], "heartbeat_s is not from 0"),
        ("heartbeat_s", [1, True, None, "1"], "not a receipt"),
        ("ledger", NO_WHOLE, "ledger is not a whole number"),
    ],
)
def test_each_field_of_a_receipt_is_looked_at(name: str, values: list[Any], says: str) -> None:
    for value in values:
        with pytest.raises(MalformedMessage, match=says):
            unpack_receipt(receipt(**{name: value}))
        with pytest.raises(MalformedMessage, match=says):
            unpack_response(b"\x91" + receipt(**{name: value}))


def with_segments(count: int, **changes: object) -> bytes:
    """As long as so many segments can be made."""
    knots = [0, *np.linspace(1, 2, count + 1).tolist()]
    return packed(knots=knots, weights=[0, *[2**32] * (count - 1)], upto=count << 32, **changes)


@pytest.mark.parametrize(
    "data",
    [
        packed(worker="x" * NAME_MAX, stream="\U0001f600" * NAME_MAX, number=ID_MAX, raw=ID_MAX),
        packed(upto=UPTO_MAX, shift=16 * UPTO_MAX),
        packed(digest_error=500_000, cause_and_final=17, ledger=ID_MAX),
        packed(digest_error=1, cause_and_final=2),
        packed(since=1, form=0, knots=None, weights=None, upto=1),
        packed(since=UPTO_MAX, form=0, knots=None, weights=None, upto=UPTO_MAX),
        packed(since=1, form=1, upto=10), packed(upto=6), packed(home=1), packed(home=HOME_MAX),
        packed(knots=[-1074, 1 - 2**53, 2**54 - 2], weights=[52]),
        packed(knots=[1023, 0, 1], weights=[0]), packed(knots=[0, -0.0, 1], weights=[0]),
        with_segments(SEGMENTS_MAX, worker="\U0001f600" * NAME_MAX, stream="\U0001f600" * NAME_MAX,
            home=HOME_MAX),
    ],
)  # fmt: skip
def test_at_its_limits_a_delta_is_valid(data: bytes) -> None:
    assert len(data) <= DELTA_BYTES_MAX
    delta = unpack_delta(data)
    assert comparable(unpack_delta(pack_delta(delta))) == comparable(delta)


def test_at_its_limits_a_receipt_is_valid() -> None:
    data = receipt(upto=COUNT_MAX, allowance=SIXTEENTHS_MAX, patience=COUNT_MAX, ledger=ID_MAX,
                   epsilon=math.nextafter(0.5, 0), heartbeat_s=HEARTBEAT_S_MAX)  # fmt: skip
    assert pack_receipt(unpack_receipt(data)) == data


def malformed(unpack: Callable[[bytes], object], data: bytes, says: str) -> None:
    with pytest.raises(MalformedMessage, match=says):
        unpack(data)


def test_just_beyond_its_limits_a_message_is_malformed() -> None:
    malformed(unpack_delta, with_segments(SEGMENTS_MAX + 1), "not MessagePack of what")
    malformed(unpack_delta, packed(knots=[0, 1], weights=[]), f"at most {SEGMENTS_MAX} segments")
    malformed(
        unpack_delta, bytes(DELTA_BYTES_MAX + 1), f"bytes, where {DELTA_BYTES_MAX} are allowed"
    )
    malformed(unpack_receipt, bytes(1025), "bytes, where 1024 are allowed")
    malformed(unpack_request, bytes(REQUEST_BYTES_MAX + 1), "where 8388608 are allowed")
    malformed(unpack_response, bytes(REQUEST_BYTES_MAX + 1), "where 8388608 are allowed")
    assert len(unpack_request(pack_request([b""] * DELTAS_MAX))) == DELTAS_MAX
    beyond: list[Any] = [[], [b""] * (DELTAS_MAX + 1), {}, b"delta", None]
    for many in beyond:
        malformed(unpack_request, msgpack.packb(many), "an array of 1 to 1024 deltas|not Mess")
    no_delta: list[Any] = [None, "text", 5, [], {}, [b""]]
    for one in no_delta:
        malformed(unpack_request, msgpack.packb([b"", one]), "in a request is a byte string")
    malformed(unpack_response, msgpack.packb(b""), "a response is an array of")
    for wrong in ([], ["code"], ["code", b"bytes"], ["code", "text", 1], "text", None, 5):
        malformed(unpack_response, msgpack.packb([wrong]), "not a receipt, or not one of version")
