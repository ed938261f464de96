"""Connections: what a client may do with one before any request of his is understood.

uvicorn reads and answers requests. This is what it leaves open to who means harm, or stands still:

    a head           arrives whole within `HEAD_S_MAX`, from connecting, or from its first byte;
                     else `408`, or nothing where nothing of it had come. It has `HEAD_BYTES_MAX`
                     and `HEADERS_MAX` headers; else `431`. So do trailers, and what is between
                     the pieces of a body
    between two      `KEEP_ALIVE_S`, which no byte prolongs that begins no request
    one upon another `PIPELINED_MAX` requests wait for the one in work, with heads no larger all
                     together than one may be, and no body that is long
    an upgrade       is ignored, as HTTP allows: the request is answered
    the last answer  is said to the end, also to who is still sending, as `parting.py` tells
    unread           who takes nothing of what is said to him is given up: it would pile up
    how many         there may be is for `crowd.py` to say

What is told instead of an answer has the JSON shape of `errors.py`. It comes after all answers that
are owed before it, so that nobody takes it for the answer to another request; and it is the last.
"""

import asyncio
import math
import re
import secrets
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from shared.serving.crowd import Crowd
from shared.serving.errors import Problem, answer
from shared.serving.parting import Line
from shared.serving.room import AGAIN_S

HEAD_S_MAX = 10.0
# The longest head of ours has some 4 KiB: a name of 100 characters in both stream and
# Median-Worker, 20 quantiles, a key, a token. The rest is for cookies and proxies.
# Without limits, of 64 KiB of a head as much was held; 1.6 MiB, where its headers are shortest.
HEAD_BYTES_MAX = 2**14
HEADERS_MAX = 100
PIECE_BYTES = 2**14  # that are parsed at once: at most so many beyond any limit are held
PIPELINED_MAX = 16
TRANSFER = b"transfer-encoding"
# To a route, what ends in a newline is what it would be without; to a proxy it is another address.
CONTROL = re.compile(rb"%(?:[01][0-9A-Fa-f]|7[Ff])")

# How long a client may take nothing of what does not fit into the socket. For who reads steadily
# the system makes room a megabyte at a time: at 40 kB/s, that is twice a minute.
STALLED_S_MAX = 60
ENDING_S_MAX = 0.5  # the same when the service is told to stop


