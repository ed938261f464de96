"""What somebody inside may make us keep, and what he may say: he breaks nothing by it."""

import asyncio
import json
import logging
import math
import weakref
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import worker_service.settings
import worker_service.store
from coordinator_service.answers import Answers
from coordinator_service.noticed import Noticed
from shared.digest import Digest
from shared.ledger import NO_ROOM, ROW_KNOTS_MAX, Ledger, Outcome
from shared.outbox import Outbox
from shared.picture import NO_SEGMENTS, Segments
from shared.protocol import (
    ID_MAX,
    NO_MARK,
    SEGMENTS_MAX,
    SILENT_HEARTBEATS,
    UPTO_MAX,
    Cause,
    Delta,
    Form,
    MalformedMessage,
    Receipt,
    Refusal,
    Source,
    mark_of,
    pack_delta,
    pack_receipt,
    pack_response,
    unpack_delta,
    unpack_receipt,
    unpack_response,
)
from shared.rows import KNOT_BYTES, NEW, SOURCE_BYTES, STREAM_BYTES, Memory, Row
from shared.serving.crowd import Crowd
from shared.serving.doors import Doors
from shared.serving.room import Room
from shared.serving.storage import NotWritten
from shared.wording import KNOTS_MAX
from tests.cluster import Cluster, run, until
from tests.test_coordinator_app import sent
from tests.test_worker_app import check_problem, is_ready
from worker_service.metrics import Metrics
from worker_service.sources import Batch, Sources

HEARTBEAT_S = 1.0
SILENT_S = SILENT_HEARTBEATS * HEARTBEAT_S
KEPT = 60  # knots, of each row at epsilon 5 %
LARGEST, SMALLEST = 1.7976931348623157e308, 5e-324


def a_ledger(bytes_max: int | None = None, rows: Iterable[Row] = ()) -> Ledger:
    return Ledger(0.05, number=7, now=0.0, heartbeat_s=HEARTBEAT_S, bytes_max=bytes_max, rows=rows)


def chain(x: list[float], weights: list[float]) -> Segments:
    return Segments(np.array(x), np.array(weights))


def said(number: int, *, stream: str = "default", **fields: Any) -> bytes:
    """A whole of two values, unless something else is said."""
    upto = fields.get("upto", 2)
    plain = Delta(
        source=Source("liar", stream, number),
        base=NO_MARK,
        since=0,
        upto=upto,
        form=Form.WHOLE,
        segments=chain([0.0, 1.0], [upto]),
        shift=0.0,
        digest_error=0.001,
        ledger=0,
        cause=Cause.PATIENCE,
    )
    return pack_delta(replace(plain, **fields))


def taken(ledger: Ledger) -> int:
    """Counted anew."""
    known = list(ledger.known)
    knots = sum(max(KEPT, len(row.picture)) for row in known if row.upto)
    streams = {row.source.stream for row in known}
    return STREAM_BYTES * len(streams) + SOURCE_BYTES * len(known) + KNOT_BYTES * knots


def one_source(knots: int = KEPT) -> int:
    return SOURCE_BYTES + KNOT_BYTES * knots


def for_new(bytes_: int) -> int:
    """How much there must be, so that those who are new may take so much of it."""
    return math.ceil(bytes_ / NEW)


def heard(ledger: Ledger, data: bytes, now: float = 0.0) -> Receipt:
    answer = ledger.receive(data, now=now)
    assert isinstance(answer, Receipt), answer
    return answer


def refused(ledger: Ledger, data: bytes, now: float = 0.0) -> Refusal:
    answer = ledger.receive(data, now=now)
    assert isinstance(answer, Refusal), answer
    return answer


def complete(ledger: Ledger, now: float, stream: str = "default") -> bool:
    return ledger.answer(stream=stream, now=now).complete


# What is full


def test_a_source_for_which_there_is_no_memory_is_turned_away_and_not_remembered() -> None:
    ledger = a_ledger(for_new(STREAM_BYTES + 3 * one_source()))
    for number in range(3):
        heard(ledger, said(number))
    before = ledger.memory.taken
    for number in range(3, 50):
        answer = refused(ledger, said(number))
        assert answer.code == "no_room"
        assert f"{ledger.memory.most} bytes" in answer.sentence
        refused(ledger, said(number, stream=f"stream {number}"))
        assert isinstance(ledger.receive(said(number, base=b"12345678"), now=0), Receipt)
    assert ledger.memory.taken == before == taken(ledger) == STREAM_BYTES + 3 * one_source()
    assert len(list(ledger.known)) == 3
    assert ledger.answer(now=0).count == 6


