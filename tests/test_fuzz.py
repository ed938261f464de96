"""Whatever bytes come from outside, there is a good answer or the one that says what is wrong.

Each test tries some hundreds of cases, drawn by `--seed`; `make fuzz N=100` tries a hundred times
as many. What fails says its case: the same seed, and the same `N` or more, meet it again.
"""

import asyncio
import json
import math
import re
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, cast
from unittest.mock import patch
from urllib.parse import unquote

import msgpack
import numpy as np
import pytest
from starlette.types import ASGIApp, Message

import coordinator_service.app
import coordinator_service.settings
import coordinator_service.store
import worker_service.settings
import worker_service.store
from coordinator_service import answers, long
from shared.digest import Digest, MalformedDigest
from shared.ledger import Ledger
from shared.outbox import NotTaken, Outbox
from shared.protocol import (
    NO_MARK,
    Refusal,
    Source,
    pack_request,
    unpack_delta,
    unpack_response,
)
from shared.serving.storage import Unusable
from tests.cluster import Cluster, run
from tests.mutations import MAX, mixed, mutated
from tests.processes import SOON_S, Processes, until
from tests.test_digest_bytes import VALID as DIGEST
from tests.test_intake import BAD, GOOD, TYPES, outcome, small_pieces
from tests.test_protocol import FIELDS, HOME, RECEIPT_FIELDS
from tests.test_protocol_law import KINDS, keeps_the_law
from tests.test_protocol_law import VALID as MESSAGES
from worker_service.app import Worker
from worker_service.sources import Batch
from worker_service.store import Key

TAKEN = [body for _, body, _ in GOOD]
BODIES = [body for body in TAKEN + [body for _, body, *_ in BAD] if len(body) < 2**17]
SENT = [data for _, data in MESSAGES]


@pytest.fixture
def cases(request: pytest.FixtureRequest) -> Callable[[int], Iterator[Random]]:
    """So many dice, each seeded by what a failure needs to be met again."""
    config, name = request.config, request.node.nodeid

    def drawn(number: int) -> Iterator[Random]:
        for case in range(number * config.getoption("--fuzz")):
            yield Random(  # noqa: S311  no secret
                f"{config.getoption('--seed')} {name} {case}"
            )

    return drawn


Cases = Callable[[int], Iterator[Random]]


@pytest.mark.parametrize("content_type", TYPES)
def test_almost_values_are_values_or_refused(content_type: str, cases: Cases) -> None:
    for dice in cases(700):
        body = mutated(dice, BODIES)
        outcome(content_type, body)
        with small_pieces():
            outcome(content_type, body)


def test_almost_messages_keep_the_law(cases: Cases) -> None:
    for dice in cases(3000):
        fields = dice.choice([[*FIELDS, HOME], FIELDS, RECEIPT_FIELDS])
        data = mutated(dice, SENT) if dice.random() < 0.5 else mixed(dice, fields)
        for kind in KINDS:
            keeps_the_law(kind, data)


def test_almost_digests_are_digests_or_malformed(cases: Cases) -> None:
    small = Digest(0.01)
    small.add(np.arange(9.0))
    for dice in cases(5000):
        data = mutated(dice, [DIGEST, small.to_bytes()])
        try:
            digest = Digest.from_bytes(data)
        except MalformedDigest:
            continue
        assert Digest.from_bytes(digest.to_bytes()).to_bytes() == digest.to_bytes(), data.hex()
        assert digest.count == 0 or math.isfinite(cast(float, digest.quantile(0.3)))


# Requests, of any bytes that a server lets through


class Answer:
    """What an app says to a request, byte by byte as a server would hand it in."""

    def __init__(self) -> None:
        self.status, self.headers, self.body = 0, dict[bytes, bytes](), b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        self.body += message.get("body", b"")


class Request(NamedTuple):
    method: str
    path: bytes
    query: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""


async def asked(app: ASGIApp, request: Request) -> Answer:
    """As uvicorn asks; whoever asked listens until the first piece of an answer has come."""
    answer, sent = Answer(), False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            while not answer.body:
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": request.body, "more_body": False}

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
        "method": request.method, "path": unquote(request.path.decode("latin-1")),
        "raw_path": request.path, "root_path": "", "query_string": request.query,
        "headers": list(request.headers), "server": ("service", 80), "client": ("client", 1),
    }  # fmt: skip
    try:
        await app(scope, receive, answer)
    except Exception as error:
        raise AssertionError(str(request)) from error
    return answer


