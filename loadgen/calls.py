"""What is asked of the services, over HTTP: one method for each path, and errors in sentences.

A batch that got no answer may have been counted or not. So each has an `Idempotency-Key` of its
own, and is posted again with it, to the same address, until it is acknowledged or a minute is over:
a worker counts a key once. Only what says that it will pass is tried again.
"""

import asyncio
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from loadgen.access import IF_TLS, INGEST_DOOR, Access, distrust
from loadgen.reply import Endless, Reply, Way
from loadgen.scenarios import Floats
from loadgen.truth import Answer
from loadgen.watching.look import ODD, finite, finite_or_none, whole
from loadgen.words import legible

DEFAULT = "default"  # the stream that nobody need name
VALUES, OK, ACCEPTED = "/values", 200, 202
NAME_MAX = 100
PASSES = {408, 429, 502, 503, 504, 507}  # what says: try again
REQUEST_S_MAX = 20.0  # a 202 may wait for a signature, but not for ever
PATIENCE_S = 60.0  # for all tries of one request
MEET_S = 2.0  # for all tries to meet somebody who may not be there at all
PAUSE_S, PAUSE_S_MAX = 0.05, 2.0  # before the second try, twice as long before each further one
NOTHING_YET = Answer(None, None, None, 0, 0.0, 0.0, complete=False)
PORT_MAX = 2**16 - 1
PACKED = {"content-type": "application/octet-stream"}


