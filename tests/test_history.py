"""The history of a stream, held against a list of all its answers."""

import asyncio
import math
from bisect import bisect_right
from unittest.mock import patch

import numpy as np
import pytest

from coordinator_service.answers import Answers, Kept
from coordinator_service.history import HISTORIES_MAX, LAST_S_MAX, STEPS, Histories
from shared.ledger import Ledger
from shared.protocol import Receipt
from tests.cluster import Cluster, Node, until
from tests.exact import TALLY
from tests.test_coordinator_app import an_outbox, cut, one_coordinator, told
from tests.test_worker_app import check_problem

WALL = 5000.0


class Answered:
    """A ledger that is told values, its answers, and the time that they go by."""

    def __init__(self, stream: str = "default") -> None:
        self.now, self.stream = 1000.25, stream
        self._ledger = Ledger(0.05, number=1, now=self.now, heartbeat_s=60.0)
        self._answers = Answers(self._ledger, clock=lambda: self.now, wall=lambda: 0.0)
        self._outbox = an_outbox(stream=stream)

    def value(self, value: float) -> Kept:
        receipt = self._ledger.judge(cut(self._outbox, value), now=self.now).answer
        assert isinstance(receipt, Receipt)
        self._outbox.receive(receipt, now=0.0)
        return self.answer()

    def answer(self) -> Kept:
        return self._answers.median_at_once(self.stream)


@pytest.mark.parametrize("pause_s", [0.3, 4.0, 40.0, 700.0])
def test_at_any_time_it_is_what_was_the_answer_to_within_a_step(
    pause_s: float, rng: np.random.Generator
) -> None:
    answered, histories, kept = Answered(), Histories(), list[Kept]()
    histories.look("default")
    for value in rng.normal(size=400):
        answered.now += rng.exponential(pause_s)
        kept.append(answered.value(float(value)))
        histories.add(kept[-1])
        histories.add(kept[-1])  # looked at again, while nothing changed
    now = answered.now = answered.now + pause_s
    for last_s in (1.0, 60.0, 300.0, 301.0, 3600.0, LAST_S_MAX):
        said = histories.told("default", last_s, now=now, wall=WALL)
        step_s = said["step_s"]
        fits = [step for reach, step in STEPS.items() if reach >= last_s]
        finer = len({math.floor(one.made / step_s) for one in kept}) == len(said["at"])
        assert step_s == min(fits) or (finer and step_s < min(fits))
        assert len(said["at"]) <= max(STEPS) / max(STEPS.values()) + 62
        for then in rng.uniform(max(now - last_s, kept[0].made), now, 100):
            end = min(now, (math.floor(then / step_s) + 1) * step_s)
            # Values are counted from 1, so counts tell answers apart.
            first, last = (
                bisect_right(kept, at, key=lambda one: one.made) for at in (then - step_s, end)
            )
            holding = bisect_right(said["at"], then - now + WALL + 0.001) - 1
            count = said["count"][max(holding, 0)]
            TALLY.all(np.array(first <= count <= last))
            assert first <= count <= last


def test_a_moment_has_all_that_the_answer_said() -> None:
    answered, histories = Answered(), Histories()
    histories.look("default")
    answered.now += 10
    histories.add(answered.value(3.0))
    answered.now += 10
    histories.add(answered.value(6.0))
    answered.now += 5
    assert histories.told("default", 300, now=answered.now, wall=WALL) == {
        "stream": "default",
        "step_s": 1.0,
        "at": [WALL - 15, WALL - 5],
        "median": [3.0, 4.5],
        "low": [3.0, 3.0],
        "high": [3.0, 6.0],
        "rank_error": [0.0, 0.0],
        "count": [1, 2],
        "complete": [False, False],
    }
    said = histories.told("default", 1, now=answered.now, wall=WALL)
    assert said["count"] == [2], "it has held since before what was asked for"


