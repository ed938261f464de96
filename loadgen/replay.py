"""Sends what there is to send: turn by turn, batch by batch, each until it is acknowledged.

    a thread reads ahead  -->  one task deals out what is due  -->  a queue for each worker
                                                               -->  lanes that post, and wait

A worker has a bounded number of lanes, and a queue that is bounded, too: while one is slow, its
batches wait there, and others get theirs when they are due. Only who is behind by a whole queue
holds up all. A schedule does wait for its input: what comes late is due when it comes.

Where answers are to be judged and no rate is given, sending pauses now and then until nothing is in
flight, so that an answer has no excuse. Meanwhile one task asks: see `loadgen/auditor.py`.
"""

import asyncio
import secrets
import threading
import time
from asyncio import Task, TaskGroup
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from loadgen.auditor import Auditor, Show
from loadgen.calls import Calls, Target
from loadgen.pacer import Turn, due_s
from loadgen.report import Report
from loadgen.scenarios import Floats

AHEAD = 2  # turns
QUEUED = 1_000_000  # values, at most, that wait for the lanes of one worker
LAND_S_MAX = 5.0  # what is in flight when a replay is stopped early
SETTLE_S_MAX = 10.0  # and then the last answer


@dataclass(frozen=True, kw_only=True)
class Manner:
    rate: float | None = None
    """Values a second; None: as fast as possible."""
    batch: int = 1_000
    """Values, at most, of one."""
    in_flight: int = 4
    """Batches on their way to one worker, at most."""
    quiet_s: float = 1.0
    """Where there is no rate, seconds from one pause to the next in which all must land."""


class Due(NamedTuple):
    at: float
    values: Floats


class Replay:
    def __init__(self, calls: Calls, target: Target, manner: Manner, report: Report) -> None:
        self._calls, self._target, self._manner, self.report = calls, target, manner, report
        self._auditor = Auditor(calls, target, report)
        room = max(1, QUEUED // manner.batch) if manner.rate else 1
        self._queues = [asyncio.Queue[Due](room) for _ in target.workers]
        self._run = secrets.token_hex(8)
        self._start = self._quiet_at = 0.0

    async def play(self, turns: Iterable[Turn], show: Show, stop: asyncio.Event) -> None:
        """Until all is sent and settled, or until asked to stop."""
        try:
            with ungrouped():
                async with TaskGroup() as group:
                    work = group.create_task(self._work(turns, group, show))
                    tasks = [group.create_task(self._auditor.keep_showing(show))]
                    for worker in range(len(self._queues)):
                        lanes = range(self._manner.in_flight)
                        tasks += [group.create_task(self._lane(worker)) for _ in lanes]
                    if not await self._is_done(work, stop):
                        await self._break_off(work)
                    for task in tasks:
                        task.cancel()
        finally:
            self._auditor.look_around()
            self._auditor.close()

    async def _work(self, turns: Iterable[Turn], group: TaskGroup, show: Show) -> None:
        self.report.phase = "meeting all"
        await self._auditor.begin()
        self.report.phase = ""
        self.report.start()
        self._start = time.monotonic()
        asking = group.create_task(self._auditor.keep_asking())
        try:
            await self._send(turns, show)
        finally:
            asking.cancel()
        self.report.end("settling")
        await self._auditor.settle()

    @staticmethod
    async def _is_done(work: Task[None], stop: asyncio.Event) -> bool:
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        return work.done()

    async def _break_off(self, work: Task[None]) -> None:
        """What is in flight may land, and be settled, within a while."""
        self.report.stopped_early = True
        work.cancel()
        await asyncio.wait({work})
        for queue in self._queues:
            while not queue.empty():
                queue.get_nowait()
                queue.task_done()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAND_S_MAX):
                await self._all_landed()
            if not self.report.sent:
                return
            self.report.end("settling")
            async with asyncio.timeout(SETTLE_S_MAX):
                await self._auditor.settle()

    async def _send(self, turns: Iterable[Turn], show: Show) -> None:
        waited_since = time.monotonic()
        async for turn in ahead(turns):
            self._wait_for_input(waited_since)
            await self._pause_if_due()
            self.report.phase, self.report.what = turn.phase, turn.what
            for worker, batch in turn.batches:
                due = self._due()
                await asyncio.sleep(due - time.monotonic())
                self.report.given += len(batch)
                await self._queues[worker].put(Due(due, batch))
            show(self.report)
            waited_since = time.monotonic()
        await self._all_landed()

    def _due(self) -> float:
        return self._start + due_s(self.report.given, self._manner.rate)

    def _wait_for_input(self, since: float) -> None:
        """A schedule begins anew with what came late: no server is to blame for that."""
        late = time.monotonic() - max(self._due(), since)
        if self._manner.rate and late > 0:
            self._start += late
            self.report.input_late_s += late

    async def _lane(self, worker: int) -> None:
        queue, report = self._queues[worker], self.report
        while True:
            due, batch = await queue.get()
            number, now = report.requests, time.monotonic()
            if self._manner.rate is None:
                due = now
            report.late_s_max = max(report.late_s_max, now - due)
            self._auditor.sent(number, batch)
            address, key = self._target.workers[worker], f"{self._run}-{number}"
            await self._calls.post(address, self._target.stream, batch, key)
            self._auditor.acknowledged(number, worker)
            report.posts.add(time.monotonic() - due)
            queue.task_done()

    async def _all_landed(self) -> None:
        for queue in self._queues:
            await queue.join()

    async def _pause_if_due(self) -> None:
        manner = self._manner
        if self.report.verify and manner.rate is None and time.monotonic() >= self._quiet_at:
            await self._all_landed()
            await self._auditor.ask()
            self._quiet_at = time.monotonic() + manner.quiet_s


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
