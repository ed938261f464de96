"""Turns: between two deltas the event loop goes round, and who brings costly ones rests."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from coordinator_service import coordinator
from coordinator_service.coordinator import TWICE
from coordinator_service.turns import COSTLY_S, REST_S_MAX, TURN_S, Turn, Turns
from shared.ledger import Ledger
from shared.outbox import Outbox
from shared.protocol import (
    Delta,
    Receipt,
    Refusal,
    mark_of,
    pack_delta,
    pack_request,
    unpack_delta,
    unpack_response,
)
from shared.rows import Row
from tests.cluster import Cluster, Node, run
from tests.test_coordinator_app import an_outbox, cut, one_coordinator, sent

CHEAP_S = COSTLY_S / 4


class Bench:
    """Who judges, where time passes by judging and by resting only."""

    def __init__(self) -> None:
        self.now, self.said, self.rests = 0.0, list[str](), list[float]()
        self.turns = Turns(lambda: self.now)

    async def sleep(self, seconds: float) -> None:
        """All that others do meanwhile is done before: the least that a rest can do for them."""
        self.rests.append(seconds)
        await asyncio.sleep(0)

    async def request(self, name: str, *costs: float) -> None:
        async with Turn(self.turns) as turn:
            for cost in costs:
                await turn.begin()
                self.said.append(name)
                self.now += cost
                await turn.done()

    def hears(self, *requests: Awaitable[None]) -> str:
        async def all_() -> None:
            await asyncio.gather(*requests)

        with patch("coordinator_service.turns.sleep", self.sleep):
            run(all_())
        assert not self.turns.one_by_one.locked()
        return "".join(self.said)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_short_requests_are_done_in_the_order_they_came(bench: Bench) -> None:
    requests = [bench.request(name, *[CHEAP_S] * 5) for name in "abc"]
    assert bench.hears(*requests) == "aaaaabbbbbccccc"
    assert bench.rests == []


def test_a_turn_ends_and_who_has_more_is_next_after_all_others(bench: Bench) -> None:
    long = bench.request("a", *[CHEAP_S] * 60)
    said = bench.hears(long, bench.request("b", CHEAP_S), bench.request("c", CHEAP_S))
    turn = said.index("b")
    assert said == "a" * turn + "bc" + "a" * (60 - turn)
    assert (turn - 1) * CHEAP_S < TURN_S <= turn * CHEAP_S
    assert bench.rests == []


def test_each_turn_is_as_long_as_the_first(bench: Bench) -> None:
    said = bench.hears(*[bench.request(name, *[CHEAP_S] * 60) for name in "ab"])
    turn = said.index("b")
    assert said[: 4 * turn] == ("a" * turn + "b" * turn) * 2


def test_after_a_costly_delta_it_is_the_next_ones_turn_and_it_rests_as_long_as_it_took(
    bench: Bench,
) -> None:
    said = bench.hears(bench.request("a", 0.0, 0.01, 0.0), bench.request("b", *[CHEAP_S] * 3))
    assert said == "aabbba"
    assert bench.rests == [pytest.approx(0.01)]


def test_all_that_bring_costly_deltas_rest_together_half_of_the_time(bench: Bench) -> None:
    """However many they are: each is woken when twice the time of all before it is over."""
    bench.hears(*[bench.request("a", 0.01) for _ in range(5)])
    woken = [0.01 * (1 + at) + rest for at, rest in enumerate(bench.rests)]
    assert woken == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])


def test_who_stood_still_while_it_judged_does_not_rest_as_long(bench: Bench) -> None:
    bench.hears(bench.request("a", 3600.0))
    assert bench.rests == [pytest.approx(REST_S_MAX)]


def test_what_was_done_aside_counts_as_work_and_leaves_the_turn_to_others(bench: Bench) -> None:
    async def request() -> None:
        async with Turn(bench.turns) as turn:
            await turn.begin()
            await turn.done()
            assert await turn.aside(work) == 7
            await turn.begin()
            await turn.done()

    def work() -> int:
        assert not bench.turns.one_by_one.locked()
        assert bench.turns.aside.locked()
        bench.now += 0.1
        return 7

    bench.hears(request())
    assert bench.rests == [pytest.approx(0.1)]
    assert not bench.turns.aside.locked()


def test_whatever_goes_wrong_in_a_turn_ends_it(bench: Bench) -> None:
    async def broken() -> None:
        async with Turn(bench.turns) as turn:
            await turn.begin()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bench.hears(broken())
    assert bench.hears(bench.request("a", 0.0)) == "a"


def counted(rounds: list[int], ledger: Ledger) -> Callable[..., Any]:
    """`judge_unpacked`, told in which round of the loop it was called."""
    judge = ledger.judge_unpacked

    def judged(*given: Any, **by_name: Any) -> Any:
        rounds[-1] += 1
        return judge(*given, **by_name)

    return judged


def test_between_two_deltas_the_event_loop_goes_round(rng: np.random.Generator) -> None:
    """Also where they are of several requests, which all came at once."""

    async def story(_: Cluster, node: Node) -> None:
        rounds, ledger = [0], node.coordinator.ledger
        bodies = [
            pack_request([cut(an_outbox(10 * at + one), 1.0) for one in range(10)])
            for at in range(5)
        ]
        with patch.object(ledger, "judge_unpacked", counted(rounds, ledger)):
            asking = asyncio.gather(*map(node.coordinator.receive, bodies))
            while not asking.done():
                rounds.append(0)
                await asyncio.sleep(0)
        assert (sum(rounds), max(rounds)) == (50, 1)
        for body in await asking:
            assert all(isinstance(one, Receipt) for one in unpack_response(body))

    one_coordinator(rng, story)


def chained(outbox: Outbox, many: int) -> list[bytes]:
    """Deltas of one source, each drawn on what the one before it makes."""
    deltas = [cut(outbox, 1.0)]
    for _ in range(many - 1):
        delta = replace(unpack_delta(deltas[-1]), base=mark_of(deltas[-1]))
        deltas.append(pack_delta(delta))
    return deltas


def test_of_a_source_a_request_has_one_delta(rng: np.random.Generator) -> None:
    """The others are told so, and none of them is judged; another source's is."""

    async def story(_: Cluster, node: Node) -> None:
        deltas = chained(an_outbox(), 4)
        first, *more, last = await sent(node, *deltas, cut(an_outbox(2), 5.0))
        assert isinstance(first, Receipt)
        assert isinstance(last, Receipt)
        assert more == [TWICE] * 3
        assert first.mark == mark_of(deltas[0])
        none = {"form": "none", "result": "refused"}
        assert await node.metric("median_coordinator_deltas_total", **none) == 3
        (second,) = await sent(node, deltas[1])
        assert isinstance(second, Receipt)
        assert second.mark == mark_of(deltas[1])

    one_coordinator(rng, story)