class Connection(HttpToolsProtocol):
    """In work while it has cycles, which is uvicorn's word for a request and its answer."""

    _unread: asyncio.TimerHandle | None = None
    _ends = False

    def __init__(
        self,
        config: Config,
        server_state: Crowd,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._crowd = server_state
        self._cycles: list[RequestResponseCycle] = []  # whose answers are owed, in this order
        self._head_by = math.inf  # the time by which a head must be whole, once that was set
        self._held = 0  # bytes read since a head was whole, or something of a body came
        self._waiting = 0  # bytes of heads that wait for the answer to another
        self._refused: Problem | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._line = Line(transport, self.loop, self._close)
        super().connection_made(cast("asyncio.Transport", self._line))
        self._head_by = self.loop.time() + HEAD_S_MAX
        if self._crowd.has_room():
            self._crowd.idle[self] = None
        else:
            self._refuse(_overloaded())

    def connection_lost(self, exc: Exception | None) -> None:
        """Every request hears of it; uvicorn would tell the newest alone.

        And nothing holds it any more: uvicorn's timer would, for as long as it might have idled.
        """
        self._line.lost()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._look_no_more()
        self._crowd.leave(self)
        for cycle in self._cycles:
            _disconnect(cycle)

    # What comes

    def data_received(self, data: bytes) -> None:
        """Lets the time go on that it may idle, where uvicorn would stop it."""
        if self._line.lingers:
            self._line.drop(len(data))
        elif len(data) > PIECE_BYTES:
            for start in range(0, len(data), PIECE_BYTES):
                self.data_received(data[start : start + PIECE_BYTES])
        elif self._refused is None:
            self._parse(data)
        elif self._cycles:
            self.flow.pause_reading()  # again, as whoever waits for a body lets it go on

    def _parse(self, data: bytes) -> None:
        self._held += len(data)
        again = b""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            again = self._without_upgrade() + data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self._refuse(_problem(error))
        else:
            if self._too_large():
                self._refuse(_head_too_large())
        if again:
            self.data_received(again)

    def _too_large(self) -> bool:
        return self._held > HEAD_BYTES_MAX or len(self.headers or ()) > HEADERS_MAX

    def _should_upgrade(self) -> bool:
        """Then uvicorn makes no request of it, and the parser stops behind its head."""
        return True

    def _without_upgrade(self) -> bytes:
        """The head again, for a parser that does not take its body for another protocol's."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        self.parser = httptools.HttpRequestParser(self)
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if self.headers[-1][0] == TRANSFER and value.strip().lower() != b"chunked":
            what = "a body is sent as it is, or chunked, and not encoded besides"
            raise Problem(400, "malformed", what)

    def on_headers_complete(self) -> None:
        if self._too_large():
            raise _head_too_large()
        if CONTROL.search(self.url.partition(b"?")[0]):
            raise Problem(400, "malformed", "there are no control characters in an address")
        self._waiting = self._waiting + self._held if self._cycles else 0
        if len(self._cycles) > PIPELINED_MAX or self._waiting > HEAD_BYTES_MAX:
            what = (
                f"{PIPELINED_MAX} requests may wait for another, their heads {HEAD_BYTES_MAX} bytes"
            )
            raise Problem(429, "too_many_requests", what)
        self._held = 0
        super().on_headers_complete()
        if not self.parser.should_upgrade():
            self._begin()
        elif self.parser.get_method() == b"CONNECT":
            raise Problem(400, "malformed", "CONNECT is for proxies, and this is none")

    def _begin(self) -> None:
        """A request, whose answer is owed from now on.

        Trailers are none of its headers, as it may be answered before they come, or not.
        """
        self.headers = []
        self._head_by = math.inf
        self._unset_keepalive_if_required()
        if self._cycles:
            self.flow.resume_reading()  # which uvicorn stops: then nobody would hear him hang up
        else:
            self._crowd.idle.pop(self, None)
        self._cycles.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._held = 0
        super().on_body(body)
        if len(self._cycles) > 1:
            self.flow.pause_reading()  # what waits for another's answer holds no more than came

    def on_message_complete(self) -> None:
        """Also where its answer did not wait for it, which uvicorn does not note."""
        super().on_message_complete()
        if self._newest:
            self._newest.more_body = False

    def on_response_complete(self) -> None:
        del self._cycles[0]
        super().on_response_complete()
        if self._cycles:
            return
        if self._refused is None:
            self._crowd.idle[self] = None
        else:
            self._say(self._refused)

    # What is told instead of an answer

    def _refuse(self, problem: Problem) -> None:
        """Once all that is owed was said, but for a request whose own body is at fault."""
        self._refused = problem
        self._crowd.given_up[problem.code] += 1
        if self._cycles and self._cycles[-1].more_body:
            self._break_off()
        if self._cycles:
            self.flow.pause_reading()
        else:
            self._say(problem)

    def _break_off(self) -> None:
        """The newest request is refused itself; if its answer has begun, one can but end."""
        cycle = self._cycles.pop()
        if self.pipeline:
            self.pipeline.popleft()
        elif cycle.response_started:
            self.transport.abort()
        _disconnect(cycle)

    def _say(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        response = answer(problem)
        headers = (name + b": " + value + b"\r\n" for name, value in response.raw_headers)
        self.transport.write(
            b"".join(
                [
                    STATUS_LINE[response.status_code],
                    *headers,
                    b"connection: close\r\n\r\n",
                    bytes(response.body),
                ]
            )
        )
        self.transport.close()

    # How it ends

    def _close(self) -> None:
        """At once if nothing more is to be expected, or its place is needed."""
        if self._still_sends() and self not in self._crowd.leaving:
            self._crowd.parts(self)
            self._forget()
            self.flow.resume_reading()
            self._line.linger()
        else:
            self._line.end()

    def _still_sends(self) -> bool:
        """As far as one knows: a body is not whole, or something came behind the last request."""
        more_body = self._newest and self._newest.more_body
        return bool(more_body or self.pipeline or self._refused or self._in_head)

    def _forget(self) -> None:
        """What was heard and is never answered."""
        for cycle in self._cycles[1:]:
            _disconnect(cycle)
        self.pipeline.clear()
        if self._newest:
            self._newest.body = bytearray()

    # What the crowd asks

    @property
    def _in_head(self) -> bool:
        """Something of a head has come, and not all of it: no request was made of it."""
        return self.scope is not (self._newest and self._newest.scope)

    @property
    def _newest(self) -> RequestResponseCycle | None:
        return self.cycle

    def look(self, now: float) -> None:
        """The time of a later head begins when it is seen: that costs a request nothing."""
        if self._cycles or self.transport.is_closing():
            return
        if self._head_by == math.inf and self._in_head:
            self._head_by = now + HEAD_S_MAX
        if now >= self._head_by:
            self._late()

    def _late(self) -> None:
        self._head_by = math.inf
        if self._in_head:
            what = f"the head of a request did not arrive within {HEAD_S_MAX:g} s"
            self._refuse(Problem(408, "too_slow", what))
        else:
            self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        if not self._in_head:
            super().timeout_keep_alive_handler()

    def make_room(self) -> None:
        if self._in_head and not self.transport.is_closing():
            self._refuse(_overloaded())
        else:
            self.give_up("idle")

    def give_up(self, why: str) -> None:
        self._crowd.given_up[why] += 1
        self.transport.abort()

    def unread(self) -> int:
        return self.transport.get_write_buffer_size()

    # What goes

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look(STALLED_S_MAX)
        self._crowd.left_unread(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._crowd.unread.pop(self, None)
        if not self._ends:
            self._look_no_more()

    def shutdown(self) -> None:
        self._line.hurry(ENDING_S_MAX)
        super().shutdown()
        self._ends = True
        self._look(ENDING_S_MAX)

    def _look(self, again_s: float) -> None:
        """Remember how much there is to be read, to see later whether that was less then."""
        self._look_no_more()
        self._unread = self.loop.call_later(again_s, self._looked, again_s, self.unread())

    def _looked(self, again_s: float, left: int) -> None:
        if 0 < left <= self.unread():
            self.give_up("unread")
        else:
            self._look(again_s)

    def _look_no_more(self) -> None:
        if self._unread:
            self._unread.cancel()


def _disconnect(cycle: RequestResponseCycle) -> None:
    """As it is never answered now, it tells nobody of an answer; so it holds no connection."""
    cycle.disconnected = True
    cycle.on_response = lambda: None
    cycle.message_event.set()


def _overloaded() -> Problem:
    again = {"retry-after": str(1 + secrets.randbelow(AGAIN_S))}
    what = "as many are connected as may be: nothing was taken, come again later"
    return Problem(503, "overloaded", what, headers=again)


def _head_too_large() -> Problem:
    what = f"the head of a request has at most {HEAD_BYTES_MAX} bytes and {HEADERS_MAX} headers"
    return Problem(431, "head_too_large", what)


def _problem(error: httptools.HttpParserError) -> Problem:
    """Ours, if it was raised while parsing; else what the parser says, which is a fixed text."""
    if isinstance(error.__context__, Problem):
        return error.__context__
    why = "its address is none" if error.__context__ else str(error)
    return Problem(400, "malformed", f"this is no request of HTTP/1.1: {why}")
