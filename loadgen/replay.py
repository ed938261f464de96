"""Sends what there is to send: turn by turn, batch by batch, each until it is acknowledged.

One thread reads or draws what comes next, one task asks for the median again and again, see
`loadgen/auditor.py`, and there is one task for each batch on its way; a worker has a bounded number
of those. Where answers are judged, and no rate is given, sending pauses now and then until nothing
is in flight, so that there is an answer without an excuse.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from loadgen.auditor import Auditor, Show
from loadgen.calls import Calls, Target
from loadgen.pacer import Turn, due_s
from loadgen.report import Report
from loadgen.streams import Floats

AHEAD = 2  # turns
LAND_S_MAX = 5.0  # what is in flight when a replay is stopped early


@dataclass(frozen=True, kw_only=True)
class Manner:
    rate: float | None = None
    """Values a second; None: as fast as possible."""
    in_flight: int = 4
    """Batches on their way to one worker, at most."""
    quiet_s: float = 1.0
    """Where there is no rate, seconds from one pause to the next in which all must land."""


class Replay:
    def __init__(self, calls: Calls, target: Target, manner: Manner, report: Report) -> None:
        self._calls, self._target, self._manner, self.report = calls, target, manner, report
        self._auditor = Auditor(calls, target, report, verify=report.verify)
        self._lanes = [asyncio.Semaphore(manner.in_flight) for _ in target.workers]
        self._posts: set[asyncio.Task[None]] = set()
        self._run = secrets.token_hex(8)
        self._start = self._busy = self._quiet_at = 0.0

    async def play(self, turns: Iterable[Turn], show: Show, stop: asyncio.Event) -> None:
        """Until all is sent and settled, or until asked to stop."""
        try:
            await self._auditor.begin()
            self._start, self._busy = time.monotonic(), time.process_time()
            with ungrouped():
                async with asyncio.TaskGroup() as group:
                    asking = group.create_task(self._auditor.keep_asking(show))
                    sending = group.create_task(self._send(turns, group, show))
                    if await self._is_stopped(sending, stop):
                        await self._break_off(sending)
                    asking.cancel()
            if self.report.acknowledged == self.report.sent:
                await self._auditor.settle()
            show(self.report)
        finally:
            self._auditor.close()

    async def _is_stopped(self, sending: asyncio.Task[None], stop: asyncio.Event) -> bool:
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({sending, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        return not sending.done()

    async def _break_off(self, sending: asyncio.Task[None]) -> None:
        """What is in flight may land, within a while."""
        self.report.stopped_early = True
        sending.cancel()
        await asyncio.wait({sending})
        if self._posts:
            await asyncio.wait(self._posts, timeout=LAND_S_MAX)
        for post in self._posts:
            post.cancel()

    async def _send(self, turns: Iterable[Turn], group: asyncio.TaskGroup, show: Show) -> None:
        async for turn in ahead(turns):
            await self._pause_if_due()
            self.report.phase, self.report.what = turn.phase, turn.what
            for worker, batch in turn.batches:
                due = self._start + due_s(self.report.sent, self._manner.rate)
                await asyncio.sleep(due - time.monotonic())
                await self._lanes[worker].acquire()
                self._launch(worker, batch, due, group)
            self._look_at_the_clock()
            show(self.report)
        await self._all_landed()
        self._look_at_the_clock()

    def _launch(self, worker: int, batch: Floats, due: float, group: asyncio.TaskGroup) -> None:
        number, now = self.report.requests, time.monotonic()
        if self._manner.rate is None:
            due = now
        self.report.late_s_max = max(self.report.late_s_max, now - due)
        self._auditor.sent(number, batch)
        post = group.create_task(self._post(number, worker, batch, due))
        self._posts.add(post)
        post.add_done_callback(self._posts.discard)

    async def _post(self, number: int, worker: int, batch: Floats, due: float) -> None:
        address, key = self._target.workers[worker], f"{self._run}-{number}"
        received = await self._calls.post(address, self._target.stream, batch, key)
        self._lanes[worker].release()
        self._auditor.acknowledged(number, worker, received)
        self.report.posts.add(time.monotonic() - due)

    async def _all_landed(self) -> None:
        while self._posts:
            await asyncio.wait(self._posts)

    async def _pause_if_due(self) -> None:
        manner = self._manner
        if self.report.verify and manner.rate is None and time.monotonic() >= self._quiet_at:
            await self._all_landed()
            await self._auditor.ask()
            self._quiet_at = time.monotonic() + manner.quiet_s

    def _look_at_the_clock(self) -> None:
        self.report.seconds = time.monotonic() - self._start
        self.report.processor_s = time.process_time() - self._busy


@contextmanager
def ungrouped() -> Iterator[None]:
    """The first thing that went wrong in a group of tasks; what else did is its consequence."""
    try:
        yield
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


async def ahead(turns: Iterable[Turn]) -> AsyncIterator[Turn]:
    """What a thread reads or draws a little ahead; nobody waits for it at the end."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[Turn | Exception | None]()
    room = threading.Semaphore(AHEAD)

    def read() -> None:
        end = None
        try:
            for turn in turns:
                room.acquire()
                loop.call_soon_threadsafe(queue.put_nowait, turn)
        except Exception as error:  # whatever it is, it is raised where it is awaited
            end = error
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            loop.call_soon_threadsafe(queue.put_nowait, end)

    threading.Thread(target=read, name="reader", daemon=True).start()
    while (turn := await queue.get()) is not None:
        if isinstance(turn, Exception):
            raise turn
        yield turn
        room.release()
