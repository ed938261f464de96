"""Live answers: what matters is told at once, the rest soon; who does not listen is let go."""

import asyncio
import json
import math
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import httpx
import numpy as np
import pytest

from coordinator_service.answers import Answers, Kept
from coordinator_service.history import Histories
from coordinator_service.live import LATE_S, LOOK_S, Listener, Live, matters, rest_after
from shared.ledger import Answer, Ledger
from shared.rank_shift import Estimate
from tests.cluster import Cluster, Node, until
from tests.processes import SOON_S, Processes
from tests.test_coordinator_app import an_outbox, one_coordinator, told
from tests.test_worker_app import check_problem

CLEAN = {0, -signal.SIGTERM}


def an_answer(
    median: float = 50,
    low: float = 40,
    high: float = 60,
    *,
    error: float = 0.05,
    empty: bool = False,
    **others: Any,
) -> Answer:
    estimate = SimpleNamespace(value=median, low=low, high=high, rank_error=error)
    fields: dict[str, Any] = {
        "stream": "default", "q": 0.5, "count": 1000, "epsilon": 0.1, "exact": False,
        "complete": True, "live": 2, "silent": 0, "until": math.inf,
    }  # fmt: skip
    return Answer(**(fields | others), estimate=None if empty else cast(Estimate, estimate))


NEWS = [
    an_answer(complete=False),
    an_answer(exact=True),
    an_answer(live=3),
    an_answer(silent=1),
    an_answer(53),
    an_answer(47),
    an_answer(error=0.06),
    an_answer(error=0.04),
    an_answer(count=1011),
    an_answer(empty=True, count=0),
]
NO_NEWS = [an_answer(51, 41, 61), an_answer(49), an_answer(error=0.051), an_answer(count=1009)]


@pytest.mark.parametrize("now", NEWS)
def test_it_matters_who_is_there_and_what_moved_by_more_than_a_little(now: Answer) -> None:
    assert matters(an_answer(), now)


@pytest.mark.parametrize("now", NO_NEWS)
def test_it_does_not_matter_what_moved_by_a_little(now: Answer) -> None:
    assert not matters(an_answer(), now)


def test_of_an_exact_answer_any_move_matters() -> None:
    exact = an_answer(5, 5, 5, error=0)
    assert matters(exact, an_answer(math.nextafter(5, 6), 5, 6, error=0))
    assert not matters(exact, an_answer(5, 5, 5, error=0))


def test_nothing_is_beyond_comparison() -> None:
    """Neither what is unbounded, nor what is so far apart that no float says how far."""
    unbounded = an_answer(50, -math.inf, math.inf)
    assert not matters(unbounded, an_answer(-1e308, -math.inf, math.inf))
    assert matters(an_answer(-1e308, -1.1e308, -0.9e308), an_answer(1e308, 0.9e308, 1.1e308))
    nothing = an_answer(empty=True, count=0)
    assert not matters(nothing, nothing)


# Listeners


def kept(answer: Answer) -> Kept:
    return Kept(answer, repr(answer.count).encode(), changes=0, made=0.0, rests_until=0.0)


async def heard(listener: Listener) -> bytes:
    return await listener.event(0.0)


QUIET = b": here\n\n"


def test_a_listener_is_told_the_first_answer_at_once_and_then_only_what_matters() -> None:
    async def story() -> None:
        first, much = kept(an_answer()), kept(an_answer(99, count=1001))
        listener = Listener(first, 0.0)
        assert await heard(listener) == b"data: 1000\n\n"
        for answer in (first, kept(an_answer(51))):
            listener.hear(answer, 0.1)
            assert await heard(listener) == QUIET
        listener.hear(much, 0.2)
        assert await heard(listener) == b"data: 1001\n\n"
        assert await heard(listener) == QUIET

    asyncio.run(story())


def test_what_does_not_matter_is_told_when_a_second_has_passed() -> None:
    async def story() -> None:
        listener, little = Listener(kept(an_answer()), 0.0), kept(an_answer(51, count=1001))
        await heard(listener)
        listener.hear(little, 0.9 * LATE_S)
        assert await heard(listener) == QUIET
        listener.hear(little, LATE_S)
        assert await heard(listener) == b"data: 1001\n\n"

    asyncio.run(story())


