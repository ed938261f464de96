"""The server: uvicorn, one process, lean headers; and the clock that everything goes by."""

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import uvicorn
from fastapi import FastAPI

from shared.serving import tls
from shared.serving.again import Hangups, read_again
from shared.serving.connections import ENDING_S_MAX, Connection
from shared.serving.crowd import Crowd, afforded
from shared.serving.settings import ServiceSettings

GRACE_S = 5  # for requests that are under way when the service is told to stop
KEEP_ALIVE_S = 75  # longer than any heartbeat, so that a courier's connection stays open
LOOK_TICKS = 10  # of uvicorn's, a tenth of a second each

# How soon a thread at work lets the event loop go on. Its longest pause while a million values came
# as JSON, on a busy machine: 13 and 25 ms at Python's 5 ms, 4 and 6 ms at this.
SWITCH_S = 0.001

Make = Callable[[Callable[[], None], asyncio.Event], FastAPI]
"""Makes an app, which may call the one to fail, and is told by the other to stop."""


def clock() -> float:
    """Seconds that never go back, and that pass while the machine sleeps, where it can tell."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Server(uvicorn.Server):
    """Serves until it is told to stop; `fail` stops it too, and then the process fails.

    It sets `stopping` before it waits for requests to end, so that those end which would not. Ten
    times a second it calls `tick`.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        stopping: asyncio.Event,
        crowd: Crowd,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._tick = tick
        self.server_state = self._crowd = crowd
        self.failed, self._stopping = False, stopping
        self._parting: asyncio.Task[None] | None = None

    def fail(self) -> None:
        self.failed = self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """The loop can be told how long a handshake may take, but not through uvicorn."""
        loop, seconds = asyncio.get_running_loop(), tls.HANDSHAKE_S_MAX
        if self.config.ssl:
            patient = partial(loop.create_server, ssl_handshake_timeout=seconds)
            loop.create_server = patient  # type: ignore[method-assign]
        try:
            await super().startup(sockets)
        finally:
            vars(loop).pop("create_server", None)
        self._let_go_after(tls.GOODBYE_S_MAX)

    async def on_tick(self, counter: int) -> bool:
        self._tick()
        if counter % LOOK_TICKS == 0:
            self._crowd.look(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping.set()
        self._let_go_after(ENDING_S_MAX)
        await super().shutdown(sockets)

    def _let_go_after(self, seconds: float) -> None:
        """Of who does not answer a goodbye, and reads no more: TLS would wait for that, 30 s."""
        if self._parting:
            self._parting.cancel()
        if self.config.ssl:
            self._parting = asyncio.create_task(self._part(seconds))

    async def _part(self, every_s: float) -> None:
        connections = self.server_state.connections
        while True:
            closing = [one.transport for one in connections if one.transport.is_closing()]
            unread = [one.get_write_buffer_size() for one in closing]
            await asyncio.sleep(every_s)
            for transport, left in zip(closing, unread, strict=True):
                if left <= transport.get_write_buffer_size():
                    transport.abort()


def serve(make: Make, settings: ServiceSettings, hangups: Hangups) -> None:
    """Serve what is made, with a way for it to fail; leaves with 1 if it failed.

    Where it cannot even start, uvicorn says why and leaves with a status of its own.
    """
    sys.setswitchinterval(SWITCH_S)
    stopping = asyncio.Event()

    def fail() -> None:
        server.fail()

    def tick() -> None:
        if hangups.came():
            read_again(settings)

    app = make(fail, stopping)
    crowd: Crowd = app.state.crowd
    crowd.connections_max, backlog = afforded(crowd.connections_max)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Connection,
        ws="none",
        backlog=backlog,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    config.load()
    certificate = settings.certificate
    config.ssl = certificate.context if certificate else None  # uvicorn would make a weaker one
    server = Server(config, stopping, crowd, tick)
    with suppress(KeyboardInterrupt):
        server.run()
    hangups.end()
    if server.failed or not server.started:
        raise SystemExit(1)
