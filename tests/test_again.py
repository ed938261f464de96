"""Reading again: on SIGHUP tokens, certificates and authorities change, and nobody has to wait."""

import asyncio
import os
import signal
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
import trustme
import uvicorn
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from fastapi import FastAPI

import coordinator_service.app
import coordinator_service.settings
import worker_service.app
import worker_service.settings
from shared.serving import again, tls
from shared.serving.again import Hangups, read_again
from shared.serving.crowd import Crowd
from shared.serving.logs import TextLines
from shared.serving.server import Server, clock, serve
from shared.serving.settings import PREFIX, ServiceSettings
from shared.serving.tokens import Tokens
from shared.values import Floats
from tests.cluster import said
from tests.processes import OCTETS, SOON_S, Processes, Service, check, until
from tests.test_tls import (
    DAY,
    NOW,
    WRONG,
    Papers,
    coordinator,
    each_loop,
    mistakes,
    played,
    running,
    self_signed,
    worker_of,
)

Coordinator = coordinator_service.settings.Settings
Worker = worker_service.settings.Settings

Kind = TypeVar("Kind", bound=ServiceSettings)

OLD, NEW = "the-old-token-of-2025", "the-new-token-of-2026"
NOTHING = "info    nothing was read again settings="
STAYS = "; what was read before stays"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _sighup() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged since this was asked last, without what tells of the certificate."""
    caplog.set_level("INFO")

    def lines() -> list[str]:
        mine = [one for one in caplog.records if one.name == "settings"]
        caplog.clear()
        return [TextLines().format(one)[25:].replace("settings: ", "") for one in mine]

    return lines


Told = Callable[[], list[str]]


# The signal


def test_hangups_are_noted_from_the_beginning_and_several_are_one() -> None:
    hangups = Hangups()
    assert not hangups.came()
    for _ in range(3):
        signal.raise_signal(signal.SIGHUP)
    assert hangups.came()
    assert not hangups.came()
    signal.raise_signal(signal.SIGHUP)
    assert hangups.came()


def test_at_the_end_nobody_heeds_them() -> None:
    hangups = Hangups()
    hangups.end()
    signal.raise_signal(signal.SIGHUP)
    assert not hangups.came()


def test_where_there_is_no_such_signal_nothing_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGHUP)
    monkeypatch.setattr(again, "SIGHUP", None)
    hangups = Hangups()
    hangups.end()
    assert not hangups.came()
    assert signal.getsignal(signal.SIGHUP) is before


def test_a_server_reads_again_once_for_each_time_that_it_was_told(
    monkeypatch: pytest.MonkeyPatch, told: Told, tmp_path: Path
) -> None:
    """Also if that was before it ran; and at the end the signal does nothing."""
    file = tmp_path / "token"
    file.write_text(OLD)
    hangups, settings = Hangups(), ServiceSettings(read_token_file=str(file))
    signal.raise_signal(signal.SIGHUP)

    def run(server: Server) -> None:
        server.started = True
        for counter in range(3):
            asyncio.run(server.on_tick(counter))
        assert told() == ["info    read again settings=MEDIAN_READ_TOKEN_FILE"]

    monkeypatch.setattr("sys.setswitchinterval", lambda _: None)
    monkeypatch.setattr(Server, "run", run)
    app = FastAPI()
    app.state.crowd = Crowd(1)
    serve(lambda _, __: app, settings, hangups)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_server_that_is_told_of_nothing_to_do_ticks_on() -> None:
    server = Server(uvicorn.Config(FastAPI()), asyncio.Event(), Crowd(1))
    assert not asyncio.run(server.on_tick(1))


# Tokens


def of_files(kind: type[Kind], at: Path, *names: str) -> Kind:
    """Settings with the old token of each name in a file of its own."""
    for name in names:
        (at / name).write_text(OLD)
    return kind.model_validate({f"{name}_token_file": str(at / name) for name in names})


@pytest.mark.parametrize(
    ("kind", "names"),
    [(Coordinator, ("push", "read", "admin")), (Worker, ("ingest", "push", "read"))],
)
def test_all_token_files_are_read_again_each_by_itself(
    kind: type[ServiceSettings], names: Sequence[str], tmp_path: Path, told: Told
) -> None:
    settings = of_files(kind, tmp_path, *names)
    wrong, *right = names
    (tmp_path / wrong).write_text(NEW[:15])
    for name in right:
        (tmp_path / name).write_text(f"{NEW}\n{OLD}\n")
    read_again(settings)
    assert settings.tokens(wrong) == Tokens(OLD)
    assert [settings.tokens(name) for name in right] == [Tokens(NEW, OLD)] * len(right)
    assert {settings.tokens(name).header["authorization"] for name in right} == {f"Bearer {NEW}"}
    error, info = told()
    assert error.startswith(
        f"error   MEDIAN_{wrong.upper()}_TOKEN_FILE={tmp_path / wrong}: a token"
    )
    assert error.endswith(STAYS)
    assert set(info.removeprefix("info    read again settings=").split(",")) == {
        f"MEDIAN_{name.upper()}_TOKEN_FILE" for name in right
    }


def test_what_came_from_a_variable_stays(told: Told) -> None:
    settings = Worker(ingest_token=OLD)
    read_again(settings)
    assert settings.tokens("ingest") == Tokens(OLD)
    assert settings.tokens("read") == Tokens()
    assert told() == [NOTHING]


@pytest.mark.parametrize(
    "content",
    [None, b"", b" \n", b"\xff" * 40, f"{NEW} short".encode(), NEW.encode() * 1000, "a folder"],
)
def test_a_wrong_token_file_changes_nothing_and_is_told_as_at_the_start(
    content: bytes | str | None, tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = of_files(ServiceSettings, tmp_path, "read")
    file = tmp_path / "read"
    file.unlink()
    if isinstance(content, str):
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    read_again(settings)
    assert settings.tokens("read") == Tokens(OLD)
    monkeypatch.setenv("MEDIAN_READ_TOKEN_FILE", str(file))
    (as_at_the_start,) = mistakes()
    assert told() == [f"error   {as_at_the_start}{STAYS}", NOTHING]
    assert NEW not in as_at_the_start


def test_a_pipe_is_not_read_again_as_that_might_wait_for_ever(tmp_path: Path, told: Told) -> None:
    settings = of_files(ServiceSettings, tmp_path, "read")
    file = tmp_path / "read"
    file.unlink()
    os.mkfifo(file)
    read_again(settings)
    assert settings.tokens("read") == Tokens(OLD)
    assert "is a pipe, which is read once only" in told()[0]


def test_a_door_opens_to_what_was_read_last(tmp_path: Path) -> None:
    settings = of_files(Coordinator, tmp_path, "read", "admin")
    app = coordinator_service.app.create_app(settings, clock=clock, wall=clock)

    async def statuses() -> list[int]:
        here = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=here, base_url="http://here") as client:
            shown = [{"authorization": f"Bearer {token}"} for token in (OLD, NEW)]
            return [(await client.get("/streams", headers=one)).status_code for one in shown]

    assert asyncio.run(statuses()) == [200, 401]
    (tmp_path / "read").write_text(f"{NEW} {OLD}")
    read_again(settings)
    assert asyncio.run(statuses()) == [200, 200]
    (tmp_path / "read").write_text(NEW)
    read_again(settings)
    assert asyncio.run(statuses()) == [401, 200]
    (tmp_path / "read").write_text("")
    read_again(settings)
    assert asyncio.run(statuses()) == [401, 200]


def test_the_courier_shows_what_was_read_last(tmp_path: Path) -> None:
    settings = of_files(Worker, tmp_path, "push").model_copy(
        update={"backoff_s_max": 0.02, "goodbye_s_max": 0.02}
    )
    shown = set[str]()

    def turned_away(request: httpx.Request) -> httpx.Response:
        shown.add(request.headers["authorization"])
        return said(b"", 401)

    app = worker_service.app.create_app(
        settings,
        clock=clock,
        transport=httpx.MockTransport(turned_away),
    )

    async def story() -> None:
        async with app.router.lifespan_context(app):
            while not shown:
                await asyncio.sleep(0.01)
            assert shown == {f"Bearer {OLD}"}
            (tmp_path / "push").write_text(f"{NEW} {OLD}")
            read_again(settings)
            while len(shown) < 2:
                await asyncio.sleep(0.01)
            assert shown == {f"Bearer {OLD}", f"Bearer {NEW}"}

    played(story())


# A certificate


def put(papers: Papers, at: str, what: str) -> None:
    """Another file in its place, by name: `nowhere` is none, `.` a directory."""
    file = Path(at)
    file.unlink()
    if what == ".":
        file.mkdir()
    elif what != "nowhere":
        file.write_bytes(Path(papers.at(what)).read_bytes())


def shown_by(context: ssl.SSLContext, host: str | None, version: ssl.TLSVersion) -> bytes:
    """The certificate that a client sees who believes anything."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.maximum_version = version
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks = client.wrap_bio(back, there, server_hostname=host)
    answers = context.wrap_bio(there, back, server_side=True)
    for end in (asks, answers, asks, answers, asks):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return asks.getpeercert(binary_form=True) or b""


