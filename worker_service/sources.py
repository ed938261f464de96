"""The sources of this worker: one outbox for each stream, and the batches that wait for it.

A batch is received once its source acknowledges as many values as there were with it. Mostly that
is at once; else whoever brought it waits here, until a signature covers it.

An outbox is used by one at a time, under its lock. What takes longer than a moment is done in a
thread meanwhile: large batches, the cutting of deltas, questions. So the event loop goes on, and
batches for this stream queue up at the lock, in order.
"""

import asyncio
import math
import secrets
from asyncio import Future
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from shared.digest import Digest
from shared.outbox import NotTaken, Outbox
from shared.protocol import Receipt, Source
from shared.values import Floats

Told = TypeVar("Told")
Clock = Callable[[], float]

LARGE = 32_768  # values: a larger batch is taken in a thread


async def in_thread(work: Callable[..., Told], *given: Any) -> Told:
    """In a thread, and to its end, even if whoever waits for it is cancelled meanwhile."""
    task = asyncio.create_task(asyncio.to_thread(work, *given))
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled and not task.exception():
        raise asyncio.CancelledError
    return task.result()


class Batch:
    """Values on their way to a source. They are let go there: who waits for a 202 holds none."""

    def __init__(self, values: Floats, raw: int) -> None:
        self._values: Floats | None = values
        self.size, self.raw = len(values), raw

    def taken(self) -> Floats:
        values, self._values = cast(Floats, self._values), None
        return values


@dataclass(frozen=True)
class Taken:
    accepted: int
    count: int


class Waiting:
    """Who waits until a count is reached. They come in the order of their counts."""

    def __init__(self) -> None:
        self._counts: dict[Future[None], int] = {}

    async def until(self, count: int) -> None:
        future = asyncio.get_running_loop().create_future()
        self._counts[future] = count
        try:
            await future
        finally:
            self._counts.pop(future, None)

    def reached(self, count: int) -> None:
        for future, wanted in list(self._counts.items()):
            if wanted > count:
                break
            del self._counts[future]
            if not future.done():
                future.set_result(None)

    def given_up(self, why: Exception) -> None:
        for future in self._counts:
            if not future.done():
                future.set_exception(why)


class Line:
    """One source, and who waits for it."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self.outbox, self._clock = outbox, clock
        self.last_sent = -math.inf
        self._lock = asyncio.Lock()
        self._to_be_acknowledged, self._to_be_covered = Waiting(), Waiting()

    async def take(self, batch: Batch) -> int:
        """Give these values their numbers; returns how many there are then."""
        try:
            async with self._lock:
                if batch.size > LARGE:
                    return await in_thread(self._add, batch)
                return self._add(batch)
        finally:
            self._tell()

    def _add(self, batch: Batch) -> int:
        return self.outbox.add(batch.taken(), now=self._clock(), raw=batch.raw)

    async def acknowledged(self, count: int) -> None:
        if self.outbox.acknowledged < count:
            await self._to_be_acknowledged.until(count)

    async def covered(self, count: int) -> None:
        if self.outbox.covered < count:
            await self._to_be_covered.until(count)

    async def delta(self) -> bytes | None:
        """What is to be sent now, if anything."""
        async with self._lock:
            data = await in_thread(self._delta)
        self._tell()
        return data

    def _delta(self) -> bytes | None:
        return self.outbox.delta(now=self._clock())

    async def receive(self, receipt: Receipt) -> None:
        async with self._lock:
            self.outbox.receive(receipt, now=self._clock())
        self._tell()

    def _tell(self) -> None:
        """Who waited for a signature waits until the source is live too: then answers are whole."""
        if self.outbox.heard or self.outbox.is_cut_off(now=self._clock()):
            self._to_be_acknowledged.reached(self.outbox.acknowledged)
        self._to_be_covered.reached(self.outbox.covered)

    async def flush(self) -> int:
        """Have all said that there is; returns how many values that are."""
        async with self._lock:
            self.outbox.flush()
            return self.outbox.count

    async def goodbye(self) -> None:
        async with self._lock:
            self.outbox.goodbye()

    def give_up(self) -> None:
        why = NotTaken("this source gave way to a new one")
        self._to_be_acknowledged.given_up(why)
        self._to_be_covered.given_up(why)

    async def asked(self, question: Callable[[Digest], Told]) -> Told:
        """Answer from this source's own digest."""
        async with self._lock:
            return await in_thread(question, self.outbox.digest)


class Sources:
    """The lines of this worker, by stream."""

    def __init__(
        self,
        worker: str,
        *,
        clock: Clock,
        digest_rank_error: float,
        linger_s: float,
        counts_cut_off: bool,
    ) -> None:
        self.worker, self._clock = worker, clock
        self._digest_rank_error, self._linger_s = digest_rank_error, linger_s
        self._counts_cut_off = counts_cut_off
        self._lines: dict[str, Line] = {}
        self.closing = False
        self.news = asyncio.Event()  # something is wanted before `planned`
        self.planned = -math.inf

    def __iter__(self) -> Iterator[Line]:
        return iter(list(self._lines.values()))

    def line(self, stream: str) -> Line | None:
        return self._lines.get(stream)

    async def take(self, stream: str, batch: Batch) -> Taken:
        """Take a batch, and wait until it is acknowledged."""
        if self.closing:
            raise NotTaken("this worker is about to stop; send your values to another")
        line = self._lines.get(stream)
        if line is None:
            line = self._lines[stream] = self._new(stream)
        try:
            count = await line.take(batch)
        finally:
            self.look(line)
        await line.acknowledged(count)
        return Taken(batch.size, count)

    async def flush(self, line: Line) -> int:
        """Have all said that there is, and wait until it is covered."""
        count = await line.flush()
        self.look(line)
        await line.covered(count)
        return count

    def look(self, line: Line) -> None:
        """Wake the courier, if this source is due before it meant to look again."""
        if line.outbox.flight is None and line.outbox.due_at < self.planned:
            self.news.set()

    def _new(self, stream: str) -> Line:
        outbox = Outbox(
            Source(self.worker, stream, secrets.randbits(64)),
            Digest(self._digest_rank_error),
            now=self._clock(),
            linger_s=self._linger_s,
            counts_cut_off=self._counts_cut_off,
        )
        return Line(outbox, self._clock)

    def replace(self, line: Line) -> None:
        """A new source in place of one whose numbers are used up."""
        stream = line.outbox.source.stream
        self._lines[stream] = self._new(stream)
        line.give_up()

    def why_not(self) -> Iterator[str]:
        """Why which values would not be taken."""
        if self.closing:
            yield "this worker is about to stop"
            return
        for line in self:
            if reason := line.outbox.why_not(now=self._clock()):
                yield f"stream {line.outbox.source.stream}: {reason}"

    @property
    def closed(self) -> bool:
        return all(line.outbox.closed for line in self)

    async def goodbye(self) -> None:
        """Take nothing more, and have all said that there is."""
        self.closing = True
        for line in self:
            await line.goodbye()
        self.news.set()
