"""What is asked of the services, over HTTP: one method for each path, and errors in sentences.

A batch that got no answer may have been counted or not. So each has an `Idempotency-Key` of its
own, and is posted again with it, to the same address, until it is acknowledged or a minute is over:
a worker counts a key once. Only what says that it will pass is tried again.
"""

import asyncio
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from loadgen.access import IF_TLS, Access, distrust
from loadgen.scenarios import Floats
from loadgen.truth import Answer
from loadgen.words import legible

DEFAULT = "default"  # the stream that nobody need name
VALUES, OK, ACCEPTED = "/values", 200, 202
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
        self._client = httpx.AsyncClient(
            trust_env=False,
            verify=self._access.context,
            timeout=REQUEST_S_MAX,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            transport=transport,
        )
        self.repeated = 0
        """How often a batch was sent again."""
        self._meant: dict[Address, str] = {}

    async def close(self) -> None:
        await self._client.aclose()

    async def post(self, worker: Address, stream: str, batch: Floats, key: str) -> None:
        """Until it is acknowledged."""
        data = batch.astype("<f8").tobytes()
        headers = PACKED | {"idempotency-key": key}
        if worker in self._meant:
            headers["median-worker"] = quote(self._meant[worker])
        reply = await self._ask(
            "POST", worker, VALUES, stream=stream, content=data, headers=headers
        )
        with _understood(f"{worker} is no worker: its {VALUES} says {reply}"):
            accepted = int(reply["accepted"])
        if accepted != len(batch):
            raise BadReply(f"{worker} was given {len(batch)} values, and accepted {accepted}")

    async def flush(self, worker: Address, stream: str) -> None:
        await self._ask("POST", worker, "/flush", stream=stream)

    async def name(self, worker: Address) -> str:
        """What a worker calls itself."""
        health = await self._ask("GET", worker, "/health", patience_s=MEET_S)
        with _understood(f"{worker} is no worker: its /health says {health}"):
            return str(health["worker"])

    def mean(self, worker: Address, name: str) -> None:
        """From now on no other may take what is posted there: only this one knows its keys."""
        self._meant[worker] = name

    async def meet(self, coordinator: Address) -> None:
        """A worker has a median, too."""
        health = await self._ask("GET", coordinator, "/health", patience_s=MEET_S)
        with _understood(f"{coordinator} is no coordinator: its /health says {health}"):
            float(health["epsilon"])

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
        with _understood(f"{coordinator} is no coordinator: its /median says {reply}"):
            return Answer(**{name: reply[name] for name in Answer.__dataclass_fields__})

    async def traffic(
        self, coordinator: Address, stream: str, *, patience_s: float = PATIENCE_S
    ) -> dict[str, Traffic]:
        """By the names of the workers; one may have several sources."""
        reply = await self._ask("GET", coordinator, "/workers", patience_s=patience_s)
        told = dict[str, Traffic]()
        with _understood(f"{coordinator} is no coordinator: its /workers says {reply}"):
            for row in reply["workers"]:
                if row["stream"] == stream:
                    one = Traffic(**{name: row[name] for name in Traffic.__dataclass_fields__})
                    told[row["worker"]] = told.get(row["worker"], Traffic()) + one
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
        params = {} if stream == DEFAULT else {"stream": stream}
        more["headers"] = self._access.headers(method) | more.get("headers", {})
        if at.host:
            more["headers"]["host"] = at.host
            more["extensions"] = {"sni_hostname": at.host.rpartition(":")[0] or at.host}
        try:
            response = await self._client.request(method, at.url + path, params=params, **more)
        except httpx.RequestError as error:
            raise _unanswered(what, error) from error
        if response.status_code == httpx.codes.UNAUTHORIZED:
            said, code = _refusal(what, response)
            raise BadReply(f"{said}: {self._access.remedy(method)}", code)
        if response.status_code in PASSES:
            pause = response.headers.get("retry-after", "")
            raise NoReply(_refusal(what, response)[0], float(pause) if pause.isdecimal() else 0.0)
        if response.status_code != (ACCEPTED if path == VALUES else OK):
            raise BadReply(*_refusal(what, response))
        try:
            return response.json()
        except ValueError:
            raise BadReply(f"{what} got no JSON: {response.text[:200]!r}") from None


def _unanswered(what: str, error: httpx.RequestError) -> BadReply:
    """To try again is of no use where TLS came to nothing."""
    if why := distrust(error):
        return BadReply(f"{what} is not asked: {legible(why)}")
    said = f"{what} got no answer: {str(error) or type(error).__name__}"
    plain = isinstance(error, httpx.RemoteProtocolError) and error.request.url.scheme == "http"
    return NoReply(f"{said.rstrip('.')}; {IF_TLS}" if plain else said)


@contextmanager
def _understood(trouble: str) -> Iterator[None]:
    """What is no reply of that kind may lack anything, or be anything."""
    try:
        yield
    except (KeyError, TypeError, ValueError):
        raise BadReply(legible(trouble)) from None


def _refusal(what: str, response: httpx.Response) -> tuple[str, str]:
    """A sentence, and the code of what is wrong where there is one."""
    said, code = response.text, ""
    with suppress(ValueError, KeyError, TypeError):
        error = response.json()["error"]
        said, code = str(error["message"]), str(error["code"])
    return f"{what} got {response.status_code}: {legible(said)}", code


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