def steps(knots: int, upto: int) -> Segments:
    """A row of so many knots, of so many values."""
    return chain([float(x) for x in range(knots)], [1.0] * (knots - 2) + [upto - knots + 2.0])


def fill(ledger: Ledger) -> None:
    """Nothing is left, but what is kept."""
    ledger.memory.most = ledger.memory.taken


def test_what_makes_a_row_no_larger_than_it_was_is_always_taken() -> None:
    ledger = a_ledger(2**20)
    mark = heard(ledger, said(1, upto=99, segments=steps(99, 99))).mark
    fill(ledger)
    same = said(1, base=mark, since=99, upto=109, form=Form.SAME, segments=NO_SEGMENTS)
    mark = heard(ledger, same).mark
    inside: dict[str, Any] = {"form": Form.MORE, "segments": chain([1.0, 2.0], [1.0])}
    mark = heard(ledger, said(1, base=mark, since=109, upto=110, **inside)).mark
    mark = heard(ledger, said(1, base=mark, upto=111, segments=chain([5, 6], [111]))).mark
    assert ledger.memory.taken == taken(ledger) == STREAM_BYTES + one_source()
    mark = heard(ledger, said(1, base=mark, upto=112, segments=steps(99, 112))).mark
    assert ledger.memory.taken == ledger.memory.most == taken(ledger)
    larger = said(1, base=mark, upto=113, segments=steps(100, 113))
    assert refused(ledger, larger).code == "no_room"
    assert not complete(ledger, SILENT_S), "it claims to know more"
    heard(ledger, said(1, base=mark, upto=113, segments=steps(99, 113)), now=SILENT_S)


def test_each_row_has_room_for_what_is_kept_for_it_whoever_fills_the_rest() -> None:
    ledger = a_ledger(for_new(STREAM_BYTES + 3 * one_source()))
    marks = [heard(ledger, said(number)).mark for number in range(3)]
    assert ledger.memory.most
    long = KEPT + (ledger.memory.most - ledger.memory.taken) // KNOT_BYTES
    heard(ledger, said(0, base=marks[0], upto=long, segments=steps(long, long)))
    assert ledger.memory.most - KNOT_BYTES < taken(ledger) <= ledger.memory.most
    for number in (1, 2):
        longer = said(number, base=marks[number], upto=99, segments=steps(KEPT + 1, 99))
        assert refused(ledger, longer).code == "no_room"
        heard(ledger, said(number, base=marks[number], upto=99, segments=steps(KEPT, 99)))
    assert ledger.memory.taken == taken(ledger)


@pytest.mark.parametrize(("epsilon", "knots"), [(0.05, 60), (0.01, 300), (0.001, 1000)])
def test_the_less_may_be_wrong_the_more_is_kept_for_a_row_up_to_a_thousand_knots(
    epsilon: float, knots: int
) -> None:
    assert Memory(epsilon).of_row(2) == Memory(epsilon).of_row(knots) == knots * KNOT_BYTES
    assert Memory(epsilon).of_row(knots + 1) == (knots + 1) * KNOT_BYTES


def test_a_row_that_may_not_be_added_to_may_be_drawn_anew() -> None:
    """The receipt of a row that is not what was thought is what has an outbox send a whole."""
    ledger = a_ledger(2**20)
    receipt = heard(ledger, said(1, upto=KEPT, segments=steps(KEPT, KEPT)))
    fill(ledger)
    more: dict[str, Any] = {"form": Form.MORE, "segments": chain([90.0, 91.0], [1.0])}
    longer = said(1, base=receipt.mark, since=KEPT, upto=KEPT + 1, **more)
    verdict = ledger.judge(longer, now=1.0)
    assert (verdict.outcome, verdict.answer) == (Outcome.STRANGE, receipt)
    assert ledger.is_full(now=1.0)
    assert ledger.answer(now=1.0).silent == 1, "it claims to know more"
    whole = said(1, base=receipt.mark, upto=KEPT + 1, segments=steps(KEPT, KEPT + 1))
    heard(ledger, whole, now=1.0)


def carried(outbox: Outbox, ledger: Ledger, now: float) -> None:
    """Whatever it has to say, to its end."""
    while data := outbox.delta(now=now):
        outbox.receive(heard(ledger, data, now), now=now)


