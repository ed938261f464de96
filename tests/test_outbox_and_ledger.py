"""The protocol as stories: an outbox, a ledger, and between them a test that carries the bytes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from shared.digest import Digest
from shared.ledger import CLAIMS_MAX, Answer, Ledger
from shared.outbox import CLOCKS, ECHO_S, NotTaken, Outbox
from shared.picture import Segments
from shared.protocol import (
    FORMER_MAX,
    HEARTBEAT_S_MAX,
    NO_MARK,
    SILENT_HEARTBEATS,
    Cause,
    Delta,
    Form,
    Receipt,
    Refusal,
    Source,
    mark_of,
    pack_delta,
    unpack_delta,
)
from shared.rank_shift import Grant, own_part, pool
from shared.rows import BrokenInvariant, Row, Rows
from shared.values import BadValue

HEARTBEAT_S, LINGER_S = 10.0, 1.0
SILENT_S = SILENT_HEARTBEATS * HEARTBEAT_S
FREE_S = 2 * SILENT_S * CLOCKS


def a_ledger(
    epsilon: float = 0.1, *, number: int = 1, now: float = 0.0, rows: list[Row] | None = None
) -> Ledger:
    return Ledger(epsilon, number=number, now=now, heartbeat_s=HEARTBEAT_S, rows=rows or [])


def an_outbox(number: int = 1, *, stream: str = "default", digest: Digest | None = None) -> Outbox:
    source = Source(f"w{number}", stream, number)
    digest = digest or Digest(0.001)
    return Outbox(source, digest, now=0.0, linger_s=LINGER_S)


def cut(outbox: Outbox, now: float = 0.0) -> bytes:
    delta = outbox.delta(now=now)
    assert delta is not None
    return delta


def judged(ledger: Ledger, delta: bytes, now: float = 0.0) -> Receipt:
    receipt = ledger.receive(delta, now=now)
    assert isinstance(receipt, Receipt)
    return receipt


def exchange(outbox: Outbox, ledger: Ledger, now: float = 0.0) -> Delta:
    """One delta there, and its receipt back."""
    data = cut(outbox, now)
    outbox.receive(judged(ledger, data, now), now=now)
    return unpack_delta(data)


def settled(ledger: Ledger, number: int = 1, values: int = 2_000, now: float = 0.0) -> Outbox:
    """An outbox whose values are all covered, and whose grants are those of so many."""
    outbox = an_outbox(number)
    outbox.add(np.arange(values) * 7919.0 % 1000, now=now)
    while outbox.due:
        exchange(outbox, ledger, now)
    return outbox


def settled_delta() -> bytes:
    outbox = an_outbox(7)
    outbox.add([1.0, 2.0], now=0)
    return cut(outbox)


def median(ledger: Ledger, now: float = 0.0) -> Answer:
    return ledger.answer(now=now)


# A source begins


def test_a_new_source_has_received_nothing_before_the_first_signature() -> None:
    outbox, ledger = an_outbox(), a_ledger()
    assert outbox.add([1.0, 2.0, 4.0], now=0) == 3
    assert (outbox.acknowledged, outbox.due) == (0, True)
    delta = exchange(outbox, ledger)
    assert (delta.form, delta.since, delta.upto, delta.base) == (Form.WHOLE, 0, 3, NO_MARK)
    assert (outbox.acknowledged, outbox.due) == (3, False)
    answer = median(ledger).estimate
    assert answer is not None
    assert (answer.value, answer.low, answer.high) == (2.0, 2.0, 2.0)


def test_a_source_without_values_says_nothing() -> None:
    outbox = an_outbox()
    assert outbox.delta(now=1e9) is None
    assert median(a_ledger()).estimate is None


def test_what_is_not_a_value_is_not_taken_and_nothing_of_its_batch() -> None:
    outbox = an_outbox()
    with pytest.raises(BadValue):
        outbox.add([1.0, np.nan], now=0)
    assert (outbox.count, outbox.due) == (0, False)


# What must be said, and what need not


def test_within_patience_and_allowance_nothing_is_said() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    count = outbox.add(np.full(20, 500.0), now=0)
    assert (outbox.acknowledged, outbox.due) == (count, False)
    assert outbox.delta(now=0) is None


def test_a_batch_beyond_patience_waits_for_its_signature() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    outbox.add(np.full(2, 500.0), now=0)
    count = outbox.add(np.arange(1000.0), now=0)
    assert (outbox.acknowledged, outbox.due) == (2_002, True)
    exchange(outbox, ledger)
    assert outbox.acknowledged == count


def test_a_batch_that_shifts_too_much_waits_for_its_signature() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    count = outbox.add(np.full(130, 1e9), now=0)
    assert (outbox.acknowledged, outbox.due) == (2_000, True)
    exchange(outbox, ledger)
    assert outbox.acknowledged == count


def test_what_merely_grows_is_said_without_segments() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    outbox.add(np.arange(1000.0), now=0)
    assert exchange(outbox, ledger).form is Form.SAME


def test_what_is_new_is_added() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    outbox.add(np.arange(2000.0, 2200.0), now=0)
    delta = exchange(outbox, ledger)
    assert (delta.form, delta.since, delta.upto) == (Form.MORE, 2000, 2200)


def test_a_quiet_source_settles_what_is_pending_after_it_has_lingered() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    exchange(outbox, ledger, now=ECHO_S)
    outbox.add(500.0, now=3.0)
    assert outbox.due_at == 3.0 + LINGER_S
    assert outbox.delta(now=3.9) is None
    assert unpack_delta(cut(outbox, 4.0)).upto == 2_001


def test_a_new_source_soon_says_which_ledger_it_has_heard_of() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    assert ledger.is_silent(ledger.row(outbox.source), now=0)
    assert outbox.due_at == ECHO_S
    assert exchange(outbox, ledger, now=ECHO_S).ledger == ledger.number + 1, "heard once"
    assert not ledger.is_silent(ledger.row(outbox.source), now=ECHO_S)


def test_a_source_with_nothing_to_say_says_so_every_heartbeat() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    exchange(outbox, ledger, now=LINGER_S)
    assert outbox.due_at == LINGER_S + HEARTBEAT_S
    delta = exchange(outbox, ledger, now=LINGER_S + HEARTBEAT_S)
    assert (delta.form, delta.since, delta.upto) == (Form.SAME, 2000, 2000)
    assert outbox.due_at == LINGER_S + 2 * HEARTBEAT_S


def test_a_grant_that_was_lowered_is_answered_once_though_nothing_is_pending() -> None:
    generous = a_ledger(0.4)
    outbox = settled(generous)
    outbox.add(np.linspace(0, 30, 4_000) ** 2, now=0)
    exchange(outbox, generous)
    strict = a_ledger(0.02, number=100, rows=list(generous.rows))
    heartbeat = exchange(outbox, strict, now=HEARTBEAT_S)
    assert (heartbeat.form, outbox.due) == (Form.SAME, True)
    assert heartbeat.shift > strict.row(outbox.source).granted.allowance
    tighter = exchange(outbox, strict, now=HEARTBEAT_S)
    assert (tighter.form, outbox.due) == (Form.WHOLE, False)
    assert tighter.shift < strict.row(outbox.source).granted.allowance


# What the network does


def test_in_flight_the_same_bytes_are_sent_again() -> None:
    outbox = an_outbox()
    outbox.add(1.0, now=0)
    data = cut(outbox)
    outbox.add(2.0, now=0)
    assert cut(outbox, now=5.0) == data
    assert outbox.acknowledged == 0


def test_a_lost_receipt_is_not_counted_twice() -> None:
    outbox, ledger = an_outbox(), a_ledger()
    outbox.add([1.0, 2.0], now=0)
    first = judged(ledger, cut(outbox))
    again = judged(ledger, cut(outbox, now=5.0), now=5.0)
    assert again == first
    outbox.receive(again, now=5.0)
    assert (outbox.acknowledged, median(ledger).count) == (2, 2)


def test_while_a_delta_is_in_flight_the_promise_is_kept_for_both_pictures() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    count = outbox.add(np.linspace(0, 1000, 275), now=0)
    assert (outbox.acknowledged, outbox.due) == (count, True), "it speaks a little early"
    data = cut(outbox)
    spare = outbox.add([1.0, 2.0], now=0)
    assert outbox.acknowledged == spare, "there was room for two more"
    outbox.add(np.linspace(0, 1000, 200), now=0)
    assert outbox.acknowledged == spare, "there was none for these before the receipt"
    outbox.receive(judged(ledger, data), now=0)
    assert outbox.acknowledged == outbox.count


def test_a_receipt_that_nobody_waits_for_changes_nothing() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    outbox.receive(judged(a_ledger(number=100), settled_delta()), now=0)
    assert (outbox.acknowledged, outbox.due) == (2_000, False)


def test_an_old_delta_that_comes_late_changes_nothing() -> None:
    outbox, ledger = an_outbox(), a_ledger()
    outbox.add([1.0, 2.0], now=0)
    old = cut(outbox)
    outbox.receive(judged(ledger, old), now=0)
    outbox.add([3.0, 4.0, 5.0], now=0)
    exchange(outbox, ledger)
    before = ledger.row(outbox.source)
    receipt = judged(ledger, old)
    assert ledger.row(outbox.source) is before
    assert (receipt.upto, receipt.mark) == (5, before.mark)


def test_one_bad_delta_does_not_poison_the_others() -> None:
    outbox, ledger = an_outbox(), a_ledger()
    outbox.add(1.0, now=0)
    answers = [ledger.receive(data, now=0) for data in (b"\xc1", cut(outbox))]
    assert isinstance(answers[0], Refusal)
    assert answers[0].code == "malformed"
    assert isinstance(answers[1], Receipt)


# Restarts


def test_a_coordinator_that_forgot_is_told_the_whole() -> None:
    outbox = settled(a_ledger())
    forgetful = a_ledger(number=100)
    outbox.add(np.arange(1000.0), now=0)
    acknowledged = outbox.acknowledged
    refused = exchange(outbox, forgetful)
    assert (refused.form, forgetful.row(outbox.source).upto) == (Form.SAME, 0)
    outbox.add(1.0, now=0)
    assert outbox.acknowledged == acknowledged, "nothing more before the next signature"
    assert not median(forgetful, now=SILENT_S).complete, "somebody claims to know more"
    accepted = exchange(outbox, forgetful, now=SILENT_S)
    assert (accepted.form, accepted.base) == (Form.WHOLE, NO_MARK)
    assert outbox.acknowledged == forgetful.row(outbox.source).upto == 3_001
    assert not median(forgetful, now=SILENT_S).complete, "that could have been on its way for long"
    exchange(outbox, forgetful, now=SILENT_S + LINGER_S)
    assert median(forgetful, now=SILENT_S + LINGER_S).complete


def test_a_worker_that_comes_back_is_heard_before_it_takes_more() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    exchange(outbox, ledger, now=LINGER_S)
    mark, back = ledger.row(outbox.source).mark, an_outbox(digest=outbox.digest)
    with pytest.raises(NotTaken, match="waiting for the coordinator"):
        back.add(1.0, now=0)
    refused, accepted = exchange(back, ledger), exchange(back, ledger)
    assert (refused.base, accepted.base, accepted.form) == (NO_MARK, mark, Form.WHOLE)
    assert back.acknowledged == 2_000
    assert back.add(1.0, now=0) == 2_001


def test_a_worker_from_an_old_copy_begins_a_new_source() -> None:
    ledger = a_ledger()
    outbox = an_outbox()
    outbox.add([1.0, 2.0], now=0)
    copy = Digest.from_bytes(outbox.digest.to_bytes())
    exchange(outbox, ledger)
    outbox.add(3.0, now=0)
    exchange(outbox, ledger)
    back = an_outbox(digest=copy)
    exchange(back, ledger)
    assert back.outdated
    assert back.delta(now=1e9) is None
    with pytest.raises(NotTaken, match="begin a new one"):
        back.add(4.0, now=0)
    assert median(ledger).count == 3


# Cut off


def test_cut_off_it_serves_again_only_when_it_must_be_listed_as_silent() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    outbox.add(np.full(2_000, 1e9), now=0)
    data = cut(outbox)
    assert cut(outbox, now=FREE_S - 0.1) == data
    assert outbox.acknowledged == 2_000
    assert cut(outbox, now=FREE_S) == data
    assert outbox.acknowledged == 4_000
    outbox.add(np.full(10_000, -1e9), now=FREE_S + 1)
    assert outbox.acknowledged == 14_000
    assert ledger.is_silent(ledger.row(outbox.source), now=FREE_S)


def test_a_batch_is_what_finds_out_that_it_is_free() -> None:
    outbox = settled(a_ledger())
    outbox.add(np.full(2_000, 1e9), now=0)
    cut(outbox)
    cut(outbox, now=1e6)
    assert outbox.add(1.0, now=1e6) == outbox.acknowledged


def test_who_would_rather_refuse_takes_and_acknowledges_nothing_while_cut_off() -> None:
    ledger = a_ledger()
    outbox = Outbox(Source("w", "default", 1), Digest(0.001), now=0, counts_cut_off=False)
    outbox.add(np.arange(100.0), now=0)
    exchange(outbox, ledger)
    outbox.add(np.full(2_000, 1e9), now=0)
    cut(outbox)
    cut(outbox, now=FREE_S)
    assert outbox.acknowledged == 100
    with pytest.raises(NotTaken, match="cut off"):
        outbox.add(1.0, now=FREE_S)
    exchange(outbox, ledger, FREE_S)
    assert outbox.add(1.0, now=FREE_S) == 2_101


def test_once_it_gets_through_it_is_silent_until_it_was_told_that_it_was_late() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    outbox.add(np.full(2_000, 1e9), now=0)
    cut(outbox)
    now = 1e6
    exchange(outbox, ledger, now)
    assert ledger.is_silent(ledger.row(outbox.source), now=now)
    assert outbox.due_at <= now + LINGER_S
    exchange(outbox, ledger, now + LINGER_S)
    assert not ledger.is_silent(ledger.row(outbox.source), now=now + LINGER_S)
    assert median(ledger, now + LINGER_S).complete


def test_what_was_stuck_on_the_way_for_long_makes_nobody_live() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    exchange(outbox, ledger, now=LINGER_S)
    outbox.add(np.full(2_000, 1e9), now=2)
    stuck = cut(outbox, now=2)
    outbox.add(np.full(9_000, 1e9), now=FREE_S + 2)
    assert cut(outbox, now=FREE_S + 2) == stuck
    assert outbox.acknowledged == 13_000
    judged(ledger, stuck, now=FREE_S + 2)
    assert ledger.row(outbox.source).upto == 4_000
    assert ledger.is_silent(ledger.row(outbox.source), now=FREE_S + 2)


def test_what_was_stuck_while_the_ledger_started_anew_makes_nobody_live() -> None:
    """It echoes the new start, of which a repeat was told; but it is the first that is accepted."""
    ledger = a_ledger()
    outbox = settled(ledger)
    repeated = cut(outbox, now=LINGER_S)
    judged(ledger, repeated, now=LINGER_S)
    again = a_ledger(number=100, rows=list(ledger.rows))
    outbox.receive(judged(again, repeated, now=LINGER_S), now=LINGER_S)
    outbox.add(np.full(2_000, 1e9), now=LINGER_S)
    assert exchange(outbox, again, now=1e6).ledger == 100
    assert again.is_silent(again.row(outbox.source), now=1e6)


def test_a_source_that_nobody_ever_heard_of_acknowledges_nothing() -> None:
    outbox = an_outbox()
    outbox.add(1.0, now=0)
    for now in (0.0, HEARTBEAT_S_MAX, 1e6, 2e6):
        cut(outbox, now)
    outbox.add(2.0, now=2e6)
    assert outbox.acknowledged == 0


# Why it speaks


def cause_of(outbox: Outbox, now: float = 0.0) -> Cause:
    return unpack_delta(cut(outbox, now)).cause


def test_it_says_why_it_speaks() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    assert cause_of(outbox, now=ECHO_S) is Cause.ECHO
    exchange(outbox, ledger, now=ECHO_S)
    outbox.add(np.arange(outbox.grant.patience + 1) * 7919.0 % 1000, now=1)
    assert cause_of(outbox, now=1) is Cause.PATIENCE
    exchange(outbox, ledger, now=1)
    outbox.add(np.full(int(outbox.grant.allowance) + 2, 1e9), now=1)
    assert outbox.shift > outbox.grant.allowance
    assert cause_of(outbox, now=1) is Cause.SHIFT
    exchange(outbox, ledger, now=1)
    outbox.add(1.0, now=1)
    assert cause_of(outbox, now=1 + LINGER_S) is Cause.LINGER
    exchange(outbox, ledger, now=1 + LINGER_S)
    outbox.add(1.0, now=2)
    outbox.flush()
    assert cause_of(outbox, now=2) is Cause.FLUSH
    exchange(outbox, ledger, now=2)
    assert cause_of(outbox, now=2 + HEARTBEAT_S) is Cause.HEARTBEAT
    forgetful = a_ledger(number=100)
    exchange(outbox, forgetful, now=2 + HEARTBEAT_S)
    assert cause_of(outbox, now=2 + HEARTBEAT_S) is Cause.REPAIR
    outbox.goodbye()
    exchange(outbox, forgetful, now=2 + HEARTBEAT_S)
    assert cause_of(outbox, now=2 + HEARTBEAT_S) is Cause.GOODBYE


def test_of_each_cause_the_ledger_counts_the_deltas_that_it_accepted() -> None:
    """Not what was repeated or strange, nor what another ledger took."""
    ledger = a_ledger()
    outbox = settled(ledger)
    echo = cut(outbox, ECHO_S)
    exchange(outbox, ledger, now=ECHO_S)
    judged(ledger, echo, now=ECHO_S)
    for now in (20.0, 30.0, 40.0):
        exchange(outbox, ledger, now=now)
    exchange(outbox, a_ledger(number=100), now=50)
    assert exchange(outbox, ledger, now=50).cause is Cause.REPAIR
    outbox.goodbye()
    exchange(outbox, ledger, now=50)
    row = ledger.row(outbox.source)
    told = dict(zip(Cause, row.causes, strict=True))
    once = (Cause.PATIENCE, Cause.ECHO, Cause.GOODBYE)
    assert told == dict.fromkeys(Cause, 0) | dict.fromkeys(once, 1) | {Cause.HEARTBEAT: 3}
    assert row.deltas == 6


# Asked to tell all


def test_a_flush_says_what_is_pending_at_once() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    outbox.add([500.0, 501.0], now=0)
    assert (outbox.due, outbox.covered) == (False, 2_000)
    outbox.flush()
    assert exchange(outbox, ledger).upto == 2_002
    assert outbox.covered == 2_002


def test_a_flush_waits_for_what_is_in_flight_and_says_the_rest() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    cut(outbox, now=ECHO_S)
    outbox.add([500.0, 501.0], now=ECHO_S)
    outbox.flush()
    exchange(outbox, ledger, now=ECHO_S)
    assert (outbox.due, outbox.covered) == (True, 2_000)
    exchange(outbox, ledger, now=ECHO_S)
    assert (outbox.due, outbox.covered) == (False, 2_002)


def test_with_nothing_pending_a_flush_says_nothing() -> None:
    outbox = settled(a_ledger())
    outbox.flush()
    assert not outbox.due


# Goodbye


def test_who_says_goodbye_stays_counted_and_is_never_silent() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    outbox.add(np.full(20, 500.0), now=0)
    outbox.goodbye()
    with pytest.raises(NotTaken, match="goodbye"):
        outbox.add(1.0, now=0)
    delta = exchange(outbox, ledger)
    assert (delta.final, delta.upto) == (True, 2_020)
    assert outbox.closed
    assert outbox.delta(now=1e9) is None
    row = ledger.row(outbox.source)
    assert row.counted == Grant(delta.shift, 0)
    answer = median(ledger, now=1e9)
    assert (answer.count, answer.complete, answer.live) == (2_020, True, 0)


def test_a_goodbye_waits_its_turn() -> None:
    ledger, outbox = a_ledger(), an_outbox()
    outbox.add(1.0, now=0)
    first = cut(outbox)
    outbox.goodbye()
    assert cut(outbox) == first
    outbox.receive(judged(ledger, first), now=0)
    assert not outbox.closed
    assert exchange(outbox, ledger).final
    assert outbox.closed


def test_a_late_word_of_one_that_said_goodbye_since_raises_no_doubt() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    late = exchange(outbox, ledger, now=LINGER_S)
    outbox.goodbye()
    exchange(outbox, ledger, now=LINGER_S)
    judged(ledger, pack_delta(replace(late, upto=late.upto + 1)), now=LINGER_S)
    assert not ledger.is_silent(ledger.row(outbox.source), now=LINGER_S)
    again = a_ledger(number=100, rows=list(ledger.rows))
    judged(again, pack_delta(replace(late, upto=late.upto + 1)), now=LINGER_S)
    assert again.is_silent(again.row(outbox.source), now=LINGER_S), "that copy may be an old one"


def test_to_say_goodbye_twice_is_to_say_it_once() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    outbox.goodbye()
    exchange(outbox, ledger)
    outbox.goodbye()
    assert (outbox.closed, outbox.due, outbox.delta(now=1e9)) == (True, False, None)


def test_a_source_without_values_is_gone_at_once() -> None:
    outbox = an_outbox()
    outbox.goodbye()
    assert outbox.closed
    assert outbox.delta(now=0) is None


# Who is silent, and what is complete


def test_three_heartbeats_unheard_is_silent_and_a_repeat_is_not_being_heard() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    data = cut(outbox, now=LINGER_S)
    judged(ledger, data, now=0)
    judged(ledger, data, now=20)
    row = ledger.row(outbox.source)
    assert not ledger.is_silent(row, now=SILENT_S - 0.1)
    assert median(ledger, now=1).until == SILENT_S
    assert ledger.is_silent(row, now=SILENT_S)
    answer = median(ledger, now=SILENT_S)
    assert (answer.complete, answer.exact, answer.live, answer.silent) == (False, False, 0, 1)


def test_a_ledger_listens_for_three_heartbeats_before_an_answer_is_complete() -> None:
    ledger = a_ledger(now=100.0)
    assert not median(ledger, now=100 + SILENT_S - 0.1).complete
    assert median(ledger, now=100 + SILENT_S).complete


def test_after_a_restart_a_row_is_live_when_its_source_has_heard_of_it() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    again = a_ledger(number=100, rows=list(ledger.rows))
    for _ in range(2):
        assert again.is_silent(again.row(outbox.source), now=0)
        outbox.add(np.arange(1000.0), now=0)
        exchange(outbox, again)
    assert not again.is_silent(again.row(outbox.source), now=0)


def test_few_values_are_exact_when_everybody_is_heard() -> None:
    ledger, outbox = a_ledger(0.01), an_outbox(digest=Digest(0.0005))
    outbox.add([3.0, 1.0, 2.0], now=25)
    exchange(outbox, ledger, now=25)
    exchange(outbox, ledger, now=25 + LINGER_S)
    answer = median(ledger, now=SILENT_S)
    assert (answer.exact, answer.count) == (True, 3)
    assert answer.estimate is not None
    assert answer.estimate.rank_error == 0


def test_a_worker_may_change_its_name() -> None:
    ledger = a_ledger()
    settled(ledger)
    renamed = Outbox(Source("new", "default", 1), Digest(0.001), now=0)
    renamed.add(np.arange(3_000.0), now=0)
    exchange(renamed, ledger)
    assert median(ledger, now=SILENT_S).silent == 1
    exchange(renamed, ledger, now=SILENT_S)
    exchange(renamed, ledger, now=SILENT_S + LINGER_S)
    answer = median(ledger, now=SILENT_S + LINGER_S)
    assert (answer.live, answer.silent, answer.count) == (1, 0, 3_000)
    assert a_row(ledger).source.worker == "new"


def test_a_stream_that_nothing_was_accepted_of_does_not_exist() -> None:
    ledger, outbox = a_ledger(), settled(a_ledger())
    exchange(outbox, ledger, now=LINGER_S)
    assert (ledger.row(outbox.source).upto, ledger.streams) == (0, [])


def test_streams_are_kept_apart() -> None:
    ledger = a_ledger()
    for number, stream in enumerate(("default", "default", "other")):
        outbox = an_outbox(number, stream=stream)
        outbox.add(float(number), now=0)
        exchange(outbox, ledger)
    assert [ledger.answer(stream=one, now=0).count for one in ("default", "other", "x")] == [
        2,
        1,
        0,
    ]
    assert ledger.streams == ["default", "other"]


# What is refused, and what can never be


def test_a_digest_too_coarse_for_epsilon_is_refused_with_a_sentence() -> None:
    outbox, ledger = an_outbox(digest=Digest(0.006)), a_ledger(0.1)
    outbox.add(1.0, now=0)
    refusal = ledger.receive(cut(outbox), now=0)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "too_coarse"
    assert "at most 0.005" in refusal.sentence
    assert ledger.row(outbox.source).upto == 0
    assert not median(ledger, now=SILENT_S).complete, "somebody has values that are not counted"


def test_a_row_does_not_grow_without_end() -> None:
    ledger, outbox, accepted = a_ledger(), an_outbox(), b""
    outbox.add(-1.0, now=0)
    delta = exchange(outbox, ledger)
    for at in range(4):
        knots = np.repeat(np.arange(2.0**15), 2) + 2**15 * at
        weights = np.tile([1.0, 0.0], 2**15)[:-1]
        data = pack_delta(
            replace(
                delta,
                base=ledger.row(outbox.source).mark,
                since=delta.upto,
                upto=delta.upto + 2**15,
                form=Form.MORE,
                segments=Segments(knots, weights),
            )
        )
        delta, answer = unpack_delta(data), ledger.receive(data, now=0)
        accepted = data if isinstance(answer, Receipt) else accepted
    assert isinstance(answer, Refusal)
    assert answer.code == "too_long"
    assert not isinstance(ledger.receive(accepted, now=0), Refusal), "a repeat is none the worse"
    assert ledger.row(outbox.source).upto == 1 + 2**15


@pytest.mark.parametrize("epsilon", [0.0, 0.5, -1.0, float("nan")])
def test_an_epsilon_that_means_nothing_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        a_ledger(epsilon)


@pytest.mark.parametrize("q", [-0.1, 1.1, float("nan")])
def test_a_q_that_means_nothing_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="q must be"):
        a_ledger().answer(q, now=0)


def a_row(ledger: Ledger) -> Row:
    (row,) = ledger.rows
    return row


def changed(row: Row, **fields: object) -> Row:
    values = {name: getattr(row, name) for name in Row.__dataclass_fields__}
    return Row(**{**values, **fields})


def test_a_row_that_is_no_picture_of_a_longer_prefix_is_a_bug() -> None:
    ledger = a_ledger()
    settled(ledger)
    rows, row = Rows(0.1), a_row(ledger)
    rows.keep(row)
    for wrong in (
        changed(row, upto=row.upto + 1),
        changed(row, upto=row.upto - 1, picture=row.picture.scaled(row.upto - 1)),
    ):
        with pytest.raises(BrokenInvariant, match="prefix"):
            rows.keep(wrong)


@pytest.mark.parametrize("more", [Grant(0.0625, 0), Grant(0, 1)])
def test_a_new_grant_that_breaks_a_budget_is_a_bug(more: Grant) -> None:
    ledger = a_ledger()
    settled(ledger)
    row = a_row(ledger)
    most = own_part(0.1, row.upto).plus(pool(0.1, row.upto))
    Rows(0.1).keep(changed(row, granted=most))
    with pytest.raises(BrokenInvariant, match="more than is left"):
        Rows(0.1).keep(changed(row, granted=most.plus(more)))


def test_an_old_grant_that_breaks_a_budget_is_reported_as_what_it_is() -> None:
    generous = a_ledger(0.4)
    settled(generous, values=20_000)
    strict = a_ledger(0.02, number=100, rows=list(generous.rows))
    estimate = median(strict).estimate
    assert estimate is not None
    assert 0.02 < estimate.rank_error < 0.4


def test_what_was_granted_adds_up_to_the_budget_and_no_further() -> None:
    ledger = a_ledger(0.1)
    for number in range(1, 40):
        settled(ledger, number, values=50 * number)
        weight = sum(row.upto for row in ledger.rows)
        beyond = [row.counted.beyond(own_part(0.1, row.upto)) for row in ledger.rows]
        spent = Grant(sum(one.allowance for one in beyond), sum(one.patience for one in beyond))
        assert spent.beyond(pool(0.1, weight)) == Grant(0, 0)
        estimate = median(ledger).estimate
        assert estimate is not None
        assert estimate.rank_error <= 0.1


def test_the_order_in_which_rows_came_does_not_change_one_bit(rng: np.random.Generator) -> None:
    ledger = a_ledger()
    for number in range(1, 30):
        settled(ledger, number, values=int(rng.integers(1, 3_000)))
    rows = list(ledger.rows)
    seen = set()
    for _ in range(5):
        shuffled = a_ledger(number=100, rows=[rows[one] for one in rng.permutation(len(rows))])
        for q in (0.1, 0.5):
            one = shuffled.answer(q, now=0).estimate
            assert one is not None
            seen.add((q, one.value, one.low, one.high, one.rank_error))
    assert len(seen) == 2


def test_marks_name_bytes() -> None:
    outbox, ledger = an_outbox(), a_ledger()
    outbox.add(1.0, now=0)
    data = cut(outbox)
    assert judged(ledger, data).mark == ledger.row(outbox.source).mark == mark_of(data)


def test_what_they_are_can_be_read() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    assert "2000 values" in repr(a_row(ledger))
    assert "2000 values" in repr(a_row(ledger).picture)
    assert "w1" in repr(outbox)
    assert "quantile 0.5" in repr(median(ledger).estimate)


# Retired


def retired_worker() -> tuple[Ledger, Outbox]:
    ledger = a_ledger()
    outbox = settled(ledger)
    exchange(outbox, ledger, now=ECHO_S)
    assert median(ledger, SILENT_S + 1).silent == 1
    (row,) = ledger.retire("w1", now=SILENT_S + 1)
    assert (row.retired, row.upto) == (True, 2_000)
    return ledger, outbox


def test_a_retired_source_stays_counted_and_is_not_silent() -> None:
    ledger, _ = retired_worker()
    answer = median(ledger, SILENT_S + 1)
    assert (answer.count, answer.complete, answer.live, answer.silent) == (2_000, True, 0, 0)
    assert a_row(ledger).counted.patience > 0, "it may have taken more than it said"


def test_a_retired_source_that_speaks_after_all_is_listed_again() -> None:
    ledger, outbox = retired_worker()
    late = SILENT_S + 2
    exchange(outbox, ledger, now=late)
    assert (a_row(ledger).retired, median(ledger, late).silent) == (False, 1)
    exchange(outbox, ledger, now=late + ECHO_S)
    assert (median(ledger, late + ECHO_S).live, median(ledger, late + ECHO_S).silent) == (1, 0)


def test_who_is_not_silent_is_not_retired() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    exchange(outbox, ledger, now=ECHO_S)
    assert ledger.retire("w1", now=1) == []
    assert ledger.retire("w2", now=1e6) == []


def test_who_was_not_heard_since_the_start_can_be_retired_too() -> None:
    ledger = a_ledger()
    settled(ledger)
    again = a_ledger(number=100, rows=list(ledger.rows))
    assert [row.upto for row in again.retire("w1", now=SILENT_S)] == [2_000]
    assert median(again, SILENT_S).complete


def test_who_was_only_heard_of_can_be_retired_too() -> None:
    ledger, outbox = a_ledger(), settled(a_ledger())
    judged(ledger, cut(outbox, now=ECHO_S))
    assert [row.upto for row in ledger.known] == [0]
    assert median(ledger, SILENT_S).silent == 1
    assert len(ledger.retire("w1", now=SILENT_S)) == 1
    assert median(ledger, SILENT_S).complete


# What an answer is made of


def test_an_answer_changes_when_something_was_heard_that_changes_it_and_only_then() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    changes = [ledger.changes("default")]

    def changed() -> bool:
        changes.append(ledger.changes("default"))
        return changes[-1] != changes[-2]

    exchange(outbox, ledger, now=ECHO_S)
    assert changed(), "it is live now"
    exchange(outbox, ledger, now=ECHO_S + HEARTBEAT_S)
    assert not changed(), "a heartbeat"
    outbox.add(1.0, now=HEARTBEAT_S)
    outbox.flush()
    exchange(outbox, ledger, now=ECHO_S + HEARTBEAT_S)
    assert changed(), "a value"
    judged(ledger, pack_delta(replace(unpack_delta(settled_delta()), base=b"stranger")))
    assert changed(), "somebody unheard of"
    assert ledger.changes("other") == 0


def test_an_answer_says_how_long_it_lasts_if_nothing_is_heard() -> None:
    ledger = a_ledger()
    outbox = settled(ledger)
    exchange(outbox, ledger, now=5)
    assert median(ledger, 6).until == SILENT_S, "it listens until then"
    assert median(ledger, SILENT_S).until == 5 + SILENT_S, "the source is late then"
    assert median(ledger, 5 + SILENT_S).until == np.inf


# Two processes with one source


def a_copy(outbox: Outbox, home: int, former: Sequence[int] = (1,)) -> Outbox:
    """As another process begins it, from what is stored."""
    digest = Digest.from_bytes(outbox.digest.to_bytes())
    return Outbox(outbox.source, digest, now=0, linger_s=LINGER_S, home=home, former=former)


def settled_at_home(ledger: Ledger, home: int = 1, now: float = 0.0) -> Outbox:
    """Live, with 2,000 values, and kept somewhere."""
    outbox = Outbox(
        Source("w1", "default", 1), Digest(0.001), now=now, linger_s=LINGER_S, home=home
    )
    outbox.add(np.arange(2_000) * 7919.0 % 1000, now=now)
    while outbox.due or not outbox.heard:
        now += ECHO_S
        exchange(outbox, ledger, now)
    return outbox


def refused(outbox: Outbox, ledger: Ledger, now: float = 0.0) -> str:
    """The code of the refusal that its next delta gets, which it is not told."""
    refusal = ledger.receive(cut(outbox, now), now=now)
    assert isinstance(refusal, Refusal)
    return refusal.code


def taken_over(ledger: Ledger, copy: Outbox, now: float) -> None:
    while copy.acknowledged < copy.count or not copy.heard:
        exchange(copy, ledger, now)
        now += ECHO_S


def test_a_copy_waits_while_its_original_is_heard_and_casts_no_doubt() -> None:
    ledger = a_ledger()
    original = settled_at_home(ledger)
    row = ledger.row(original.source)
    original.add([500.0], now=1)
    copy = a_copy(original, home=2)
    waits = cut(copy)
    for now in (1.0, SILENT_S - 0.1):
        assert refused(copy, ledger, now) == "in_use"
        assert cut(copy, now) == waits, "the same bytes"
        assert not ledger.is_silent(row, now=now)
    assert (ledger.row(original.source), row.home, row.upto) == (row, 1, 2_000)
    with pytest.raises(NotTaken, match="waiting for the coordinator"):
        copy.add(1.0, now=1)


def test_a_copy_goes_on_once_its_original_is_silent() -> None:
    ledger = a_ledger()
    original = settled_at_home(ledger)
    copy = a_copy(original, home=2)
    assert refused(copy, ledger, 1) == "in_use"
    late = 1 + SILENT_S
    taken_over(ledger, copy, late)
    row = ledger.row(original.source)
    assert (row.home, row.upto, copy.acknowledged) == (2, 2_000, 2_000)
    assert median(ledger, late + 1).complete
    assert copy.add(1.0, now=late + 1) == 2_001


def test_a_copy_is_told_when_its_original_certainly_runs() -> None:
    ledger = a_ledger()
    original = settled_at_home(ledger)
    copy = a_copy(original, home=2)
    assert refused(copy, ledger, 1) == "in_use"
    exchange(original, ledger, 1 + HEARTBEAT_S)
    assert refused(copy, ledger, 12) == "in_use", "that was perhaps on its way before"
    exchange(original, ledger, 2 + 2 * HEARTBEAT_S)
    assert refused(copy, ledger, 23) == "conflict"
    assert median(ledger, SILENT_S).complete


def test_who_gives_way_says_takes_and_acknowledges_nothing_more() -> None:
    ledger = a_ledger()
    original = settled_at_home(ledger)
    original.add(np.arange(1_000.0), now=0)
    late = judged(ledger, cut(original))
    acknowledged = original.acknowledged
    original.give_way()
    assert original.outdated
    original.receive(late, now=0)
    original.flush()
    assert (original.due, original.due_at, original.delta(now=1e9)) == (False, np.inf, None)
    assert original.acknowledged == acknowledged < original.count
    with pytest.raises(NotTaken, match="went on elsewhere"):
        original.add(1.0, now=0)
    original.goodbye()
    assert (original.closed, original.delta(now=1e9)) == (True, None)


def test_who_gives_way_while_it_says_goodbye_is_gone() -> None:
    original = settled_at_home(a_ledger())
    cut(original, HEARTBEAT_S + 1)
    original.goodbye()
    original.give_way()
    assert (original.closed, original.due, original.delta(now=1e9)) == (True, False, None)


def test_who_comes_back_to_a_place_that_is_taken_is_refused_and_changes_nothing() -> None:
    ledger = a_ledger()
    original = settled_at_home(ledger)
    original.add(np.arange(30.0), now=1)
    copy = a_copy(original, home=2)
    late = HEARTBEAT_S + SILENT_S
    taken_over(ledger, copy, late)
    exchange(original, ledger, late + 1)
    row = ledger.row(original.source)
    assert refused(original, ledger, late + 1) == "conflict"
    later = late + 1 + 2 * SILENT_S
    assert refused(original, ledger, later) == "conflict", "nor when that one died"
    assert ledger.row(original.source) is row
    assert median(ledger, late + 1).complete


def test_what_a_row_covers_is_not_lost_to_a_copy_from_before_that_has_more() -> None:
    ledger = a_ledger()
    original = settled_at_home(ledger)
    copy = a_copy(original, home=2)
    taken_over(ledger, copy, HEARTBEAT_S + SILENT_S)
    copy.add([1.0, 2.0], now=50)
    copy.goodbye()
    exchange(copy, ledger, 50)
    original.add(np.arange(5.0), now=50)
    for other in (original, a_copy(original, home=3)):
        if other is original:
            exchange(other, ledger, 51)
        assert refused(other, ledger, 52) == "conflict", "it has more, but not these"
    heir = a_copy(copy, home=4, former=(2, 1))
    taken_over(ledger, heir, 53)
    assert (ledger.row(heir.source).home, ledger.row(heir.source).upto) == (4, 2_002)


def test_of_many_former_homes_the_newest_are_named() -> None:
    digest = Digest(0.001)
    digest.add([1.0])
    former = range(2, 20)
    outbox = Outbox(Source("w1", "default", 1), digest, now=0, home=1, former=former)
    assert unpack_delta(cut(outbox)).former == tuple(former[:FORMER_MAX])


def test_what_a_copy_told_in_its_place_is_not_covered_for_who_lost_it() -> None:
    ledger = a_ledger()
    original = settled_at_home(ledger)
    copy = a_copy(original, home=2)
    late = HEARTBEAT_S + SILENT_S
    taken_over(ledger, copy, late)
    copy.add(np.arange(500.0), now=late)
    exchange(copy, ledger, late)
    assert ledger.row(original.source).upto == copy.covered == 2_500
    original.add(np.arange(30.0), now=late)
    exchange(original, ledger, late)
    assert (original.count, original.covered) == (2_030, 2_000)


def test_who_is_restarted_where_it_was_does_not_wait() -> None:
    ledger = a_ledger()
    original = settled_at_home(ledger)
    again = a_copy(original, home=1)
    exchange(again, ledger, 1)
    assert exchange(again, ledger, 1).home == 1
    assert again.acknowledged == 2_000


@pytest.mark.parametrize("how", ["goodbye", "retired"])
def test_a_copy_of_what_is_closed_does_not_wait(how: str) -> None:
    ledger = a_ledger()
    original = settled_at_home(ledger)
    copy = a_copy(original, home=2)
    now = 1.0
    if how == "goodbye":
        original.goodbye()
        exchange(original, ledger, now)
    else:
        ledger = a_ledger(number=100, rows=list(ledger.rows))
        ledger.retire("w1", now=now)
    taken_over(ledger, copy, now)
    assert ledger.row(copy.source).home == 2


def test_a_new_ledger_waits_to_hear_whether_the_original_lives() -> None:
    ledger = a_ledger()
    original = settled_at_home(ledger)
    again = a_ledger(number=100, now=1e6, rows=list(ledger.rows))
    copy = a_copy(original, home=2)
    assert refused(copy, again, 1e6 + SILENT_S - 0.1) == "in_use"
    taken_over(again, copy, 1e6 + SILENT_S)
    assert again.row(copy.source).home == 2


def test_only_its_whole_tells_the_home_of_a_row() -> None:
    ledger = a_ledger()
    original = settled_at_home(ledger, home=7)
    for values in (np.empty(0), np.arange(2_000.0, 2_400.0)):
        original.add(values, now=1)
        original.flush()
        delta = exchange(original, ledger, 1 + HEARTBEAT_S)
        assert (delta.form is Form.WHOLE, delta.home) == (False, 0)
        assert ledger.row(original.source).home == 7


def test_of_a_row_that_was_taken_over_older_claims_are_forgotten() -> None:
    ledger = a_ledger()
    copies = [a_copy(settled_at_home(ledger), home) for home in (2, 3)]
    assert [refused(copy, ledger, 1) for copy in copies] == ["in_use", "in_use"]
    late = HEARTBEAT_S + SILENT_S
    taken_over(ledger, copies[0], late)
    assert refused(copies[1], ledger, late) == "conflict", "it is no copy of that one"
    copy = a_copy(copies[0], home=3, former=(2, 1))
    assert refused(copy, ledger, late) == "in_use", "home 3 has not claimed this from home 2"


def test_more_homes_than_can_be_remembered_wait_and_are_never_told() -> None:
    ledger = a_ledger()
    original = settled_at_home(ledger)
    copies = [a_copy(original, home) for home in range(2, CLAIMS_MAX + 3)]
    for copy in copies:
        assert refused(copy, ledger, 1) == "in_use"
    for beat in (1, 2):
        exchange(original, ledger, beat * (1 + HEARTBEAT_S))
    codes = [refused(copy, ledger, 23) for copy in copies]
    assert codes == ["conflict"] * CLAIMS_MAX + ["in_use"]


def test_what_its_users_sent_before_a_restart_is_remembered_if_it_is_known() -> None:
    digest = Digest(0.001)
    digest.add([1.0, 2.0])
    source = Source("w1", "default", 1)
    assert Outbox(source, digest, now=0).raw == 16
    assert Outbox(source, digest, now=0, raw=11).raw == 11
    assert Outbox(source, digest, now=0, raw=0).raw == 0
