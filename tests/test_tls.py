"""TLS, with real certificates: who is believed, what is refused, and what strangers may do to it.

Each certificate is made here, by an authority that lives as long as the tests do.
"""

import asyncio
import logging
import os
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import httpx
import numpy as np
import pytest
import trustme
import uvicorn
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from fastapi import FastAPI

import coordinator_service.app
import coordinator_service.settings
import worker_service.app
from shared.serving import tls
from shared.serving.again import Hangups
from shared.serving.connections import Connection
from shared.serving.crowd import Crowd
from shared.serving.server import Server, clock, serve
from shared.serving.settings import PREFIX, ServiceSettings
from tests.processes import Processes, check, until
from worker_service.settings import Settings as WorkerSettings

SOON_S = 30  # what takes longer hangs
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
each_loop = pytest.mark.parametrize("loop", LOOPS)


class Papers:
    """An authority, and what it signs, as files."""

    def __init__(self, at: Path) -> None:
        self._at, self._authority = at, trustme.CA()
        self.ca = self.write("ca", self._authority.cert_pem.bytes())
        self.cert, self.key = self.issue("cert", "localhost", "127.0.0.1")
        self.issue("other", "localhost")
        self.write("empty", b"")
        self.write("text", b"no PEM")
        self.write("broken", Path(self.cert).read_bytes()[:300])
        self.write("no-key", b"-----BEGIN PRIVATE KEY-----\nnone\n-----END PRIVATE KEY-----\n")
        key = load_pem_private_key(Path(self.key).read_bytes(), None)
        locked = Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        self.write("locked", key.private_bytes(*locked))

    def issue(self, name: str, *hosts: str, **more: Any) -> tuple[str, str]:
        """A certificate with its chain, and its key."""
        made = self._authority.issue_cert(*hosts, **more)
        chain = b"".join(one.bytes() for one in made.cert_chain_pems)
        return self.write(name, chain), self.write(f"{name}-key", made.private_key_pem.bytes())

    def write(self, name: str, content: bytes) -> str:
        Path(self.at(name)).write_bytes(content)
        return self.at(name)

    def at(self, name: str) -> str:
        return str(self._at / name)

    def server(self, name: str = "cert") -> ssl.SSLContext:
        return tls.server_context(self.at(name), self.at(f"{name}-key"))

    @property
    def client(self) -> ssl.SSLContext:
        return tls.client_context("https://x", self.ca)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


# Settings


def mistakes(kind: type[ServiceSettings] = ServiceSettings) -> list[str]:
    with pytest.raises(SystemExit) as left:
        kind.of([], "python -m service")
    return str(left.value.code).splitlines()