def der(file: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(file).read_text().partition("-----END")[0] + END)


END = "-----END CERTIFICATE-----\n"
VERSIONS = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def paired(papers: Papers) -> ServiceSettings:
    papers.issue("live", "localhost", "127.0.0.1", not_after=NOW + 40 * DAY)
    return ServiceSettings(tls_cert=papers.at("live"), tls_key=papers.at("live-key"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("host", ["localhost", None])
def test_a_new_certificate_is_shown_to_whoever_comes_whether_he_names_a_host_or_not(
    host: str | None, version: ssl.TLSVersion, papers: Papers, told: Told
) -> None:
    settings = paired(papers)
    assert settings.certificate
    before = der(papers.at("live"))
    assert shown_by(settings.certificate.context, host, version) == before
    papers.issue("live", "localhost")
    assert shown_by(settings.certificate.context, host, version) == before
    read_again(settings)
    assert shown_by(settings.certificate.context, host, version) == der(papers.at("live")) != before
    assert told() == ["info    read again settings=MEDIAN_TLS_CERT,MEDIAN_TLS_KEY"]


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_pair_changes_nothing_and_is_told_as_at_the_start(
    what: str, papers: Papers, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key, _, said = WRONG[what]
    settings = paired(papers)
    assert settings.certificate
    before, ends = der(papers.at("live")), settings.certificate.ends
    put(papers, papers.at("live"), cert)
    put(papers, papers.at("live-key"), key)
    read_again(settings)
    monkeypatch.setenv("MEDIAN_TLS_CERT", papers.at("live"))
    monkeypatch.setenv("MEDIAN_TLS_KEY", papers.at("live-key"))
    (as_at_the_start,) = mistakes()
    assert said in as_at_the_start
    assert told() == [f"error   {as_at_the_start}{STAYS}", NOTHING]
    for version in VERSIONS:
        assert shown_by(settings.certificate.context, "localhost", version) == before
    assert settings.certificate.ends == ends


def test_a_pair_that_changes_while_it_is_read_changes_nothing(
    papers: Papers, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = paired(papers)
    assert settings.certificate
    before = der(papers.at("live"))
    papers.issue("live", "localhost")
    for error in (FileNotFoundError("gone"), ssl.SSLError("half of it")):

        def changed(*_: object, error: OSError = error) -> None:
            raise error

        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(tls, "tell_of", changed)
            read_again(settings)
        assert told()[0].endswith(f"{error}{STAYS}")
        assert shown_by(settings.certificate.context, "localhost", VERSIONS[0]) == before


@each_loop
def test_who_is_connected_goes_on_and_who_comes_is_shown_the_new_one(
    loop: str, papers: Papers
) -> None:
    settings = paired(papers)
    assert settings.certificate
    context = settings.certificate.context

    async def story() -> None:
        async with (
            running(context) as one,
            httpx.AsyncClient(verify=papers.client, trust_env=False) as client,
        ):
            there = "localhost", one.port
            before = await asyncio.to_thread(ssl.get_server_certificate, there)
            assert (await client.get(one.url)).is_success
            held = set(one.server.server_state.connections)
            papers.issue("live", "localhost")
            read_again(settings)
            assert (await client.get(one.url)).is_success
            assert held & set(one.server.server_state.connections)
            now = await asyncio.to_thread(ssl.get_server_certificate, there)
            assert ssl.PEM_cert_to_DER_cert(now) == der(papers.at("live"))
            assert now != before
            assert (await one.get(papers.client)).is_success

    played(story(), loop)


@pytest.mark.parametrize("service", ["coordinator", "worker"])
def test_when_the_certificate_ends_is_a_metric_which_follows_it(
    service: str, papers: Papers
) -> None:
    paired(papers)
    files = {"tls_cert": papers.at("live"), "tls_key": papers.at("live-key")}
    settings: Any = {"coordinator": Coordinator, "worker": Worker}[service](**files)
    name = f"median_{service}_certificate_ends_timestamp_seconds"

    def told_by(settings: Any) -> Callable[[], bytes]:
        if service == "worker":
            app = worker_service.app.create_app(settings, clock=clock)
            return lambda: bytes(app.state.worker.metrics.text())
        coordinator = coordinator_service.app.create_app(settings, clock=clock, wall=clock)
        return lambda: bytes(coordinator.coordinator.metrics.written()())

    def ends(text: Callable[[], bytes]) -> list[float]:
        lines = text().decode().splitlines()
        return [float(line.split()[1]) for line in lines if line.startswith(f"{name} ")]

    metrics = told_by(settings)
    assert ends(metrics) == [int((NOW + 40 * DAY).timestamp())]
    papers.issue("live", "localhost", not_after=NOW + 50 * DAY)
    read_again(settings)
    assert ends(metrics) == [int((NOW + 50 * DAY).timestamp())]
    self_signed(papers, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))
    put(papers, papers.at("live"), "odd")
    put(papers, papers.at("live-key"), "odd-key")
    read_again(settings)
    assert ends(metrics) == []  # no client accepts it, so none tells
    assert ends(told_by(type(settings)())) == []


# Whom a worker believes


def test_an_authority_that_is_added_is_believed_and_one_that_is_gone_is_not(
    papers: Papers, caplog: pytest.LogCaptureFixture
) -> None:
    """Also not on the connection that is open: the courier makes a new one."""
    mine = Path(papers.ca).read_bytes()
    another = trustme.CA().cert_pem.bytes()
    ca = papers.write("trusted", another)

    async def story() -> None:
        async with running(papers.server(), coordinator()) as one:
            app = worker_of(f"https://localhost:{one.port}", tls_ca=ca)
            worker = app.state.worker
            here = httpx.ASGITransport(app=app)

            async def post() -> int:
                async with httpx.AsyncClient(transport=here, base_url="http://here") as client:
                    return (await client.post("/values", json=[1.0])).status_code

            async def until_said(what: str) -> None:
                while not any(what in str(vars(one).get("facts")) for one in caplog.records):
                    await asyncio.sleep(0.01)

            async with app.router.lifespan_context(app):
                await until_said(f"{ca} has not the authority that signed it")
                papers.write("trusted", another + mine)
                read_again(worker.settings)
                while worker.why_not_ready():
                    await asyncio.sleep(0.01)
                assert await post() == 202
                papers.write("trusted", b"no PEM")
                read_again(worker.settings)
                assert await post() == 202
                papers.write("trusted", another)
                caplog.clear()
                read_again(worker.settings)
                posted = asyncio.create_task(post())
                await until_said(f"{ca} has not the authority that signed it")
                papers.write("trusted", mine)
                read_again(worker.settings)
                assert await posted == 202

    caplog.set_level("INFO")
    played(story())


@pytest.mark.parametrize("what", ["nowhere", "empty", "text", "cert-key"])
def test_a_wrong_file_of_authorities_changes_nothing_and_is_told_as_at_the_start(
    what: str, papers: Papers, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = papers.write("trusted", Path(papers.ca).read_bytes())
    settings = Worker(coordinator_url="https://localhost", tls_ca=ca)
    before = settings.trust.context
    put(papers, ca, what)
    read_again(settings)
    assert settings.trust.context is before
    monkeypatch.setenv("MEDIAN_COORDINATOR_URL", "https://localhost")
    monkeypatch.setenv("MEDIAN_TLS_CA", ca)
    (as_at_the_start,) = mistakes(Worker)
    assert told()[0] == f"error   {as_at_the_start}{STAYS}"


# The whole


class Posts:
    """One who posts values all the time, with whichever token he was given last."""

    def __init__(self, url: str, trusts: ssl.SSLContext, token: str, seed: int) -> None:
        self.token, self.taken = token, list[Floats]()
        self.refused = list[str]()
        self._url, self._trusts = url, trusts
        self._rng, self._stopping = np.random.default_rng(seed), threading.Event()
        self._thread = threading.Thread(target=self._post, daemon=True)
        self._thread.start()

    def _post(self) -> None:
        """Half of the time on a connection of before, and half on a new one."""
        with httpx.Client(verify=self._trusts, trust_env=False, timeout=SOON_S) as client:
            while not self._stopping.wait(0.005):
                values, token = self._rng.normal(size=50), self.token
                head = OCTETS | {"authorization": f"Bearer {token}"}
                if len(self.taken) % 2:
                    head |= {"connection": "close"}
                try:
                    said = client.post(self._url, content=values.tobytes(), headers=head)
                except httpx.HTTPError as error:
                    self.refused.append(repr(error))
                    return
                if said.status_code != 202:
                    self.refused.append(said.text)
                    return
                self.taken.append(values)

    def goes_on(self) -> None:
        more = len(self.taken) + 5
        until(lambda: self.refused or len(self.taken) >= more, "more was posted")
        assert self.refused == []

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(SOON_S)
        assert not self._thread.is_alive()


def old(name: str) -> str:
    return f"the-old-{name}-token-of-2025"


def new(name: str) -> str:
    return f"the-new-{name}-token-of-2026"


class Locked:
    """A coordinator and a worker over TLS, their tokens in files, and one who posts."""

    def __init__(self, papers: Papers, processes: Processes, trusts: ssl.SSLContext) -> None:
        self.papers, self._trusts = papers, trusts
        self.ca = papers.write("trusted", Path(papers.ca).read_bytes())
        self.coordinator = processes.coordinator(**self._locks("c", "push", "read"))
        self.worker = processes.worker(
            "one", tls_ca=self.ca, **self._locks("w", "push", "ingest", "read")
        )
        self.services = self.coordinator, self.worker
        for one in self.services:
            until(lambda one=one: one.is_up and one.is_ready, "it is ready")  # type: ignore[misc]
        self.posts = Posts(f"{self.worker.url}/values", trusts, old("ingest"), seed=1)

    def _locks(self, who: str, *doors: str) -> dict[str, str]:
        cert, key = self.papers.issue(who, "127.0.0.1")
        files = {f"{door}_token_file": self.write(who, door, old(door)) for door in doors}
        return files | {"tls_cert": cert, "tls_key": key}

    def write(self, who: str, door: str, *tokens: str) -> str:
        return self.papers.write(f"{who}-{door}", "\n".join(tokens).encode())

    def hang_up(self, *services: Service) -> None:
        """Until it was heeded; and then it all goes on."""
        for one in services:
            times = one.said.count("read again settings=")
            one.tell(signal.SIGHUP)
            until(lambda: one.said.count("read again settings=") > times, "heeded")  # noqa: B023
            self.posts.goes_on()

    def asked(self, method: str, url: str, token: str) -> httpx.Response:
        head = {"authorization": f"Bearer {token}"}
        return httpx.request(method, url, headers=head, verify=self._trusts, trust_env=False)

    def opens(self, one: Service, door: str, token: str) -> bool:
        return door not in self.asked("GET", f"{one.url}/health", token).json()["closed"]

    def change_push(self) -> None:
        self.write("c", "push", new("push"), old("push"))
        self.hang_up(self.coordinator)
        self.write("w", "push", new("push"))
        self.hang_up(self.worker)
        self.write("c", "push", new("push"))
        self.hang_up(self.coordinator)

    def change_ingest(self) -> None:
        self.write("w", "ingest", new("ingest"), old("ingest"))
        self.hang_up(self.worker)
        self.posts.token = new("ingest")
        self.posts.goes_on()
        self.write("w", "ingest", new("ingest"))
        self.hang_up(self.worker)

    def change_read(self) -> None:
        for tokens in ((new("read"), old("read")), (new("read"),)):
            for who in ("c", "w"):
                self.write(who, "read", *tokens)
            self.hang_up(*self.services)
            for one in self.services:
                assert self.opens(one, "read", new("read"))
                assert self.opens(one, "read", old("read")) == (len(tokens) > 1)

    def change_authority(self, newer: trustme.CA) -> None:
        """And with it the certificates that it signs."""
        self.papers.write("trusted", Path(self.ca).read_bytes() + newer.cert_pem.bytes())
        self.hang_up(self.worker)
        for who in ("c", "w"):
            made = newer.issue_cert("127.0.0.1")
            self.papers.write(who, made.cert_chain_pems[0].bytes())
            self.papers.write(f"{who}-key", made.private_key_pem.bytes())
        self.hang_up(*self.services)
        self.papers.write("trusted", newer.cert_pem.bytes())
        self.hang_up(self.worker)


def test_tokens_and_certificates_change_under_load_and_no_request_fails(
    papers: Papers, tmp_path: Path
) -> None:
    """As docs/security.md and docs/operations.md say which side is first."""
    newer, trusts = trustme.CA(), tls.client_context("https:", papers.ca)
    newer.configure_trust(trusts)
    with Processes(tmp_path, trusts=trusts) as processes:
        system = Locked(papers, processes, trusts)
        coordinator, worker = system.services
        system.posts.goes_on()
        system.change_push()
        system.change_ingest()
        system.change_read()
        system.change_authority(newer)
        system.posts.stop()
        for one, door in ((coordinator, "push"), (worker, "ingest")):
            assert system.opens(one, door, new(door))
            assert not system.opens(one, door, old(door))
        for one, who in ((coordinator, "c"), (worker, "w")):
            shown = ssl.get_server_certificate(("127.0.0.1", one.port))
            assert ssl.PEM_cert_to_DER_cert(shown) == der(papers.at(who))
        assert system.asked("POST", f"{worker.url}/flush", new("ingest")).status_code == 200
        answer = system.asked("GET", f"{coordinator.url}/median", new("read")).json()
        check(answer, np.concatenate(system.posts.taken))
        assert "not reached" not in worker.said.partition("coordinator met")[2]
        for one in (worker, coordinator):
            one.tell(signal.SIGTERM)
            one.tell(signal.SIGHUP)
            assert one.ended() == -signal.SIGTERM
            assert "-token-of-" not in one.said
            assert "Traceback" not in one.said
