"""The services as processes: how many values they take, how many questions they answer.

    python -m benchmarks.services ingest     values/s through one worker, by content type and batch
    python -m benchmarks.services kept       values/s with a data directory, beside memory only
    python -m benchmarks.services median     GET /median beside a bare uvicorn app, in one run
    python -m benchmarks.services recompute  an answer over many rows, made anew
    python -m benchmarks.services sizes      memory and heartbeats of many streams
    python -m benchmarks.services overload   memory of a worker under attack
    python -m benchmarks.services reconnect  GET /median while a thousand workers come back

The client is a few lines over a socket: what is measured is the server. A worker from empty talks
to a live coordinator at epsilon 1 %; the time counts until the last 202, all waits included. On a
machine with few cores client, worker and coordinator share them: so values are counted per second
of the worker's own processor time too, which is what one core would do.
"""

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgpack
import numpy as np
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from shared.digest import Digest
from shared.ledger import Ledger
from shared.outbox import Outbox
from shared.protocol import Receipt, Source, digest_error_for, pack_request, unpack_response
from shared.serving.server import clock
from shared.values import Floats
from worker_service.courier import Tries

EPSILON = 0.01
CONNECTIONS, ASKING = 4, 16
HEARTBEAT_S, HEARTBEATS = 5.0, 2
PAUSE_S = 0.005
WHAT = ("empty MiB", "KiB", "ms a heartbeat")
BARE = """
import uvicorn

BODY = b"x" * 260
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"260")]
START = {{"type": "http.response.start", "status": 200, "headers": HEADERS}}

async def app(scope, receive, send):
    await send(START)
    await send({{"type": "http.response.body", "body": BODY}})

uvicorn.run(app, port={port}, log_config=None, access_log=False, lifespan="off",
            server_header=False, date_header=False)
"""
ENCODE: dict[str, Callable[[Floats], bytes]] = {
    "application/octet-stream": lambda values: values.astype("<f8").tobytes(),
    "application/msgpack": lambda values: bytes(msgpack.packb(values.tolist())),
    "application/json": lambda values: json.dumps(values.tolist()).encode(),
    "text/plain": lambda values: "\n".join(map(repr, values.tolist())).encode(),
}

app = typer.Typer(add_completion=False, help=__doc__.partition("\n")[0])
out = Console(width=120)


class Watched(NamedTuple):
    """The most memory a process had, and how long each answer took."""

    most: int
    seconds: list[float]

    @property
    def p99(self) -> float:
        return float(np.quantile(self.seconds, 0.99))


class Client(asyncio.Protocol):
    """One connection: the next request goes out when a response has come in whole."""

    def __init__(
        self, requests: Iterator[bytes], status: bytes = b"", told: Counter[str] | None = None
    ) -> None:
        self._requests, self._status = requests, status
        self._told = Counter[str]() if told is None else told
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.seconds: list[float] = []
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
            self.done.set_result(None)
            return
        self._since = time.perf_counter()
        self._transport.write(request)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(error))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        if len(body) < length:
            return
        if self._status not in (b"", head[9:12]):
            raise RuntimeError(f"{head!r} {body!r}")
        self._buffer = b""
        self._told[head[9:12].decode()] += 1
        self.seconds.append(time.perf_counter() - self._since)
        self._next()


async def ask(port: int, requests: Iterator[bytes], status: bytes, connections: int) -> list[float]:
    """Send them over so many connections; returns how long each took."""
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: Client(requests, status), "127.0.0.1", port
        )
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    return [one for client in clients for one in client.seconds]


