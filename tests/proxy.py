"""A way over TCP that may fail: it stands between a client and a port of this machine.

    client -> Proxy -> whoever listens at the target, if anybody does

What passes is bytes, in chunks as they happen to come. To each chunk, and each connection, things
happen as `weather` says, by dice that each connection draws from the seed and its own number. Never
is something done that TCP would not do: of what a connection carries in one direction a prefix
arrives, in order. So when a chunk is lost, nothing that comes after it passes either.

A request may also come *twice*. HTTP/1.1 requests are cut out of the bytes as they pass; some time
after one has passed whole, the same bytes are sent to the target again, on a connection of their
own, and what is answered there is dropped. By then the client may have had its answer, or be gone,
and the target may have been killed and be back. That is what a network does that lost an answer and
has somebody repeat, and to whom it comes late it is the same.

A chunk that is late is delivered though its client has gone meanwhile: each direction ends by
itself. All runs in a thread of its own; `seen` counts what happened, so that a test can tell that
something did.

`at_response` is called once, when a response comes from the target, before anybody hears of it: no
moment is better to kill who gave it.
"""

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

CHUNK = 2**14  # bytes; of a large request there are some
SOON_S = 60  # what takes longer hangs
HEAD_ENDS = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
REQUESTS, RESPONSES = "requests", "responses"


@dataclass(frozen=True)
class Weather:
    """How likely it is that something happens; all that is `_s` is drawn from 0 to that."""

    refused: float = 0.0  # a connection ends at once
    dropped: float = 0.0  # a chunk is lost, and its connection ends
    truncated: float = 0.0  # of a chunk only a part passes, and its connection ends
    repeated: float = 0.0  # a request that has passed comes again
    repeat_s: float = 0.0  # so much later
    delay_s: float = 0.0  # how late a chunk is
    mute: tuple[str, ...] = ()  # nothing passes in these directions, and nobody is told


CALM = Weather()
PARTITION = Weather(refused=1.0, dropped=1.0)
ONLY_REQUESTS_PASS = Weather(mute=(RESPONSES,))
ONLY_RESPONSES_PASS = Weather(mute=(REQUESTS,))


class Ends(Exception):
    """A connection is over, both ways."""


class Requests:
    """Cuts bytes into requests: each a head, and as much body as that says."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def whole(self, chunk: bytes) -> list[bytes]:
        """Those that this chunk brings to their end."""
        self._bytes += chunk
        found = []
        while (size := self._size()) and size <= len(self._bytes):
            found.append(bytes(self._bytes[:size]))
            del self._bytes[:size]
        return found

    def _size(self) -> int:
        """Of the first; 0 while its head is not whole."""
        start = self._bytes.find(HEAD_ENDS) + len(HEAD_ENDS)
        if start < len(HEAD_ENDS):
            return 0
        length = LENGTH.search(self._bytes, 0, start)
        return start + (int(length[1]) if length else 0)


class Proxy:
    """`with Proxy(port, seed=1) as proxy:` listens at `proxy.port`, and is calm."""

    def __init__(self, target: int, *, seed: int) -> None:
        self.target, self.seed = target, seed
        self.weather = CALM
        self.seen: Counter[str] = Counter()
        self.at_response: Callable[[], None] | None = None
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._done(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._done(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SOON_S)
        self._loop.close()

    def _done(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(SOON_S)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        """Whatever is still on its way is lost."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen["connections"] += 1
        rng = np.random.default_rng([self.seed, self.seen["connections"]])
        self._begin(Connection(self, rng).carry(reader, writer))

    def responded(self) -> None:
        then, self.at_response = self.at_response, None
        if then is not None:
            then()

    def repeat(self, request: bytes, delay_s: float) -> None:
        self._begin(self._repeated(request, delay_s))

    async def _repeated(self, request: bytes, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.target)
            try:
                writer.write(request)
                head = await reader.readuntil(HEAD_ENDS)
                length = LENGTH.search(head)
                await reader.readexactly(int(length[1]) if length else 0)
                self.seen["repeated"] += 1
            finally:
                writer.transport.abort()


class Connection:
    """One client, and the target; what happens to them is drawn from `rng`."""

    def __init__(self, proxy: Proxy, rng: np.random.Generator) -> None:
        self._proxy, self._rng = proxy, rng
        self._requests = Requests()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._happens("refused"):
                return
            await self._between(reader, writer)
        finally:
            writer.transport.abort()

    async def _between(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far = await asyncio.open_connection("127.0.0.1", self._proxy.target)
        except OSError:
            self._proxy.seen["nobody there"] += 1
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(REQUESTS, reader, far[1]))
                both.create_task(self._pass_on(RESPONSES, far[0], writer))
        except* Ends:
            pass
        finally:
            far[1].transport.abort()

    async def _pass_on(
        self, what: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Until either end is gone, but for what is on its way already."""
        writer.transport.set_write_buffer_limits(0)  # so that what is drained has left
        with suppress(OSError):
            while chunk := await reader.read(CHUNK):
                await self._meets(what, chunk, writer)
            writer.write_eof()

    async def _meets(self, what: str, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        if what == RESPONSES:
            self._proxy.responded()
        await asyncio.sleep(self._rng.uniform(0, self._proxy.weather.delay_s))
        if what in self._proxy.weather.mute:
            await self._is_mute(what)
        if self._happens("dropped"):
            raise Ends
        if self._happens("truncated"):
            writer.write(chunk[: self._rng.integers(len(chunk))])
            await writer.drain()
            raise Ends
        writer.write(chunk)
        await writer.drain()
        self._proxy.seen[what] += 1
        if what == REQUESTS:
            self._repeat(chunk)

    async def _is_mute(self, what: str) -> None:
        """What was lost is never made up for; when the way is mended, it is another connection."""
        self._proxy.seen[f"mute {what}"] += 1
        while what in self._proxy.weather.mute:
            await asyncio.sleep(0.02)
        raise Ends

    def _repeat(self, chunk: bytes) -> None:
        for request in self._requests.whole(chunk):
            if self._rng.random() < self._proxy.weather.repeated:
                self._proxy.repeat(request, self._rng.uniform(0, self._proxy.weather.repeat_s))

    def _happens(self, what: str) -> bool:
        happens = bool(self._rng.random() < getattr(self._proxy.weather, what))
        self._proxy.seen[what] += happens
        return happens
