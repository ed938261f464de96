"""The sources of this worker: one outbox for each stream, and the batches that wait for it.

A batch is received once its source acknowledges as many values as there were with it. Mostly that
is at once; else whoever brought it waits here, until a signature covers it.

Where there is a store, a batch is written down before it is given to its outbox. Batches come back
from there in the order they went, and only then get their numbers; so a delta, which covers what
the outbox has, never covers what could still be lost.

A stream begins with its first batch that is taken. A line without a value is there only as long as
somebody gives it one; if that fails, it is gone with the last who tried. So what is refused leaves
nothing behind, and there are no more lines than there may be streams, but for those that were kept.

An outbox is used by one at a time, under its lock. What takes longer than a moment is done in a
thread meanwhile: large batches, the cutting of deltas, questions. So the event loop goes on, and
batches for this stream queue up at the lock, in order.
"""

import asyncio
import logging
import math
import secrets
from asyncio import Future, Task
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from shared.digest import Digest
from shared.outbox import NotTaken, Outbox
from shared.protocol import Receipt, Source
from shared.serving.logs import facts
from shared.values import Floats
from worker_service.settings import Settings
from worker_service.store import Kept, Key, Log, Store

Told = TypeVar("Told")
Clock = Callable[[], float]

logger = logging.getLogger("worker")

GAVE_WAY = "this source gave way to a new one"
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


class TooManyStreams(RuntimeError):
    """No stream is begun any more; the message says so."""


class Batch:
    """Values on their way to a source. They are let go there: who waits for a 202 holds none."""

    def __init__(self, values: Floats, raw: int, key: Key | None = None) -> None:
        self._values: Floats | None = values
        self.size, self.raw, self.key = len(values), raw, key

    @property
    def values(self) -> Floats:
        return cast(Floats, self._values)

    def taken(self) -> Floats:
        values, self._values = self.values, None
        return values


@dataclass(frozen=True)
class Taken:
    accepted: int
    count: int
    number: int  # of the source


class Waiting:
    """Who waits until a count is reached."""

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
        for future in [one for one, wanted in self._counts.items() if wanted <= count]:
            del self._counts[future]
            if not future.done():
                future.set_result(None)

    def given_up(self, why: Exception) -> None:
        for future in self._counts:
            if not future.done():
                future.set_exception(why)


class Shared(Generic[Told]):
    """Work for all who ask: who asks while it is done waits for the next, begun after he asked."""

    def __init__(self, work: Callable[[], Awaitable[Told]]) -> None:
        self._work, self._one_by_one = work, asyncio.Lock()
        self._begun = self._done = 0
        self._told: Told | None = None  # by the last that was done

    async def done(self) -> Told:
        asked = self._begun
        async with self._one_by_one:
            if self._done <= asked:
                self._begun += 1
                self._told = await self._work()
                self._done = self._begun
            return cast(Told, self._told)


