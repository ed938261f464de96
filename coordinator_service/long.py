"""Long answers: made in a thread, once for all who ask meanwhile, and seldom enough.

The bytes of `GET /workers` and `GET /cdf` take tens of milliseconds where there are a thousand
rows, and each page that is open asks for them every two seconds. So of each question one answer is
made at a time. Who asks meanwhile waits for the next, and all who wait are told the same one. What
anybody is told was begun after he asked.

Questions of one kind take turns, whatever they ask: a hundred different ones at once do not take
every thread there is. After each, nobody has a turn for a while: `rests` times as long as it took,
four unless told otherwise, and two seconds at most. So such a kind takes a fifth of one processor,
however many ask it; more only where one answer takes longer than half a second. Only so many may
wait, more are told to come again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Self

from coordinator_service.answers import Clock, Rendered
from shared.serving.errors import RETRY, Problem

RESTS = 4.0
REST_S_MAX = 2.0  # a process may have stood still while it made one
QUESTIONS_MAX = 100  # that are remembered: those asked last
WAITING_MAX = 64  # different questions of one kind


class Turn:
    """Of those who ask what costs much, one at a time."""

    def __init__(self, clock: Clock, rests: float = RESTS) -> None:
        self._clock, self._rests = clock, rests
        self._one_by_one, self._waiting = asyncio.Lock(), 0
        self._began = self._rests_until = 0.0

    async def __aenter__(self) -> Self:
        if self._waiting >= WAITING_MAX:
            what = "as many such questions wait as may: ask again later, or one that others ask"
            raise Problem(503, "overloaded", what, headers=RETRY)
        self._waiting += 1
        try:
            await self._one_by_one.acquire()
        finally:
            self._waiting -= 1
        try:
            await asyncio.sleep(self._rests_until - self._clock())
        except asyncio.CancelledError:
            self._one_by_one.release()
            raise
        self._began = self._clock()
        return self

    async def __aexit__(self, *_: object) -> None:
        done = self._clock()
        self._rests_until = done + min(self._rests * (done - self._began), REST_S_MAX)
        self._one_by_one.release()


class Question:
    """One that many may ask."""

    def __init__(self, clock: Clock, turn: Turn) -> None:
        self._clock, self._turn, self._one_by_one = clock, turn, asyncio.Lock()
        self._body, self._made = b"", -1.0

    async def answer(self, begin: Callable[[], Rendered]) -> bytes:
        asked = self._clock()
        async with self._one_by_one:
            if self._made <= asked:
                async with self._turn:
                    made = self._clock()
                    self._body = await asyncio.to_thread(begin())
                self._made = made
            return self._body


class LongAnswers:
    """To questions of one kind."""

    def __init__(self, clock: Clock, rests: float = RESTS) -> None:
        self._clock, self._turn = clock, Turn(clock, rests)
        self._questions = OrderedDict[Hashable, Question]()

    def __len__(self) -> int:
        return len(self._questions)

    async def answer(self, question: Hashable, begin: Callable[[], Rendered]) -> bytes:
        """Its answer, begun on the event loop, of what is known then, and written in a thread."""
        found = self._questions.setdefault(question, Question(self._clock, self._turn))
        self._questions.move_to_end(question)
        if len(self._questions) > QUESTIONS_MAX:
            self._questions.popitem(last=False)
        with told_when_stopped():
            return await found.answer(begin)


@contextmanager
def told_when_stopped() -> Iterator[None]:
    """Who still waits when the service must end is told so."""
    try:
        yield
    except asyncio.CancelledError:
        raise Problem(503, "stopping", "the coordinator stops now", headers=RETRY) from None
