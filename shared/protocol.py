"""The two messages, and their bytes.

A worker numbers the values of a source 1, 2, 3, ... and sends **deltas**: what the coordinator must
do to cover `(since, upto]` as well. The coordinator answers each with a **receipt**: what its row
of the source now is, and what the source may live by.

    same     more of what you have: the picture, scaled to the new count
    more     segments to add to it
    whole    segments that replace it; since is 0

Counting does not name a picture: two deltas can reach the same `upto`. So the bytes of a delta have
a **mark**, a hash, that names the row they make; and each delta says on which mark, its `base`, it
was drawn. A repeated delta is known by its mark, a stranger's by its base.

    delta       [2, worker, stream, number, base, since, upto, form, knots, weights, shift,
                 digest error in millionths, ledger, 2 * cause + final, raw]   of a whole also:
                 home, homes that were before
    receipt     [2, upto, mark, allowance, patience, epsilon, heartbeat_s, ledger]
    request     [delta, ...]   each a byte string of its own, so that a bad one harms no other
    response    [receipt or refusal, ...]   in the request's order; a refusal is [code, sentence]

A **home** is where the values of a source are kept: a number, drawn at random for each data
directory, and anew when a directory is found to be another than it was. Only who keeps something
has one. It tells two copies of one source apart; with the homes that the directory had before,
newest first, it tells which is a copy of which. Only a whole replaces what was, so only wholes name
homes.

Why a delta is said, its **cause**, is told to those who look on: nothing is decided by it. It
shares a byte with `final`, so that it costs none.

Segments travel in the digits they need. `knots` begins with a step: then an integer is how many
multiples of 2**step the knot lies after the last such knot, a float is a knot as it is, and nil is
the knot before once more, where the chain jumps. `weights` begins with a unit: then each is a
multiple of 2**unit, but the last, which is what is missing to upto - since, and is not sent.

One law: bytes are a valid message or `MalformedMessage`, never anything else, in time and memory of
the order of what is allowed. Here stand the limits of that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import Any, NamedTuple

import msgpack
import numpy as np

from shared.clusters import COUNT_MAX
from shared.drawing import EXPONENT_MAX, EXPONENT_MIN
from shared.lines import quietly
from shared.picture import NO_SEGMENTS, Picture, Segments
from shared.rank_shift import SIXTEEN, Grant
from shared.values import EXACT_MAX

VERSION = 2  # of all messages; in 1 no delta told its cause
MARK_BYTES = 8
NO_MARK = bytes(MARK_BYTES)  # of a row that no delta has made yet
ID_MAX = 2**64 - 1
HOME_MAX = 2**32 - 1
FORMER_MAX = 31  # homes that a whole names beside the present one, the latest first
UPTO_MAX = 2**48  # values of a source: sixteenths of so many ranks, and of sums, are exact
SIXTEENTHS_MAX = SIXTEEN * COUNT_MAX
NAME_MAX = 100  # characters
UNREAD = "\ufffd"  # what a decoder says in place of what it could not read
A_NAME = f"1 to {NAME_MAX} characters that can be printed, without U+FFFD"
EPSILON_MIN = 0.0005  # for less, a picture may need more segments than a delta may have
SEGMENTS_MAX = 2**16
DELTAS_MAX = 1024  # in a request
DELTA_BYTES_MAX = 2 * 9 * SEGMENTS_MAX + 1024  # no number takes more than 9 bytes
REQUEST_BYTES_MAX = 8 * 1024 * 1024
CODES = frozenset(("malformed", "too_coarse", "too_long", "no_room", "in_use", "conflict"))
SENTENCE_MAX = 1000  # characters, of a refusal
HEARTBEAT_S_MIN = 0.05  # else whoever answers a worker could have it push without a pause
HEARTBEAT_S_MAX = 60.0
SILENT_HEARTBEATS = 3  # unheard for so long, a source is silent
COARSEST = 1 / 20  # of epsilon: the rank error of a digest whose shifts are worth measuring
MILLION = 1_000_000
EXACTLY = 1 - 1e-12  # so that what is a millionth but for a float's rounding counts as one
ARRAYS = frozenset((*range(0x90, 0xA0), 0xDC, 0xDD))  # first bytes of an array in MessagePack
MAPS = frozenset((*range(0x80, 0x90), 0xDE, 0xDF))
ARRAY_MAX = SEGMENTS_MAX + 2  # a step and knots, the longest there is
FIELDS_MAX = 64  # a delta has 47 at most, a receipt 8


class MalformedMessage(ValueError):
    """These bytes are not a message."""


class Form(IntEnum):
    SAME = 0
    MORE = 1
    WHOLE = 2


class Cause(IntEnum):
    """Why something is said; from 1, so that no cause is false."""

    SHIFT = 1  # the allowance is used up
    PATIENCE = 2  # that is used up, as it is before the first receipt
    ECHO = 3  # the coordinator waits for its number, to know that this source is live
    LINGER = 4  # nothing came for a while, and something is not covered yet
    HEARTBEAT = 5
    FLUSH = 6  # somebody asked for it
    REPAIR = 7  # the coordinator holds another picture than was thought
    GOODBYE = 8


WHY_MIN, WHY_MAX = 2 * min(Cause), 2 * max(Cause) + 1  # as cause and final travel, in one


class Source(NamedTuple):
    """One stream on one worker; the number, drawn when its data began, tells it from all others."""

    worker: str
    stream: str
    number: int

    @property
    def key(self) -> tuple[str, int]:
        """What identifies it: the worker's name is a label."""
        return self.stream, self.number