def test_a_request_of_rubbish_is_one_line_in_the_log(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(_: Cluster, node: Node) -> None:
        told = await sent(node, *[b""] * 1000, *chained(an_outbox(), 3))
        assert len(told) == 1003
        none = {"form": "none", "result": "refused"}
        assert await node.metric("median_coordinator_deltas_total", **none) == 1002

    one_coordinator(rng, story)
    (line,) = [one for one in caplog.records if one.getMessage() == "delta refused"]
    facts = line.__dict__["facts"]
    assert facts["deltas"] == 1002
    assert "MessagePack" in facts["why"]


def test_what_is_large_is_unpacked_in_a_thread_and_judged_in_its_order(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As is what is large and no delta. One at a time, whoever sends it."""
    inside, unpacked = 0, list[tuple[int, bool]]()

    def unpack(data: bytes) -> Delta:
        nonlocal inside
        inside += 1
        unpacked.append((inside, threading.current_thread() is threading.main_thread()))
        try:
            return unpack_delta(data)
        finally:
            inside -= 1

    async def story(_: Cluster, node: Node) -> None:
        large = [cut(an_outbox(number), *rng.normal(size=200)) for number in (1, 2)]
        little = [cut(an_outbox(number), 1.0) for number in (3, 4)]
        assert max(map(len, little)) <= 200 < min(map(len, large))
        requests = [(one, bytes(300), other) for one, other in zip(large, little, strict=True)]
        for answers, deltas in zip(
            await asyncio.gather(*[sent(node, *deltas) for deltas in requests]),
            requests,
            strict=True,
        ):
            first, none, last = answers
            assert isinstance(first, Receipt)
            assert isinstance(last, Receipt)
            assert isinstance(none, Refusal)
            assert [first.mark, last.mark] == [mark_of(deltas[0]), mark_of(deltas[2])]
        assert (await node.json("/median"))["count"] == 402

    monkeypatch.setattr(coordinator, "unpack_delta", unpack)
    monkeypatch.setattr(coordinator, "LARGE_BYTES", 200)
    one_coordinator(rng, story)
    assert sorted(unpacked) == [(1, False)] * 4 + [(1, True)] * 2


def test_a_request_that_is_given_up_midway_changes_nothing_of_what_others_are_told(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it had judged is written down before anybody is told of it, and signed once."""

    async def story(_: Cluster, node: Node) -> None:
        deltas = [cut(an_outbox(number), 1.0) for number in range(1, 6)]
        kept, store = list[int](), node.coordinator.store
        assert store is not None
        save = store.save

        def saved(rows: Collection[Row]) -> Any:
            kept.extend(row.source.number for row in rows)
            return save(rows)

        monkeypatch.setattr(store, "save", saved)
        giving_up = asyncio.create_task(node.coordinator.receive(pack_request(deltas)))
        while len(list(node.coordinator.ledger.rows)) < 2:
            await asyncio.sleep(0)
        giving_up.cancel()
        await asyncio.wait([giving_up])
        assert giving_up.cancelled()
        assert kept == []
        answers = await sent(node, *deltas)
        assert [one.upto for one in answers if isinstance(one, Receipt)] == [1] * 5
        assert sorted(kept) == [1, 2, 3, 4, 5]
        assert (await node.json("/median"))["count"] == 5

    one_coordinator(rng, story, data_dir=tmp_path, heartbeat_s=60.0)