@pytest.mark.parametrize("growth", [0.25, 0.0])
def test_in_a_ledger_filled_by_new_sources_every_source_that_is_in_goes_on(
    growth: float, rng: np.random.Generator
) -> None:
    """Also where nothing is left of the part for growth; its values drift, and it needs knots."""
    ledger = Ledger(0.01, number=7, now=0.0, heartbeat_s=HEARTBEAT_S, bytes_max=2**20)
    sources = [Source("w", f"s{number}", number) for number in range(1, 3)]
    honest = [Outbox(source, Digest(0.0005), now=0.0) for source in sources]
    for outbox in honest:
        outbox.add(rng.normal(size=2000), now=0.0)
        carried(outbox, ledger, 0.0)
    number = 9
    while isinstance(ledger.receive(said(number, digest_error=0.0005), now=0.0), Receipt):
        number += 1
    assert ledger.memory.most
    if not growth:
        fill(ledger)
    for turn in range(1, 151):
        now = turn * HEARTBEAT_S / 4
        for outbox in honest:
            outbox.add(rng.normal(size=300) + turn / 20, now=now)
            carried(outbox, ledger, now)
            assert outbox.acknowledged == outbox.count
    assert ledger.memory.taken <= ledger.memory.most
    assert all(ledger.row(outbox.source).upto > 40_000 for outbox in honest)


def test_rows_that_were_kept_come_back_all_of_them() -> None:
    whole = a_ledger()
    for number in range(5):
        heard(whole, said(number))
    small = a_ledger(STREAM_BYTES, whole.rows)
    assert small.answer(now=0).count == 10
    assert small.memory.taken == taken(small) > STREAM_BYTES
    mark = small.row(Source("", "default", 1)).mark
    heard(small, said(1, base=mark, upto=7))
    assert refused(small, said(9)).code == "no_room"


# Answers stay true


def test_no_answer_is_complete_until_three_heartbeats_after_the_last_was_turned_away() -> None:
    ledger = a_ledger(for_new(STREAM_BYTES + one_source()))
    mark, echoed = NO_MARK, 0
    for upto in (2, 3):
        answer = heard(ledger, said(1, base=mark, upto=upto, ledger=echoed), now=SILENT_S)
        mark, echoed = answer.mark, answer.ledger
    assert complete(ledger, SILENT_S)
    changes = ledger.changes("default")
    assert not ledger.is_full(now=SILENT_S)
    at = SILENT_S + HEARTBEAT_S
    refused(ledger, said(2), now=at)
    assert ledger.changes("default") > changes
    told = ledger.answer(now=at)
    assert (told.complete, told.live, told.silent) == (False, 1, 0)
    assert told.until <= at + SILENT_S
    heard(ledger, said(1, base=mark, upto=4, ledger=echoed), now=at + 1.5)
    assert not complete(ledger, at + SILENT_S - 0.01)
    assert ledger.is_full(now=at + SILENT_S - 0.01)
    assert complete(ledger, at + SILENT_S)
    assert not ledger.is_full(now=at + SILENT_S)


def test_of_a_stream_without_sources_it_is_said_too_and_of_one_that_then_begins() -> None:
    ledger = a_ledger(for_new(STREAM_BYTES + one_source()))
    heard(ledger, said(1, stream="other", base=b"12345678"), now=SILENT_S)
    assert complete(ledger, SILENT_S)
    changes = [ledger.changes("default")]
    refused(ledger, said(2), now=SILENT_S)
    changes.append(ledger.changes("default"))
    assert not complete(ledger, SILENT_S)
    assert ledger.answer(now=SILENT_S).until == 2 * SILENT_S
    assert [row.source.stream for row in ledger.retire("liar", now=SILENT_S)] == ["other"]
    changes.append(ledger.changes("other"))
    receipt = heard(ledger, said(2), now=SILENT_S)
    heard(ledger, said(2, base=receipt.mark, upto=3, ledger=receipt.ledger), now=SILENT_S)
    changes.append(ledger.changes("default"))
    assert changes == sorted(set(changes)), "each time another"
    assert not complete(ledger, SILENT_S), "another may have been turned away of this stream"
    assert not complete(ledger, 2 * SILENT_S - 0.01)


def test_that_one_was_turned_away_is_not_forgotten_with_the_last_source_of_its_stream() -> None:
    ledger = a_ledger(for_new(STREAM_BYTES + one_source()))
    at = 2 * SILENT_S
    ledger.receive(said(1, base=b"12345678"), now=at)
    fill(ledger)
    assert refused(ledger, said(2), now=at).code == "no_room"
    (gone,) = ledger.retire("liar", now=at + 1)
    assert not ledger.knows(gone.source)
    told = ledger.answer(now=at + 1)
    assert (told.complete, told.silent, told.until) == (False, 0, at + SILENT_S)
    assert complete(ledger, at + SILENT_S)


