"""The services under attack: what each is told, what memory it takes, who still gets through.

    python -m benchmarks.hostile              every attack, ten minutes
    python -m benchmarks.hostile --only NAME  one of them
    python -m benchmarks.hostile --names      what they are called

Each attack meets a coordinator and a worker of its own, on the loopback, and lasts some seconds at
most. First all is quiet: one client posts values at the worker, one asks the coordinator for the
median, each over a new connection every time. Then they go on while another process attacks. Told
are the memory of the process that is attacked, as the kernel counts it (before, at its most, and
after all attackers have gone), and the worst wait of these two, beside their worst when it was
quiet. Attackers and services share the processors of this machine: so some of each wait is the
attackers' own work.

It prints a table in Markdown, as it stands in docs/security.md.
"""

import asyncio
import itertools
import re
import resource
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPConnection, HTTPException
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Self

import msgpack
import numpy as np
import typer
import uvloop
from rich.console import Console

from benchmarks.services import free_port, memory, octets, process, request, until_up
from shared.picture import Segments
from shared.protocol import (
    NO_MARK,
    SEGMENTS_MAX,
    Cause,
    Delta,
    Form,
    Source,
    digest_error_for,
    pack_delta,
    pack_request,
)

EPSILON = 0.01
SECONDS = 6.0  # of each attack, at most
QUIET_S, AFTER_S, PAUSE_S = 2.0, 2.0, 0.01
PATIENCE_S = 10.0  # of an honest client
SETTLED_S = 0.5  # without a word, after which no more answers are waited for
STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
MIB = 2**20
MSGPACK, JSON = "application/msgpack", "application/json"
TOKEN = "the-token-of-those-who-may"  # noqa: S105  of a service that lives for some seconds

Pieces = Callable[[int], Iterator[bytes]]
"""What one attacker sends over a connection, told which of them he is."""

out = Console(width=200, soft_wrap=True)


@dataclass(frozen=True)
class Attack:
    victim: str
    words: str
    clients: int
    pieces: Pieces
    pause_s: float = 0.0  # between two pieces
    reads: bool = True
    waits: bool = False  # for an answer, before the next piece
    resets: bool = False  # once it has one
    rows: int = 0  # that the coordinator has already
    settings: dict[str, object] = field(default_factory=dict)
    seconds: float = SECONDS


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: x", *lines, "", ""]).encode()


def once(*pieces: bytes) -> Pieces:
    return lambda _: iter(pieces)


def again(piece: bytes) -> Pieces:
    """Without an end."""
    return lambda _: itertools.repeat(piece)


def then(first: bytes, piece: bytes) -> Pieces:
    return lambda _: itertools.chain([first], itertools.repeat(piece))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def post(path: str, make: Callable[[], bytes], content_type: str) -> Pieces:
    """Made once it is needed, as it may be large."""
    made = cache(lambda: request("POST", path, make(), content_type))
    return lambda _: iter([made()])


def shared_out(requests: int, clients: int, one: Callable[[int], bytes]) -> Pieces:
    """So many different requests, of which each attacker sends a part."""
    return lambda client: (one(number) for number in range(client, requests, clients))


def strange(number: int) -> bytes:
    """A delta on a mark that nobody made, of a source that nobody knows."""
    source = Source("w", f"s{number}", number)
    return pack_delta(
        Delta(
            source=source, base=b"anything", since=5, upto=9, form=Form.SAME, shift=0.0,
            digest_error=digest_error_for(EPSILON), ledger=0, cause=Cause.HEARTBEAT,
        )
    )  # fmt: skip


