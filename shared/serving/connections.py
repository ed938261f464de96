"""Connections: what a client may do with one before any request of his is understood.

Who reads nothing of what is said to him is given up: it would pile up.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# How long a client may take nothing of what does not fit into the socket. For who reads steadily
# the system makes room a megabyte at a time: at 40 kB/s, that is twice a minute.
STALLED_S_MAX = 60
ENDING_S_MAX = 0.5  # the same when the service is told to stop


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
