"""Whoever listens may say anything, without end: `loadgen` tells it in one sentence."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from itertools import islice, repeat
from typing import Any

import httpx
import numpy as np
import pytest

from loadgen import reply
from loadgen.access import Access
from loadgen.calls import Address, BadReply, Calls, NoReply
from loadgen.reply import Endless, Reply, Way
from loadgen.watching.coordinator import Coordinator, Stranger
from loadgen.words import legible
from tests.cluster import run
from tests.watching import MEDIAN, Scripted

AT = Address("http://someone:8000")
LIMIT, PIECE = 2**16, 2**12
PACKED = {"content-encoding": "gzip"}
Asks = Callable[[Calls], Coroutine[Any, Any, Any]]
ASKS: dict[str, Asks] = {
    "/health": lambda one: one.name(AT),
    "/values": lambda one: one.post(AT, "s", np.zeros(3), "key"),
    "/median": lambda one: one.median(AT, "s"),
    "/workers": lambda one: one.traffic(AT, "s"),
    "/flush": lambda one: one.flush(AT, "s"),
}
STATUS = {"/values": 202}
HOSTILE = {
    "deep": b"[" * 200_000,
    "deep, and closed": b'{"worker":' + b"[" * 900 + b"]" * 900 + b"}",
    "many digits": b'{"worker": 1, "epsilon": ' + b"9" * 5000 + b"}",
    "digits that can be read": b'{"accepted": 1e999, "epsilon": ' + b"9" * 4000 + b"}",
    "no name": b'{"worker": "\\ud800", "closed": ["ingest"]}',
    "a name that moves cursors": b'{"worker": "\\u001b[2J"}',
    "words for numbers": json.dumps(dict.fromkeys([*MEDIAN, "accepted"], "x")).encode(),
    "bytes": bytes(range(256)),
}


class Told(httpx.AsyncByteStream):
    """Pieces, as far as they are read; each after a while."""

    def __init__(self, pieces: Any, after_s: float = 0.0) -> None:
        self._pieces, self._after_s = pieces, after_s
        self.read, self.closed = 0, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await asyncio.sleep(self._after_s)
            self.read += 1
            yield piece

    async def aclose(self) -> None:
        self.closed = True


class Someone(httpx.AsyncBaseTransport):
    def __init__(self, status: int, said: Told | bytes, headers: Any = None) -> None:
        self._status, self._said, self._headers = status, said, headers
        self.asked: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        said = Told([self._said]) if isinstance(self._said, bytes) else self._said
        return httpx.Response(self._status, stream=said, headers=self._headers)


def asked(transport: httpx.AsyncBaseTransport, s_max: float = 60.0) -> Reply:
    async def story() -> Reply:
        way = Way(Access(), transport, s_max=s_max)
        try:
            return await way.ask(httpx.Request("GET", "http://someone"))
        finally:
            await way.close()

    return run(story())


def why_not(asks: Asks, transport: httpx.AsyncBaseTransport) -> BadReply:
    async def story() -> None:
        calls = Calls(transport)
        try:
            await asks(calls)
        finally:
            await calls.close()

    with pytest.raises(BadReply) as caught:
        run(story())
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    return caught.value


def why_not_watched(transport: httpx.AsyncBaseTransport) -> str:
    async def story() -> None:
        async with Coordinator("http://someone", "default", transport=transport) as coordinator:
            await coordinator.look()

    with pytest.raises(Stranger) as caught:
        run(story())
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    return str(caught.value)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply, "REPLY_BYTES_MAX", LIMIT)


@pytest.mark.usefixtures("limit")
def test_of_a_reply_without_end_no_more_is_read_than_may_be() -> None:
    endless = Told(repeat(b" " * PIECE))
    with pytest.raises(Endless, match="more than 65,536 bytes"):
        asked(Someone(200, endless))
    assert (endless.read, endless.closed) == (LIMIT // PIECE + 1, True)
    whole = Told(islice(repeat(b" " * PIECE), LIMIT // PIECE))
    assert len(asked(Someone(200, whole)).content) == LIMIT
    assert whole.closed


@pytest.mark.usefixtures("limit")
def test_who_says_too_much_is_asked_once_and_told_of_in_a_sentence() -> None:
    for path, asks in ASKS.items():
        for status in (STATUS.get(path, 200), 500, 503, 401):
            someone = Someone(status, Told(repeat(b"x" * PIECE)))
            error = why_not(asks, someone)
            assert not isinstance(error, NoReply)
            assert str(error).endswith(f"{path} got a reply of more than 65,536 bytes")
            assert len(someone.asked) == 1
    said = why_not_watched(Someone(200, Told(repeat(b"x" * PIECE))))
    assert said.endswith("is no coordinator: GET /health got a reply of more than 65,536 bytes")


def test_what_drips_is_given_up_however_often_a_piece_comes() -> None:
    drips = Told(repeat(b" "), after_s=0.001)
    with pytest.raises(httpx.ReadTimeout, match=r"none that is whole within 0\.1 s"):
        asked(Someone(200, drips), s_max=0.1)
    assert drips.closed
    assert drips.read > 1


def test_nothing_is_unpacked_and_nothing_packed_is_asked_for() -> None:
    bomb = gzip.compress(bytes(2**22))
    someone = Someone(200, bomb, PACKED)
    assert asked(someone).content == bomb
    assert someone.asked[0].headers["accept-encoding"] == "identity"
    assert "got no JSON" in str(why_not(ASKS["/health"], Someone(200, bomb, PACKED)))
    assert "is no coordinator" in why_not_watched(Someone(200, bomb, PACKED))


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("path", ["/health", "/values", "/median", "/workers"])
def test_whatever_is_said_is_told_in_one_sentence(path: str, said: bytes) -> None:
    someone = Someone(STATUS.get(path, 200), said)
    assert not isinstance(why_not(ASKS[path], someone), NoReply)
    assert len(someone.asked) == 1
    for status in (400, 401, 422):
        why_not(ASKS[path], Someone(status, said))
    if path in {"/median", "/workers"}:
        why_not_watched(Scripted(**{path[1:]: httpx.Response(200, content=said)}))


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_who_is_met_as_a_coordinator_says_what_one_says(said: bytes) -> None:
    assert "someone" in str(why_not(lambda one: one.meet(AT), Someone(200, said)))


@pytest.mark.parametrize(
    "where", [b"http://[", b"\xff\xfe", b"//", b"http://someone:99999/", b"x" * 9999, b"a:b", b""]
)
def test_nobody_follows_anybody_and_cookies_mean_nothing(where: bytes) -> None:
    headers = [(b"location", where), (b"set-cookie", b"\xff=\xe9; domain=\xff"), (b"x", b"\xff")]
    someone = Someone(302, b"", headers)
    assert "got 302" in str(why_not(ASKS["/median"], someone))
    assert "got 302" in why_not_watched(Someone(302, b"", headers))
    assert len(someone.asked) == 1
    assert asked(Someone(200, b"{}", headers)).json() == {}


def test_who_takes_nothing_is_told_of_before_anything_is_sent() -> None:
    """Whoever shows a wrong token has nothing that may be counted or not."""
    for closed, is_met in ((["read"], True), (["push", "ingest"], False), (None, True), (7, True)):
        body = json.dumps({"worker": "w", "closed": closed}).encode()
        if is_met:
            assert run(Calls(Someone(200, body)).name(AT)) == "w"
        else:
            said = str(why_not(ASKS["/health"], Someone(200, body)))
            assert said.startswith("http://someone:8000 takes nothing: it asks for a token: set")


def test_of_long_words_no_more_is_looked_at_than_is_shown() -> None:
    class Counted(str):
        __slots__ = ("looked",)

        def __getitem__(self, at: Any) -> str:
            self.looked = at.stop
            return super().__getitem__(at)

    words = Counted("x" * 10_000)
    assert legible(words, 80) == "x" * 76 + " ..."
    assert words.looked == 81
