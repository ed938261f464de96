"""Live answers: to those who listen, whatever matters as it happens; to the history, all that was.

One task looks, ten times a second, at each stream that somebody listens to, and once a second at
those that have a history. Where the answer is another than it was, it goes to both. A listener is
told

    at once             what there is when he comes, and whatever **matters**
    within a second     any other change
    every heartbeat     that nothing changed; every 15 seconds, if that is longer

It matters who is there, whether the answer is complete, or exact; and a median, a certificate or a
count that moved by more than a little. What is little, the answer itself says: see `matters`.

A listener holds one event, the newest that he was not sent yet. So who reads slowly misses some,
and nothing piles up for him. Who does not read at all is let go by the server, as from any other
connection. A look rests ten times as long as it took, five seconds at most: with ten thousand rows,
an answer takes tens of milliseconds. When the service is told to stop, streams end, as they would
hold that up.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

from coordinator_service.answers import Answers, Clock, Kept
from coordinator_service.history import Histories
from shared.ledger import Answer, Ledger
from shared.rank_shift import Estimate
from shared.serving.errors import Problem
from shared.serving.logs import facts

LOOK_S = 0.1
LATE_S = 1.0
REMEMBER_S = 1.0
QUIET_S_MAX = 15.0  # a proxy may take for dead what is quiet for a minute, which a heartbeat may be
RESTS = 10
REST_S_MAX = 5.0  # a process may have stood still during a look: that took no work
# 250 listeners that were told nine times a second took 7 % of a core, and 35 kB each.
LISTENERS_MAX = 500
RETRY_MS = 2000
LITTLE = 0.1  # of the way from low to high: that far a median moves without being news
LITTLE_ERROR = 0.05  # of epsilon
LITTLE_COUNT = 0.01  # of all values

log = logging.getLogger("coordinator")


def matters(before: Answer, now: Answer) -> bool:
    """Whether a reader of the one should be told of the other at once."""
    if _standing(before) != _standing(now):
        return True
    if before.estimate is None or now.estimate is None:
        return before.count != now.count
    more = now.count - before.count > LITTLE_COUNT * before.count
    return more or _moved(before.estimate, now.estimate, now.epsilon)


def _standing(answer: Answer) -> tuple[bool, bool, int, int]:
    return answer.exact, answer.complete, answer.live, answer.silent


def _moved(before: Estimate, now: Estimate, epsilon: float) -> bool:
    """Beyond any float, a difference is infinite, and never more than itself: then it can wait."""
    further = abs(now.value - before.value) > LITTLE * (before.high - before.low)
    return further or abs(now.rank_error - before.rank_error) > LITTLE_ERROR * epsilon


def rest_after(took_s: float) -> float:
    """How long to rest after looks that took so long."""
    return min(max(LOOK_S, RESTS * took_s), REST_S_MAX)


class Listener:
    """Who listens to a stream; tells him no more than the newest event."""

    def __init__(self, told: Kept, now: float) -> None:
        self._told, self._told_at = told, now
        self._next: Kept | None = told
        self._wake = asyncio.Event()
        self._wake.set()
        self.ended = False

    def hear(self, kept: Kept, now: float) -> None:
        """An answer, which may be worth telling."""
        late = now - self._told_at >= LATE_S
        if kept is not self._told and (late or matters(self._told.answer, kept.answer)):
            self._told, self._told_at, self._next = kept, now, kept
            self._wake.set()

    def end(self) -> None:
        self.ended = True
        self._wake.set()

    async def event(self, within_s: float) -> bytes:
        """The newest, as soon as there is one, or a sign of life."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._wake.wait()
        self._wake.clear()
        kept, self._next = self._next, None
        return b"data: " + kept.body + b"\n\n" if kept else b": here\n\n"


class Live:
    def __init__(
        self,
        ledger: Ledger,
        answers: Answers,
        histories: Histories,
        *,
        clock: Clock,
        stopping: asyncio.Event,
    ) -> None:
        self._ledger, self._answers, self._histories = ledger, answers, histories
        self._clock, self._stopping = clock, stopping
        self._listeners: dict[str, set[Listener]] = {}
        self._failing: set[str] = set()
        self._remembers_at = clock()

    @property
    def listeners(self) -> int:
        return sum(map(len, self._listeners.values()))

    async def events(self, stream: str) -> AsyncIterator[bytes]:
        """What to tell whoever listens, from now until he goes or the service does."""
        if self.listeners >= LISTENERS_MAX:
            what = f"{LISTENERS_MAX} listen already, as many as there may be: come again later"
            raise Problem(503, "overloaded", what, headers={"retry-after": "10"})
        return self._events(stream, await self._answers.median(stream))

    async def _events(self, stream: str, first: Kept) -> AsyncIterator[bytes]:
        listener = Listener(first, self._clock())
        self._listeners.setdefault(stream, set()).add(listener)
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            while not (listener.ended or self._stopping.is_set()):
                yield await listener.event(min(self._ledger.heartbeat_s, QUIET_S_MAX))
        finally:
            self._leave(stream, listener)

    def _leave(self, stream: str, listener: Listener) -> None:
        self._listeners[stream].discard(listener)
        if not self._listeners[stream]:
            del self._listeners[stream]

    async def watch(self) -> None:
        """Look, until the service is told to stop; then let all go who listen."""
        stops, rest = asyncio.create_task(self._stopping.wait()), LOOK_S
        try:
            while not (await asyncio.wait([stops], timeout=rest))[0]:
                rest = rest_after(await self._looks())
        finally:
            stops.cancel()
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.end()

    async def _looks(self) -> float:
        """At all that are due, while others have their turn between any two; how long it took."""
        took_s = 0.0
        for stream in self._due(self._clock()):
            if self._stopping.is_set():
                break
            began = self._clock()
            await self._look(stream)
            took_s += self._clock() - began
            await asyncio.sleep(0)
        return took_s

    def _due(self, now: float) -> set[str]:
        due = set(self._listeners)
        if now >= self._remembers_at:
            self._remembers_at = now + REMEMBER_S
            self._histories.listened_to(self._listeners)
            self._histories.fill(self._ledger.streams)
            due.update(self._histories.streams)
        return due

    async def _look(self, stream: str) -> None:
        try:
            kept = await self._answers.median(stream)
        except Exception:
            if stream not in self._failing:
                self._failing.add(stream)
                log.exception("no answer can be made", extra=facts(stream=stream))
            return
        self._failing.discard(stream)
        self._histories.add(kept)
        now = self._clock()
        for listener in self._listeners.get(stream, ()):
            listener.hear(kept, now)