PATHS = [
    b"/", b"/median", b"/median/events", b"/median/history", b"/quantile", b"/streams", b"/cdf",
    b"/workers", b"/explain", b"/deltas", b"/workers/w1/retire", b"/workers/%2F/retire",
    b"/workers//retire", b"/workers/%00/retire", b"/dashboard/index.html",
    b"/dashboard/%2e%2e%2fapp.py",
    b"/health", b"/ready", b"/metrics", b"/values", b"/flush", b"/digest", b"/openapi.json",
    b"/docs",
]  # fmt: skip
NAMES = [b"q", b"stream", b"points", b"last_s", b"", b"Q", b"stre%61m", b"%00", b"\xff"]
GIVEN = [
    b"0.5", b"0", b"1", b"-0", b"2", b"10", b"default", b"s2", b"1e999", b"nan", b"-inf", b"1e-400",
    b"%D9%A3", b"0x1p3", b"1_0", b"%00", b"%FF", b"%C0%80", b"%ED%A0%80", b"%", b"%zz", b"a" * 101,
    b"9" * 5000, b"0." + b"9" * 5000, b"+", b"%2B1", b" 1", b"true", b"\xe2\x82\xac", b"",
]  # fmt: skip
HEADERS = [
    b"content-type", b"content-length", b"content-encoding", b"idempotency-key", b"median-worker",
    b"if-none-match", b"authorization", b"host", b"transfer-encoding", b"expect", b"range",
    b"cookie",
]  # fmt: skip
SAID = [
    b"application/json", b"application/msgpack", b"application/octet-stream", b"text/plain",
    b"application/json; charset=\xff", b"; ;", b"", b"\xb2", b"1", b"-1",
    b"999999999999999999999999",
    b"gzip", b"identity", b"chunked", b"100-continue", b"k", b"k" * 256, b"\xff", b"\t", b"w1",
    b"%FF",
    b"%", b"*", b'W/"a", "b"', b"Bearer", b"Bearer " + b"x" * 20, b"Basic \xff", b"[", b"[::1",
    b"a/b?c#d",
]  # fmt: skip
METHODS = ["GET"] * 6 + ["POST"] * 5 + ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "X"]


def almost_a_request(dice: Random, bodies: Sequence[bytes]) -> Request:
    """Of any method and path, with parameters and headers that belong to it or to another."""
    pairs = [
        dice.choice(NAMES) + dice.choice((b"=", b"=", b"=", b"")) + dice.choice(GIVEN)
        for _ in range(dice.choice((0, 0, 1, 1, 2, 3, 25)))
    ]
    query, path = dice.choice((b"&", b"&", b";", b"&&")).join(pairs), dice.choice(PATHS)
    if dice.random() < 0.1:
        path, query = mutated(dice, PATHS)[:3000], mutated(dice, [query, b"q=0.5"])[:3000]
    more = [(dice.choice(HEADERS), dice.choice(SAID)) for _ in range(dice.choice((0, 1, 1, 2, 4)))]
    headers = [(b"content-type", dice.choice(TYPES).encode()), *more]
    body = dice.choice(bodies) if dice.random() < 0.2 else mutated(dice, bodies)
    return Request(dice.choice(METHODS), path, query, headers, body)


def good_or_the_one_shape(answer: Answer, request: Request) -> None:
    status, kind = answer.status, answer.headers.get(b"content-type", b"")
    assert status in {200, 202, 304, 503, 507} or 400 <= status < 500, (answer.body, request)
    if request.method == "HEAD" or (status < 400 and kind != b"application/json"):
        return
    assert kind == b"application/json", request
    said = json.loads(answer.body, parse_constant=pytest.fail)
    if status >= 400:
        assert set(said) == {"error"}, (said, request)
        assert {"code", "message"} <= set(said["error"]) <= {"code", "message", "position"}


def test_any_request_gets_a_good_answer_or_the_one_shape(
    cases: Cases, rng: np.random.Generator
) -> None:
    """Of both services, with what they come to know by it; and in the end they still serve."""

    async def told() -> None:
        async with Cluster(rng, workers=1, heartbeat_s=0.05, answer_s_max=0.5) as cluster:
            (node,) = cluster.nodes
            for dice in cases(3000):
                service = dice.choice((node, cluster.coordinator))
                bodies = SENT if service is not node else BODIES
                request = almost_a_request(dice, bodies)
                good_or_the_one_shape(await asked(service.app, request), request)
            assert (await cluster.post(node, [1.0], "after")).status_code == 202
            assert (await cluster.coordinator.client.get("/median")).status_code == 200
            assert node.failed == cluster.coordinator.failed == []

    run(told(), within_s=3000)