class BadReply(RuntimeError):
    """A service did not do as it was asked; the message says what it did, the code is its own."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class NoReply(BadReply):
    """There was none, or one that says to try again, and when."""

    def __init__(self, message: str, pause_s: float = 0.0) -> None:
        super().__init__(message)
        self.pause_s = pause_s


@dataclass(frozen=True)
class Traffic:
    """What one worker told the coordinator, and what its users told it."""

    count: int = 0
    deltas: int = 0
    bytes: int = 0
    raw_bytes: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.count + other.count,
            self.deltas + other.deltas,
            self.bytes + other.bytes,
            self.raw_bytes + other.raw_bytes,
        )

    def __sub__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.count - other.count,
            self.deltas - other.deltas,
            self.bytes - other.bytes,
            self.raw_bytes - other.raw_bytes,
        )


@dataclass(frozen=True)
class Address:
    """One server; and where a name led to several, that name."""

    url: str
    host: str | None = None

    def __str__(self) -> str:
        """Without the password, if it has one."""
        return _bare(httpx.URL(self.url).copy_with(userinfo=b""))


@dataclass(frozen=True, kw_only=True)
class Target:
    workers: list[Address]
    coordinator: Address
    stream: str = DEFAULT


class Calls:
    def __init__(
        self, transport: httpx.AsyncBaseTransport | None = None, *, access: Access | None = None
    ) -> None:
        self._access = access or Access()
        self._way = Way(self._access, transport, s_max=REQUEST_S_MAX)
        self.repeated = 0
        """How often a batch was sent again."""
        self._meant: dict[Address, str] = {}

    async def close(self) -> None:
        await self._way.close()

    async def post(self, worker: Address, stream: str, batch: Floats, key: str) -> None:
        """Until it is acknowledged."""
        data = batch.astype("<f8").tobytes()
        headers = PACKED | {"idempotency-key": key}
        if worker in self._meant:
            headers["median-worker"] = quote(self._meant[worker])
        reply = await self._ask(
            "POST", worker, VALUES, stream=stream, content=data, headers=headers
        )
        with _understood(f"{worker} is no worker: its {VALUES} says", reply):
            accepted = whole(reply["accepted"])
        if accepted != len(batch):
            raise BadReply(f"{worker} was given {len(batch)} values, and accepted {accepted}")

    async def flush(self, worker: Address, stream: str) -> None:
        await self._ask("POST", worker, "/flush", stream=stream)

    async def name(self, worker: Address) -> str:
        """What a worker calls itself; it must be open to what will be sent to it."""
        shown = self._access.headers("POST")
        health = await self._ask("GET", worker, "/health", patience_s=MEET_S, headers=shown)
        with _understood(f"{worker} is no worker: its /health says", health):
            name, closed = _name(health["worker"]), health.get("closed")
        if isinstance(closed, list) and INGEST_DOOR in closed:
            raise BadReply(f"{worker} takes nothing: {self._access.remedy('POST')}")
        return name

    def mean(self, worker: Address, name: str) -> None:
        """From now on no other may take what is posted there: only this one knows its keys."""
        self._meant[worker] = name

    async def meet(self, coordinator: Address) -> None:
        """A worker has a median, too."""
        health = await self._ask("GET", coordinator, "/health", patience_s=MEET_S)
        with _understood(f"{coordinator} is no coordinator: its /health says", health):
            finite(health["epsilon"])

    async def ready(self, service: Address) -> None:
        """Until it is."""
        await self._ask("GET", service, "/ready")

    async def median(
        self, coordinator: Address, stream: str, *, patience_s: float = PATIENCE_S
    ) -> Answer:
        """Of a stream that nobody knows yet, the empty answer."""
        try:
            reply = await self._ask(
                "GET", coordinator, "/median", stream=stream, patience_s=patience_s
            )
        except BadReply as error:
            if error.code == "unknown_stream":
                return NOTHING_YET
            raise
        with _understood(f"{coordinator} is no coordinator: its /median says", reply):
            return _answer(reply)

    async def traffic(
        self, coordinator: Address, stream: str, *, patience_s: float = PATIENCE_S
    ) -> dict[str, Traffic]:
        """By the names of the workers; one may have several sources."""
        reply = await self._ask("GET", coordinator, "/workers", patience_s=patience_s)
        told = dict[str, Traffic]()
        with _understood(f"{coordinator} is no coordinator: its /workers says", reply):
            for row in reply["workers"]:
                if row["stream"] == stream:
                    fields = Traffic.__dataclass_fields__
                    one = Traffic(**{name: whole(row[name]) for name in fields})
                    name = _name(row["worker"])
                    told[name] = told.get(name, Traffic()) + one
        return told

    async def _ask(
        self,
        method: str,
        at: Address,
        path: str,
        *,
        stream: str = DEFAULT,
        patience_s: float = PATIENCE_S,
        **more: Any,
    ) -> Any:
        end, pause_s = time.monotonic() + patience_s, PAUSE_S
        while True:
            try:
                return await self._asked_once(method, at, path, stream, **more)
            except NoReply as error:
                wait_s = max(error.pause_s, pause_s)
                if time.monotonic() + wait_s > end:
                    raise
            self.repeated += path == VALUES
            await asyncio.sleep(wait_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    async def _asked_once(
        self, method: str, at: Address, path: str, stream: str, **more: Any
    ) -> Any:
        what = f"{method} {at}{path}"
        more["params"] = None if stream == DEFAULT else {"stream": stream}
        more["headers"] = self._access.headers(method) | more.get("headers", {})
        if at.host:
            more["headers"]["host"] = at.host
            more["extensions"] = {"sni_hostname": at.host.rpartition(":")[0] or at.host}
        try:
            reply = await self._way.ask(httpx.Request(method, at.url + path, **more))
        except Endless as error:
            raise BadReply(f"{what} got {error}") from None
        except httpx.TransportError as error:
            raise _unanswered(what, error, at) from error
        return self._read(reply, method, path, what)

    def _read(self, reply: Reply, method: str, path: str, what: str) -> Any:
        if reply.status == httpx.codes.UNAUTHORIZED:
            raise BadReply(f"{what} got 401: {self._access.remedy(method)}", reply.error[0])
        if reply.status in PASSES:
            pause = reply.headers.get("retry-after", "")
            raise NoReply(_refusal(what, reply)[0], float(pause) if pause.isdecimal() else 0.0)
        if reply.status != (ACCEPTED if path == VALUES else OK):
            raise BadReply(*_refusal(what, reply))
        try:
            return reply.json()
        except ValueError:
            raise BadReply(f"{what} got no JSON: {legible(repr(reply.text[:200]))}") from None


def _unanswered(what: str, error: httpx.TransportError, at: Address) -> BadReply:
    """To try again is of no use where TLS came to nothing."""
    if why := distrust(error):
        return BadReply(f"{what} is not asked: {legible(why)}")
    said = f"{what} got no answer: {str(error) or type(error).__name__}"
    plain = isinstance(error, httpx.RemoteProtocolError) and at.url.startswith("http:")
    return NoReply(f"{said.rstrip('.')}; {IF_TLS}" if plain else said)


@contextmanager
def _understood(trouble: str, reply: Any) -> Iterator[None]:
    """What is no reply of that kind may lack anything, or be anything."""
    try:
        yield
    except ODD:
        raise BadReply(legible(f"{trouble} {_shown(reply)}")) from None


def _shown(reply: Any) -> str:
    try:
        return str(reply)
    except (RecursionError, ValueError):  # too deep; or an integer of too many digits
        return "what cannot be shown"


def _answer(reply: Any) -> Answer:
    return Answer(
        median=finite_or_none(reply["median"]),
        low=finite_or_none(reply["low"]),
        high=finite_or_none(reply["high"]),
        count=whole(reply["count"]),
        epsilon=finite(reply["epsilon"]),
        rank_error=finite(reply["rank_error"]),
        complete=bool(reply["complete"]),
    )


def _name(given: Any) -> str:
    """As a worker can have it; what else is said will not do in a header, or on a terminal."""
    if type(given) is not str or not given.isprintable() or not 1 <= len(given) <= NAME_MAX:
        raise ValueError("no name")
    return given


def _refusal(what: str, reply: Reply) -> tuple[str, str]:
    """A sentence, and the code of what is wrong where there is one."""
    code, said = reply.error
    return f"{what} got {reply.status}: {legible(said or reply.text)}", code


def resolved(urls: Iterable[str]) -> list[Address]:
    """Every server there is: a name that leads to several addresses means all of them.

    Of both kinds of addresses that one server may have, the older is taken.
    """
    return list({one.url: one for url in urls for one in _addresses(url)}.values())


def address_of(url: str) -> Address:
    return Address(_bare(_parsed(url)))


def _addresses(url: str) -> list[Address]:
    parsed = _parsed(url)
    port = parsed.port or {"http": 80, "https": 443}[parsed.scheme]
    try:
        found = socket.getaddrinfo(parsed.host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # that, if a part of the name is empty or too long
        what = getattr(error, "strerror", None) or error
        raise BadReply(f"{parsed.host!r} leads nowhere: {what}") from None
    family = min(kind for kind, *_ in found)  # AF_INET is 2, AF_INET6 is more
    hosts = sorted({str(where[0]) for kind, _, _, _, where in found if kind == family})
    if len(hosts) == 1:
        return [address_of(url)]
    return [Address(_bare(parsed.copy_with(host=host)), parsed.netloc.decode()) for host in hosts]


def _bare(url: httpx.URL) -> str:
    return str(url).rstrip("/")


def _parsed(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise BadReply(f"{url!r} is no address: {error}") from None
    port = 80 if parsed.port is None else parsed.port
    is_bare = not parsed.query and not parsed.fragment and 0 < port <= PORT_MAX
    if parsed.scheme not in {"http", "https"} or not parsed.host or not is_bare:
        raise BadReply(f"{url!r} is no address: it must be like http://127.0.0.1:8001")
    return parsed