def test_many_small_steps_are_one_large_one() -> None:
    """What was told last is compared, not what was seen last."""

    async def story() -> None:
        listener = Listener(kept(an_answer()), 0.0)
        await heard(listener)
        told = []
        for step in range(1, 30):
            listener.hear(kept(an_answer(50 + step / 10)), 0.001 * step)
            told += [step] if await heard(listener) != QUIET else []
        assert told == [21]

    asyncio.run(story())


def test_who_reads_slowly_gets_the_newest_and_nothing_piles_up() -> None:
    async def story() -> None:
        listener = Listener(kept(an_answer()), 0.0)
        for count in (2000, 3000, 4000):
            listener.hear(kept(an_answer(count=count)), 0.0)
        assert await heard(listener) == b"data: 4000\n\n"
        assert await heard(listener) == QUIET

    asyncio.run(story())


# In a coordinator


async def data(events: AsyncIterator[bytes]) -> dict[str, Any]:
    """Of the next event that has some."""
    async with asyncio.timeout(SOON_S):
        async for event in events:
            if event.startswith(b"data: "):
                assert event.endswith(b"\n\n")
                found: dict[str, Any] = json.loads(event.removeprefix(b"data: "))
                return found
    raise AssertionError("they ended")


def test_events_say_what_get_median_says_as_it_changes(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        outbox, live = an_outbox(stream="s"), node.coordinator.live
        await told(node, outbox, 1, 2)
        events = await live.events("s")
        assert await anext(events) == b"retry: 2000\n\n"
        assert await data(events) == await node.json("/median", stream="s")
        await told(node, outbox, 30, 40)
        while (said := await data(events))["count"] < 4:
            pass
        assert (said["stream"], said["median"]) == ("s", 16.0)
        assert live.listeners == 1
        await events.aclose()  # type: ignore[attr-defined]
        assert live.listeners == 0

    one_coordinator(rng, story, heartbeat_s=60.0)


def test_a_stream_that_is_quiet_shows_signs_of_life(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        events = await node.coordinator.live.events("default")
        async with asyncio.timeout(SOON_S):
            async for event in events:
                if event == QUIET:
                    return

    one_coordinator(rng, story)


def test_a_silent_worker_is_told_of_though_nobody_speaks(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        events = await node.coordinator.live.events("default")
        outbox = an_outbox()
        await told(node, outbox, 1)
        await told(node, outbox, 2)  # with the number that its receipt bears
        seen = []
        while (workers := (await data(events))["workers"]) != {"live": 0, "silent": 1}:
            seen.append(workers)
        assert {"live": 1, "silent": 0} in seen

    one_coordinator(rng, story)


def test_there_are_only_so_many_listeners(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        with patch("coordinator_service.live.LISTENERS_MAX", 2):
            open_ = [await node.coordinator.live.events("default") for _ in range(2)]
            for events in open_:
                await anext(events)
            check_problem(await node.client.get("/median/events"), 503, "overloaded")
            await open_[0].aclose()  # type: ignore[attr-defined]
            await anext(await node.coordinator.live.events("default"))

    one_coordinator(rng, story)


def test_what_cannot_be_listened_to_is_refused_before_the_first_event(
    rng: np.random.Generator,
) -> None:
    async def story(_: Cluster, node: Node) -> None:
        ask = node.client.get
        check_problem(await ask("/median/events?stream=none"), 404, "unknown_stream")
        check_problem(await ask("/median/events?last_s=3"), 422, "unknown_parameter")

    one_coordinator(rng, story)


def test_an_answer_that_cannot_be_made_is_logged_and_the_coordinator_goes_on(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(_: Cluster, node: Node) -> None:
        outbox = an_outbox()
        await told(node, outbox, 1)
        events = await node.coordinator.live.events("default")
        await data(events)
        with patch.object(node.coordinator.ledger, "answer", side_effect=ZeroDivisionError):
            await told(node, outbox, 2, 3)

            async def is_logged() -> bool:
                return "no answer can be made" in caplog.text

            await until(is_logged, "it is logged")
            await asyncio.sleep(3 * LOOK_S)
        assert caplog.text.count("no answer can be made") == 1
        while (await data(events))["count"] < 3:
            pass
        assert node.failed == []

    one_coordinator(rng, story, heartbeat_s=60.0)


def test_looks_rest_ten_times_as_long_as_they_took_within_reason() -> None:
    """Should the process have stood still during one for an hour, it does not rest for ten."""
    assert [rest_after(took_s) for took_s in (0.0, 0.02, 0.1, 3600.0)] == [0.1, 0.2, 1.0, 5.0]


def test_between_any_two_streams_that_are_looked_at_others_have_their_turn(
    rng: np.random.Generator,
) -> None:
    async def story(_: Cluster, node: Node) -> None:
        live, turns, seen = node.coordinator.live, [0], list[int]()

        async def looks(_: str) -> None:
            seen.append(turns[0])

        async def takes_turns() -> None:
            while True:
                turns[0] += 1
                await asyncio.sleep(0)

        with (
            patch.object(live, "_due", lambda _: ["a", "b", "c"]),
            patch.object(live, "_look", looks),
        ):
            other = asyncio.create_task(takes_turns())
            while len(seen) < 3:
                await asyncio.sleep(0)
            other.cancel()
        assert seen[0] < seen[1] < seen[2]

    one_coordinator(rng, story)


def test_who_is_told_to_stop_looks_at_no_other_stream(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        one, stopping, seen = node.coordinator, asyncio.Event(), list[str]()
        live = Live(one.ledger, one.answers, Histories(), clock=one.clock, stopping=stopping)

        async def looks(stream: str) -> None:
            seen.append(stream)
            stopping.set()

        with (
            patch.object(live, "_due", lambda _: ["a", "b", "c"]),
            patch.object(live, "_look", looks),
        ):
            await live.watch()
        assert seen == ["a"]

    one_coordinator(rng, story)


def test_told_to_stop_it_lets_all_go_who_listen_and_looks_at_nothing_more() -> None:
    async def story() -> None:
        ledger, stopping = Ledger(0.05, number=1, now=0.0, heartbeat_s=60.0), asyncio.Event()
        answers = Answers(ledger, clock=time.monotonic, wall=time.time)
        live = Live(ledger, answers, Histories(), clock=time.monotonic, stopping=stopping)
        streams = [await live.events(name) for name in ("default", "default", "other")]
        for events in streams:
            await data(events)
        waiting = [asyncio.create_task(all_of(events)) for events in streams]
        watching = asyncio.create_task(live.watch())
        await asyncio.sleep(2 * LOOK_S)
        with patch.object(answers, "median", side_effect=AssertionError):
            stopping.set()
            async with asyncio.timeout(SOON_S):
                await watching
                assert await asyncio.gather(*waiting) == [[QUIET]] * 3
        assert live.listeners == 0
        assert await all_of(await live.events("default")) == [b"retry: 2000\n\n"]

    asyncio.run(story())


async def all_of(events: AsyncIterator[bytes]) -> list[bytes]:
    return [event async for event in events]


# On a port


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as processes:
        yield processes


def test_streams_that_are_open_end_when_the_coordinator_is_told_to_stop(
    processes: Processes,
) -> None:
    """Both of who reads and of who does not; and nothing had to be given up for it."""
    coordinator = processes.cluster("a")
    worker = processes.workers["a"]
    worker.take(np.array([1.0, 2.0]))
    address = f"{coordinator.url}/median/events"
    with httpx.Client(trust_env=False, timeout=SOON_S) as client:
        with client.stream("GET", address) as read, client.stream("GET", address) as unread:
            assert read.headers["content-type"].startswith("text/event-stream")
            assert read.headers["cache-control"] == "no-store"
            lines = read.iter_lines()
            while "median" not in next(lines):
                pass
            metric = "median_coordinator_listeners 2.0"
            assert metric in client.get(f"{coordinator.url}/metrics").text
            worker.take(np.array([10.0, 20.0, 30.0]))
            while '"count":5' not in next(lines):
                pass
            coordinator.tell(signal.SIGTERM)
            list(lines)
            assert unread.status_code == 200
        assert coordinator.ended() in CLEAN
    assert "Shutting down" in coordinator.said
    assert "exceeded" not in coordinator.said
