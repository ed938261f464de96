"""The server: uvicorn, one process, lean headers; and the clock that everything goes by."""

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

GRACE_S = 5  # for requests that are under way when the service is told to stop
# How long a client may take nothing of what does not fit into the socket. For who reads steadily
# the system makes room a megabyte at a time: at 40 kB/s, that is twice a minute.
STALLED_S_MAX = 60
ENDING_S_MAX = 0.5  # the same when the service is told to stop
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


class Connection(HttpToolsProtocol):
    """Given up where what is said to a client piles up, and he reads nothing of it.

    Of one long answer much may be left to who reads all the time, but slowly. At the end nobody
    waits that long: who has not read the last of it by then would hold up all.
    """

    _unread: asyncio.TimerHandle | None = None
    _ends = False

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look(STALLED_S_MAX)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self._ends:
            self._look_no_more()

    def shutdown(self) -> None:
        super().shutdown()
        self._ends = True
        self._look(ENDING_S_MAX)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._look_no_more()

    def _look(self, again_s: float) -> None:
        """Remember how much there is to be read, to see later whether that was less then."""
        self._look_no_more()
        left = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(again_s, self._looked, again_s, left)

    def _looked(self, again_s: float, left: int) -> None:
        if 0 < left <= self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self._look(again_s)

    def _look_no_more(self) -> None:
        if self._unread:
            self._unread.cancel()


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


def serve(make: Make, *, host: str, port: int) -> None:
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
            host=host,
            port=port,
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
