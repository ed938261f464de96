"""What lets the load generator in: tokens and certificates, from its environment alone."""

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest
import trustme

from loadgen import session, watch
from loadgen.access import CA, INGEST, READ, TOKEN, Access, NoAccess, distrust
from loadgen.calls import Address, BadReply, Calls, NoReply
from loadgen.services import inherited
from loadgen.session import Order
from loadgen.watching.coordinator import Away, Coordinator, Stranger
from shared.serving.tokens import Tokens
from tests.cluster import run
from tests.watching import REPLIES, URL, Scripted

ONE, OTHER = "one-token-of-mine", "the-other+/token=="
SHOWN = Access({INGEST: ONE, READ: OTHER})
AT = Address("http://service")
REFUSED = {"error": {"code": "unauthorized", "message": "GET /median asks for the read token"}}


@pytest.fixture(autouse=True)
def _no_access(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whoever runs the tests."""
    for name in (INGEST, READ, CA, f"{INGEST}_FILE", f"{READ}_FILE"):
        monkeypatch.delenv(name, raising=False)


def token(environment: Mapping[str, str], method: str = "GET") -> str:
    return Access.of(environment).headers(method).get("authorization", "")


def test_the_first_token_is_shown_of_those_that_are_named(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"\n  {ONE}\n{OTHER}\n")
    assert token({READ: f" {OTHER}\n{ONE} "}) == f"Bearer {OTHER}"
    assert token({f"{INGEST}_FILE": str(file)}, "POST") == f"Bearer {ONE}"
    assert token({INGEST: ONE, READ: OTHER}, "POST") == f"Bearer {ONE}"
    assert token({INGEST: ONE}) == token({READ: " "}) == token({f"{READ}_FILE": ""}) == ""


@pytest.mark.parametrize(
    "wrong", ["short", "x" * 257, f"{ONE}\u20ac", f"{ONE}\x00", f"{ONE},{OTHER}", f"{ONE} short"]
)
def test_what_is_no_token_is_told_without_quoting_it(wrong: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(wrong)
    for environment in ({READ: wrong}, {f"{READ}_FILE": str(file)}):
        with pytest.raises(NoAccess, match="has no token, or what is none") as refused:
            Access.of(environment)
        assert str(refused.value).startswith(next(iter(environment)))
        assert wrong not in str(refused.value)
        assert ONE not in str(refused.value)


def test_a_file_without_a_token_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for file, what in (("empty", "has no token"), ("none", "No such file"), (".", "directory")):
        with pytest.raises(NoAccess, match=what):
            Access.of({f"{INGEST}_FILE": str(tmp_path / file)})
    with pytest.raises(NoAccess, match="are both set"):
        Access.of({INGEST: ONE, f"{INGEST}_FILE": str(tmp_path / "empty")})


def test_who_is_trusted_is_who_the_file_says_and_nobody_else(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    assert Access.of({CA: str(file)}).context.cert_store_stats()["x509"] == 1
    everybody = Access.of({}).context
    assert everybody.cert_store_stats()["x509"] > 50
    assert (everybody.verify_mode, everybody.check_hostname) == (ssl.CERT_REQUIRED, True)
    file.write_text("nobody")
    for path, what in (
        (file, "has no certificate"),
        (tmp_path / "none", "cannot be read: No such"),
    ):
        with pytest.raises(NoAccess, match=f"{CA}={path}: {what}"):
            Access.of({CA: str(path)})


def test_nothing_that_is_printed_of_it_shows_a_token() -> None:
    assert ONE not in repr(SHOWN)
    assert ONE not in str(SHOWN)


class Recorded(httpx.AsyncBaseTransport):
    """Answers all alike, and keeps what was shown to it by path."""

    def __init__(self, reply: httpx.Response | Exception) -> None:
        self._reply = reply
        self.shown: dict[str, str] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.shown[request.url.path] = request.headers.get("authorization", "")
        if isinstance(self._reply, Exception):
            raise self._reply
        return self._reply


def called(transport: Recorded, access: Access | None, path: str) -> str:
    """What a call says that went wrong."""

    async def story() -> None:
        calls = Calls(transport, access=access)
        try:
            if path == "/flush":
                await calls.flush(AT, "default")
            elif path == "/values":
                await calls.post(AT, "default", np.zeros(3), "key")
            else:
                await calls.median(AT, "default", patience_s=0.0)
        finally:
            await calls.close()

    with pytest.raises(BadReply) as refused:
        asyncio.run(story())
    assert isinstance(refused.value, NoReply) == ("no answer" in str(refused.value))
    return str(refused.value)


@pytest.mark.parametrize(
    ("path", "name", "shown"),
    [("/values", INGEST, ONE), ("/flush", INGEST, ONE), ("/median", READ, OTHER)],
)
def test_each_path_is_shown_its_own_token_and_who_is_turned_away_is_told_what_to_set(
    path: str, name: str, shown: str
) -> None:
    transport = Recorded(httpx.Response(401, json=REFUSED))
    said = called(transport, SHOWN, path)
    assert transport.shown == {path: f"Bearer {shown}"}
    assert said.endswith(f"{path} got 401: the token of {name} is another than it asks for")
    said = called(transport, None, path)
    assert transport.shown == {path: ""}
    assert f"{path} got 401: it asks for a token: set {name}, or {name}_FILE" in said
    assert ONE not in said


def looked(transport: httpx.AsyncBaseTransport, access: Access | None = None) -> None:
    async def story() -> None:
        async with Coordinator(URL, "default", transport=transport, access=access) as coordinator:
            await coordinator.look()

    run(story())


def test_a_watch_shows_the_read_token_everywhere() -> None:
    shown = set[str]()

    class Shown(Scripted):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            shown.add(request.headers.get("authorization", ""))
            return await super().handle_async_request(request)

    looked(Shown(), SHOWN)
    assert shown == {f"Bearer {OTHER}"}


def test_a_watch_that_is_turned_away_ends_with_what_to_set() -> None:
    assert "/median" in REPLIES
    transport = Scripted(median=(401, REFUSED))
    with pytest.raises(Stranger, match=f"got 401: it asks for a token: set {READ}, or"):
        looked(transport)
    with pytest.raises(Stranger, match=f"the token of {READ} is another"):
        looked(transport, SHOWN)


def broken(cause: ssl.SSLError) -> httpx.ConnectError:
    """As httpx has it: the reason is behind it."""
    error = httpx.ConnectError("")
    error.__cause__ = cause
    return error


def unproven(code: int, message: str) -> ssl.SSLError:
    error = ssl.SSLCertVerificationError(1, message)
    error.verify_code, error.verify_message = code, message
    return error


def untold(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


IN_VAIN = [
    (unproven(20, "unable to get local issuer certificate"), f"name in {CA} whom to trust"),
    (unproven(10, "certificate has expired"), "give it a new one"),
    (unproven(9, "certificate is not yet valid"), "is a clock wrong"),
    (unproven(62, "Hostname mismatch, certificate is not valid for 'x'."), "calls it"),
    (untold("WRONG_VERSION_NUMBER"), "speaks no TLS: begin its address with http://"),
]


@pytest.mark.parametrize(("cause", "said"), IN_VAIN)
def test_where_tls_came_to_nothing_it_is_not_tried_again(cause: ssl.SSLError, said: str) -> None:
    transport = Recorded(broken(cause))
    assert said in called(transport, None, "/values")
    with pytest.raises(Stranger, match=said):
        looked(Recorded(broken(cause)))


def test_a_connection_that_was_cut_is_tried_again() -> None:
    assert distrust(broken(untold("UNEXPECTED_EOF_WHILE_READING"))) is None
    assert distrust(httpx.ConnectError("refused")) is None


def test_who_hangs_up_on_what_is_plain_may_speak_tls() -> None:
    hung_up = httpx.RemoteProtocolError("Server disconnected without sending a response.")
    assert "if it speaks TLS, begin its address with https://" in called(
        Recorded(hung_up), None, "/median"
    )
    with pytest.raises(Away, match="if it speaks TLS, begin its address with https://"):
        looked(Recorded(hung_up))


def test_without_access_a_command_ends_with_a_sentence_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(READ, "no token")
    order = Order(input="calm", workers=["http://127.0.0.1:1"], coordinator="http://127.0.0.1:1")
    assert session.replay(order, as_json=False) == 2
    assert watch.watch("http://127.0.0.1:1", "default", 1.0) == 2
    said = capsys.readouterr().err
    assert said.count(f"{READ} has no token, or what is none") == 2


def test_services_of_a_demo_are_neither_shut_by_what_their_starter_has_nor_told_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = ["PUSH_TOKEN", "READ_TOKEN_FILE", "ADMIN_TOKEN", "TLS_CERT", "TLS_KEY", "TLS_CA"]
    for name in keys:
        monkeypatch.setenv(f"MEDIAN_{name}", "secret")
    monkeypatch.setenv("MEDIAN_EPSILON", "0.1")
    assert "secret" not in inherited().values()
    assert inherited()["MEDIAN_EPSILON"] == "0.1"


def test_a_token_is_here_what_it_is_to_the_services() -> None:
    for length in (15, 16, 256, 257):
        for one in ("a" * length, "a" * (length - 2) + "==", "=" * length, "ä" * length):
            try:
                Tokens.of(one)
            except ValueError:
                assert not TOKEN.fullmatch(one)
            else:
                assert TOKEN.fullmatch(one)


def test_a_token_in_place_of_its_files_name_is_not_shown() -> None:
    given = "a-token-in-the-wrong-place"
    with pytest.raises(NoAccess, match="names a file that cannot be read") as told:
        Access.of({"MEDIAN_READ_TOKEN_FILE": given})
    assert given not in str(told.value)
