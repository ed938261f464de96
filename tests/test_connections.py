"""Connections: whoever stalls, floods or holds many of them keeps nobody else from being answered.

Most of it is played by hand, over a wire that is none, where time is what the test says. What
sockets and processes do is tried at the end.
"""

import asyncio
import gc
import json
import logging
import re
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from weakref import ref

import httpx
import numpy as np
import pytest
import uvicorn
import uvloop
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.serving import crowd as crowd_of
from shared.serving.connections import (
    HEAD_BYTES_MAX,
    HEAD_S_MAX,
    HEADERS_MAX,
    PIECE_BYTES,
    PIPELINED_MAX,
    Connection,
)
from shared.serving.crowd import BACKLOG, BACKLOGS, FILES_MAX, TELL_S, Crowd, afforded
from shared.serving.metrics import OfCrowd
from shared.serving.parting import LINGER_BYTES_MAX
from shared.serving.server import KEEP_ALIVE_S, Server
from tests.processes import OCTETS, SOON_S, Processes, until
from tests.test_overload import metric

HEAD = b"GET /%b HTTP/1.1\r\nhost: here\r\n"
BODY = b"POST /read HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n"
CHUNKED = b"POST /read HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"


def get(path: str = "") -> bytes:
    return HEAD % path.encode() + b"\r\n"


