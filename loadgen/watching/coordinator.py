"""Asking a coordinator for one stream: a `Look`, or a sentence that says why there is none.

Whoever did not give one is one of two. `Away` says nothing now, and may again: it is down, busy,
restarting, or a proxy before it is. `Stranger` answers, and is no coordinator: it is a worker, a
web page, an SSH server, or it does not like the question. To ask a stranger again is of no use;
but who was a coordinator once can only be away.

Sentences quote what others said legibly and in short, and addresses without their passwords.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self, TypeVar

import httpx

from loadgen.access import IF_TLS, Access, distrust
from loadgen.reply import Endless, Reply, Way
from loadgen.watching.look import ODD, Answer, Look, sources_of, streams_of, worker_of
from loadgen.words import legible

CONNECT_S_MAX, READ_S_MAX = 2.0, 5.0
LOOK_S_MAX = 15.0  # for all that is asked at once
BUSY = httpx.codes.TOO_MANY_REQUESTS

T = TypeVar("T")


class Away(RuntimeError):
    """Nobody answers now, but may again; the message says what happened instead."""


class Stranger(RuntimeError):
    """Somebody answers, and is no coordinator, or does not like the question."""


class Coordinator:
    def __init__(
        self,
        url: str,
        stream: str,
        *,
        access: Access | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url, self._stream, self._access = shown(url), stream, access or Access()
        timeout = httpx.Timeout(READ_S_MAX, connect=CONNECT_S_MAX)
        self._at = url.rstrip("/")
        self._way = Way(self._access, transport, s_max=LOOK_S_MAX, timeout=timeout)
        self._known = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._way.close()

    async def look(self) -> Look:
        """Ask; who was a coordinator once is away where it now answers like none."""
        try:
            async with asyncio.timeout(LOOK_S_MAX):
                look = await self._look()
        except TimeoutError:
            raise Away(f"{self.url} takes too long to answer") from None
        except Stranger as error:
            if self._known:
                raise Away(str(error)) from error
            raise
        self._known = True
        return look

    async def _look(self) -> Look:
        if not self._known:
            await self._meet()
        response = await self._ask("/median", stream=self._stream)
        if response.status == httpx.codes.NOT_FOUND and response.error[0] == "unknown_stream":
            return Look(None, others=self._read(await self._ask("/streams"), streams_of))
        answer = self._read(response, Answer.of)
        sources = self._read(await self._ask("/workers"), sources_of)
        waits = not answer.complete and not answer.silent
        return Look(
            answer,
            tuple(one for one in sources if one.stream == self._stream),
            not_ready=legible((await self._get("/ready")).error[1]) if waits else "",
        )

    async def _meet(self) -> None:
        worker = self._read(await self._ask("/health"), worker_of)
        if worker is not None:
            raise Stranger(
                f"{self.url} is the worker {worker}, not a coordinator: "
                "give the address that its MEDIAN_COORDINATOR_URL names"
            )

    async def _ask(self, path: str, **params: str) -> Reply:
        reply = await self._get(path, **params)
        if httpx.codes.is_server_error(reply.status) or reply.status == BUSY:
            raise Away(f"GET {self.url}{path} got {reply.status}")
        return reply

    async def _get(self, path: str, **params: str) -> Reply:
        headers, asked = self._access.headers("GET"), self._at + path
        try:
            return await self._way.ask(
                httpx.Request("GET", asked, headers=headers, params=params or None)
            )
        except Endless as error:
            raise Stranger(f"{self.url} is no coordinator: GET {path} got {error}") from None
        except httpx.TransportError as error:
            if why := distrust(error):
                raise Stranger(f"{self.url} is not asked: {legible(why)}") from None
            raise self._trouble(error) from None

    def _trouble(self, error: httpx.TransportError) -> Away | Stranger:
        said = legible(str(error)).rstrip(".") or type(error).__name__
        match error:
            case httpx.TimeoutException():
                return Away(f"{self.url} does not answer")
            case httpx.TransportError() if "SSL" in said:
                what = f"{self.url} cannot be spoken to over TLS: {said}"
                return Stranger(f"{what}; if it has none, begin the address with http://")
            # h11 says "without" of a connection that ends too early, as where a service ends.
            case httpx.RemoteProtocolError() if "without" not in said:
                return Stranger(f"{self.url} does not speak HTTP: {said}")
            case httpx.RemoteProtocolError() if self._at.startswith("http:"):
                return Away(f"{self.url} is away: {said}; {IF_TLS}")
        return Away(f"{self.url} is away: {said}")

    def _read(self, reply: Reply, of: Callable[[Any], T]) -> T:
        """What it says, if it is a coordinator's."""
        asked = f"GET {shown(str(reply.asked))}"
        if reply.status == httpx.codes.UNPROCESSABLE_ENTITY and (why := reply.error[1]):
            raise Stranger(f"{asked} is refused: {legible(why)}")
        if reply.status == httpx.codes.UNAUTHORIZED:
            raise Stranger(f"{asked} got 401: {self._access.remedy('GET')}")
        if reply.status == httpx.codes.OK:
            with suppress(*ODD):
                return of(reply.json())
        said = f"{reply.status} {reply.headers.get('content-type', '')}".strip()
        raise Stranger(f"{self.url} is no coordinator: {asked} got {legible(said, 80)}")


def check_address(given: str) -> None:
    """`Stranger` says that it is none."""
    with suppress(httpx.InvalidURL):
        url = httpx.URL(given if given.isprintable() else "")
        port = 80 if url.port is None else url.port
        bare = not url.query and not url.fragment
        if url.scheme in {"http", "https"} and url.host and bare and 0 < port < 2**16:
            return
    raise Stranger(f"{given!r} is no address: it must be like http://127.0.0.1:8000")


def shown(url: str) -> str:
    """Without the password, if it has one."""
    return str(httpx.URL(url).copy_with(userinfo=b"")).rstrip("/")