DELTAS = b"POST /deltas HTTP/1.1\r\nhost: x\r\ncontent-type: application/msgpack\r\n"
HEADS_AND_BODIES = [
    b"GET /median HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /quantile?q=0.5&stream=a HTTP/1.1\r\nhost: x\r\naccept: */*\r\n\r\n",
    DELTAS + b"content-length: 3\r\n\r\n\x91\xc4\x00",
    DELTAS + b"transfer-encoding: chunked\r\n\r\n3\r\n\x91\xc4\x00\r\n0\r\n\r\n",
    b"GET /median HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    b"POST /workers/a/retire HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nhi",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HEAD / HTTP/1.0\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nhost: x\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
]  # fmt: skip


def test_whatever_comes_over_a_connection_is_answered_or_let_go(
    cases: Cases, tmp_path: Path
) -> None:
    """By a real server: it says nothing but HTTP, and that it failed never."""
    statuses = Counter[bytes]()
    with Processes(tmp_path) as processes:
        coordinator = processes.coordinator(log_level="warning")
        until(lambda: coordinator.is_up, "the coordinator is up")
        for dice in cases(300):
            data = mutated(dice, HEADS_AND_BODIES)
            said = told_over_a_connection(coordinator.port, data)
            found = re.findall(rb"HTTP/1\.[01] (\d{3}) ", said)
            statuses.update(found)
            assert bool(found) == said.startswith(b"HTTP/1.") == bool(said), (data, said)
            assert not [one for one in found if one >= b"500"], (data, said)
            assert b"400" not in found or b'{"error":{"code":' in said, (data, said)
        assert coordinator.get("/median")["count"] == 0
        assert "Traceback" not in coordinator.said
    assert min(statuses[b"200"], statuses[b"400"], statuses[b"404"]) > 3, statuses