def test_what_has_few_moments_is_told_in_the_finest_steps_however_far_back_it_goes() -> None:
    answered, histories = Answered(), Histories()
    histories.look("default")
    for value in range(100):
        answered.now += 30
        histories.add(answered.value(float(value)))
    said = histories.told("default", LAST_S_MAX, now=answered.now, wall=WALL)
    assert (said["step_s"], said["count"]) == (1.0, [*range(1, 101)])
    for value in range(300):
        answered.now += 1
        histories.add(answered.value(float(value)))
    said = histories.told("default", LAST_S_MAX, now=answered.now, wall=WALL)
    assert (said["step_s"], said["count"][0], said["count"][-1]) == (15.0, 1, 400)


def test_without_values_there_is_no_moment() -> None:
    answered, histories = Answered(), Histories()
    histories.look("default")
    histories.add(answered.answer())
    assert histories.told("default", 300, now=answered.now, wall=WALL)["at"] == []


def test_who_has_no_history_is_not_remembered() -> None:
    answered, histories = Answered("other"), Histories()
    histories.add(answered.value(1.0))
    assert histories.streams == []


def test_streams_have_a_history_while_there_is_room_and_those_that_are_looked_at_last() -> None:
    histories = Histories()
    names = [f"s{at}" for at in range(HISTORIES_MAX + 5)]
    histories.fill(names[:2])
    histories.fill(names)
    assert histories.streams == names[:HISTORIES_MAX]
    histories.look("s0")
    histories.look("new")
    histories.fill(["newer"])
    assert histories.streams == [*names[2:HISTORIES_MAX], "s0", "new"]


def test_a_stream_that_is_listened_to_keeps_its_history_when_others_are_looked_at() -> None:
    histories = Histories()
    names = [f"s{at}" for at in range(HISTORIES_MAX)]
    histories.fill(names)
    histories.listened_to(["s0", "unheard of"])
    histories.look("new")
    assert histories.streams == [*names[2:], "s0", "new"]


def test_streams_that_are_listened_to_are_told_to_the_histories(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        for stream in "a", "b":
            await told(node, an_outbox(stream=stream), 1)
            await node.json("/median/history", stream=stream)
        histories = node.coordinator.live._histories  # noqa: SLF001
        events = await node.coordinator.live.events("a")
        await anext(events)

        async def is_last() -> bool:
            return histories.streams[-1] == "a"

        await until(is_last, "who is listened to keeps his longest")

    one_coordinator(rng, story)


def test_a_history_may_be_asked_for_while_more_than_there_may_be_are(
    rng: np.random.Generator,
) -> None:
    """Each waits for its answer; meanwhile those that are asked for later take the room."""

    async def story(_: Cluster, node: Node) -> None:
        streams = [f"s{at}" for at in range(HISTORIES_MAX + 2)]
        for stream in streams:
            await told(node, an_outbox(stream=stream), 1)
        answers = node.coordinator.answers.median

        async def waiting(stream: str) -> Kept:
            await asyncio.sleep(0)
            return await answers(stream)

        with patch.object(node.coordinator.answers, "median", waiting):
            asked = [node.coordinator.history(stream, 300.0) for stream in streams]
            found = await asyncio.gather(*asked)
        assert [one["median"] for one in found] == [[1.0]] * len(streams)

    one_coordinator(rng, story, heartbeat_s=60.0)


def test_the_history_ends_with_the_present_answer(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        outbox = an_outbox(stream="s")
        await told(node, outbox, 1, 2)
        said = await node.json("/median/history", stream="s", last_s=1)
        assert (said["stream"], said["median"][-1], said["count"][-1]) == ("s", 1.5, 2)
        await told(node, outbox, 3)
        said = await node.json("/median/history", stream="s")
        assert (said["median"][-1], said["count"][-1]) == (2.0, 3)
        assert (await node.json("/median/history"))["median"] == []

    one_coordinator(rng, story)


def test_only_what_is_remembered_can_be_asked_for(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        ask = node.client.get
        check_problem(await ask("/median/history?stream=none"), 404, "unknown_stream")
        for wrong in ("0", "86401", "nan", "inf", "long"):
            check_problem(await ask(f"/median/history?last_s={wrong}"), 422, "invalid")
        check_problem(await ask("/median/history?q=1"), 422, "unknown_parameter")

    one_coordinator(rng, story)
