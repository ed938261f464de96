"""Long answers: made in a thread, once for all who ask meanwhile, and seldom enough.

The bytes of `GET /workers` and `GET /cdf` take tens of milliseconds where there are a thousand
rows, and each page that is open asks for them every two seconds. So of each question one answer is
made at a time, and none for a while after: four times as long as it took, two seconds at most. Who
asks in between waits for the next, and all who wait are told the same one. What anybody is told was
begun after he asked. So a question takes a fifth of one processor, however many ask it; more only
where one answer takes longer than half a second.

Questions of one kind take turns: whoever asks a hundred different ones at once does not take every
thread there is. Only a few may wait for their turn; more are told to come again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable

from coordinator_service.answers import Clock, Rendered
from shared.serving.errors import RETRY, Problem

RESTS = 4
REST_S_MAX = 2.0  # a process may have stood still while it made one
QUESTIONS_MAX = 100  # that are remembered: those asked last
WAITING_MAX = 16  # different questions of one kind; at a thousand rows that is a second's work


class Turn:
    """One at a time, and no crowd at the door."""

    def __init__(self) -> None:
        self._one_by_one, self._waiting = asyncio.Lock(), 0

    async def __aenter__(self) -> None:
        if self._waiting >= WAITING_MAX:
            what = "as many such questions wait as may: ask again later, or one that others ask"
            raise Problem(503, "overloaded", what, headers=RETRY)
        self._waiting += 1
        try:
            await self._one_by_one.acquire()
        finally:
            self._waiting -= 1

    async def __aexit__(self, *_: object) -> None:
        self._one_by_one.release()


class Question:
    """One that many may ask."""

    def __init__(self, clock: Clock, turn: Turn) -> None:
        self._clock, self._turn, self._one_by_one = clock, turn, asyncio.Lock()
        self._body, self._made, self._rests_until = b"", -1.0, 0.0

    async def answer(self, begin: Callable[[], Rendered]) -> bytes:
        asked = self._clock()
        async with self._one_by_one:
            if self._made <= asked:
                await asyncio.sleep(self._rests_until - self._clock())
                await self._make(begin)
            return self._body

    async def _make(self, begin: Callable[[], Rendered]) -> None:
        async with self._turn:
            made = self._clock()
            body = await asyncio.to_thread(begin())
            done = self._clock()
        self._body, self._made = body, made
        self._rests_until = done + min(RESTS * (done - made), REST_S_MAX)


class LongAnswers:
    """To questions of one kind."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._turn = clock, Turn()
        self._questions = OrderedDict[Hashable, Question]()

    def __len__(self) -> int:
        return len(self._questions)

    async def answer(self, question: Hashable, begin: Callable[[], Rendered]) -> bytes:
        """Its answer, begun on the event loop, of what is known then, and written in a thread."""
        found = self._questions.setdefault(question, Question(self._clock, self._turn))
        self._questions.move_to_end(question)
        if len(self._questions) > QUESTIONS_MAX:
            self._questions.popitem(last=False)
        return await found.answer(begin)