def told_over_a_connection(port: int, data: bytes) -> bytes:
    """All that is said until it is closed, or reset."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=SOON_S) as one, suppress(OSError):
        one.sendall(data)
        one.shutdown(socket.SHUT_WR)
        while more := one.recv(2**16):
            said += more
    return said


def test_what_is_almost_a_token_opens_nothing(cases: Cases) -> None:
    token = b"the-token-of-those-who-may-read"

    async def told() -> None:
        app = a_coordinator_app(read_token=token.decode())
        for dice in cases(500):
            shown = [mutated(dice, [b"Bearer " + token]) for _ in range(dice.choice((0, 1, 1, 2)))]
            headers = [(b"authorization", one) for one in shown]
            query = dice.choice((b"", b"stream=default", b"\xff"))
            answer = await asked(app, Request("GET", b"/workers", query, headers))
            found[answer.status] += 1
            assert answer.status == 401 or any(token in one for one in shown), shown

    found = Counter[int]()
    run(told(), within_s=3000)
    assert found[401] > 10 * found[200] > 0


# Deltas that are valid, and as absurd as valid ones can be


def absurd_knots(dice: Random) -> list[Any]:
    """A step, and knots in order, as packed: floats from the ends of their range, or multiples."""
    if dice.random() < 0.5:
        places = sorted({one + 0.0 for one in dice.sample(PLACES, k=dice.randint(2, len(PLACES)))})
        drawn: list[Any] = [dice.choice((0, -1074, 971))]
    else:
        places = [dice.choice((1, 7, 2**31, 2**52)) for _ in range(dice.randint(2, 6))]
        places[0] *= dice.choice((1, -1))
        drawn = [dice.choice((0, -2, 900, -1000, 971, -1074))]
    for one in places:
        drawn += [one, None] if dice.random() < 0.3 else [one]
    return drawn


PLACES = [
    MAX,
    -MAX,
    math.nextafter(MAX, 0),
    5e-324,
    -5e-324,
    0.0,
    1.0,
    -1.0,
    2.0**53,
    1e300,
    1e-300,
]
COUNTS = [0, 1, 1, 2, 10, 2**20, 2**40, 2**47]
Rows = dict[tuple[str, int], tuple[int, bytes, int]]


def absurd_delta(dice: Random, rows: Rows) -> bytes:
    """Of one of few sources, mostly drawn on the row that there is."""
    source = dice.choice(("default", "s2")), dice.choice((1, 2, 3))
    covered, mark, ledger = rows.get(source, (0, NO_MARK, 0))
    form = 2 if not covered else dice.choice((0, 1, 1, 2))
    knots = absurd_knots(dice) if form else None
    unit = dice.choice((0, 0, 0, 1, 10, 30))
    gains = [dice.choice(COUNTS[:6]) for _ in range(len(knots or "") - 3)]
    since = 0 if form == 2 else covered
    upto = max(covered, since + (sum(gains) << unit if form else 0) + dice.choice(COUNTS))
    shift = dice.choice((0, 0, 1, 16, upto, 16 * upto))
    fields = [
        2, "w", *source, mark, since, upto, form, knots, [unit, *gains] if form else None, shift,
        dice.choice((1, 1, 1, 400)), ledger, dice.randint(2, 17), dice.choice((0, 8, 2**64 - 1)),
    ]  # fmt: skip
    if dice.random() < 0.05:
        return mixed(dice, fields)
    data: bytes = msgpack.packb(fields)
    return data


QUERIES = [
    (b"/median", b""), (b"/median", b"stream=s2"), (b"/quantile",
    b"q=0&q=1&q=.5&q=1e-300&q=.9999999"),
    (b"/quantile", b"stream=s2&q=0&q=1&q=.5&q=.25"), (b"/explain", b"q=1"), (b"/workers", b""),
    (b"/explain", b"stream=s2&q=0"), (b"/streams", b""), (b"/cdf", b"points=1000&stream=s2"),
    (b"/cdf", b"points=2"), (b"/median/history", b""), (b"/metrics", b""),
]  # fmt: skip


def test_whatever_deltas_say_there_are_answers(cases: Cases) -> None:
    async def told() -> None:
        for dice in cases(12):
            app = a_coordinator_app(epsilon=dice.choice((0.0005, 0.01, 0.49)))
            rows: Rows = {}
            for _ in range(dice.randint(1, 15)):
                await heard(app, absurd_delta(dice, rows), rows)
            accepted[bool(rows)] += 1
            for path, query in QUERIES:
                request = Request("GET", path, query)
                good_or_the_one_shape(await asked(app, request), request)

    accepted = Counter[bool]()
    with patch.object(long, "RESTS", 0), patch.object(answers, "REST_S_MAX", 0):
        run(told(), within_s=3000)
    assert accepted[True] > 10 * accepted[False]


def a_coordinator_app(**settings: Any) -> ASGIApp:
    given = coordinator_service.settings.Settings(**settings)
    return coordinator_service.app.create_app(given, clock=time.monotonic, wall=time.time)


async def heard(app: ASGIApp, delta: bytes, rows: Rows) -> None:
    headers = [(b"content-type", b"application/msgpack")]
    request = Request("POST", b"/deltas", b"", headers, pack_request([delta]))
    answer = await asked(app, request)
    assert answer.status == 200, delta.hex()
    (receipt,) = unpack_response(answer.body)
    if not isinstance(receipt, Refusal):
        _, stream, number = unpack_delta(delta).source
        rows[stream, number] = receipt.upto, receipt.mark, receipt.ledger


# What comes back to the courier


HEALTH = (
    b'{"status":"ok","epsilon":0.05,"heartbeat_s":5.0,"storage":"memory","started":"2026-01-01"}'
)
STRANGER = msgpack.packb([RECEIPT_FIELDS])  # a receipt with the mark of no delta of ours
REFUSED = msgpack.packb([["too_coarse", "a sentence"]])
HEADS = [
    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.1 307 To\r\nlocation: ttp://xn--a:1/\r\ncontent-length: %d\r\n\r\n",
    b"HTTP/1.1 302 To\r\nlocation: ht:x\r\nset-cookie: a=\xe2\r\ncontent-length: %d\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401 No\r\nwww-authenticate: \xff\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n",
]
REPLIES = [
    (head % len(body) if b"%" in head else head) + body
    for head in HEADS
    for body in (HEALTH, STRANGER, REFUSED)
]


def test_whatever_comes_back_the_courier_lives_and_nothing_is_acknowledged(cases: Cases) -> None:
    """Over a real connection, so that all is read which reads a response."""

    async def told() -> None:
        server = await asyncio.start_server(replies, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = worker_service.settings.Settings(coordinator_url=url, request_s_max=0.5)
        worker = Worker(settings, clock=time.monotonic, store=None, transport=None)
        for dice in cases(250):
            batch = Batch(np.arange(3.0), 24)
            taking = asyncio.create_task(worker.sources.take("default", batch))
            reply[:] = [as_they_are.pop() if as_they_are else mutated(dice, REPLIES)]
            await worker.courier._greet()  # noqa: SLF001  without the pauses between two of them
            await worker.courier._round()  # noqa: SLF001
            await asyncio.sleep(0)
            assert not taking.done() or isinstance(taking.exception(), NotTaken), reply
            taking.cancel()
        server.close()

    async def replies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply[0])
            await writer.drain()
            writer.close()

    reply, as_they_are = [b""], [*REPLIES]
    run(told(), within_s=3000)


# Files with a bit that is not as it was


Known = Any
"""All that a start learns from a file, and that is under a checksum."""


async def _of_a_worker(directory: Path) -> None:
    store = a_worker(directory)
    digest, one, other = Digest(0.01), Source("w", "default", 0xA), Source("w", "s2", 2**64 - 1)
    digest.add(np.arange(40.0))
    await store.append(one, np.arange(40.0), 10, Key("k1", b"x" * 16))
    await store.append(other, np.array([1.5]), 8, Key("k2", b"y" * 16))
    await store.checkpoint(one, digest.to_bytes(), 40, store.last)
    await store.append(one, np.arange(5.0), 8, None)
    await store.storage.close()


def a_worker(directory: Path) -> worker_service.store.Store:
    settings = worker_service.settings.Settings(
        data_dir=str(directory), worker_name="w", fsync="interval"
    )
    store = worker_service.store.open_store(settings)
    assert store
    return store


def known_to_a_worker(directory: Path) -> Known:
    store = a_worker(directory)
    try:
        kept = [(one.stream, one.number, one.digest.to_bytes()) for one in store.sources(0.01)]
        return sorted(kept), store.keys()
    finally:
        store.storage.db.close()


async def _of_a_coordinator(directory: Path) -> None:
    store = a_coordinator(directory)
    for number in range(3):
        ledger = Ledger(0.01, number=1, now=0.0)
        outbox = Outbox(Source("w", f"s{number}", number), Digest(0.0005), now=0.0)
        outbox.add(np.arange(9.0), now=0.0)
        data = outbox.delta(now=0.0)
        assert data
        ledger.receive(data, now=0.0)
        await store.save(list(ledger.rows))
    await store.storage.close()


def a_coordinator(directory: Path) -> coordinator_service.store.Store:
    settings = coordinator_service.settings.Settings(data_dir=str(directory), fsync="interval")
    store = coordinator_service.store.open_store(settings)
    assert store
    return store


def known_to_a_coordinator(directory: Path) -> Known:
    store = a_coordinator(directory)
    try:
        return sorted(map(coordinator_service.store.packed, store.rows()))
    finally:
        store.storage.db.close()


STORES = pytest.mark.parametrize(
    ("written", "known"),
    [(_of_a_worker, known_to_a_worker), (_of_a_coordinator, known_to_a_coordinator)],
    ids=["worker", "coordinator"],
)
Written = Callable[[Path], Any]
Knows = Callable[[Path], Known]


def is_what_it_was(known: Knows, directory: Path, expected: Known, changed: str) -> bool:
    """Or it cannot be used, as a sentence says; nothing else ever."""
    try:
        found = known(directory)
    except Unusable as error:
        sentence = str(error)
    else:
        assert found == expected, changed
        return True
    assert re.fullmatch(r"/[^\n]*sqlite (is|cannot be) [^\n]*", sentence), (changed, sentence)
    return False


@STORES
def test_a_file_with_a_bit_flipped_is_what_it_was_or_unusable(
    written: Written, known: Knows, cases: Cases, tmp_path: Path
) -> None:
    run(written(tmp_path))
    expected, found = known(tmp_path), Counter[bool]()
    (file,) = tmp_path.glob("*.sqlite")
    data = file.read_bytes()
    places = [at for at, byte in enumerate(data) if byte]
    for dice in cases(80):
        at, bit = dice.choice(places), dice.randrange(8)
        file.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        found[is_what_it_was(known, tmp_path, expected, f"bit {bit} of byte {at}")] += 1
    assert min(found[True], found[False]) > 5, found


@STORES
def test_a_column_that_holds_what_none_ever_held_is_what_it_was_or_unusable(
    written: Written, known: Knows, tmp_path: Path
) -> None:
    run(written(tmp_path))
    expected = known(tmp_path)
    (file,) = tmp_path.glob("*.sqlite")
    data = file.read_bytes()
    for table, column in columns(file):
        for odd in (None, 7, -(2**63), 0.5, b"default", "\U0010ffff", b""):
            with closing(sqlite3.connect(file)) as db, suppress(sqlite3.Error):
                db.execute("PRAGMA synchronous = OFF")
                db.execute(f"UPDATE {table} SET {column} = ?", (odd,))  # noqa: S608  our own names
                db.commit()
            is_what_it_was(known, tmp_path, expected, f"{table}.{column} = {odd!r}")
            file.write_bytes(data)


def columns(file: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(file)) as db:
        tables = [
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        return [
            (table, column)
            for table in tables
            for _, column, *_ in db.execute(f"PRAGMA table_info({table})")
        ]