def test_a_stream_that_ends_does_not_bring_back_what_another_was_turned_away_at() -> None:
    ledger = a_ledger(for_new(STREAM_BYTES + SOURCE_BYTES))
    ledger.receive(said(1, base=b"12345678"), now=0.0)
    refused(ledger, said(2, stream="other"), now=2 * SILENT_S)
    ledger.retire("liar", now=2 * SILENT_S)
    assert not complete(ledger, 2 * SILENT_S, "other")


def test_changes_of_a_stream_go_on_whichever_stream_ends_after_it() -> None:
    """The one with many changes ends before the one with few."""
    ledger, seen = a_ledger(), list[int]()
    few = Source("few", "few", 1)
    ledger.receive(said(1, source=few, base=b"12345678"), now=0.0)
    for number in range(9):
        ledger.receive(said(number, stream="many", base=b"12345678"), now=0.0)
        seen.append(ledger.changes("many"))
    for worker in ("liar", "few"):
        ledger.retire(worker, now=0.0)
        seen.append(ledger.changes("many"))
    ledger.receive(said(1, stream="many", base=b"12345678"), now=0.0)
    seen.append(ledger.changes("many"))
    assert seen == sorted(set(seen)), "each time another"


def test_who_is_turned_away_with_what_is_strange_finds_it_full_too() -> None:
    ledger = a_ledger(STREAM_BYTES)
    assert isinstance(ledger.receive(said(1, base=b"12345678"), now=1.0), Receipt)
    assert ledger.is_full(now=1.0)
    assert not ledger.is_full(now=1.0 + SILENT_S)


def test_a_source_that_was_never_accepted_is_forgotten_once_it_is_retired() -> None:
    """Whoever invents sources takes memory; an operator gets it back."""
    ledger = a_ledger(for_new(STREAM_BYTES + 5 * SOURCE_BYTES))
    empty = ledger.memory.taken
    for number in range(9):
        ledger.receive(said(number, base=b"12345678"), now=0)
    assert len(list(ledger.known)) == 5
    assert ledger.answer(now=SILENT_S).silent == 5
    assert len(ledger.retire("liar", now=SILENT_S)) == 5
    assert (ledger.memory.taken, list(ledger.known)) == (empty, [])
    assert complete(ledger, SILENT_S)
    heard(ledger, said(1), now=SILENT_S)


def test_no_outbox_lets_a_row_have_more_knots_than_it_may() -> None:
    assert KNOTS_MAX - 1 + SEGMENTS_MAX + 1 <= ROW_KNOTS_MAX


# What is absurd


def grants_are_those_of_the_rows(ledger: Ledger, data: bytes) -> Receipt:
    anew = heard(a_ledger(rows=reversed(list(ledger.rows))), data)
    answer = heard(ledger, data)
    assert answer.grant == anew.grant
    assert unpack_receipt(pack_receipt(answer)) == answer
    return answer


def test_sums_beyond_what_a_float_can_hold_stay_exact(rng: np.random.Generator) -> None:
    """Some claim all that one may, and shifts as large, and take them back, again and again."""
    ledger, honest = a_ledger(), Outbox(Source("w", "default", 99), Digest(0.001), now=0.0)
    marks = dict.fromkeys(range(16), NO_MARK)
    for turn, most in enumerate([2**52, 2**4] * 4):
        for number in rng.permutation(16).tolist():
            shift = int(rng.integers(most)) / 16
            lie = said(number, base=marks[number], upto=UPTO_MAX, shift=shift)
            marks[number] = grants_are_those_of_the_rows(ledger, lie).mark
            honest.add([turn, number], now=0.0)
            while data := honest.delta(now=0.0):
                honest.receive(grants_are_those_of_the_rows(ledger, data), now=0.0)
        covered = ledger.row(honest.source).upto
        assert ledger.answer(now=0.0).count == 16 * UPTO_MAX + covered
    assert honest.acknowledged == honest.count


def test_grants_stay_sums_of_sixteenths_whatever_is_claimed() -> None:
    """A few hundred went and left a pool behind that would be larger than a float can count."""
    ledger = a_ledger()
    for number in range(300):
        upto = UPTO_MAX - number
        answer = heard(ledger, said(number, upto=upto))
        mark, echo = answer.mark, answer.ledger
        heard(ledger, said(number, upto=upto, base=mark, ledger=echo, shift=1 / 16, final=True))
    for number in range(300, 330):
        grants_are_those_of_the_rows(ledger, said(number, upto=UPTO_MAX - 7 * number))


