"""Parting: an answer that is the last reaches also a client who is still sending.

A socket that is closed while something lies in it unread is reset, and the reset overtakes what was
said last: of 20 clients with 1 MB of a body behind a wrong token, 19 were never told `401`. So (RFC
9112, 9.6) a connection whose client may still be sending says that it says no more, where its
transport can, which TLS cannot; and it lingers: what comes is dropped, until the client ends too,
for `LINGER_S_MAX` and `LINGER_BYTES_MAX`, whatever comes first.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

LINGER_S_MAX = 2.0
# More than most send before they listen: values of 16 MiB, in the time of 64 Mbit/s.
LINGER_BYTES_MAX = 2**24


class Line:
    """A transport, for those who would close it: whether it lingers is for `closes` to say."""

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        closes: Callable[[], None],
    ) -> None:
        self._transport, self._loop, self._closes = transport, loop, closes
        self._s_max, self._left = LINGER_S_MAX, LINGER_BYTES_MAX
        self._until: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        """All else is as with the transport itself."""
        return getattr(self._transport, name)

    @property
    def lingers(self) -> bool:
        return self._until is not None

    def is_closing(self) -> bool:
        return self.lingers or self._transport.is_closing()

    def close(self) -> None:
        if not self.is_closing():
            self._closes()

    def linger(self) -> None:
        if self._transport.can_write_eof():
            with suppress(OSError):  # it is broken already
                self._transport.write_eof()
        self._until = self._loop.call_later(self._s_max, self.end)

    def drop(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            self.end()

    def hurry(self, seconds: float) -> None:
        """From now on, and whoever lingers already, at most so long."""
        self._s_max = seconds
        if self._until:
            self._until.cancel()
            self._until = self._loop.call_later(seconds, self.end)

    def end(self) -> None:
        """At once, with what was not heard."""
        if self._until:
            self._until.cancel()
        self._transport.close()

    def lost(self) -> None:
        """There is nothing more to close; and nothing of this holds whose line it was."""
        if self._until:
            self._until.cancel()
        self._closes = self._transport.close