class Wire(asyncio.Transport):
    """A transport that is none: what was written, and what was done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.connection: Any = None
        self.written, self.unread = b"", 0
        self.closing = self.closed = self.aborted = self.paused = False
        self.can_say_so = True  # that nothing more is said; a client then ends too
        self.lingers = False  # until all of it is read

    def write(self, data: Any) -> None:
        assert not self.closing, "this goes nowhere"
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unread

    def can_write_eof(self) -> bool:
        return self.can_say_so

    def write_eof(self) -> None:
        assert not self.closing
        self.closing = True
        if not self.lingers:
            asyncio.get_running_loop().call_soon(self.close)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closing = self.closed = True
            if not self.lingers:
                self.lose()

    def lose(self) -> None:
        asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def breaks(self, error: Exception | None) -> None:
        """By its client: he hangs up, or it is reset."""
        self.closing = self.closed = True
        self.connection.connection_lost(error)
        self.connection = None

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    # As a test sees it

    @property
    def statuses(self) -> list[int]:
        return [int(one) for one in re.findall(rb"HTTP/1.1 (\d+) ", self.written)]

    @property
    def error(self) -> str:
        """The code of the last answer, which is of the one shape; and it is the last."""
        head, _, body = self.written[self.written.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
        assert b"\r\nconnection: close" in head
        assert b"\r\ncontent-type: application/json" in head
        assert b"\r\ncontent-length: %d" % len(body) in head
        told = json.loads(body)["error"]
        assert set(told) == {"code", "message"}
        assert self.closing
        code: str = told["code"]
        return code


class Desk:
    """An app: `/read` tells how long a body was, `/wait` waits, `/told` goes on for ever."""

    def __init__(self) -> None:
        self.go_on, self.gone = asyncio.Event(), list[str]()
        self.heads = list[Any]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path, said = scope["path"], b"here"
        self.heads.append(scope["headers"])
        if path == "/wait":
            await self.go_on.wait()
        if path == "/told":
            await self._answer(send, b": here\n\n", more=True)
        if path == "/no":
            await self._answer(send, said, last=True)
            return
        if path in ("/told", "/hangs", "/read"):
            said = await self._read(path, receive)
        await self._answer(send, said, begun=path == "/told")

    async def _read(self, path: str, receive: Any) -> bytes:
        size, more = 0, True
        while more or path != "/read":
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.append(path)
                break
            size, more = size + len(message["body"]), message["more_body"]
        return b"%d" % size

    async def _answer(
        self,
        send: Any,
        said: bytes,
        *,
        more: bool = False,
        begun: bool = False,
        last: bool = False,
    ) -> None:
        if not begun:
            headers = [] if more else [(b"content-length", b"%d" % len(said))]
            headers += [(b"connection", b"close")] * last
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said, "more_body": more})


class House:
    """The desk, and wires to it."""

    def __init__(self, connections_max: int) -> None:
        self.desk, self.crowd = Desk(), Crowd(connections_max)
        self.config = uvicorn.Config(
            self.desk, log_config=None, access_log=False, lifespan="off", ws="none",
            timeout_keep_alive=KEEP_ALIVE_S,
        )  # fmt: skip
        self.config.load()

    async def wire(self, *pieces: bytes) -> Wire:
        wire = Wire()
        wire.connection = Connection(self.config, self.crowd, {})
        wire.connection.connection_made(wire)
        await self.hears(wire, *pieces)
        return wire

    async def hears(self, wire: Wire, *pieces: bytes) -> None:
        for piece in pieces:
            wire.connection.data_received(piece)
        await pause()

    async def after(self, seconds: float) -> None:
        """The look at them that comes then."""
        self.crowd.look(asyncio.get_running_loop().time() + seconds)
        await pause()


async def pause() -> None:
    """Until all that can go on has done so."""
    for _ in range(20):
        await asyncio.sleep(0)


def played(story: Callable[[House], Awaitable[None]], connections_max: int = 10) -> None:
    async def told() -> None:
        house = House(connections_max)
        await story(house)
        house.desk.go_on.set()
        for connection in list(house.crowd.connections):
            connection.transport.close()
        await pause()
        assert (house.crowd.connections, house.crowd.tasks) == (set(), set())
        assert (list(house.crowd.idle), house.crowd.unread) == ([], {})

    asyncio.run(told())


# A head has a time


def test_who_connects_and_asks_nothing_is_let_go_in_silence() -> None:
    async def story(house: House) -> None:
        wire = await house.wire()
        await house.after(HEAD_S_MAX - 1)
        assert not wire.closing
        await house.after(HEAD_S_MAX + 1)
        assert (wire.closing, wire.written, house.crowd.given_up) == (True, b"", {})

    played(story)


def test_a_head_that_does_not_end_is_too_slow_however_steadily_it_comes() -> None:
    async def story(house: House) -> None:
        wire = await house.wire(b"GET / HT")
        for byte in range(int(HEAD_S_MAX)):
            await house.hears(wire, b"TP/1.1\r\nhost: here"[byte : byte + 1])
            await house.after(byte)
        assert not wire.closing
        await house.after(HEAD_S_MAX + 1)
        assert (wire.statuses, wire.error) == ([408], "too_slow")

    played(story)


def test_the_time_of_a_later_head_begins_when_it_is_seen() -> None:
    async def story(house: House) -> None:
        wire = await house.wire(get(), get()[:9])
        assert wire.statuses == [200]
        await house.after(50)
        await house.after(50 + HEAD_S_MAX - 1)
        assert not wire.closing
        await house.after(50 + HEAD_S_MAX)
        assert (wire.statuses, wire.error) == ([200, 408], "too_slow")
        await house.after(50 + 3 * HEAD_S_MAX)
        assert wire.statuses == [200, 408]

    played(story)


def test_a_head_that_ends_in_time_is_answered_and_a_new_time_begins_with_the_next() -> None:
    async def story(house: House) -> None:
        wire = await house.wire(get()[:9])
        await house.after(HEAD_S_MAX - 1)
        await house.hears(wire, get()[9:])
        assert wire.statuses == [200]
        await house.after(3 * HEAD_S_MAX)
        assert not wire.closing

    played(story)


def test_while_a_request_waits_for_its_answer_the_head_behind_it_may_wait_too() -> None:
    async def story(house: House) -> None:
        wire = await house.wire(get("wait"), get()[:9])
        await house.after(60)
        await house.after(90)
        house.desk.go_on.set()
        await pause()
        await house.after(91)
        await house.hears(wire, get()[9:])
        assert wire.statuses == [200, 200]

    played(story)


@pytest.mark.parametrize("trickle", [b"\r\n", b"x"])
def test_no_byte_that_begins_no_request_prolongs_the_time_between_two(trickle: bytes) -> None:
    async def story(house: House) -> None:
        wire = await house.wire((BODY % 1000).replace(b"read", b"rest"))
        assert wire.statuses == [200]
        if trickle != b"x":
            await house.hears(wire, bytes(1000))
        ends = wire.connection.timeout_keep_alive_task
        for _ in range(100):
            await house.hears(wire, trickle)
        assert wire.connection.timeout_keep_alive_task is ends
        assert not ends.cancelled()
        wire.connection.timeout_keep_alive_handler()
        assert (wire.closing, wire.statuses) == (True, [200])

    played(story)


def test_the_time_between_two_ends_with_the_next_and_not_during_its_head() -> None:
    async def story(house: House) -> None:
        wire = await house.wire(get(), get("wait")[:9])
        ends = wire.connection.timeout_keep_alive_task
        wire.connection.timeout_keep_alive_handler()
        assert not wire.closing
        await house.hears(wire, get("wait")[9:])
        assert ends.cancelled()

    played(story)


# A head has a size


def header(size: int) -> bytes:
    return b"x: " + b"y" * (size - 5) + b"\r\n"


def test_the_largest_head_is_taken() -> None:
    async def story(house: House) -> None:
        head = HEAD % b"" + header(HEAD_BYTES_MAX - len(get()))
        for cut in (1, 9, 5000, HEAD_BYTES_MAX - 1):
            wire = await house.wire((head + b"\r\n")[:cut], (head + b"\r\n")[cut:])
            assert (wire.statuses, wire.closing) == ([200], False)
        wire = await house.wire(HEAD % b"" + b"a:\r\n" * (HEADERS_MAX - 1) + b"\r\n")
        assert wire.statuses == [200]

    played(story)


FLOODS = {
    "an address": b"GET /" + b"x" * 10**6,
    "a name": HEAD % b"" + b"x" * 10**6,
    "a value": HEAD % b"" + b"x: " + b"y" * 10**6,
    "headers": HEAD % b"" + b"a:\r\n" * (HEADERS_MAX + 1),
    "headers, to the end": HEAD % b"" + b"a:\r\n" * HEADERS_MAX + b"\r\n",
    "nothing": b"\r\n" * 10**6,
    "an extension of a piece of a body": CHUNKED + b"1;" + b"x" * 10**6,
    "trailers": CHUNKED + b"1\r\nx\r\n0\r\n" + b"a:\r\n" * (HEADERS_MAX + 2),
    "a trailer": CHUNKED + b"1\r\nx\r\n0\r\nx: " + b"y" * 10**6,
    "what asks for an upgrade": get()[:-2] + b"connection: upgrade\r\nupgrade: " + b"x" * 10**6,
}


@pytest.mark.parametrize("size", [7, 1460, 2**18])
@pytest.mark.parametrize("flood", FLOODS)
def test_a_head_that_is_too_large_is_refused_and_no_more_is_read(flood: str, size: int) -> None:
    async def story(house: House) -> None:
        given, wire, read = FLOODS[flood], await house.wire(), 0
        for start in range(0, len(given), size):
            if not wire.closing:
                read = start + size
                wire.connection.data_received(given[start : start + size])
        await pause()
        assert (wire.statuses, wire.error) == ([431], "head_too_large")
        assert read <= HEAD_BYTES_MAX + PIECE_BYTES + size
        assert house.crowd.given_up == {"head_too_large": 1}

    played(story)


def test_a_large_body_is_no_head() -> None:
    async def story(house: House) -> None:
        wire = await house.wire(BODY % 10**6 + bytes(10**6) + get())
        assert wire.written.endswith(b"here")
        assert wire.statuses == [200, 200]
        small = b"1\r\nx\r\n" * 10_000
        wire = await house.wire(CHUNKED + small, b"0\r\n\r\n")
        assert wire.written.endswith(b"10000")

    played(story)


# One upon another


def test_requests_are_answered_in_order_and_too_many_at_once_are_refused_behind_them() -> None:
    async def story(house: House) -> None:
        few = await house.wire(get("wait") + get() * PIPELINED_MAX)
        many = await house.wire(get("wait") + get() * (PIPELINED_MAX + 1) * 50)
        assert (few.paused, many.paused) == (False, True)
        await house.hears(many, get() * 1000)
        house.desk.go_on.set()
        await pause()
        await pause()
        answered = [200] * (1 + PIPELINED_MAX)
        assert (few.statuses, few.closing, few.paused) == (answered, False, False)
        assert (many.statuses, many.error) == ([*answered, 429], "too_many_requests")

    played(story)


def test_heads_that_wait_for_the_answer_to_another_take_no_more_than_one_may() -> None:
    """Each was 15 KiB, and 16 of them half a megabyte, for as long as nobody reads an answer."""
    large = HEAD % b"" + header(HEAD_BYTES_MAX - 1000) + b"\r\n"

    async def story(house: House) -> None:
        wire = await house.wire(get("wait"))
        await house.hears(wire, large, large)
        house.desk.go_on.set()
        await pause()
        assert (wire.statuses, wire.error) == ([200, 200, 429], "too_many_requests")
        one_by_one = await house.wire(large)
        for _ in range(2):
            await house.hears(one_by_one, large)
        assert one_by_one.statuses == [200, 200, 200]

    played(story)


def test_a_body_that_waits_for_the_answer_to_another_is_read_no_further() -> None:
    async def story(house: House) -> None:
        wire = await house.wire(get("wait") + BODY % 100)
        assert not wire.paused
        await house.hears(wire, bytes(50))
        assert wire.paused
        house.desk.go_on.set()
        await pause()
        assert not wire.paused
        await house.hears(wire, bytes(50))
        assert wire.statuses == [200, 200]
        assert wire.written.endswith(b"100")

    played(story)


def test_who_hangs_up_is_gone_for_every_request_of_his() -> None:
    async def story(house: House) -> None:
        wire = await house.wire(get("told"), get("read"), get("wait"))
        assert house.desk.gone == []
        wire.close()
        await pause()
        assert (house.desk.gone, house.crowd.tasks) == (["/told"], set())

    played(story)


UNDER_WAY = {
    "nothing": b"",
    "a head": get()[:9],
    "what was answered": get(),
    "a head behind what was answered": get() + get()[:9],
    "an answer": get("told"),
    "a pipeline": get("hangs") + get() * 3,
    "a body": BODY % 100 + b"x",
}


@pytest.mark.parametrize("error", [None, ConnectionResetError()], ids=["hangs up", "resets"])
@pytest.mark.parametrize("said", UNDER_WAY)
def test_nothing_holds_a_connection_that_is_lost(said: str, error: Exception | None) -> None:
    """It is gone at once: who comes and goes would be faster than what collects garbage."""

    async def story(house: House) -> None:
        wire = await house.wire(UNDER_WAY[said])
        wire.connection.pause_writing()
        held = ref(wire.connection)
        wire.breaks(error)
        del wire
        await pause()
        assert held() is None

    gc.disable()
    try:
        played(story)
    finally:
        gc.enable()


def test_a_refusal_is_never_taken_for_the_answer_to_another_request() -> None:
    async def story(house: House) -> None:
        wire = await house.wire(get("wait") + b"rubbish\r\n\r\n")
        await house.hears(wire, get())
        assert (wire.statuses, wire.paused) == ([], True)
        house.desk.go_on.set()
        await pause()
        assert (wire.statuses, wire.error) == ([200, 400], "malformed")

    played(story)


def test_behind_a_refusal_nothing_more_is_read() -> None:
    """Though a request that waits for more of its own lets the reading go on, when it begins."""

    async def story(house: House) -> None:
        wire = await house.wire(get("told") + b"rubbish\r\n\r\n")
        assert not wire.paused
        await house.hears(wire, get())
        assert (wire.paused, len(house.desk.heads)) == (True, 1)

    played(story)


def test_where_an_answer_says_that_it_is_the_last_no_refusal_follows() -> None:
    async def story(house: House) -> None:
        last = (HEAD % b"wait") + b"connection: close\r\n\r\n"
        wire = await house.wire(last + b"rubbish\r\n\r\n")
        house.desk.go_on.set()
        await pause()
        assert (wire.statuses, wire.closing) == ([200], True)

    played(story)


def test_a_body_that_is_none_is_refused_before_it_is_understood() -> None:
    async def story(house: House) -> None:
        wire = await house.wire(CHUNKED)
        wire.lingers = True
        await house.hears(wire, b"4\r\nabcd\r\nrubbish")
        assert (wire.statuses, wire.error) == ([400], "malformed")
        assert house.desk.gone == ["/read"]
        wire.lose()

    played(story)


def test_a_body_that_is_none_behind_another_request_is_refused_after_its_answer() -> None:
    async def story(house: House) -> None:
        wire = await house.wire(get("wait") + CHUNKED + b"rubbish")
        house.desk.go_on.set()
        await pause()
        assert (wire.statuses, wire.error) == ([200, 400], "malformed")
        assert len(house.desk.heads) == 1

    played(story)


def test_where_an_answer_has_begun_a_body_that_is_none_ends_it() -> None:
    async def story(house: House) -> None:
        wire = await house.wire(CHUNKED.replace(b"read", b"told"))
        await house.hears(wire, b"rubbish")
        assert (wire.statuses, wire.aborted, house.desk.gone) == ([200], True, ["/told"])

    played(story)


# What is none


RUBBISH = {
    "nothing known": b"\0\1\2\r\n\r\n",
    "the beginning of TLS": bytes.fromhex("16030100c8010000c40303") + bytes(100),
    "the beginning of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a zero byte in an address": b"GET /a\0b HTTP/1.1\r\n\r\n",
    "a zero byte in a header": HEAD % b"" + b"x: a\0b\r\n\r\n",
    "an address beyond ASCII": "GET /é HTTP/1.1\r\n\r\n".encode(),
    "an address without a path": b"GET http://here HTTP/1.1\r\n\r\n",
    "an address of no port": b"GET http://here:99999/ HTTP/1.1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
    "a length and pieces": CHUNKED[:-2] + b"content-length: 3\r\n\r\n0\r\n\r\n",
    "a length below zero": b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    "a length beyond all": b"POST / HTTP/1.1\r\ncontent-length: " + b"9" * 30 + b"\r\n\r\n",
    "a piece of no size": CHUNKED + b"zz\r\n",
    "a piece beyond all": CHUNKED + b"f" * 17 + b"\r\n",
    "a way through": b"CONNECT there:443 HTTP/1.1\r\nhost: there\r\n\r\n",
    "a way through, by path": b"CONNECT /there HTTP/1.1\r\nhost: there\r\n\r\n",
    "an answer": b"HTTP/1.1 200 OK\r\n\r\n",
    "a newline behind an address": b"GET /read%0a HTTP/1.1\r\n\r\n",
    "a zero in an address": b"GET /%00 HTTP/1.1\r\n\r\n",
    "a deletion in an address": b"GET /a%7Fb?x HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_what_is_no_request_is_told_so_in_the_one_shape(rubbish: str) -> None:
    async def story(house: House) -> None:
        wire = await house.wire(RUBBISH[rubbish])
        assert (wire.statuses, wire.error) == ([400], "malformed")

    played(story)


def test_what_a_query_means_is_for_others_to_say() -> None:
    async def story(house: House) -> None:
        assert (await house.wire(get("?stream=a%0ab%7f"))).statuses == [200]

    played(story)


@pytest.mark.parametrize("trailers", [b"authorization: x\r\n\r\n", b"a: b\r\nc: d\r\n\r\n"])
def test_trailers_are_no_headers_also_where_they_come_at_once(trailers: bytes) -> None:
    async def story(house: House) -> None:
        wire = await house.wire(CHUNKED + b"4\r\nabcd\r\n0\r\n" + trailers)
        assert wire.statuses == [200]
        assert [name for name, _ in house.desk.heads[0] if name in {b"authorization", b"a"}] == []

    played(story)


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"chunked, chunked", b"gzip"])
def test_a_body_that_is_encoded_besides_is_refused(coding: bytes) -> None:
    async def story(house: House) -> None:
        head = b"POST /read HTTP/1.1\r\ntransfer-encoding: %b\r\n\r\n" % coding
        wire = await house.wire(head)
        assert (wire.statuses, wire.error) == ([400], "malformed")
        assert house.desk.heads == []

    played(story)


UPGRADE = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAA\r\n\r\n"


def test_an_upgrade_is_ignored_and_the_body_of_its_request_is_its_body() -> None:
    """Else it would be lost, or be read as requests that nobody made."""

    async def story(house: House) -> None:
        inner = get("hidden")
        asked = (BODY % len(inner))[:-2] + UPGRADE + inner
        for cut in range(1, len(asked), 7):
            house.desk.heads.clear()
            wire = await house.wire(asked[:cut], asked[cut:] + get()[:-2] + UPGRADE, get())
            assert wire.statuses == [200, 200, 200]
            assert len(house.desk.heads) == 3
            assert b"\r\n\r\n%dHTTP" % len(inner) in wire.written
        assert (b"http2-settings", b"AAA") in house.desk.heads[0]

    played(story, 1000)


def test_an_upgrade_of_rubbish_is_rubbish() -> None:
    async def story(house: House) -> None:
        wire = await house.wire(b"GET http://here HTTP/1.1\r\n" + UPGRADE)
        assert (wire.statuses, wire.error) == ([400], "malformed")

    played(story)


@settings(max_examples=150, deadline=None, database=None)
@seed(1)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from(
                [
                    *RUBBISH.values(), get(), get("read"), get()[:-2] + UPGRADE, CHUNKED,
                    BODY % 3, b"abc", b"1\r\nx\r\n", b"0\r\n", b"\r\n", b"x: y\r\n", get()[:9],
                ]
            ),
        ),
        max_size=8,
    )
)  # fmt: skip
def test_any_bytes_have_answers_or_an_end(pieces: list[bytes]) -> None:
    async def story(house: House) -> None:
        wire = await house.wire()
        for piece in pieces:
            if not wire.closing:
                await house.hears(wire, piece)
        await house.after(HEAD_S_MAX + 1)
        await house.after(2 * HEAD_S_MAX + 2)
        assert set(wire.statuses) <= {200, 400, 408}
        assert wire.closing or wire.statuses or house.crowd.tasks
        if wire.statuses and wire.statuses[-1] != 200:
            assert wire.error in ("malformed", "too_slow")

    played(story)


# The last answer


REFUSED = b"POST /no HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n"
MUCH = 10**8


async def lingering(house: House, said: bytes = REFUSED % MUCH, *, tls: bool = False) -> Wire:
    wire = await house.wire()
    wire.lingers, wire.can_say_so = True, not tls
    await house.hears(wire, said)
    assert wire.statuses
    assert (wire.closed, wire.closing) == (False, not tls)
    return wire


@pytest.mark.parametrize("tls", [False, True])
def test_behind_the_last_answer_what_comes_is_dropped_and_not_without_end(tls: bool) -> None:
    async def story(house: House) -> None:
        wire = await lingering(house, get("wait") + REFUSED % MUCH, tls=tls)
        for _ in range(LINGER_BYTES_MAX // 2**16):
            wire.connection.data_received(bytes(2**16))
        assert (wire.closed, wire.paused, len(wire.connection.cycle.body)) == (False, False, 0)
        wire.connection.data_received(b"x")
        assert (wire.closed, wire.aborted, len(house.desk.heads)) == (True, False, 2)
        wire.lose()

    async def first(house: House) -> None:
        house.desk.go_on.set()
        await story(house)

    played(first)


def test_behind_the_last_answer_nobody_lingers_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.serving.parting.LINGER_S_MAX", 0.01)

    async def story(house: House) -> None:
        wire = await lingering(house)
        while not wire.closed:
            await asyncio.sleep(0.01)
        wire.lose()

    played(story)


def test_at_the_end_of_the_service_nobody_lingers_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.serving.connections.ENDING_S_MAX", 0.01)
    monkeypatch.setattr("shared.serving.parting.LINGER_S_MAX", 3600)

    async def story(house: House) -> None:
        before, after = await lingering(house), await house.wire(get("wait") + b"rubbish\r\n\r\n")
        after.lingers = True
        for wire in (before, after):
            wire.connection.shutdown()
        house.desk.go_on.set()
        await pause()
        assert (before.closing, after.statuses) == (True, [200])
        async with asyncio.timeout(SOON_S):
            while not (before.closed and after.closed):
                await asyncio.sleep(0.01)
        for wire in (before, after):
            wire.lose()

    played(story)


def test_who_was_heard_to_the_end_is_let_go_at_once() -> None:
    async def story(house: House) -> None:
        for said in (REFUSED % 0, REFUSED % 3 + b"abc"):
            wire = await house.wire()
            wire.lingers = True
            await house.hears(wire, said)
            assert (wire.statuses, wire.closed) == ([200], True)
            wire.lose()
        late = await house.wire((BODY % 3).replace(b"read", b"here"))
        await house.hears(late, b"abc")
        late.connection.timeout_keep_alive_handler()
        assert (late.statuses, late.closed) == ([200], True)

    played(story)


def test_who_lingers_makes_room_first_and_lets_in_no_more_than_may_be() -> None:
    async def story(house: House) -> None:
        idle, lingers = await house.wire(get()), await lingering(house)
        works = await house.wire(get("wait"))
        assert (idle.closing, lingers.aborted, works.closing) == (False, True, False)
        lingers.lose()
        await house.hears(idle, get("wait"))
        for _ in range(3):
            turned_away = await house.wire()
            turned_away.lingers = True
            assert (turned_away.statuses, turned_away.error) == ([503], "overloaded")
        house.desk.go_on.set()
        await pause()
        assert (await house.wire(get())).statuses == [200]

    played(story, 2)


def test_requests_behind_the_last_answer_are_forgotten() -> None:
    async def story(house: House) -> None:
        wire = await lingering(house, REFUSED % 0 + get() * 3)
        assert (wire.statuses, len(house.desk.heads)) == ([200], 1)
        assert (wire.connection.cycle.disconnected, len(wire.connection.pipeline)) == (True, 0)
        wire.connection.transport.abort()
        wire.lose()

    played(story)


def test_a_line_that_is_broken_already_is_closed_all_the_same() -> None:
    async def story(house: House) -> None:
        wire = await house.wire()
        wire.write_eof = MagicMock(side_effect=OSError)  # type: ignore[method-assign]
        await house.hears(wire, REFUSED % MUCH)
        wire.breaks(ConnectionResetError())

    played(story)


# How many there may be


def test_for_one_more_the_one_that_has_idled_longest_makes_room() -> None:
    async def story(house: House) -> None:
        first, second, third = await house.wire(get()), await house.wire(), await house.wire()
        await house.hears(first, get())
        fourth = await house.wire(get())
        assert [one.closing for one in (first, second, third, fourth)] == [
            False,
            True,
            False,
            False,
        ]
        await house.hears(third, get())
        fifth = await house.wire(get())
        assert (first.closing, third.closing, fifth.statuses) == (True, False, [200])
        assert second.written == b""
        assert house.crowd.given_up == {"idle": 2}

    played(story, 3)


def test_who_makes_room_in_the_middle_of_a_head_is_told_so() -> None:
    async def story(house: House) -> None:
        half = await house.wire(get()[:9])
        half.lingers = True
        assert (await house.wire(get())).statuses == [200]
        assert half.closed
        assert (half.statuses, half.error) == ([503], "overloaded")
        assert b"\r\nretry-after: " in half.written
        await house.hears(half, get()[9:])
        assert half.statuses == [503]
        half.lose()

    played(story, 1)


def test_where_all_are_in_work_one_more_is_told_to_come_again() -> None:
    async def story(house: House) -> None:
        works = [await house.wire(get("wait")), await house.wire(get("told"))]
        one = await house.wire()
        assert (one.statuses, one.error) == ([503], "overloaded")
        assert not any(work.closing for work in works)
        house.desk.go_on.set()
        await pause()
        assert works[0].statuses == [200]
        assert (await house.wire(get())).statuses == [200]

    played(story, 2)


def test_who_was_told_to_go_and_does_not_makes_room_all_the_same() -> None:
    async def story(house: House) -> None:
        slow = await house.wire(get()[:9])
        slow.lingers = True
        slow.close()
        await house.after(HEAD_S_MAX + 1)
        assert house.crowd.given_up == {}
        one = await house.wire(get())
        assert (slow.aborted, slow.written, one.statuses) == (True, b"", [200])
        slow.lose()
        await pause()

    played(story, 1)


@pytest.mark.parametrize("most", [1, 3, 50])
def test_a_crowd_that_idles_keeps_nobody_out(most: int) -> None:
    async def story(house: House) -> None:
        for turn in range(200):
            await house.wire((b"", get()[:9], get())[turn % 3])
            assert len(house.crowd.connections) <= most
            assert (await house.wire(get())).statuses == [200]

    played(story, most)


class Leaves:
    """A guest who has left something unread."""

    def __init__(self, crowd: Crowd, left: int) -> None:
        self.left, self.why = left, ""
        crowd.left_unread(self)

    def look(self, now: float) -> None: ...
    def make_room(self) -> None: ...
    def give_up(self, why: str) -> None:
        self.why = why

    def unread(self) -> int:
        return self.left


def test_of_what_is_left_unread_there_is_no_more_than_may_be_or_one_has_it_all() -> None:
    crowd, most = Crowd(10), crowd_of.UNREAD_BYTES_MAX
    one, two = Leaves(crowd, most // 2), Leaves(crowd, most // 2)
    assert (one.why, two.why) == ("", "")
    one.left = 1
    three = Leaves(crowd, most // 2 - 1)
    assert (one.why, two.why) == ("", "")
    four = Leaves(crowd, 2)
    assert (one.why, two.why, three.why, four.why) == ("unread", "unread", "", "")
    five = Leaves(crowd, 2 * most)
    assert (three.why, four.why, five.why) == ("unread", "unread", "")
    assert list(crowd.unread) == [five]


def test_who_reads_again_has_left_nothing_unread() -> None:
    async def story(house: House) -> None:
        wire = await house.wire()
        wire.connection.pause_writing()
        assert list(house.crowd.unread) == [wire.connection]
        wire.connection.resume_writing()
        assert list(house.crowd.unread) == []
        wire.connection.pause_writing()

    played(story)


def test_what_was_given_up_is_told_at_once_and_then_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crowd = Crowd(1)
    with caplog.at_level(logging.WARNING):
        crowd.look(0)
        for now in range(1, 121):
            crowd.given_up["malformed"] += 10
            crowd.given_up["idle"] += now == 50
            crowd.look(now)
        crowd.look(500)
    assert [one.__dict__["facts"] for one in caplog.records] == [
        {"malformed": 10},
        {"malformed": 10 * int(TELL_S), "idle": 1},
        {"malformed": 590},
    ]


def test_of_connections_is_told_how_many_there_are_and_why_others_were_given_up() -> None:
    crowd, registry = Crowd(1), CollectorRegistry()
    registry.register(OfCrowd("worker", crowd))
    crowd.connections.add(MagicMock())
    crowd.given_up["malformed"] = 3
    assert registry.get_sample_value("median_worker_connections") == 1
    name = "median_worker_given_up_connections_total"
    assert registry.get_sample_value(name, {"why": "malformed"}) == 3


# Descriptors


def limited(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> list[tuple[int, int]]:
    now = [(soft, hard)]
    monkeypatch.setattr("resource.getrlimit", lambda _: now[-1])
    monkeypatch.setattr("resource.setrlimit", lambda _, limits: now.append(limits))
    return now


OTHERS = BACKLOGS * BACKLOG + FILES_MAX


@pytest.mark.parametrize(
    ("soft", "hard", "afford", "then"),
    [
        (10_000, 10_000, (4096, BACKLOG), None),
        (-1, -1, (4096, BACKLOG), None),
        (1024, -1, (4096, BACKLOG), (4096 + OTHERS, -1)),
        (1024, 10_000, (4096, BACKLOG), (4096 + OTHERS, 10_000)),
        (1024, 6000, (3000, BACKLOG), (6000, 6000)),
        (1024, 1024, (512, 76), (1024, 1024)),
        (1, 1, (1, 1), (1, 1)),
    ],
)
def test_there_are_no_more_connections_than_descriptors_for_them(  # noqa: PLR0917  as above
    soft: int,
    hard: int,
    afford: tuple[int, int],
    then: tuple[int, int] | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = limited(monkeypatch, soft, hard)
    assert afforded(4096) == afford
    assert limits[1:] == [then] * (then is not None)
    fewer = "fewer connections than was set: the limit of descriptors"
    assert [one.message for one in caplog.records] == [fewer] * (afford[0] < 4096)


def test_where_nobody_counts_descriptors_there_are_as_many_connections_as_was_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert afforded(10**9) == (10**9, BACKLOG)


# What is not read


class Endless:
    """An app that says more and more, until its client is gone."""

    def __init__(self) -> None:
        self.gone, self.pieces = asyncio.Event(), 0

    async def __call__(self, _: Any, receive: Any, send: Any) -> None:
        watching = asyncio.create_task(self._until_gone(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not self.gone.is_set():
            await send({"type": "http.response.body", "body": bytes(50_000), "more_body": True})
            self.pieces += 1
        await watching

    async def _until_gone(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone.set()


def served(app: Endless, story: Callable[[socket.socket], Any]) -> None:
    """Behind a connection of ours, to a client who has little room for what he does not read."""
    config = uvicorn.Config(app, http=Connection, log_config=None, lifespan="off")
    server = Server(config, asyncio.Event(), Crowd(10))

    async def told() -> None:
        with socket.socket() as listens, socket.socket() as client:
            listens.bind(("127.0.0.1", 0))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            running = asyncio.create_task(server.serve([listens]))
            async with asyncio.timeout(30):
                while not server.started:
                    await asyncio.sleep(0.01)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(client, listens.getsockname())
                await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
                await story(client)
                client.close()
                await app.gone.wait()
            server.should_exit = True
            await running

    asyncio.run(told())


def test_a_client_who_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.serving.connections.STALLED_S_MAX", 0.2)
    app = Endless()

    async def story(_: socket.socket) -> None:
        await app.gone.wait()

    served(app, story)


def test_a_client_who_reads_slowly_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """He has long been slower than he is spoken to when he goes by himself."""
    monkeypatch.setattr("shared.serving.connections.STALLED_S_MAX", 5.0)
    app, stalls = Endless(), list[float]()
    stall = Connection.pause_writing

    def counted(connection: Connection) -> None:
        stalls.append(app.pieces)
        stall(connection)

    monkeypatch.setattr(Connection, "pause_writing", counted)

    async def story(client: socket.socket) -> None:
        while len(stalls) < 5:
            assert await asyncio.get_running_loop().sock_recv(client, 2**20)
        assert not app.gone.is_set()

    served(app, story)


def a_connection() -> tuple[Connection, MagicMock, Callable[[int], None]]:
    """One that is not real, its transport, and a look at how much is left to be read by then."""
    transport, loop = MagicMock(), MagicMock()
    config = uvicorn.Config(MagicMock(), log_config=None, ws="none")
    connection = Connection(config, Crowd(10), {}, loop)
    transport.get_write_buffer_size.return_value = loop.time.return_value = 0
    transport.get_extra_info.return_value = None
    connection.connection_made(transport)

    def look(left: int) -> None:
        transport.get_write_buffer_size.return_value = left
        (_, again, *arguments), _ = loop.call_later.call_args
        again(*arguments)

    return connection, transport, look


def test_of_a_long_answer_much_may_be_left_to_who_reads_slowly() -> None:
    connection, transport, look = a_connection()
    connection.pause_writing()
    for left in (9_000_000, 8_000_000, 7_000_000, 6_999_999):
        look(left)
    assert not transport.abort.called
    look(6_999_999)
    assert transport.abort.called


def test_who_does_not_read_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has given him up by itself, before uvicorn cancels what is under way."""
    monkeypatch.setattr("shared.serving.connections.STALLED_S_MAX", 3600)
    app, servers, stalled = Endless(), list[Server](), asyncio.Event()
    begun, stall = Server.startup, Connection.pause_writing

    async def started(server: Server, sockets: list[socket.socket] | None = None) -> None:
        servers.append(server)
        await begun(server, sockets)

    def stalls(connection: Connection) -> None:
        stall(connection)
        stalled.set()

    monkeypatch.setattr(Server, "startup", started)
    monkeypatch.setattr(Connection, "pause_writing", stalls)

    async def story(_: socket.socket) -> None:
        await stalled.wait()
        servers[0].should_exit = True
        await app.gone.wait()

    served(app, story)