def test_a_sum_that_a_float_cannot_hold_is_not_called_exact() -> None:
    ledger = a_ledger()
    for number in range(64):
        upto = UPTO_MAX - number
        jump = chain([1.0, 1.0], [upto])
        answer = heard(ledger, said(number, upto=upto, segments=jump))
        gone: dict[str, Any] = {"base": answer.mark, "ledger": answer.ledger, "final": True}
        heard(ledger, said(number, upto=upto, segments=jump, **gone))
        estimate = ledger.answer(0.5, now=0.0).estimate
        assert estimate is not None
        assert (estimate.value, estimate.rank_error > 0) == (1.0, number > 0)


def test_an_answer_that_is_kept_holds_no_rows_that_were_replaced() -> None:
    ledger = a_ledger()
    answers = Answers(ledger, clock=lambda: 0.0, wall=lambda: 0.0)
    mark = heard(ledger, said(1)).mark
    kept = answers.median_at_once("default")
    distribution = ledger.distribution("default")
    assert distribution is not None
    total = weakref.ref(distribution.total)
    del distribution
    assert total() is not None
    heard(ledger, said(1, base=mark, upto=3))
    assert total() is None
    assert kept.answer.estimate is not None
    assert kept.answer.estimate.low <= kept.answer.estimate.value == 0.5


def test_however_many_quantiles_are_asked_for_no_more_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.picture.ARRIVED_MAX", 4)
    ledger = a_ledger()
    for number in range(9):
        heard(ledger, said(number, upto=99, segments=chain(list(range(100)), [1.0] * 99)))
    qs = np.linspace(0, 1, 50).tolist()
    told = [one.estimate for one in ledger.answers(qs, stream="default", now=0.0)]
    values = [one.value for one in told if one]
    assert values == sorted(values)
    estimate = ledger.answer(now=0.0).estimate
    assert estimate is not None
    size = sum(
        sum(len(one) for one in held.values() if isinstance(one, np.ndarray))
        for held in vars(estimate.total).values()
        if isinstance(held, dict)
    )
    assert 0 < size <= 4 * 9