class Line:
    """One source, and who waits for it."""

    def __init__(
        self,
        outbox: Outbox,
        clock: Clock,
        log: Log | None = None,
        broke: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self.outbox, self._clock, self._log, self._broke = outbox, clock, log, broke
        self.last_sent = -math.inf
        self._restored = outbox.count
        self._lock = asyncio.Lock()
        self._to_be_acknowledged, self._to_be_covered = Waiting(), Waiting()
        self._given_up = asyncio.Event()
        self._entry = 0  # of the log: the last that the outbox has
        self._checkpoint: Task[None] | None = None
        self._is_whole = True  # it has, or will have, all that was written down
        self._taking = 0  # batches

    @property
    def is_unused(self) -> bool:
        """Whether it has no value, and nobody is about to give it one."""
        return not (self._taking or self.outbox.count)

    async def take(self, batch: Batch) -> int:
        """Give these values their numbers; returns how many there are then."""
        self._taking += 1
        try:
            return await self._numbered(batch)
        finally:
            self._taking -= 1

    async def _numbered(self, batch: Batch) -> int:
        now = self._clock()
        if reason := self.outbox.why_not(now=now):
            raise NotTaken(reason)
        if self._log is None:
            return await self._added(batch, now)
        return await self._written_and_added(self._log, batch, now)

    async def _written_and_added(self, log: Log, batch: Batch, now: float) -> int:
        """It was let in: what changed since then does not count. Nobody may cancel this."""
        written, entry = log.append(batch.values, batch.raw, batch.key)
        await written
        try:
            count = await self._added(batch, now, entry)
        except NotTaken:
            await self._given_up.wait()  # until it is certain that no restart brings it back
            raise
        except Exception as error:
            self._breaks(error)
            raise
        if log.is_long and self._checkpoint is None:
            self._checkpoint = asyncio.create_task(self._shorten(log))
        return count

    def _breaks(self, error: Exception) -> None:
        """What is written down is not what is here: only a restart brings them together."""
        self._is_whole = False
        self._broke(error)

    async def _added(self, batch: Batch, now: float, entry: int = 0) -> int:
        try:
            async with self._lock:
                if batch.size > LARGE:
                    return await in_thread(self._add, batch, now, entry)
                return self._add(batch, now, entry)
        finally:
            self._tell()

    def _add(self, batch: Batch, now: float, entry: int) -> int:
        count = self.outbox.add(batch.taken(), now=now, raw=batch.raw)
        self._entry = entry
        return count

    async def _shorten(self, log: Log) -> None:
        try:
            async with self._lock:
                if self.outbox.outdated or not self._is_whole:
                    return
                digest = await in_thread(self.outbox.digest.to_bytes)
                raw, entry = self.outbox.raw, self._entry
            await log.shorten(digest, raw, entry)
        except Exception as error:
            self._breaks(error)
        finally:
            self._checkpoint = None

    async def acknowledged(self, count: int) -> None:
        await self._waited(self._to_be_acknowledged, count, self.outbox.acknowledged)

    async def covered(self, count: int) -> None:
        await self._waited(self._to_be_covered, count, self.outbox.covered)

    async def _waited(self, waiting: Waiting, count: int, reached: int) -> None:
        if reached < count:
            if self._given_up.is_set():
                raise NotTaken(GAVE_WAY)
            await waiting.until(count)

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
        if self._checkpoint is not None:
            await asyncio.wait([self._checkpoint])

    async def give_way(self) -> None:
        async with self._lock:
            self.outbox.give_way()

    async def forgotten(self) -> None:
        """No restart brings it back; or `NotWritten`."""
        if self._log is not None:
            await self._log.forget(max(self._restored, self.outbox.acknowledged))

    def give_up(self) -> None:
        why = NotTaken(GAVE_WAY)
        self._given_up.set()
        self._to_be_acknowledged.given_up(why)
        self._to_be_covered.given_up(why)

    async def asked(self, question: Callable[[Digest], Told]) -> Told:
        """Answer from this source's own digest."""
        async with self._lock:
            return await in_thread(question, self.outbox.digest)


class Sources:
    """The lines of this worker, by stream."""

    def __init__(
        self, worker: str, settings: Settings, *, clock: Clock, store: Store | None
    ) -> None:
        self.worker, self._clock, self._store = worker, clock, store
        self._digest_rank_error, self._linger_s = settings.digest_rank_error, settings.linger_s
        self._counts_cut_off = settings.when_cut_off == "count"
        self._streams_max = settings.streams_max
        self._lines: dict[str, Line] = {}
        self.closing = False
        self.broken: Exception | None = None  # why this process must end
        self.news = asyncio.Event()  # something is wanted before `planned`
        self.planned = -math.inf
        for kept in store.sources(self._digest_rank_error) if store else ():
            self._lines[kept.stream] = self._restored(kept)

    def __iter__(self) -> Iterator[Line]:
        return iter(list(self._lines.values()))

    def __len__(self) -> int:
        return len(self._lines)

    def line(self, stream: str) -> Line | None:
        return self._lines.get(stream)

    async def take(
        self, stream: str, batch: Batch, handed_over: Callable[[], None] = lambda: None
    ) -> Taken:
        """Take a batch, and wait until it is acknowledged; says when its values are let go."""
        if self.closing:
            raise NotTaken("this worker is about to stop; send your values to another")
        line = self._lines.get(stream) or self._begun(stream)
        try:
            count = await line.take(batch)
        finally:
            handed_over()
            self.look(line)
            if line.is_unused:
                self._lines.pop(stream, None)
        await line.acknowledged(count)
        return Taken(batch.size, count, line.outbox.source.number)

    async def received(self, stream: str, taken: Taken) -> None:
        """What was written down before a restart, and is sent again, waits as it did then."""
        line = self._lines.get(stream)
        if line is not None and line.outbox.source.number == taken.number:
            await line.acknowledged(taken.count)

    async def flush(self, lines: Iterable[Line]) -> dict[str, int]:
        """Have all said that there is of these, and wait until it is covered; how many, by stream.

        Line by line, without a task for each: there may be thousands.
        """
        told = []
        for line in lines:
            told.append((line, await line.flush()))
            self.look(line)
        for line, count in told:
            await line.covered(count)
        return {line.outbox.source.stream: count for line, count in told}

    def look(self, line: Line) -> None:
        """Wake the courier, if this source is due before it meant to look again."""
        if line.outbox.flight is None and line.outbox.due_at < self.planned:
            self.news.set()

    def _begun(self, stream: str) -> Line:
        if len(self._lines) >= self._streams_max:
            what = f"this worker has {len(self._lines)} streams, as many as it may have"
            raise TooManyStreams(f"{what}, and {stream!r} is none of them: nothing was taken")
        line = self._lines[stream] = self._new(stream)
        return line

    def _new(self, stream: str) -> Line:
        source = Source(self.worker, stream, secrets.randbits(64))
        outbox = self._outbox(source, Digest(self._digest_rank_error))
        return self._line(outbox)

    def _restored(self, kept: Kept) -> Line:
        if kept.digest.rank_error_max > self._digest_rank_error:
            what = facts(stream=kept.stream, rank_error=kept.digest.rank_error_max)
            logger.warning("a digest stays as coarse as it was when its source began", extra=what)
        source = Source(self.worker, kept.stream, kept.number)
        outbox = self._outbox(source, kept.digest, raw=kept.raw)
        return self._line(outbox, logged=kept.logged)

    def _line(self, outbox: Outbox, *, logged: int = 0) -> Line:
        log = Log(self._store, outbox.source, bytes_=logged) if self._store else None
        return Line(outbox, self._clock, log, self._broke)

    def _broke(self, error: Exception) -> None:
        self.broken = error
        self.news.set()

    def _outbox(self, source: Source, digest: Digest, raw: int = 0) -> Outbox:
        return Outbox(
            source,
            digest,
            now=self._clock(),
            linger_s=self._linger_s,
            counts_cut_off=self._counts_cut_off,
            home=self._store.home if self._store else 0,
            former=self._store.former if self._store else (),
            raw=raw,
        )

    async def replace(self, line: Line) -> None:
        """A new source in place of one whose numbers are used up, and that is forgotten first."""
        await line.forgotten()
        stream = line.outbox.source.stream
        new = self._lines[stream] = self._new(stream)
        if self.closing:
            await new.goodbye()
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
    def kept(self) -> bool:
        """Whether they outlive this process."""
        return self._store is not None

    @property
    def closed(self) -> bool:
        return all(line.outbox.closed for line in self)

    async def goodbye(self) -> None:
        """Take nothing more, and have all said that there is."""
        self.closing = True
        if self._store is not None:
            await self._store.settled()
        for line in self:
            await line.goodbye()
        self.news.set()
