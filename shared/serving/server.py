"""The server: uvicorn, one process, lean headers; and the clock that everything goes by."""

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from shared.serving.connections import Connection
from shared.serving.settings import ServiceSettings

GRACE_S = 5  # for requests that are under way when the service is told to stop
KEEP_ALIVE_S = 75  # longer than any heartbeat, so that a courier's connection stays open

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

    It sets `stopping` before it waits for requests to end, so that those end which would not.
    """

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self.failed, self._stopping = False, stopping

    def fail(self) -> None:
        self.failed = self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping.set()
        await super().shutdown(sockets)


def serve(make: Make, settings: ServiceSettings) -> None:
    """Serve what is made, with a way for it to fail; leaves with 1 if it failed.

    Where it cannot even start, uvicorn says why and leaves with a status of its own.
    """
    sys.setswitchinterval(SWITCH_S)
    stopping = asyncio.Event()

    def fail() -> None:
        server.fail()

    server = Server(
        uvicorn.Config(
            make(fail, stopping),
            host=settings.host,
            port=settings.port,
            http=Connection,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        ),
        stopping,
    )
    with suppress(KeyboardInterrupt):
        server.run()
    if server.failed or not server.started:
        raise SystemExit(1)