@dataclass(frozen=True, eq=False, kw_only=True)
class Delta:
    source: Source
    base: bytes
    since: int
    upto: int
    form: Form
    segments: Segments = NO_SEGMENTS
    shift: float  # measured after this delta
    digest_error: float
    ledger: int  # as in the receipt that the source read last; 0: it has read none
    cause: Cause
    final: bool = False
    raw: int = 0  # bytes of values that users have sent, since the source began
    home: int = 0  # of a whole: where its source is kept; 0: in memory only
    former: tuple[int, ...] = ()  # homes of that directory before, newest first

    def drawn_on(self, picture: Picture) -> Picture:
        """What the picture of its base becomes: the same bits on either side."""
        match self.form:
            case Form.SAME:
                return picture if self.upto == self.since else picture.scaled(self.upto)
            case Form.MORE:
                return picture.plus(self.segments.picture)
            case _:
                return self.segments.picture


@dataclass(frozen=True, kw_only=True)
class Receipt:
    upto: int
    mark: bytes
    grant: Grant
    epsilon: float
    heartbeat_s: float
    ledger: int


class Refusal(NamedTuple):
    """Why a delta was not even looked at: the code is for programs, the sentence for people."""

    code: str
    sentence: str


def digest_error_for(epsilon: float) -> float:
    """How wrong a digest may be: the most millionths that are fine enough for this epsilon."""
    return max(1, math.floor(epsilon * COARSEST * MILLION / EXACTLY)) / MILLION


def too_coarse(digest_error: float, epsilon: float) -> str | None:
    """Why shifts measured by such a digest are worth nothing to such a promise, if they are."""
    most = epsilon * COARSEST
    if digest_error <= most * (1 + 1e-9):
        return None
    what = f"a digest with a rank error of {digest_error} is too coarse for an epsilon of {epsilon}"
    return f"{what}: it must be at most {most}"


def mark_of(delta: bytes) -> bytes:
    return blake2b(delta, digest_size=MARK_BYTES).digest()