def test_at_the_end_who_reads_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the answer is still to be made, and until all of it is read."""
    monkeypatch.setattr(HttpToolsProtocol, "shutdown", lambda _: None)
    connection, transport, look = a_connection()
    connection.shutdown()
    for left in (0, 90_000, 10_000):
        look(left)
    connection.resume_writing()
    assert not transport.abort.called
    look(10_000)
    assert transport.abort.called


# Sockets


RUNS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class Client:
    """One end of a socket; the other is at the desk."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def says(self, data: bytes) -> None:
        self._writer.write(data)
        with suppress(ConnectionError):
            await self._writer.drain()

    async def hears(self) -> int:
        """The status of an answer, which has a length."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        await self._reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
        return int(head.split()[1])

    async def is_let_go(self) -> bool:
        with suppress(ConnectionError):
            return await self._reader.read() == b""
        return True

    def hangs_up(self) -> None:
        self._writer.close()


Connect = Callable[[], Awaitable[Client]]


def heard(
    run: Callable[..., None], story: Callable[[Desk, Crowd, Connect], Awaitable[None]], most: int
) -> None:
    """What clients are told by a server on a port."""

    async def told() -> None:
        desk, crowd = Desk(), Crowd(most)
        config = uvicorn.Config(desk, http=Connection, log_config=None, lifespan="off", ws="none")
        server = Server(config, asyncio.Event(), crowd)
        with socket.socket() as listens:
            listens.bind(("127.0.0.1", 0))
            running = asyncio.create_task(server.serve([listens]))

            async def connect() -> Client:
                client = Client(*await asyncio.open_connection(*listens.getsockname()))
                clients.append(client)
                return client

            clients: list[Client] = []
            async with asyncio.timeout(60):
                while not server.started:
                    await asyncio.sleep(0.01)
                await story(desk, crowd, connect)
                desk.go_on.set()
                for client in clients:
                    client.hangs_up()
                server.should_exit = True
                await running

    run(told())


@RUNS
def test_where_all_places_are_held_who_asks_is_answered(run: Any) -> None:
    async def story(_: Desk, crowd: Crowd, connect: Connect) -> None:
        held = []
        for turn in range(200):
            holder = await connect()
            held.append(holder)
            await holder.says((b"", get()[:9], header(HEAD_BYTES_MAX // 2), get())[turn % 4])
            if turn % 10 == 9:
                asks = await connect()
                await asks.says(get())
                assert await asks.hears() == 200
            assert len(crowd.connections) <= 21
        assert await held[0].is_let_go()

    heard(run, story, 20)


@RUNS
def test_who_hangs_up_behind_requests_of_his_is_heard_at_once(run: Any) -> None:
    async def story(desk: Desk, crowd: Crowd, connect: Connect) -> None:
        client = await connect()
        await client.says(get("told") + get("wait") * 3)
        while len(desk.heads) < 1 or len(crowd.idle) > 0:
            await asyncio.sleep(0.01)
        client.hangs_up()
        while desk.gone != ["/told"] or crowd.tasks:
            await asyncio.sleep(0.01)
        assert len(desk.heads) == 1

    heard(run, story, 20)


@RUNS
def test_who_stalls_is_let_go_by_the_clock(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.serving.connections.HEAD_S_MAX", 0.01)

    async def story(_: Desk, __: Crowd, connect: Connect) -> None:
        silent, half = await connect(), await connect()
        await half.says(get()[:9])
        assert await half.hears() == 408
        assert await silent.is_let_go()
        assert await half.is_let_go()

    heard(run, story, 20)


@RUNS
@pytest.mark.parametrize("size", [10**6, 8 * 10**6])
def test_who_sends_a_large_body_before_he_listens_hears_that_it_is_refused(
    run: Any, size: int
) -> None:
    async def story(_: Desk, __: Crowd, connect: Connect) -> None:
        for _turn in range(20):
            client = await connect()
            await client.says(REFUSED % size + bytes(size))
            assert await client.hears() == 200
            assert await client.is_let_go()

    heard(run, story, 20)


@RUNS
def test_a_flood_behind_a_refusal_is_cut_off(run: Any) -> None:
    async def story(_: Desk, crowd: Crowd, connect: Connect) -> None:
        client = await connect()
        await client.says(REFUSED % 10**9)
        assert await client.hears() == 200
        while crowd.connections:
            await client.says(bytes(2**20))

    heard(run, story, 20)


# Processes


def test_whoever_holds_connections_keeps_nobody_from_being_answered(tmp_path: Path) -> None:
    """Idle, half of a head, half of a body, events: three times as many as there may be."""
    most: dict[str, Any] = {"connections_max": 100}
    with Processes(tmp_path) as processes, ExitStack() as holding:
        coordinator = processes.coordinator(**most)
        worker = processes.worker("w", **most)
        until(lambda: coordinator.is_up and worker.is_up and worker.is_ready, "they are ready")
        worker.take(np.zeros(10))
        events = HEAD % b"median/events" + b"\r\n"
        half = b"POST /values HTTP/1.1\r\nhost: here\r\ncontent-length: 9\r\n\r\n1"
        ways = [(b"", 100), (get()[:9], 100), (HEAD % b"" + header(10**4), 100), (events, 30)]

        def hold(port: int, said: bytes) -> socket.socket:
            holder = holding.enter_context(socket.create_connection(("127.0.0.1", port)))
            holder.sendall(said)
            return holder

        hears = [hold(coordinator.port, events) for _ in range(30)]
        for _ in range(30):
            hold(worker.port, half)
        for turn in range(30):
            for said, many in ways[:3]:
                for port in (coordinator.port, worker.port):
                    for _ in range(many // 30):
                        hold(port, said)
            with httpx.Client(trust_env=False, timeout=SOON_S) as client:
                body = np.full(10, float(turn)).tobytes()
                taken = client.post(f"{worker.url}/values", content=body, headers=OCTETS)
                assert taken.status_code == 202
                assert client.get(f"{coordinator.url}/median").status_code == 200
        for listener in hears:
            listener.settimeout(SOON_S)
            assert listener.recv(100).startswith(b"HTTP/1.1 200 OK")
        worker.flush()
        assert coordinator.get("/median")["count"] == 310
        for one, service in ((coordinator, "coordinator"), (worker, "worker")):
            assert 30 < metric(one.url, f"median_{service}_connections") <= 101
            assert metric(one.url, f'median_{service}_given_up_connections_total{{why="idle"}}') > 9
            assert "Traceback" not in one.said
            until(lambda one=one: "connections given up" in one.said, "it is told")  # type: ignore[misc]


def test_services_that_hear_rubbish_answer_or_hang_up_and_log_no_line_for_each(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    words = [*RUBBISH.values(), get("median"), get("quantile?q=%ff&q=2"), get()[:-2] + UPGRADE]
    words += [CHUNKED, BODY % 3, b"POST /deltas HTTP/1.1\r\ncontent-length: 2\r\n\r\n"]
    words += [b"POST /values?stream=%00 HTTP/1.1\r\nidempotency-key: \xff\r\n\r\n", b"\r\n"]
    with Processes(tmp_path) as processes:
        both = (processes.coordinator(), processes.worker("w"))
        until(lambda: all(one.is_up for one in both), "they are up")
        for turn in range(200):
            said = b"".join(words[at] for at in rng.integers(len(words), size=rng.integers(1, 4)))
            spoilt = bytearray(said)
            for at in rng.integers(len(said), size=rng.integers(3)):
                spoilt[at] = rng.integers(256)
            statuses = told(both[turn % 2].port, bytes(spoilt))
            assert all(200 <= status < 500 for status in statuses), (spoilt, statuses)
        for one in both:
            assert one.is_up
            assert "Traceback" not in one.said
            assert len(one.said.splitlines()) < 30


def told(port: int, said: bytes) -> list[int]:
    """The statuses of what is answered before it hangs up, or stays silent for a moment."""
    heard = b""
    with socket.create_connection(("127.0.0.1", port)) as client, suppress(OSError):
        client.settimeout(0.02)
        client.sendall(said)
        while piece := client.recv(2**16):
            heard += piece
    return [int(one) for one in re.findall(rb"HTTP/1.1 (\d+) ", heard)]
