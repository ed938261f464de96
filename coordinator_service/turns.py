"""Turns: deltas are judged one by one, and who brings costly ones rests.

Most deltas are judged in less than a millisecond. But one that is as large as may be takes a tenth
of a second; one of a few bytes takes ten milliseconds, if its row is as long as may be; and a
request may bring a thousand of them. So

* between any two deltas the event loop goes round, and answers who asks;
* a turn is of one request, and ends with it or after `TURN_S`: then whoever else has deltas is
  next, in the order they came. So short requests are done one after another, and do not pile up;
* who brought a delta that took `COSTLY_S` or longer rests until twice the time is over that this
  one took, and all such before it, whoever sent them: all of them together take half of one
  processor. Others do not wait for that;
* what is large is unpacked in a thread, one delta at a time, and without a turn meanwhile.

The order of the deltas in a request stays. Deltas of other requests may be judged in between, as if
the network had been slower.
"""

import asyncio
import math
from asyncio import sleep
from collections.abc import Callable
from typing import Self, TypeVar

from coordinator_service.answers import Clock

T = TypeVar("T")
TURN_S = 0.02
COSTLY_S = 0.003
REST_S_MAX = 0.25  # for one delta: a process may have stood still while it judged it


class Turns:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._entering = asyncio.Lock()
        self.one_by_one, self.aside = asyncio.Lock(), asyncio.Lock()
        self._rests_until = -math.inf

    async def enter(self) -> None:
        """One by one: between any two requests the event loop looks who else is there.

        Else a thousand workers that come back at once are all heard before the next question is.
        """
        async with self._entering:
            await asyncio.sleep(0)

    async def rest(self, cost: float) -> None:
        """After a delta that took so long, up to now."""
        now = self.clock()
        twice = cost + min(cost, REST_S_MAX)
        self._rests_until = max(self._rests_until, now - cost) + twice
        await sleep(self._rests_until - now)


class Turn:
    """Of one request; it comes and ends as often as it must, and is over with the block."""

    def __init__(self, turns: Turns) -> None:
        self._turns, self._has_it = turns, False
        self._used = 0.0  # of this turn
        self._cost = self._began = 0.0  # of this delta

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._end()

    async def aside(self, work: Callable[[], T]) -> T:
        """In a thread, one after another; others have their turn meanwhile."""
        self._end()
        async with self._turns.aside:
            began = self._turns.clock()
            done = await asyncio.to_thread(work)
            self._cost = self._turns.clock() - began
        return done

    async def begin(self) -> None:
        """The next delta may be judged."""
        if not self._has_it:
            await self._turns.one_by_one.acquire()
            self._has_it, self._used = True, 0.0
        await asyncio.sleep(0)
        self._began = self._turns.clock()

    async def done(self) -> None:
        """It was."""
        spent = self._turns.clock() - self._began
        cost, self._cost = self._cost + spent, 0.0
        self._used += spent
        if cost >= COSTLY_S or self._used >= TURN_S:
            self._end()
        if cost >= COSTLY_S:
            await self._turns.rest(cost)

    def _end(self) -> None:
        if self._has_it:
            self._turns.one_by_one.release()
        self._has_it = False