def pack_delta(delta: Delta) -> bytes:
    return _packed([
        VERSION, *delta.source, delta.base, delta.since, delta.upto, int(delta.form),
        _packed_knots(delta.segments), _packed_weights(delta.segments),
        int(delta.shift * SIXTEEN),
        math.ceil(delta.digest_error * MILLION * EXACTLY), delta.ledger,
        2 * delta.cause + delta.final, delta.raw,
        *([delta.home, *delta.former] if delta.home else []),
    ])  # fmt: skip


def unpack_delta(data: bytes) -> Delta:
    match _unpacked(data, DELTA_BYTES_MAX, FIELDS_MAX, ARRAY_MAX):
        case [
            version, worker, stream, number, base, since, upto, form, knots, weights, shift,
            digest_error, ledger, why, raw, *homes,
        ] if _is_ours(version) and len(homes) <= 1 + FORMER_MAX:  # fmt: skip
            since, upto = _whole("since", since, UPTO_MAX), _whole("upto", upto, UPTO_MAX)
            why = _whole("cause and final", why, WHY_MAX, WHY_MIN)
            return _consistent(
                Delta(
                    source=Source(
                        _name("worker", worker),
                        _name("stream", stream),
                        _whole("number", number, ID_MAX),
                    ),
                    base=_mark("base", base),
                    since=since,
                    upto=upto,
                    form=Form(_whole("form", form, max(Form))),
                    segments=_unpacked_segments(knots, weights, upto - since),
                    shift=_whole("shift", shift, SIXTEENTHS_MAX) / SIXTEEN,
                    digest_error=_whole("digest error", digest_error, MILLION // 2, 1) / MILLION,
                    ledger=_whole("ledger", ledger, ID_MAX),
                    cause=Cause(why // 2),
                    final=bool(why % 2),
                    raw=_whole("raw", raw, ID_MAX),
                    home=_whole("home", homes[0], HOME_MAX, 1) if homes else 0,
                    former=tuple(_whole("former home", one, HOME_MAX, 1) for one in homes[1:]),
                )
            )
    raise MalformedMessage(f"these bytes are not a delta, or not one of version {VERSION}")


def pack_receipt(receipt: Receipt) -> bytes:
    return _packed(_receipt_fields(receipt))


def unpack_receipt(data: bytes) -> Receipt:
    return _receipt(_unpacked(data, 1024, FIELDS_MAX))


def pack_request(deltas: Sequence[bytes]) -> bytes:
    return _packed(list(deltas))


def unpack_request(data: bytes) -> list[bytes]:
    deltas = _unpacked(data, REQUEST_BYTES_MAX, ARRAY_MAX)
    if not isinstance(deltas, list) or not 1 <= len(deltas) <= DELTAS_MAX:
        raise MalformedMessage(f"a request is an array of 1 to {DELTAS_MAX} deltas")
    if not all(type(delta) is bytes for delta in deltas):
        raise MalformedMessage("each delta in a request is a byte string")
    return deltas


def pack_response(answers: Sequence[Receipt | Refusal]) -> bytes:
    return _packed([
        _receipt_fields(one) if isinstance(one, Receipt) else list(one) for one in answers
    ])  # fmt: skip


def unpack_response(data: bytes) -> list[Receipt | Refusal]:
    answers = _unpacked(data, REQUEST_BYTES_MAX, DELTAS_MAX, FIELDS_MAX)
    if not isinstance(answers, list):
        raise MalformedMessage("a response is an array of receipts and refusals")
    return [_answer(one) for one in answers]


def _answer(fields: Any) -> Receipt | Refusal:
    match fields:
        case [str(code), str(sentence)]:
            return Refusal(_text("code", code, NAME_MAX), _text("sentence", sentence, SENTENCE_MAX))
    return _receipt(fields)


def _receipt_fields(receipt: Receipt) -> list[Any]:
    return [
        VERSION, receipt.upto, receipt.mark, *_grant_fields(receipt.grant), receipt.epsilon,
        receipt.heartbeat_s, receipt.ledger,
    ]  # fmt: skip


def _receipt(fields: Any) -> Receipt:
    match fields:
        case [
            version, upto, mark, allowance, patience, float(epsilon), float(heartbeat_s), ledger,
        ] if _is_ours(version):  # fmt: skip
            if not 0 < epsilon < 0.5:
                raise MalformedMessage("epsilon is not between 0 and 0.5")
            if not HEARTBEAT_S_MIN <= heartbeat_s <= HEARTBEAT_S_MAX:
                what = f"heartbeat_s is not from {HEARTBEAT_S_MIN} to {HEARTBEAT_S_MAX}"
                raise MalformedMessage(what)
            return Receipt(
                upto=_whole("upto", upto),
                mark=_mark("mark", mark),
                grant=_grant(allowance, patience),
                epsilon=epsilon,
                heartbeat_s=heartbeat_s,
                ledger=_whole("ledger", ledger, ID_MAX),
            )
    raise MalformedMessage(f"these bytes are not a receipt, or not one of version {VERSION}")


def _packed(message: list[Any]) -> bytes:
    data: bytes = msgpack.packb(message)
    return data


def _unpacked(data: bytes, most: int, *longest: int) -> Any:
    """What is no array, or, as deep as there are lengths, arrays that are no longer."""
    if len(data) > most:
        raise MalformedMessage(f"a message of {len(data)} bytes, where {most} are allowed")
    unpacker = msgpack.Unpacker(
        max_buffer_size=max(1, len(data)), max_array_len=0, max_map_len=0, max_ext_len=0
    )
    unpacker.feed(data)
    try:
        message = _read(unpacker, data, longest)
    except (ValueError, TypeError, BufferError, msgpack.OutOfData) as error:
        raise MalformedMessage("these bytes are not MessagePack of what a message holds") from error
    if unpacker.tell() < len(data):
        raise MalformedMessage("there are bytes after the message")
    return message


def _read(unpacker: Any, data: bytes, longest: Sequence[int]) -> Any:
    """Field by field, so that no memory is spent on what arrays claim to hold, or on empty ones.

    What is an array or a map where neither can be is `...`, which is no field of anything.
    """
    at = unpacker.tell()
    kind = data[at] if at < len(data) else None
    if kind in MAPS or (kind in ARRAYS and not longest):
        unpacker.skip()
        return ...
    if kind not in ARRAYS:
        return unpacker.unpack()
    length = unpacker.read_array_header()
    if length > longest[0]:
        raise ValueError(f"an array of {length}, where {longest[0]} are allowed")
    return [_read(unpacker, data, longest[1:]) for _ in range(length)]


def _is_ours(version: Any) -> bool:
    return type(version) is int and version == VERSION  # as True == 1.0 == 1


def _whole(name: str, given: Any, most: int = COUNT_MAX, least: int = 0) -> int:
    if type(given) is not int or not least <= given <= most:
        raise MalformedMessage(f"{name} is not a whole number from {least} to {most}")
    return given


def is_name(given: str) -> bool:
    """The one rule for names, of streams and of workers: `A_NAME` says it in words.

    What can be printed, Python says: no control characters, no line ends, no surrogates, and no
    space but the plain one. U+FFFD is what decoders say in place of what they could not read: with
    it, different bytes would be one name. Nothing is folded: two names that look alike are two.
    """
    return 1 <= len(given) <= NAME_MAX and given.isprintable() and UNREAD not in given


def _name(field: str, given: Any) -> str:
    if type(given) is not str or not is_name(given):
        raise MalformedMessage(f"{field} is not a name of {A_NAME}")
    return given


def _text(field: str, given: str, most: int) -> str:
    if len(given) > most or not given.isprintable():
        raise MalformedMessage(f"{field} is not a text of at most {most} characters, all printable")
    return given


def _mark(field: str, given: Any) -> bytes:
    if type(given) is not bytes or len(given) != MARK_BYTES:
        raise MalformedMessage(f"{field} is not a mark of {MARK_BYTES} bytes")
    return given


def _grant(allowance: Any, patience: Any) -> Grant:
    return Grant(
        _whole("allowance", allowance, SIXTEENTHS_MAX) / SIXTEEN, _whole("patience", patience)
    )


def _grant_fields(grant: Grant) -> tuple[int, int]:
    return int(grant.allowance * SIXTEEN), grant.patience


def _consistent(delta: Delta) -> Delta:
    if delta.shift > delta.upto:
        raise MalformedMessage("shift is more than all values there are")
    if delta.home and delta.form is not Form.WHOLE:
        raise MalformedMessage("only a whole has a home")
    drawn, gained = len(delta.segments) > 0, delta.upto - delta.since
    kept = {
        Form.SAME: delta.since > 0 and gained >= 0 and not drawn,
        Form.MORE: delta.since > 0 and gained > 0 and drawn,
        Form.WHOLE: delta.since == 0 and gained > 0 and drawn,
    }
    if not kept[delta.form]:
        raise MalformedMessage(f"a delta of form {delta.form.name.lower()} contradicts itself")
    return delta


@quietly
def _packed_knots(segments: Segments) -> list[int | float | None] | None:
    if not len(segments):
        return None
    packed: list[int | float | None] = [segments.step]
    multiples, last, before = np.ldexp(segments.knots, -segments.step), 0, None
    for knot, multiple in zip(segments.knots.tolist(), multiples.tolist(), strict=True):
        if knot == before:
            packed.append(None)
        elif multiple % 1 == 0 and abs(multiple) < EXACT_MAX and (multiple or not knot):
            packed.append(int(multiple) - last)
            last = int(multiple)
        else:
            packed.append(knot)
        before = knot
    return packed


def _packed_weights(segments: Segments) -> list[int] | None:
    if not len(segments):
        return None
    return [segments.unit, *(int(weight) >> segments.unit for weight in segments.weights[:-1])]


def _unpacked_segments(knots: Any, weights: Any, gained: int) -> Segments:
    if knots is None and weights is None:
        return NO_SEGMENTS
    if type(knots) is not list or type(weights) is not list or len(knots) != len(weights) + 2:
        raise MalformedMessage("segments have one knot more than weights")
    if not 1 <= len(weights) <= SEGMENTS_MAX:
        raise MalformedMessage(f"a delta has at most {SEGMENTS_MAX} segments")
    x, step = _unpacked_knots(knots)
    unit = _whole("unit", weights[0], 52)
    gains = [_whole("weight", weight) << unit for weight in weights[1:]]
    gains.append(gained - sum(gains))
    if gains[-1] < 0:
        raise MalformedMessage("the segments weigh more than the values they are of")
    return Segments(np.array(x), np.array(gains, dtype=np.float64), step, unit)


def _unpacked_knots(packed: list[Any]) -> tuple[list[float], int]:
    step, last = packed[0], 0
    if type(step) is not int or not EXPONENT_MIN <= step <= EXPONENT_MAX:
        raise MalformedMessage(f"the step of the knots is from {EXPONENT_MIN} to {EXPONENT_MAX}")
    knots: list[float] = []
    for one in packed[1:]:
        if one is None and knots and knots[-1:] != knots[-2:-1]:
            knots.append(knots[-1])
            continue
        if type(one) is int and abs(one) <= 2 * EXACT_MAX and abs(last + one) < EXACT_MAX:
            last += one
            knot = _multiple(last, step)
        elif type(one) is float:
            knot = one + 0.0  # so that -0.0 never is a knot
        else:
            raise MalformedMessage("a knot is not a number, nor the one before")
        if not (math.isfinite(knot) and (not knots or knot > knots[-1])):
            raise MalformedMessage("the knots are not finite, or not in order")
        knots.append(knot)
    return knots, step


def _multiple(times: int, step: int) -> float:
    try:
        return math.ldexp(times, step)
    except OverflowError:
        return math.inf