def test_one_of_certificate_and_key_alone_is_a_mistake(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDIAN_TLS_CERT", papers.cert)
    (line,) = mistakes()
    assert line.startswith("MEDIAN_TLS_KEY: ")
    assert "name both" in line
    monkeypatch.delenv("MEDIAN_TLS_CERT")
    monkeypatch.setenv("MEDIAN_TLS_KEY", papers.key)
    (line,) = mistakes()
    assert line.startswith(f"MEDIAN_TLS_KEY={papers.key}: ")
    assert "name both" in line


WRONG = {
    "no certificate": ("nowhere", "cert-key", "CERT", "cannot be read: no such file"),
    "a directory": (".", "cert-key", "CERT", "cannot be read: is a directory"),
    "an empty file": ("empty", "cert-key", "CERT", "has no certificate"),
    "a text": ("text", "cert-key", "CERT", "has no certificate"),
    "half a certificate": ("broken", "cert-key", "CERT", "has no certificate"),
    "a key instead of one": ("cert-key", "cert-key", "CERT", "has no certificate"),
    "no key": ("cert", "nowhere", "KEY", "cannot be read: no such file"),
    "a text instead of a key": ("cert", "text", "KEY", "has no private key"),
    "a certificate instead of a key": ("cert", "ca", "KEY", "has no private key"),
    "a broken key": ("cert", "no-key", "KEY", "is of no use with"),
    "the key of another": ("cert", "other-key", "KEY", "is not the key of"),
    "an encrypted key": ("cert", "locked", "KEY", "is encrypted"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_used_is_refused_at_the_start_in_one_line(
    what: str, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key, which, said = WRONG[what]
    monkeypatch.setenv("MEDIAN_TLS_CERT", papers.at(cert))
    monkeypatch.setenv("MEDIAN_TLS_KEY", papers.at(key))
    (line,) = mistakes()
    assert line.startswith(f"MEDIAN_TLS_{which}={papers.at(cert if which == 'CERT' else key)}: ")
    assert said in line


@pytest.mark.parametrize("what", ["nowhere", "empty", "text", "cert-key"])
def test_who_is_trusted_must_be_certificates(
    what: str, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDIAN_TLS_CA", papers.at(what))
    (line,) = mistakes(WorkerSettings)
    assert line.startswith(f"MEDIAN_TLS_CA={papers.at(what)}: ")


@pytest.mark.parametrize("kind", [coordinator_service.settings.Settings, WorkerSettings])
def test_a_good_pair_is_taken(
    kind: type[ServiceSettings], papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDIAN_TLS_CERT", papers.cert)
    monkeypatch.setenv("MEDIAN_TLS_KEY", papers.key)
    assert kind.of([], "").tls_cert == papers.cert


def test_the_server_speaks_nothing_old_and_nothing_weak(papers: Papers) -> None:
    context = papers.server()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert min(one["strength_bits"] for one in context.get_ciphers()) >= 128
    assert not [one for one in context.get_ciphers() if "RSA" in one["name"].split("-")[:1]]


# What is said of a certificate at the start


SAID = {
    "certificate read": ("info", ["localhost"], {"not_after": NOW + 31 * DAY}),
    "the certificate ends within 30 days": (
        "warning",
        ["localhost"],
        {"not_after": NOW + 29 * DAY},
    ),
    "the certificate has expired": ("warning", ["localhost"], {"not_after": NOW - DAY}),
    "the certificate is not valid yet": ("warning", ["localhost"], {"not_before": NOW + DAY}),
}


@pytest.mark.parametrize("what", SAID)
def test_until_when_a_certificate_is_valid_is_logged_and_nothing_of_its_key(
    what: str, papers: Papers, caplog: pytest.LogCaptureFixture
) -> None:
    level, hosts, dates = SAID[what]
    cert, _ = papers.issue("dated", *hosts, **dates)
    with caplog.at_level("INFO"):
        tls.tell_of(papers.server("dated"), cert, time.time())
    (record,) = caplog.records
    assert (record.message, record.levelname.lower()) == (what, level)
    told = vars(record)["facts"]
    assert (told["file"], told["names"]) == (cert, "localhost")
    for date, name in (("not_before", "begins"), ("not_after", "ends")):
        if date in dates:
            assert told[name][:19] == dates[date].isoformat()[:19]


def self_signed(papers: Papers, *extensions: x509.ExtensionType) -> tuple[ssl.SSLContext, str]:
    """A certificate with just these extensions."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 7)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
    )
    for one in extensions:
        made = made.add_extension(one, critical=False)
    cert = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    plain = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    papers.write("odd-key", key.private_bytes(*plain))
    return tls.server_context(papers.write("odd", cert), papers.at("odd-key")), papers.at("odd")


def test_a_certificate_that_nobody_will_believe_is_warned_of(
    papers: Papers, caplog: pytest.LogCaptureFixture
) -> None:
    tls.tell_of(*self_signed(papers), time.time())
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    tls.tell_of(*self_signed(papers, usage), time.time())
    no_name, of_no_use = caplog.records
    assert no_name.message == "the certificate names no host, so nobody will believe it"
    assert of_no_use.message == "clients will not accept the certificate"
    assert "purpose" in vars(of_no_use)["facts"]["why"]


def test_who_is_given_a_certificate_serves_by_it(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = list[uvicorn.Config]()

    def run(server: Server) -> None:
        server.started = True
        served.append(server.config)

    monkeypatch.setattr(sys, "setswitchinterval", lambda _: None)
    monkeypatch.setattr(Server, "run", run)
    safely = ServiceSettings(tls_cert=papers.cert, tls_key=papers.key)
    app = FastAPI()
    app.state.crowd = Crowd(1)
    for settings in (ServiceSettings(), safely):
        serve(lambda _, __: app, settings, Hangups())
    plain, safe = served
    assert plain.ssl is None
    assert safe.ssl
    assert safe.ssl.minimum_version == ssl.TLSVersion.TLSv1_2


# A server


class Answers:
    """An app that answers all, `/endless` without an end until it is to stop."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()

    async def __call__(self, scope: Any, _: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        piece = {"type": "http.response.body", "body": b"x" * 2**17, "more_body": True}
        while scope["path"] == "/endless" and not self.stopping.is_set():
            await send(piece)
            await asyncio.sleep(0)
        await send(piece | {"body": b"x", "more_body": False})


class Running:
    """A server on a port."""

    def __init__(self, app: Any, context: ssl.SSLContext | None, stopping: asyncio.Event) -> None:
        config = uvicorn.Config(
            app, port=0, http=Connection, log_config=None, access_log=False, lifespan="off"
        )
        config.load()
        config.ssl = context
        self.server = Server(config, stopping, Crowd(100))
        self.scheme = "https" if context else "http"

    @property
    def port(self) -> int:
        return int(self.server.servers[0].sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}"

    async def get(self, context: ssl.SSLContext) -> httpx.Response:
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            return await client.get(self.url)

    async def raw(self, said: bytes = b"") -> socket.socket:
        """A client that is no more than a socket."""
        client = socket.socket()
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", self.port))
        await loop.sock_sendall(client, said)
        return client

    async def over_tls(
        self, context: ssl.SSLContext, path: str = "/", connection: str = "keep-alive"
    ) -> ssl.SSLSocket:
        """One that shook hands and asked, and from then on reads nothing."""

        def shaken() -> ssl.SSLSocket:
            plain = socket.create_connection(("127.0.0.1", self.port))
            client = context.wrap_socket(plain, server_hostname="localhost")
            head = f"GET {path} HTTP/1.1\r\nhost: here\r\nconnection: {connection}\r\n\r\n"
            client.sendall(head.encode())
            client.recv(1)
            return client

        return await asyncio.to_thread(shaken)


@asynccontextmanager
async def running(context: ssl.SSLContext | None, app: Any = None) -> AsyncIterator[Running]:
    """Until it ended by itself, of which uvicorn sets no limit here."""
    app = app or Answers()
    one = Running(app, context, getattr(app, "stopping", asyncio.Event()))
    served = asyncio.create_task(one.server.serve())
    while not one.server.started:
        await asyncio.sleep(0.01)
    try:
        yield one
    finally:
        one.server.should_exit = True
        done, _ = await asyncio.wait([served], timeout=SOON_S)
        assert done, "it does not end"


def played(story: Coroutine[Any, Any, Any], loop: str = "asyncio") -> None:
    async def in_time() -> None:
        async with asyncio.timeout(2 * SOON_S):
            await story

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(in_time())


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  it only counts


AT_ONCE = struct.pack("ii", 1, 0)  # closed by a reset
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # as 512 bytes to come begin


@each_loop
def test_strangers_leave_nothing_behind_and_others_are_answered(
    loop: str, papers: Papers, caplog: pytest.LogCaptureFixture, rng: np.random.Generator
) -> None:
    async def story() -> None:
        async with running(papers.server()) as one:
            await one.get(papers.client)
            fds = open_files()
            plain = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"
            for said in (plain, rng.bytes(2000), bytes(100), HELLO + rng.bytes(505), HELLO, b""):
                strangers = [await one.raw(said) for _ in range(5)]
                assert (await one.get(papers.client)).status_code == 200
                for stranger in strangers:
                    stranger.close()
            for _ in range(3):
                rude = await one.over_tls(papers.client, "/endless")
                with socket.socket(fileno=os.dup(rude.fileno())) as beneath:
                    beneath.sendall(b"\x17\x03\x03\x00\x20" + rng.bytes(32))
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                rude.close()
            while open_files() > fds or one.server.server_state.connections:
                await asyncio.sleep(0.01)

    played(story(), loop)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@each_loop
def test_a_handshake_that_stalls_is_given_up(
    loop: str, papers: Papers, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_S_MAX", 0.2)

    async def story() -> None:
        async with running(papers.server()) as one:
            for said in (b"", HELLO):
                stalled = await one.raw(said)
                assert await asyncio.get_running_loop().sock_recv(stalled, 1) == b""
                stalled.close()

    played(story(), loop)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@each_loop
def test_who_does_not_say_goodbye_does_not_hold_up_the_end(loop: str, papers: Papers) -> None:
    """Idle, or in the middle of an answer that he does not read."""

    async def story() -> None:
        async with running(papers.server()) as one:
            idle = [await one.over_tls(papers.client) for _ in range(3)]
            idle.append(await one.over_tls(papers.client, "/endless"))
        for client in idle:
            client.close()

    played(story(), loop)


@each_loop
def test_who_does_not_say_goodbye_is_soon_let_go(
    loop: str, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else he would be counted among those who are connected, for half a minute."""
    monkeypatch.setattr(tls, "GOODBYE_S_MAX", 0.2)
    began = time.monotonic()

    async def story() -> None:
        async with running(papers.server()) as one:
            clients = [await one.over_tls(papers.client, connection="close") for _ in range(3)]
            while one.server.server_state.connections:
                await asyncio.sleep(0.01)
            for client in clients:
                client.close()

    played(story(), loop)
    assert time.monotonic() - began < 25, "that was asyncio's own limit"


@each_loop
def test_who_reads_nothing_over_tls_is_given_up(
    loop: str, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.serving.connections.STALLED_S_MAX", 0.2)

    async def story() -> None:
        async with running(papers.server()) as one:
            client = await one.over_tls(papers.client, "/endless")
            while one.server.server_state.connections:
                await asyncio.sleep(0.01)
            client.close()

    played(story(), loop)


def test_at_the_end_who_still_reads_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.serving.server.ENDING_S_MAX", 0.0)
    server = Server(uvicorn.Config(FastAPI()), asyncio.Event(), Crowd(1))
    server.config.ssl, server.servers = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), []
    server.lifespan = MagicMock(shutdown=AsyncMock())
    reads, open_, left = MagicMock(), MagicMock(), iter([9, 8, 8, 7, 7, 7])
    open_.transport.is_closing.return_value = False
    reads.transport.get_write_buffer_size.side_effect = lambda: next(left)
    reads.transport.abort.side_effect = server.server_state.connections.clear
    server.server_state.connections |= {reads, open_}
    played(server.shutdown())
    assert list(left) == []
    assert not open_.transport.abort.called


# A worker and its coordinator


def worker_of(url: str, **more: Any) -> FastAPI:
    settings = WorkerSettings(coordinator_url=url, backoff_s_max=0.05, goodbye_s_max=0.05, **more)
    return worker_service.app.create_app(settings, clock=clock)


async def not_met(url: str, **more: Any) -> str:
    """What a worker says of a coordinator there."""
    app = worker_of(url, **more)
    worker = app.state.worker
    async with app.router.lifespan_context(app):
        while "not asked yet" in str(said := worker.why_not_ready()):
            await asyncio.sleep(0.01)
    return "; ".join(said)


def coordinator() -> FastAPI:
    settings = coordinator_service.settings.Settings()
    return coordinator_service.app.create_app(settings, clock=clock, wall=time.time)


BELIEVED = {
    "whom it was told to trust": ("cert", "localhost", "ca", ""),
    "by its address": ("cert", "127.0.0.1", "ca", ""),
    "nobody it knows": ("cert", "localhost", "", "name in MEDIAN_TLS_CA whom to trust"),
    "not whom it was told": (
        "cert",
        "localhost",
        "other-ca",
        "ca has not the authority that signed it",
    ),
    "another host": ("elsewhere", "localhost", "ca", "MEDIAN_COORDINATOR_URL must name it as"),
    "another address": ("elsewhere", "127.0.0.1", "ca", "MEDIAN_COORDINATOR_URL must name it as"),
    "what has expired": ("expired", "localhost", "ca", "certificate has expired: give the"),
    "what no server may use": ("odd", "localhost", "odd", "is not accepted, unsuitable cert"),
    "what is not valid yet": ("early", "localhost", "ca", "is not yet valid: is a clock wrong"),
}


@pytest.mark.parametrize("what", BELIEVED)
def test_a_worker_believes_a_coordinator_or_says_why_not_and_what_to_do(
    what: str, papers: Papers
) -> None:
    name, host, ca, said = BELIEVED[what]
    papers.issue("elsewhere", "elsewhere", "127.0.0.9")
    papers.issue("expired", "localhost", not_before=NOW - 2 * DAY, not_after=NOW - DAY)
    papers.issue("early", "localhost", not_before=NOW + DAY, not_after=NOW + 2 * DAY)
    self_signed(papers, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))
    papers.write("other-ca", trustme.CA().cert_pem.bytes())

    async def story() -> None:
        async with running(papers.server(name), coordinator()) as one:
            url = f"https://{host}:{one.port}"
            why = await not_met(url, tls_ca=ca and papers.at(ca))
            assert said in why
            assert bool(why) == bool(said)

    played(story())


def test_a_worker_that_speaks_tls_to_a_plain_port_or_plainly_to_tls_says_what_to_change(
    papers: Papers,
) -> None:
    async def story() -> None:
        async with running(None, coordinator()) as one:
            why = await not_met(f"https://localhost:{one.port}", tls_ca=papers.ca)
            assert "it speaks no TLS: begin MEDIAN_COORDINATOR_URL with http://" in why
        async with running(papers.server(), coordinator()) as one:
            why = await not_met(f"http://localhost:{one.port}")
            assert "if it speaks TLS, begin MEDIAN_COORDINATOR_URL with https://" in why

    played(story())


def test_who_hangs_up_during_a_handshake_is_told_of(papers: Papers) -> None:
    async def story() -> None:
        def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as one:
            port = one.sockets[0].getsockname()[1]
            why = await not_met(f"https://localhost:{port}", tls_ca=papers.ca)
            assert "no TLS came about: " in why

    played(story())


def test_for_a_plain_address_nobody_is_believed() -> None:
    """So that nothing is read for it; should it ever be used, it fails safe."""
    context = tls.client_context("http://coordinator", "")
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.cert_store_stats()["x509"] == 0
    assert tls.client_context("https://coordinator", "").cert_store_stats()["x509"] > 50


# The whole


def test_a_system_speaks_tls_throughout_and_keys_are_never_logged(
    papers: Papers, tmp_path: Path, rng: np.random.Generator
) -> None:
    files = {"tls_cert": papers.cert, "tls_key": papers.key}
    with Processes(tmp_path, trusts=papers.client) as processes:
        coordinator = processes.coordinator(**files)
        worker = processes.worker("one", tls_ca=papers.ca, **files)
        until(lambda: worker.is_up and worker.is_ready, "the worker has met its coordinator")
        values = rng.normal(size=20_000)
        for batch in np.array_split(values, 10):
            worker.take(batch)
        worker.flush()
        check(coordinator.get("/median"), values)
        for one in (worker, coordinator):
            one.tell(signal.SIGTERM)
            assert one.ended() == -signal.SIGTERM
            assert "Cancel" not in one.said
            assert "running on https://" in one.said
            assert "PRIVATE" not in one.said
            assert not set(Path(papers.key).read_text().split()[3:-4]) & set(one.said.split())


def test_the_load_generator_is_let_in_by_the_same_variables_and_shows_no_token(
    papers: Papers, tmp_path: Path
) -> None:
    tokens = {name: f"secret-of-{name}-" + 9 * "x" for name in ("push", "ingest", "read")}
    files = {"tls_cert": papers.cert, "tls_key": papers.key, "tls_ca": papers.ca}
    shown = papers.write("read-token", f"{tokens['read']} {9 * 'another'}\n".encode())
    opens = {"ingest_token": tokens["ingest"], "read_token_file": shown}
    with Processes(tmp_path, trusts=papers.client) as processes:
        coordinator = processes.coordinator(
            push_token=tokens["push"], read_token=tokens["read"], **files
        )
        worker = processes.worker("one", push_token=tokens["push"], **opens, **files)
        until(lambda: coordinator.is_up and coordinator.is_ready, "the coordinator is ready")
        until(lambda: worker.is_up and worker.is_ready, "the worker has met its coordinator")
        at = "--workers", worker.url, "--coordinator", coordinator.url
        replay = "-m", "loadgen", "replay", "calm", "--verify", "--values", "20000", *at
        trusting = processes.start(*replay, tls_ca=papers.ca, **opens)
        turned_away = processes.start(*replay, tls_ca=papers.ca)
        distrusting = processes.start(*replay, **opens)
        assert trusting.ended() == 0
        assert "none lost, none counted twice" in trusting.said
        assert (turned_away.ended(), distrusting.ended()) == (2, 2)
        assert "it asks for a token: set MEDIAN_INGEST_TOKEN, or" in turned_away.said
        assert "name in MEDIAN_TLS_CA whom to trust" in distrusting.said
        watch = processes.start(
            "-m", "loadgen", "watch", coordinator.url, tls_ca=papers.ca, **opens
        )
        until(lambda: " 20000 " in watch.said, "the values are seen")
        watch.tell(signal.SIGTERM)
        assert watch.ended() == 0
        everybody = coordinator, worker, trusting, turned_away, distrusting, watch
        assert [one for one in everybody if "secret-of" in one.said] == []


def test_a_wrong_setting_ends_a_service_with_status_1_and_one_line(
    papers: Papers, tmp_path: Path
) -> None:
    with Processes(tmp_path) as processes:
        one = processes.start(
            "-m", "coordinator_service", tls_cert=papers.cert, tls_key=papers.at("locked")
        )
        assert one.ended() == 1
        (line,) = one.said.splitlines()
        assert line.startswith(f"MEDIAN_TLS_KEY={papers.at('locked')}: ")
        assert "is encrypted" in line
