"""Long answers: one at a time, for all who wait, and none of them older than its question."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from coordinator_service.long import (
    QUESTIONS_MAX,
    REST_S_MAX,
    RESTS,
    WAITING_MAX,
    LongAnswers,
    Turn,
)
from shared.serving.errors import Problem
from shared.serving.slices import SLICE, Sliced
from tests.exact import TALLY


class Making:
    """Answers that say when they were begun, and take a while; counted."""

    def __init__(self, took_s: float) -> None:
        self.begun, self.at_once, self._took_s = list[float](), 0, took_s

    def begin(self) -> Callable[[], bytes]:
        self.begun.append(time.monotonic())
        self.at_once += 1
        began = repr(self.begun[-1]).encode()

        def written() -> bytes:
            assert self.at_once == 1
            time.sleep(self._took_s)
            self.at_once -= 1
            return began

        return written


def test_all_who_ask_meanwhile_are_told_one_answer_and_it_is_no_older_than_their_questions(
    rng: np.random.Generator,
) -> None:
    long, making = LongAnswers(time.monotonic), Making(0.01)

    async def ask(after_s: float) -> None:
        await asyncio.sleep(after_s)
        asked = time.monotonic()
        assert TALLY.all(np.array(float(await long.answer("it", making.begin)) >= asked))

    async def story() -> None:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for after_s in rng.uniform(0, 0.5, 200):
                group.create_task(ask(after_s))

    asyncio.run(story())
    assert 2 <= len(making.begun) < 100


def test_between_two_answers_it_rests_several_times_as_long_as_one_takes() -> None:
    long, making = LongAnswers(time.monotonic), Making(0.02)

    async def story() -> None:
        for _ in range(4):
            await long.answer("it", making.begin)

    asyncio.run(story())
    assert (np.diff(making.begun) >= (1 + RESTS) * 0.02).all()


def test_a_process_that_stood_still_while_it_made_one_does_not_rest_for_it() -> None:
    now, slept = [0.0], list[float]()
    long = LongAnswers(lambda: now[0])

    def begin() -> Callable[[], bytes]:
        now[0] += 3600
        return lambda: b"it"

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def story(patch: Any) -> None:
        patch.setattr("coordinator_service.long.asyncio.sleep", sleep)
        await long.answer("it", begin)
        now[0] += 0.1
        await long.answer("it", begin)

    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(story(patch))
    assert max(slept) <= REST_S_MAX


def test_only_so_many_questions_are_remembered() -> None:
    long, made = LongAnswers(time.monotonic), list[int]()

    def begin(question: int) -> Callable[[], bytes]:
        made.append(question)
        return lambda: repr(question).encode()

    async def story() -> None:
        for one in range(QUESTIONS_MAX + 10):
            assert await long.answer(one, partial(begin, one)) == repr(one).encode()
        assert made == list(range(QUESTIONS_MAX + 10))
        assert len(long) == QUESTIONS_MAX

    asyncio.run(story())


def test_different_questions_take_turns_and_of_a_crowd_most_are_told_to_come_again() -> None:
    long, making = LongAnswers(time.monotonic), Making(0.002)  # which sees two at once

    async def story() -> None:
        asking = (long.answer(one, making.begin) for one in range(100))
        found = await asyncio.gather(*asking, return_exceptions=True)
        told = [one for one in found if isinstance(one, Problem)]
        assert len(told) == 100 - 1 - WAITING_MAX
        assert {(one.status, one.code) for one in told} == {(503, "overloaded")}
        assert await long.answer(99, making.begin)

    asyncio.run(story())
    assert len(making.begun) == 1 + WAITING_MAX + 1


def test_who_gives_up_while_he_waits_makes_room() -> None:
    turn = Turn(time.monotonic)

    async def story() -> None:
        async def ask() -> None:
            async with turn:
                pass

        async with turn:
            waiting = [asyncio.create_task(ask()) for _ in range(WAITING_MAX)]
            await asyncio.sleep(0)
            with pytest.raises(Problem, match="ask again later"):
                await ask()
            waiting[0].cancel()
            await asyncio.wait(waiting[:1])
            waiting.append(asyncio.create_task(ask()))
            await asyncio.sleep(0)
        await asyncio.gather(*waiting[1:])

    asyncio.run(story())


def test_who_gives_up_while_it_rests_leaves_the_turn_to_the_next() -> None:
    now = [0.0]
    turn = Turn(lambda: now[0])

    async def ask() -> None:
        async with turn:
            now[0] += 10.0

    async def story() -> None:
        await ask()
        resting = asyncio.create_task(ask())
        await asyncio.sleep(0.01)
        resting.cancel()
        await asyncio.wait([resting])
        now[0] += REST_S_MAX
        await asyncio.wait_for(ask(), 30)

    asyncio.run(story())


def test_who_waits_when_the_service_must_end_is_told_so() -> None:
    async def story() -> None:
        long = LongAnswers(time.monotonic)
        asking = asyncio.create_task(long.answer("it", Making(0.2).begin))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(Problem, match="stops now"):
            await asking

    asyncio.run(story())


@pytest.mark.parametrize("size", [0, 1, SLICE, SLICE + 1, 5 * SLICE])
def test_what_is_long_is_sent_in_slices(size: int) -> None:
    body, sent = bytes(range(256)) * (size // 256) + bytes(size % 256), list[Any]()

    async def story() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            raise AssertionError("nothing is to be received")

        await Sliced(body)({"type": "http"}, receive, send)

    asyncio.run(story())
    start, *pieces = sent
    assert (start["type"], start["status"]) == ("http.response.start", 200)
    assert (b"content-length", str(size).encode()) in start["headers"]
    assert (b"content-type", b"application/json") in start["headers"]
    assert b"".join(one["body"] for one in pieces) == body
    assert [one["more_body"] for one in pieces] == [True] * (len(pieces) - 1) + [False]
    assert len(pieces) == max(1, -(-size // SLICE))
    assert max(len(one["body"]) for one in pieces) <= SLICE