def strictly(body: bytes) -> Any:
    def odd(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(body, parse_constant=odd)


def check_answers(ledger: Ledger, now: float) -> None:
    answers = Answers(ledger, clock=lambda: now, wall=lambda: 1e9)
    for stream in ledger.streams:
        for q in (0.0, 0.25, 0.5, 1.0):
            estimate = ledger.answer(q, stream=stream, now=now).estimate
            assert estimate is not None
            assert estimate.low <= estimate.value <= estimate.high
            assert math.isfinite(estimate.value)
            assert 0 <= estimate.rank_error <= 1
        strictly(answers.median_at_once(stream).body)
        strictly(answers.quantiles(stream, [0, 0.3, 1])())
        for points in (2, 7, 1000):
            strictly(answers.cdf(stream, points)())
        strictly(answers.explain(stream, 0.5)())
    strictly(answers.workers(None)())


ODD = [0.0, 1.0, -1.0, SMALLEST, -SMALLEST, 2 * SMALLEST, LARGEST, -LARGEST, 1e-300, 1e300]
KNOTS = st.lists(st.sampled_from(ODD) | st.floats(allow_nan=False, allow_infinity=False),
                 min_size=2, max_size=9)  # fmt: skip
COUNTS = st.sampled_from([1, 2, 3, 2**47, UPTO_MAX - 1, UPTO_MAX]) | st.integers(1, UPTO_MAX)
SHARES = st.lists(st.integers(0, 9), min_size=1, max_size=9)


@st.composite
def segments(draw: st.DrawFn, weight: int) -> Segments:
    """A chain of this weight, with jumps where a knot comes twice."""
    x = sorted(draw(KNOTS))
    x = [one for at, one in enumerate(x) if x[at - 2 : at] != [one, one] or at < 2]
    shares = [1 + draw(st.integers(0, 9)) * draw(st.booleans()) for _ in x[1:]]
    gains = [weight * share // sum(shares) for share in shares]
    gains[-1] += weight - sum(gains)
    unit = 0
    return Segments(np.array(x) + 0.0, np.array(gains, dtype=np.float64), 0, unit)


@st.composite
def lies(draw: st.DrawFn, ledger: Ledger) -> bytes:
    """A valid delta of a few sources, mostly drawn on the rows that there are."""
    source = Source(draw(st.sampled_from(["w", "liar"])), draw(st.sampled_from(["default", "b"])),
                    draw(st.sampled_from([1, 2, 3, 4, ID_MAX])))  # fmt: skip
    row, form = ledger.row(source), draw(st.sampled_from(Form))
    if not row.upto or row.upto == UPTO_MAX:
        form = Form.WHOLE if form is Form.MORE or not row.upto else form
    since = 0 if form is Form.WHOLE else row.upto
    upto = draw(COUNTS if form is Form.WHOLE else st.integers(since + (form > 0), UPTO_MAX))
    drawn = NO_SEGMENTS if form is Form.SAME else draw(segments(upto - since))
    return pack_delta(
        Delta(
            source=source,
            base=draw(st.sampled_from([row.mark, row.mark, row.mark, NO_MARK, b"12345678"])),
            since=since,
            upto=upto,
            form=form,
            segments=drawn,
            shift=draw(st.sampled_from([0.0, upto, upto - 1 / 16, upto / 2, 1 / 16])),
            digest_error=draw(st.sampled_from([1e-6, 0.0005, 0.0025, 0.3, 0.5])),
            ledger=draw(st.sampled_from([0, 7, 8, 9, ID_MAX])),
            cause=draw(st.sampled_from(Cause)),
            final=draw(st.booleans()),
            raw=draw(st.sampled_from([0, 1, ID_MAX])),
            home=draw(st.sampled_from([0, 1, 2**32 - 1])) if form is Form.WHOLE else 0,
            former=(),
        )
    )


@settings(max_examples=30)
@given(st.data(), st.sampled_from([None, for_new(STREAM_BYTES + 3 * one_source())]))
def test_whatever_a_valid_delta_says_it_is_judged_alone_and_nothing_breaks(
    data: st.DataObject, bytes_max: int | None
) -> None:
    ledger, now = a_ledger(bytes_max), 0.0
    honest = Outbox(Source("honest", "default", 99), Digest(0.001), now=now)
    for turn in range(data.draw(st.integers(1, 8))):
        lie = data.draw(lies(ledger))
        try:
            unpack_delta(lie)
        except MalformedMessage:
            assert ledger.judge(lie, now=now).outcome is Outcome.REFUSED
            continue
        answer = ledger.receive(lie, now=now)
        if isinstance(answer, Receipt):
            assert unpack_receipt(pack_receipt(answer)) == answer
        assert ledger.memory.taken == taken(ledger)
        assert bytes_max is None or ledger.memory.taken <= bytes_max
        honest.add([float(turn), -float(turn)], now=now)
        if sent := honest.delta(now=now):
            answer = ledger.receive(sent, now=now)
            if isinstance(answer, Receipt):
                honest.receive(answer, now=now)
            else:
                assert answer.code == "no_room"
        now += data.draw(st.sampled_from([0.0, 0.0, 1.0, 4.0]))
        check_answers(ledger, now)
    if honest.acknowledged:
        assert ledger.row(honest.source).upto <= honest.count


@pytest.mark.parametrize(
    "x",
    [
        [-LARGEST, LARGEST], [-LARGEST, -LARGEST, LARGEST, LARGEST], [0.0, SMALLEST],
        [-SMALLEST, SMALLEST], [SMALLEST, SMALLEST, 2 * SMALLEST],
        (1 + np.arange(1001) * 2.0**-52).tolist(),
    ],
)  # fmt: skip
def test_knots_at_the_ends_of_what_a_float_can_hold_are_answered_from(x: list[float]) -> None:
    ledger = a_ledger()
    for number, weight in enumerate((1, 2**30, 2**38)):
        weights = [float(weight)] * (len(x) - 1)
        mark = heard(ledger, said(number, upto=int(sum(weights)), segments=chain(x, weights))).mark
        since = int(sum(weights))
        same = said(
            number, base=mark, since=since, upto=UPTO_MAX, form=Form.SAME, segments=NO_SEGMENTS
        )
        check_answers(ledger, 0.0)
        heard(ledger, same)
        check_answers(ledger, 0.0)


# The same over HTTP


def full(number: int = 1, stream: str = "default", knots: int = 14_000) -> bytes:
    """A row of more than a MiB, or nearly as much."""
    x = np.arange(float(knots))
    upto = knots - 1
    return said(number, stream=stream, upto=upto, segments=Segments(x, np.ones(upto)))


def test_the_clients_of_a_worker_that_is_turned_away_are_told_why(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def story() -> None:
        async with Cluster(rng, workers=0) as cluster:
            node = await cluster.start_coordinator(rows_bytes_max=2**20)
            (receipt,) = await sent(node, full(knots=9_600))
            assert isinstance(receipt, Receipt)
            worker = await cluster.start_worker(answer_s_max=0.5, goodbye_s_max=0.1)
            await until(lambda: is_ready(worker), "it met the coordinator")
            first = asyncio.create_task(cluster.post(worker, rng.normal(size=3)))

            async def is_told() -> bool:
                response = await worker.client.post("/values", json=[1, 2])
                return response.status_code == 503

            await until(is_told, "it is refused")
            message = check_problem(
                await worker.client.post("/values", json=[1, 2]), 503, "not_taken"
            )
            assert message == NO_ROOM.format(2**20)
            said_ = await node.json("/median")
            assert (said_["count"], said_["complete"]) == (9_599, False)
            refusals = "median_coordinator_refused_deltas_total"
            assert await node.metric(refusals, code="no_room") >= 1
            assert await node.metric("median_coordinator_rows_bytes") <= 2**20
            check_problem(await first, 503, "not_acknowledged")

    run(story())
    assert "rows take as much memory as they may; deltas are refused" in caplog.text
    told = [one.__dict__["facts"] for one in caplog.records if one.msg == "source %s"]
    assert {one["worker"] for one in told} == {"liar"}, "of the other nothing is remembered"


def test_rows_that_take_too_much_are_all_restored_and_the_log_says_so(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=0, data_dir=tmp_path) as cluster:
            for number in (1, 2):
                await sent(cluster.coordinator, full(number))
            node = await cluster.start_coordinator(rows_bytes_max=2**20)
            assert (await node.json("/median"))["count"] == 2 * 13_999

    run(story())
    assert "rows that were kept take as much memory as rows may, or more" in caplog.text


def test_what_is_full_is_said_once_when_it_begins_and_once_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    ledger = a_ledger(STREAM_BYTES)
    noticed = Noticed(Answers(ledger, clock=lambda: 0.0, wall=lambda: 0.0))
    noticed.full(ledger, 0.0)
    refused(ledger, said(1))
    for now in (0.0, 1.0, SILENT_S, SILENT_S + 1):
        noticed.full(ledger, now)
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("ERROR", "rows take as much memory as they may; deltas are refused"),
        ("INFO", "no delta was refused for want of memory in three heartbeats"),
    ]


def test_a_source_that_is_turned_away_or_forgotten_leaves_nothing_in_the_log_to_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    ledger = a_ledger()
    noticed = Noticed(Answers(ledger, clock=lambda: 0.0, wall=lambda: 0.0))
    for _ in range(3):
        ledger.receive(said(1, base=b"12345678"), now=0.0)
        noticed.state(next(ledger.known), 0.0)
        noticed.names(list(ledger.known))
        (row,) = ledger.retire("liar", now=0.0)
        noticed.state(row, 0.0)
        noticed.names(list(ledger.known))
    said_ = [one.getMessage() for one in caplog.records]
    assert said_ == ["source silent", "source retired"] * 3, "each time it is a new one"


def test_of_many_streams_the_first_thousand_have_gauges(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator_service.metrics.STREAMS_MAX", 2)

    async def story() -> None:
        async with Cluster(rng, workers=0) as cluster:
            node = cluster.coordinator
            await sent(node, *[said(1, stream=stream) for stream in "cabd"])
            seen = [await node.metric("median_counted_values", stream=one) for one in "abcd"]
            assert seen == [2, 2, 0, 0]
            assert await node.metric("median_coordinator_streams") == 4

    run(story())


# Streams of a worker


def test_a_stream_too_many_is_told_507_and_nothing_of_it_is_left(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=0, data_dir=tmp_path) as cluster:
            worker = await cluster.start_worker(streams_max=2)
            await until(lambda: is_ready(worker), "it met the coordinator")

            async def post(stream: str, **headers: str) -> httpx.Response:
                path = f"/values?stream={stream}"
                return await worker.client.post(path, json=[1.0], headers=headers)

            assert [(await post(stream)).status_code for stream in "ab"] == [202, 202]
            for _ in range(2):
                told = check_problem(
                    await post("c", **{"idempotency-key": "k"}), 507, "too_many_streams"
                )
            assert told == (
                "this worker has 2 streams, as many as it may have, and 'c' is none of them: "
                "nothing was taken"
            )
            assert (await post("a")).json() == {"accepted": 1, "count": 2}
            assert await worker.status("/median?stream=c") == 404
            assert await worker.metric("median_worker_streams") == 2
            assert await worker.metric("median_worker_refused_streams_total") == 2
            await cluster.stop(worker)
            worker = await cluster.start_worker(streams_max=1, worker_name=worker.name)
            assert await worker.metric("median_worker_streams") == 2, "all that was kept"
            await until(lambda: is_ready(worker), "it is signed")
            assert [(await post(stream)).status_code for stream in "abc"] == [202, 202, 507]

    run(story())


class Slow:
    """In place of what writes: each batch is written down, or is not, when the test says so."""

    def __init__(self) -> None:
        self.written: list[asyncio.Future[None]] = []

    def __call__(self, _: object) -> asyncio.Future[None]:
        self.written.append(asyncio.get_running_loop().create_future())
        return self.written[-1]


@pytest.mark.parametrize("fails", [(True, True), (True, False), (False, True)])
def test_a_line_stays_only_if_one_of_its_first_batches_is_taken(
    fails: tuple[bool, ...], tmp_path: Path
) -> None:
    """Two come at once; the one is written down or is not while the other still waits."""

    async def story() -> None:
        settings = worker_service.settings.Settings(data_dir=str(tmp_path), worker_name="w")
        store = worker_service.store.open_store(settings)
        assert store is not None
        sources, slow = Sources("w", settings, clock=lambda: 0.0, store=store), Slow()
        with patch.object(store.storage, "write", slow):
            batches = [Batch(np.array([1.0]), 8), Batch(np.array([2.0]), 8)]
            takes = [asyncio.create_task(sources.take("s", batch)) for batch in batches]
            await until(lambda: has(len(slow.written) == 2), "both are about to be written down")
            (line,) = sources
            for written, failed in zip(slow.written, fails, strict=True):
                if failed:
                    written.set_exception(NotWritten(OSError("the disk is full")))
                else:
                    written.set_result(None)
                await asyncio.sleep(0.01)
                assert len(sources) == 1 or all(fails)
            assert list(sources) == ([] if all(fails) else [line])
            assert line.outbox.count == 2 - sum(fails)
        for take in takes:
            take.cancel()
        await asyncio.gather(*takes, return_exceptions=True)
        await store.storage.close()

    run(story())


async def has(holds: bool) -> bool:
    return holds


def test_a_coordinator_cannot_make_a_worker_count_under_any_number_of_codes() -> None:
    settings = worker_service.settings.Settings()
    sources = Sources("w", settings, clock=lambda: 0.0, store=None)
    room = Room(requests_max=1, bytes_max=1)
    doors, crowd = Doors(settings), Crowd(1)
    metrics = Metrics(sources, room=room, doors=doors, crowd=crowd, certificate=None, store=None)
    for code in ("no_room", *map(str, range(100))):
        metrics.refused(code)
    lines = metrics.text().decode().splitlines()
    seen = [line for line in lines if line.startswith("median_worker_refused_deltas_total")]
    assert sorted(seen) == [
        'median_worker_refused_deltas_total{code="no_room"} 1.0',
        'median_worker_refused_deltas_total{code="other"} 100.0',
    ]


@pytest.mark.parametrize(
    "refusal", [Refusal("c" * 101, ""), Refusal("", "s" * 1001), Refusal("", "a\nb")]
)
def test_a_refusal_is_short_and_can_be_printed(refusal: Refusal) -> None:
    assert unpack_response(pack_response([Refusal("no_room", "s" * 1000)]))
    with pytest.raises(MalformedMessage):
        unpack_response(pack_response([refusal]))


def absurd() -> list[bytes]:
    """Each valid, and drawn on the one before where it goes on."""
    whole = said(1, upto=3, segments=chain([-LARGEST, -LARGEST, LARGEST, LARGEST], [1, 1, 1]))
    scaled = said(
        1, since=3, upto=UPTO_MAX, base=mark_of(whole), form=Form.SAME, segments=NO_SEGMENTS
    )
    tiny = chain([SMALLEST, SMALLEST, 2 * SMALLEST], [UPTO_MAX - 1, 1])
    return [
        whole, scaled,
        said(2, upto=UPTO_MAX, segments=tiny, shift=UPTO_MAX, raw=ID_MAX, ledger=ID_MAX),
        said(3, upto=UPTO_MAX, final=True, home=1, former=(2, 3), digest_error=1e-6),
        said(3, upto=UPTO_MAX, stream="other"), said(1, source=Source("w", "default", 1)),
        said(4, base=b"12345678"), said(5, digest_error=0.5), said(6, stream="others", upto=1),
    ]  # fmt: skip


def test_after_whatever_was_said_every_question_has_its_answer(rng: np.random.Generator) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=0) as cluster:
            node = cluster.coordinator
            for data in absurd():
                await sent(node, data)
                for path in (
                    "/median", "/quantile?q=0&q=0.5&q=1", "/cdf", "/cdf?points=2", "/workers",
                    "/explain", "/explain?q=1", "/streams", "/median/history", "/health",
                ):  # fmt: skip
                    response = await node.client.get(path)
                    assert response.status_code == 200, response.text
                    strictly(response.content)
                assert await node.metric("median_complete") == 0
                events = await node.coordinator.live.events("default")
                assert await anext(events) == b"retry: 2000\n\n"
                strictly((await anext(events)).removeprefix(b"data: "))

    run(story())