def request(method: str, path: str, body: bytes = b"", content_type: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\n"
    if body:
        head += f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def process(*arguments: str, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
    named = {f"MEDIAN_{name.upper()}": str(value) for name, value in settings.items()}
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(  # noqa: S603  our own modules
            [sys.executable, *arguments],
            env=os.environ | named,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        try:
            yield child
        finally:
            child.terminate()
            child.wait(timeout=20)


def until_up(port: int) -> None:
    for _ in range(200):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}")


@contextmanager
def a_coordinator() -> Iterator[tuple[int, int]]:
    port = free_port()
    with process(
        "-m", "coordinator_service", port=port, epsilon=EPSILON, log_level="warning"
    ) as coordinator:
        until_up(port)
        yield port, coordinator.pid


@contextmanager
def a_worker(coordinator: int, **settings: object) -> Iterator[tuple[int, int]]:
    port = free_port()
    settings |= {"coordinator_url": f"http://127.0.0.1:{coordinator}", "log_level": "warning"}
    with process("-m", "worker_service", port=port, **settings) as worker:
        until_up(port)
        yield port, worker.pid


def memory(pid: int) -> int:
    """Bytes that a process has in memory now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """Of processor time, user and system, that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@app.command()
def ingest(values: int = 20_000_000, rounds: int = 2) -> None:
    """Values/s through one worker from empty, and per second of its processor."""
    table = Table(title=f"thousand values/s, of at most {values:,} values, best of {rounds}")
    for heading in ("content type", "a request", "values", "k/s", "k/s of its processor", "p99 ms"):
        table.add_column(heading, justify="left" if heading == "content type" else "right")
    rng = np.random.default_rng(1)
    for content_type, encode in ENCODE.items():
        for size in (1, 100, 10_000, 1_000_000):
            most = min(values, {1: 20_000, 100: 1_000_000}.get(size, values))
            most = min(most, most if content_type == "application/octet-stream" else 5_000_000)
            batches = [
                request("POST", "/values", encode(rng.normal(size=size)), content_type)
                for _ in range(min(16, most // size))
            ]
            best = max(_ingested(batches, most // size, size) for _ in range(rounds))
            rate, own_rate, p99 = best
            cells = f"{rate:,.1f}", f"{own_rate:,.1f}", f"{p99:.1f}"
            table.add_row(content_type, f"{size:,}", f"{most:,}", *cells)
    out.print(table)


@app.command()
def kept(rounds: int = 3, folder: Path | None = None) -> None:
    """Values/s through one worker that keeps them in a folder, and through one that does not."""
    table = Table(
        title=f"thousand values/s, best of {rounds}, kept in {folder or tempfile.gettempdir()}"
    )
    for heading in ("a request", "kept", "k/s", "k/s of its processor", "p99 ms"):
        table.add_column(heading, justify="right")
    rng = np.random.default_rng(1)
    for size, requests in ((1, 16_000), (100, 10_000), (10_000, 1_000)):
        batches = [octets(rng.normal(size=size)) for _ in range(16)]
        for fsync in ("no", "interval", "always"):
            runs = []
            for _ in range(rounds):
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    settings = {} if fsync == "no" else {"data_dir": place, "fsync": fsync}
                    runs.append(_ingested(batches, requests, size, **settings))
            rate, own_rate, p99 = max(runs)
            table.add_row(f"{size:,}", fsync, f"{rate:,.1f}", f"{own_rate:,.1f}", f"{p99:.1f}")
    out.print(table)


def _ingested(
    batches: list[bytes], requests: int, size: int, **settings: object
) -> tuple[float, float, float]:
    with a_coordinator() as (coordinator, _), a_worker(coordinator, **settings) as (port, pid):
        given = (batches[turn % len(batches)] for turn in range(requests))
        used, since = cpu_seconds(pid), time.perf_counter()
        seconds = uvloop.run(ask(port, given, b"202", min(CONNECTIONS, requests)))
        spent, used = time.perf_counter() - since, cpu_seconds(pid) - used
    p99 = float(np.quantile(seconds, 0.99)) * 1e3
    return requests * size / spent / 1e3, requests * size / max(used, 0.01) / 1e3, p99


def octets(values: Floats, path: str = "/values") -> bytes:
    encode = ENCODE["application/octet-stream"]
    return request("POST", path, encode(values), "application/octet-stream")


@app.command()
def median(requests: int = 40_000, rounds: int = 3) -> None:
    """GET /median while a worker pushes, beside a bare uvicorn app that sends as many bytes."""
    rng = np.random.default_rng(1)
    found: dict[str, list[tuple[float, float, float]]] = {}
    with ExitStack() as stack:
        coordinator, _ = stack.enter_context(a_coordinator())
        worker, _ = stack.enter_context(a_worker(coordinator))
        uvloop.run(ask(worker, iter([octets(rng.normal(size=10_000))]), b"202", 1))
        bare = stack.enter_context(a_bare_app())
        for _ in range(rounds):
            for name, port in {"GET /median": coordinator, "a bare uvicorn app": bare}.items():
                found.setdefault(name, []).append(uvloop.run(_asked(port, worker, requests)))
    title = f"{requests:,} requests, {ASKING} connections, while a worker pushes; best of {rounds}"
    table = Table(title=title)
    for heading in ("", "requests/s", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, runs in found.items():
        rate, p50, p99 = max(runs)
        table.add_row(name, f"{rate:,.0f}", f"{p50:.2f}", f"{p99:.2f}")
    ours, theirs = (max(runs)[0] for runs in found.values())
    out.print(table)
    out.print(f"GET /median answers {ours / theirs:.2f} times as often as the bare app")


async def _asked(port: int, worker: int, requests: int) -> tuple[float, float, float]:
    """Requests/s, and latency, while values that keep moving come in at the worker."""
    pushing = asyncio.create_task(ask(worker, moving(), b"202", 1))
    since = time.perf_counter()
    asked = (request("GET", "/median") for _ in range(requests))
    seconds = await ask(port, asked, b"200", ASKING)
    spent = time.perf_counter() - since
    pushing.cancel()
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
    return requests / spent, float(p50), float(p99)


def moving() -> Iterator[bytes]:
    """Batches whose median never stays, so that the answer changes with many of them."""
    rng = np.random.default_rng(2)
    turn = 0.0
    while True:
        turn += 0.01
        yield octets(rng.normal(size=1_000) + turn)


@contextmanager
def a_bare_app() -> Iterator[int]:
    port = free_port()
    with process("-c", BARE.format(port=port)):
        until_up(port)
        yield port


@app.command()
def recompute(rounds: int = 7) -> None:
    """How long it takes to make an answer anew, with its certificate, low and high."""
    table = Table(title=f"milliseconds to make an answer anew, best of {rounds}")
    for heading in ("rows", "knots a row", "one row changed", "and its picture summed"):
        table.add_column(heading, justify="right")
    for rows in (100, 1_000, 10_000):
        ledger, changing = filled(rows)
        knots = sum(len(row.picture) for row in ledger.rows) / rows
        spent = []
        for turn in range(rounds):
            changing.add(np.full(100_000, float(turn)), now=0)
            exchange(changing, ledger)
            since = time.perf_counter()
            estimate = ledger.answer(now=0).estimate
            summed = time.perf_counter() - since
            _ = estimate and (estimate.value, estimate.rank_error, estimate.low, estimate.high)
            spent.append((time.perf_counter() - since, summed))
        whole, summed = min(spent)
        table.add_row(f"{rows:,}", f"{knots:.0f}", f"{whole * 1e3:.2f}", f"{summed * 1e3:.2f}")
    out.print(table)


@app.command()
def sizes(streams: int = 400) -> None:
    """What an idle stream takes of both services, by how many values it had."""
    table = Table(title=f"of one stream among up to {streams}, of normal values")
    sides = ("worker", "coordinator")
    for heading in ("values", "streams", *(f"{side}\n{what}" for what in WHAT for side in sides)):
        table.add_column(heading, justify="right")
    for values in (1, 1_000, 10_000, 100_000, 1_000_000):
        some = min(streams, 40_000_000 // values)
        table.add_row(f"{values:,}", f"{some:,}", *(f"{one:.2f}" for one in _sizes(values, some)))
    out.print(table)


def _sizes(values: int, streams: int) -> Iterator[float]:
    """Mebibytes before there was any; then of each stream, KiB, and ms of its heartbeats."""
    rng = np.random.default_rng(1)
    with a_coordinator() as (coordinator, its_pid), a_worker(coordinator) as (port, pid):
        pids = (pid, its_pid)
        uvloop.run(ask(port, iter([octets(rng.normal(size=1_000))]), b"202", 1))
        empty = [memory(one) for one in pids]
        for start in range(0, values, 10_000):
            body = rng.normal(size=min(10_000, values - start))
            given = (octets(body, f"/values?stream=s{at}") for at in range(streams))
            uvloop.run(ask(port, given, b"202", 4))
        time.sleep(2 * HEARTBEAT_S)  # for the echo, what lingers, and the first heartbeats
        used = [cpu_seconds(one) for one in pids]
        time.sleep(HEARTBEATS * HEARTBEAT_S)
        spent = [cpu_seconds(one) - before for one, before in zip(pids, used, strict=True)]
        full = [memory(one) for one in pids]
    yield from (one / 2**20 for one in empty)
    yield from ((now - then) / streams / 1024 for now, then in zip(full, empty, strict=True))
    yield from (one / HEARTBEATS / streams * 1e3 for one in spent)


def of_small_numbers(size: int, content_type: str) -> bytes:
    """A body of about so many bytes, of as many values as it can hold."""
    if content_type == "application/msgpack":
        return bytes(msgpack.packb([7] * (size - 5)))
    return b"[7" + b",7" * (size // 2 - 2) + b"]"


ATTACKS = (
    ("application/json", 20, 1_500),
    ("application/json", 10_000, 1_500),
    ("application/json", 1_000_000, 200),
    ("application/json", 4_000_000, 50),
    ("application/msgpack", 4_000_000, 50),
    ("application/json", 32_000_000, 10),
)


@app.command()
def overload(seconds: float = 10.0) -> None:
    """Clients that post as fast as they can to a worker whose coordinator is stopped."""
    table = Table(title=f"a worker under attack, {seconds:g} s each, its coordinator stopped")
    for heading in (
        "content type", "bytes", "clients", "most MiB", "202", "503", "others", "/health p99 ms",
    ):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "content type" else "right")
    for content_type, size, clients in ATTACKS:
        body = of_small_numbers(size, content_type)
        told, most, p99 = _attacked(
            request("POST", "/values", body, content_type), clients, seconds
        )
        others = told.total() - told["202"] - told["503"]
        cells = (clients, most / 2**20, told["202"], told["503"], others, p99 * 1e3)
        table.add_row(content_type, f"{len(body):,}", *(f"{one:,.0f}" for one in cells))
    out.print(table)


def _attacked(attack: bytes, clients: int, seconds: float) -> tuple[Counter[str], int, float]:
    """What the clients were told, the most memory there was, and how soon /health answered."""
    with a_coordinator() as (coordinator, its_pid), a_worker(coordinator) as (port, pid):
        uvloop.run(ask(port, iter([octets(np.zeros(1_000))]), b"202", 1))
        os.kill(its_pid, signal.SIGSTOP)
        try:
            probe = HTTPConnection("127.0.0.1", port)
            probe.connect()
            with ProcessPoolExecutor(1) as elsewhere:
                told = elsewhere.submit(_told, port, attack, clients, seconds)
                watched = _asked_while(probe, pid, "/health", told)
                return told.result(), watched.most, watched.p99
        finally:
            os.kill(its_pid, signal.SIGCONT)


def _asked_while(probe: HTTPConnection, pid: int, path: str, goes_on: Future[Any]) -> Watched:
    """Asks again and again, over a connection of before, with little pauses."""
    most, waited = 0, []
    while not goes_on.done():
        since = time.perf_counter()
        probe.request("GET", path)
        probe.getresponse().read()
        waited.append(time.perf_counter() - since)
        most = max(most, memory(pid))
        time.sleep(PAUSE_S)
    return Watched(most, waited)


def _told(port: int, attack: bytes, clients: int, seconds: float) -> Counter[str]:
    """What became of all, whose clients connect anew whenever they are given up."""
    told = Counter[str]()

    async def attacks() -> None:
        while True:
            with suppress(OSError):
                _, client = await asyncio.get_running_loop().create_connection(
                    lambda: Client(itertools.repeat(attack), told=told), "127.0.0.1", port
                )
                await client.done

    async def attacked() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as attackers:
                for _ in range(clients):
                    attackers.create_task(attacks())

    uvloop.run(attacked())
    return told


@app.command()
def reconnect(workers: int = 1_000, rounds: int = 3) -> None:
    """GET /median while many workers come back to a coordinator that was away and knows nothing."""
    table = Table(title=f"GET /median while {workers:,} workers come back, each of {rounds} times")
    for heading in ("away, s", "all back after, s", "asked", "p50 ms", "p99 ms", "most ms"):
        table.add_column(heading, justify="right")
    port = free_port()
    with ExitStack() as stack:
        coordinator = stack.enter_context(a_coordinator_of_many(port))
        stack.enter_context(process("-m", "benchmarks.services", "fleet", str(port), str(workers)))
        _ = _until_back(port, workers)
        for away in (1.0, 20.0):
            for _ in range(rounds):
                coordinator.kill()
                coordinator.wait()
                time.sleep(away)
                coordinator = stack.enter_context(a_coordinator_of_many(port))
                since = time.perf_counter()
                waited = np.array(_until_back(port, workers)) * 1e3
                spent = time.perf_counter() - since
                latency = (*np.quantile(waited, [0.5, 0.99]), waited.max())
                cells = (f"{away:g}", f"{spent:.1f}", f"{len(waited):,}")
                table.add_row(*cells, *(f"{one:.1f}" for one in latency))
    out.print(table)


@contextmanager
def a_coordinator_of_many(port: int) -> Iterator[subprocess.Popen[bytes]]:
    with process(
        "-m", "coordinator_service", port=port, epsilon=EPSILON, log_level="warning"
    ) as coordinator:
        until_up(port)
        yield coordinator


def _until_back(port: int, workers: int) -> list[float]:
    """How long each answer took, asked one after the other, until all rows are there."""
    probe, waited, live = HTTPConnection("127.0.0.1", port), list[float](), 0
    probe.connect()
    while live < workers:
        since = time.perf_counter()
        probe.request("GET", "/median")
        live = json.loads(probe.getresponse().read())["workers"]["live"]
        waited.append(time.perf_counter() - since)
        time.sleep(PAUSE_S)
    return waited


@app.command(hidden=True)
def fleet(port: int, workers: int) -> None:
    """Workers without values of users: each an outbox, a connection, and a courier's patience."""
    rng = np.random.default_rng(1)

    async def all_() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(Simulated(port, number, rng.normal(size=100)).run())

    uvloop.run(all_())


class Simulated:
    """A worker that has said what it has, and goes on to say that it is there."""

    def __init__(self, port: int, number: int, values: Floats) -> None:
        source = Source(f"w{number}", "default", number)
        self._outbox = Outbox(source, Digest(digest_error_for(EPSILON)), now=clock())
        self._outbox.add(values, now=clock())
        self._port, self._tries = port, Tries()

    async def run(self) -> None:
        while True:
            with suppress(OSError, EOFError, TimeoutError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                with closing(writer):
                    await self._spoken(reader, writer)
            self._tries.failed(clock(), s_max=HEARTBEAT_S)
            await asyncio.sleep(self._tries.until - clock())

    async def _spoken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the connection is lost."""
        while True:
            if data := self._outbox.delta(now=clock()):
                body = pack_request([data])
                writer.write(request("POST", "/deltas", body, "application/msgpack"))
                async with asyncio.timeout(HEARTBEAT_S):
                    (receipt,) = unpack_response(await _content(reader))
                self._tries.succeeded()
                self._outbox.receive(cast(Receipt, receipt), now=clock())
            await asyncio.sleep(max(0.0, self._outbox.due_at - clock()))


async def _content(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    content = await reader.readexactly(
        int(head.lower().partition(b"content-length:")[2].split()[0])
    )
    if head[9:12] != b"200":
        raise ConnectionError(content)
    return content


def filled(rows: int) -> tuple[Ledger, Outbox]:
    """Rows of 10,000 values each, of which a hundred differ; and the source of the first."""
    ledger, rng = Ledger(EPSILON, number=1, now=0), np.random.default_rng(1)
    outboxes = []
    for number in range(100):
        digest = Digest(digest_error_for(EPSILON))
        outbox = Outbox(Source(f"w{number}", "default", number), digest, now=0)
        outbox.add(rng.normal(size=10_000) + number % 7, now=0)
        exchange(outbox, ledger)
        outboxes.append(outbox)
    some = list(ledger.rows)
    all_ = [
        replace(some[number % 100], source=Source(f"w{number}", "default", number))
        for number in range(rows)
    ]
    return Ledger(EPSILON, number=1, now=0, rows=all_), outboxes[0]


def exchange(outbox: Outbox, ledger: Ledger) -> None:
    while outbox.due and (delta := outbox.delta(now=0)):
        outbox.receive(cast(Receipt, ledger.receive(delta, now=0)), now=0)


if __name__ == "__main__":
    app()