def whole(number: int, segments: int, values: int, stream: str = "default") -> bytes:
    """A row of so many segments, drawn on nothing."""
    knots = np.random.default_rng(number).normal(size=segments + 1)
    weights = np.full(segments, float(values // segments))
    return pack_delta(
        Delta(
            source=Source(f"w{number}", stream, number), base=NO_MARK, since=0,
            upto=int(weights.sum()), form=Form.WHOLE, segments=Segments(np.sort(knots), weights),
            shift=0.0, digest_error=digest_error_for(EPSILON), ledger=0, cause=Cause.SHIFT,
        )
    )  # fmt: skip


def small(number: int) -> bytes:
    """A source of few values, in one of a hundred streams."""
    return whole(number, 1, 2, f"s{number % 100}")


def deltas(*, each: int, requests: int, clients: int, delta: Callable[[int], bytes]) -> Pieces:
    def one(number: int) -> bytes:
        numbers = range(number * each, (number + 1) * each)
        return request("POST", "/deltas", pack_request(list(map(delta, numbers))), MSGPACK)

    return shared_out(requests, clients, one)


def keyed(number: int) -> bytes:
    body = np.array([float(number)]).tobytes()
    return (
        head(
            "POST",
            "/values",
            f"idempotency-key: {number:0255d}",
            "content-type: application/octet-stream",
            f"content-length: {len(body)}",
        )
        + body
    )


def of_a_stream(number: int) -> bytes:
    return octets(np.array([1.0, 2.5]), f"/values?stream=s{number}")


HUGE = ["content-type: application/json", "content-length: 999999999999"]
SLOW = ["content-type: application/json", "content-length: 1000"]
CHUNKED = ["content-type: application/json", "transfer-encoding: chunked"]
TO_DELTAS = ["content-type: application/msgpack", "transfer-encoding: chunked"]
QUANTILES = "&".join(f"q={n / 20}" for n in range(20))
WRONG = f"authorization: Bearer {TOKEN[::-1]}"
EVENTS = head("GET", "/median/events")
RESET = struct.pack("ii", 1, 0)  # for a socket that lingers for no second

ATTACKS: dict[str, Attack] = {
    "huge-declared": Attack(
        "worker", "50 bodies said to be 1 TB, sent until closed", 50,
        then(head("POST", "/values", *HUGE), bytes(65536)),
    ),
    "huge-chunked": Attack(
        "worker", "50 bodies in chunks, without an end", 50,
        then(head("POST", "/values", *CHUNKED), chunk(b"1," * 32768)),
    ),
    "huge-chunked-deltas": Attack(
        "coordinator", "the same as deltas", 50,
        then(head("POST", "/deltas", *TO_DELTAS), chunk(bytes(65536))),
    ),
    "slow-bodies": Attack(
        "worker", "300 bodies of one byte a second", 300,
        then(head("POST", "/values", *SLOW), b"1"), pause_s=1.0, seconds=14,
    ),
    "json-digits": Attack(
        "worker", "20 at a time of 30 MB of digits, again and again", 20,
        post("/values", lambda: b"[" + b"1" * (30 * MIB) + b"]", JSON),
    ),
    "json-nested": Attack(
        "worker", "20 at a time of 16 MB of [, again and again", 20,
        post("/values", lambda: b"[" * (16 * MIB), JSON),
    ),
    "json-numbers": Attack(
        "worker", "20 at a time of 16 MB of small numbers, again and again", 20,
        post("/values", lambda: b"[7" + b",7" * (8 * MIB) + b"]", JSON),
    ),
    "text-lines": Attack(
        "worker", "20 at a time of 16 MB of empty lines, again and again", 20,
        post("/values", lambda: b"\n" * (16 * MIB), "text/plain"),
    ),
    "msgpack-nested": Attack(
        "worker", "20 at a time of 4 MB of nested arrays, again and again", 20,
        post("/values", lambda: b"\x91" * (4 * MIB), MSGPACK),
    ),
    "msgpack-claims": Attack(
        "worker", "20 at a time of 5 MB of arrays that claim 4 G, again and again", 20,
        post("/values", lambda: b"\xdd\xff\xff\xff\xff" * MIB, MSGPACK),
    ),
    "msgpack-integers": Attack(
        "worker", "20 at a time of 8 MB of one-byte numbers, again and again", 20,
        post("/values", lambda: b"\xdd" + (8 * MIB).to_bytes(4, "big") + b"\x01" * (8 * MIB),
        MSGPACK),
    ),
    "deltas-nested": Attack(
        "coordinator", "20 at a time of 4 MB of nested arrays, as deltas", 20,
        post("/deltas", lambda: b"\x91" * (4 * MIB), MSGPACK),
    ),
    "deltas-integers": Attack(
        "coordinator", "20 at a time of 8 MB of deltas that are numbers", 20,
        post("/deltas", lambda: bytes(msgpack.packb([[0] * 4000] * 2000)), MSGPACK),
    ),
    "headers": Attack(
        "coordinator", "20 heads of one header after the other, without an end", 20,
        then(b"GET /median HTTP/1.1\r\nhost: x\r\n", b"a: b\r\n" * 10_000),
    ),
    "long-header": Attack(
        "coordinator", "20 heads of one header without an end", 20,
        then(b"GET /median HTTP/1.1\r\nhost: x\r\na: ", b"b" * 65536),
    ),
    "long-query": Attack(
        "coordinator", "20 at a time of a query of 1 MB, again and again", 20,
        once(head("GET", "/quantile?" + "q=&" * (MIB // 3))),
    ),
    "half-heads": Attack(
        "coordinator", "1,000 heads that stop in the middle", 1_000,
        once(b"GET /median HTTP/1.1\r\nhost: x\r\na: "),
    ),
    "idle": Attack(
        "coordinator", "1,000 connections that say nothing", 1_000, once(),
    ),
    "resets": Attack(
        "coordinator", "200 at a time: a head of 14 KiB, reset once answered, and again", 200,
        once(head("GET", "/health", *[f"h{n:02}: {'v' * 155}" for n in range(90)])), resets=True,
    ),
    "pipelines": Attack(
        "coordinator", "20 endless pipelines of GET /median, answers unread", 20,
        again(head("GET", "/median") * 1_000), reads=False,
    ),
    "pipelines-explain": Attack(
        "coordinator", "20 endless pipelines of GET /explain of 1,000 rows, unread", 20,
        again(head("GET", "/explain") * 1_000), reads=False, rows=1_000,
    ),
    "pipelines-values": Attack(
        "worker", "20 endless pipelines of POST /values, of one value each", 20,
        again(octets(np.zeros(1)) * 100),
    ),
    "events": Attack(
        "coordinator", "500 streams of events, left open and unread", 500,
        once(EVENTS), reads=False,
    ),
    "streams": Attack(
        "worker", "up to 10,000 streams of two values", 100,
        shared_out(10_000, 100, of_a_stream), waits=True, seconds=20,
    ),
    "sources": Attack(
        "coordinator", "up to 100,000 sources of two values, in 100 streams", 4,
        deltas(each=500, requests=200, clients=4, delta=small), seconds=40,
    ),
    "large-rows": Attack(
        "coordinator", f"up to 100 sources, each a row of {SEGMENTS_MAX:,} segments", 4,
        deltas(each=1, requests=100, clients=4, delta=lambda n: whole(n, SEGMENTS_MAX, 10**8)),
        seconds=20,
    ),
    "strange": Attack(
        "coordinator", "up to 100,000 deltas on marks nobody made, of unknown sources", 4,
        deltas(each=500, requests=200, clients=4, delta=strange), seconds=20,
    ),
    "keys": Attack(
        "worker", "up to 200,000 Idempotency-Keys of 255 characters", 50,
        shared_out(200_000, 50, keyed), waits=True, seconds=90,
    ),
    "wrong-tokens": Attack(
        "coordinator", "100 clients with a wrong token, again and again", 100,
        again(head("GET", "/median", WRONG)), waits=True, settings={"read_token": TOKEN},
    ),
    "explain": Attack(
        "coordinator", "100 clients that ask for /explain of 1,000 rows", 100,
        again(head("GET", "/explain")), waits=True, rows=1_000,
    ),
    "workers": Attack(
        "coordinator", "100 clients that ask for /workers of 1,000 rows", 100,
        again(head("GET", "/workers")), waits=True, rows=1_000,
    ),
    "cdf": Attack(
        "coordinator", "100 clients that ask for /cdf of 1,000 rows", 100,
        again(head("GET", "/cdf?points=1000")), waits=True, rows=1_000,
    ),
    "quantiles": Attack(
        "coordinator", "100 clients that ask for 20 quantiles of 1,000 rows", 100,
        again(head("GET", f"/quantile?{QUANTILES}")), waits=True, rows=1_000,
    ),
}  # fmt: skip


class Attacker(asyncio.Protocol):
    """One connection: says its pieces as fast as they are taken, and counts what it is told."""

    def __init__(self, attack: Attack, pieces: Iterator[bytes], told: Counter[str]) -> None:
        self._attack, self._pieces, self._told = attack, pieces, told
        self._goes = asyncio.Event()
        self._goes.set()
        self.lost = asyncio.Event()
        self.heard_at, self._answers, self._heard = time.monotonic(), 0, asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=2**16)
        if not self._attack.reads:
            transport.pause_reading()

    def pause_writing(self) -> None:
        self._goes.clear()

    def resume_writing(self) -> None:
        self._goes.set()

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        for status in STATUS.findall(data):
            self._answers += 1
            self._told[status.decode()] += 1
            self._heard.set()
        if self._attack.resets:
            self._resets()

    def _resets(self) -> None:
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, RESET
        )
        self.transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        self._told["closed unanswered"] += not self._answers
        self._goes.set()
        self._heard.set()
        self.lost.set()

    async def attacks(self) -> None:
        for piece in self._pieces:
            if self.lost.is_set():
                return
            self._heard.clear()
            self.transport.write(piece)
            await asyncio.sleep(self._attack.pause_s)
            await (self._heard if self._attack.waits else self._goes).wait()
        await self._until_settled()

    async def _until_settled(self) -> None:
        """All it will be told, if it is told anything; else it stays, and says no more."""
        while not self.lost.is_set():
            await asyncio.sleep(SETTLED_S / 5)
            if self._answers and time.monotonic() - self.heard_at > SETTLED_S:
                self.transport.close()


def attacked(name: str, port: int) -> Counter[str]:
    """In a process of its own: what all attackers were told."""
    attack, told = ATTACKS[name], Counter[str]()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    async def one(client: int) -> None:
        """As often as he is given up, but for who has a part of the whole to say."""
        pieces = attack.pieces(client)
        for turn in itertools.count():
            if turn:
                pieces = attack.pieces(client)
            with suppress(OSError):
                _, attacker = await asyncio.get_running_loop().create_connection(
                    lambda given=pieces: Attacker(attack, given, told),  # type: ignore[misc]
                    "127.0.0.1",
                    port,
                )
                await attacker.attacks()
            if attack.pieces.__qualname__.startswith("shared_out"):
                return

    async def all_() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(attack.seconds), asyncio.TaskGroup() as attackers:
                for client in range(attack.clients):
                    attackers.create_task(one(client))

    uvloop.run(all_())
    return told


class Honest:
    """Who asks for one thing again and again, each time over a new connection."""

    def __init__(self, port: int, method: str, path: str, body: bytes, status: int) -> None:
        self._port, self._status = port, status
        self._asks = method, path, body
        self.waited: list[float] = []
        self.failed = 0
        self._ends = threading.Event()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ends.is_set():
            since = time.perf_counter()
            self.failed += not self._is_answered()
            self.waited.append(time.perf_counter() - since)
            time.sleep(PAUSE_S)

    def _is_answered(self) -> bool:
        method, path, body = self._asks
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        headers = {"content-type": "application/octet-stream", "authorization": f"Bearer {TOKEN}"}
        try:
            connection.request(method, path, body, headers)
            return connection.getresponse().status == self._status
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def told(self) -> tuple[float, str]:
        """The worst wait, and how many were answered; then from the beginning."""
        waited, failed = self.waited, self.failed
        self.waited, self.failed = [], 0
        answered = "all" if not failed else f"{len(waited) - failed} of {len(waited)}"
        return max(waited, default=PATIENCE_S), answered


@dataclass(frozen=True)
class Found:
    told: Counter[str]
    memory: tuple[int, int, int]
    honest: tuple[str, str]


@contextmanager
def services(attack: Attack) -> Iterator[dict[str, tuple[int, int]]]:
    """Of a coordinator and a worker the port and the process, both up, with what rows there are."""
    port, own = free_port(), free_port()
    given = {"log_level": "error"} | attack.settings
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        coordinator = stack.enter_context(process("-m", "coordinator_service", port=port, **given))
        until_up(port)
        worker = stack.enter_context(
            process("-m", "worker_service", port=own, coordinator_url=url, **given)
        )
        until_up(own)
        if attack.rows:
            fill(port, attack.rows)
        yield {"coordinator": (port, coordinator.pid), "worker": (own, worker.pid)}


def fill(port: int, rows: int) -> None:
    """With rows as those of real sources, in the default stream."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        for start in range(0, rows, 500):
            packed = [whole(number, 50, 10_000) for number in range(start, min(rows, start + 500))]
            headers = {"content-type": MSGPACK}
            connection.request("POST", "/deltas", pack_request(packed), headers)
            connection.getresponse().read()


def measured(name: str) -> Found:
    attack = ATTACKS[name]
    with services(attack) as ports, ExitStack() as stack:
        (coordinator, _), (worker, _) = ports["coordinator"], ports["worker"]
        port, pid = ports[attack.victim]
        values = np.random.default_rng(1).normal(size=100).tobytes()
        honest = [
            stack.enter_context(Honest(worker, "POST", "/values", values, 202)),
            stack.enter_context(Honest(coordinator, "GET", "/median", b"", 200)),
        ]
        time.sleep(QUIET_S)
        quiet, before = [one.told()[0] for one in honest], memory(pid)
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the most from now on
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as elsewhere:
            told = elsewhere.submit(attacked, name, port).result()
        waited = [one.told() for one in honest]
        most = most_memory(pid)
        time.sleep(AFTER_S)
        after = memory(pid)
    rows = zip(quiet, waited, strict=True)
    words = [
        f"{answered}, {1e3 * s:,.0f} ms, {s / quiet_s:,.0f} x" for quiet_s, (s, answered) in rows
    ]
    return Found(told, (before, most, after), (words[0], words[1]))


def most_memory(pid: int) -> int:
    """The most that a process had in memory since that was last asked to be counted anew."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


HEADINGS = (
    "attack", "on", "what is sent", "what is answered", "MiB before", "most", "after",
    "honest `POST /values`", "honest `GET /median`",
)  # fmt: skip


def main(
    only: Annotated[list[str] | None, typer.Option(help="of this name; may be repeated")] = None,
    *,
    names: Annotated[bool, typer.Option("--names", help="what they are called")] = False,
) -> None:
    """Attack both services, and say in a table what came of it."""
    if names:
        out.print("\n".join(ATTACKS))
        return
    row(HEADINGS)
    row(["---"] * 4 + ["---:"] * 3 + ["---"] * 2)
    for name in only or ATTACKS:
        row(cells(name, measured(name)))


def row(given: Iterable[str]) -> None:
    out.print(f"| {' | '.join(given)} |", markup=False, highlight=False)


def cells(name: str, found: Found) -> Iterator[str]:
    attack = ATTACKS[name]
    yield from (name, attack.victim, attack.words)
    told = found.told.most_common()
    yield ", ".join(f"{count:,} x {what}" for what, count in told if count) or "nothing"
    yield from (f"{size / MIB:,.0f}" for size in found.memory)
    yield from found.honest


if __name__ == "__main__":
    typer.run(main)
