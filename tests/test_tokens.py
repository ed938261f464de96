"""Tokens: which there may be, where they come from, and that nobody sees them."""

import re
from pathlib import Path
from typing import Any

import pytest
import trustme

import coordinator_service.settings
import worker_service.settings
from shared.serving.settings import LOCKS, ServiceSettings
from shared.serving.tokens import FILE_BYTES_MAX, LENGTH_MAX, LENGTH_MIN, Tokens

Coordinator = coordinator_service.settings.Settings
Worker = worker_service.settings.Settings

OLD, NEW = "the-old-token-of-1999", "the/new+token~of_2026=="
OTHER = "another-token-altogether"
NAMES = [
    *((Coordinator, name) for name in ("push", "read", "admin")),
    *((Worker, name) for name in ("push", "read", "ingest")),
]


def mistake(kind: type[ServiceSettings]) -> str:
    with pytest.raises(SystemExit) as left:
        kind.of([], "python -m service")
    return str(left.value.code)


def test_any_of_several_opens_and_the_first_is_sent() -> None:
    tokens = Tokens.of(f" {NEW}\n\t{OLD} ")
    assert [tokens.has(one.encode()) for one in (OLD, NEW, OTHER, "", f"{NEW} {OLD}")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert tokens.header == {"authorization": f"Bearer {NEW}"}


def test_none_opens_where_there_is_none() -> None:
    assert not Tokens()
    assert not Tokens().has(b"")
    assert Tokens().header == {}
    assert Tokens.of("") == Tokens.of(" \n") == Tokens()


def test_tokens_are_equal_that_open_the_same() -> None:
    assert Tokens(OLD) == Tokens.of(OLD)
    assert Tokens(OLD) != Tokens(NEW)
    assert Tokens(OLD) != OLD


@pytest.mark.parametrize("show", [repr, str, "{}".format])
def test_a_token_is_not_shown(show: Any) -> None:
    assert show(Tokens(OLD, NEW)) == "<2 tokens>"
    assert OLD not in show(Worker(push_token=OLD, read_token=NEW))


@pytest.mark.parametrize(
    ("token", "what"),
    [
        ("a" * (LENGTH_MIN - 1), f"has {LENGTH_MIN} to {LENGTH_MAX} characters"),
        ("a" * (LENGTH_MAX + 1), f"has {LENGTH_MIN} to {LENGTH_MAX} characters"),
        ("a=a" * 10, "letters, digits"),
        ("ä" * 20, "letters, digits"),
        ("'quoted-by-mistake'", "letters, digits"),
        (f"{OLD},{NEW}", "letters, digits"),
    ],
)
@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_what_is_no_token_stops_the_start_and_is_not_shown(
    kind: type[ServiceSettings],
    name: str,
    token: str,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(f"MEDIAN_{name.upper()}_TOKEN", token)
    told = mistake(kind)
    assert re.fullmatch(rf"MEDIAN_{name.upper()}_TOKEN: .*{what}.*", told)
    assert "openssl rand -hex 32" in told
    assert token not in told


@pytest.mark.parametrize("length", [LENGTH_MIN, LENGTH_MAX])
def test_a_token_may_have_so_many_characters(length: int) -> None:
    assert Tokens("a" * length).has(b"a" * length)


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_a_token_comes_from_a_variable_or_a_file(
    kind: type[ServiceSettings], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{NEW}\n{OLD}\n")
    assert not kind.of([], "").tokens(name)
    monkeypatch.setenv(f"MEDIAN_{name.upper()}_TOKEN_FILE", str(file))
    assert kind.of([], "").tokens(name) == Tokens(NEW, OLD)
    monkeypatch.setenv(f"MEDIAN_{name.upper()}_TOKEN", OTHER)
    assert "MEDIAN_" + name.upper() + "_TOKEN is set, too" in mistake(kind)
    monkeypatch.delenv(f"MEDIAN_{name.upper()}_TOKEN_FILE")
    assert kind.of([], "").tokens(name) == Tokens(OTHER)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "there is no token in this file"),
        (b" \n\n", "there is no token in this file"),
        (b"\xff\xfe" * 40, "is no file of tokens"),
        (OLD.encode() + b" short", "characters"),
        (f"{OLD}\n".encode() * (FILE_BYTES_MAX // 10), "is no file of tokens"),
    ],
)
def test_a_file_without_a_token_stops_the_start_as_it_was_meant_to_lock(
    content: bytes | None, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("MEDIAN_PUSH_TOKEN_FILE", str(file))
    told = mistake(Worker)
    assert told.startswith(f"MEDIAN_PUSH_TOKEN_FILE={file}: ")
    assert what in told
    assert OLD not in told


def test_a_folder_is_no_file_of_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIAN_ADMIN_TOKEN_FILE", str(tmp_path))
    assert "cannot be read: Is a directory" in mistake(Coordinator)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MEDIAN_READ_TOKENS", "MEDIAN_READ_TOKEN"),
        ("MEDIAN_READ_TOKN", "MEDIAN_READ_TOKEN"),
        ("MEDIAN_PUHS_TOKEN_FILE", "MEDIAN_PUSH_TOKEN_FILE"),
        ("MEDIAN_TLS_CERTS", "MEDIAN_TLS_CERT"),
        ("MEDIAN_THE_SECRET_TOKENS_OF_ANOTHER_HOUSE", None),
    ],
)
def test_a_lock_that_is_misspelt_stops_the_start(
    name: str, meant: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, OLD)
    told = mistake(Coordinator)
    assert told.startswith(f"{name}: there is no such setting, and nothing would be locked by it")
    assert told.endswith(f"; {meant} is one" if meant else "by it")
    assert OLD not in told


def test_no_other_setting_is_taken_for_a_misspelt_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Coordinator, Worker):
        for name in {name for name, _, _ in kind.table()} - LOCKS:
            monkeypatch.setenv(name + "_OF_OLD", "1")
    assert Coordinator.of([], "").port == 8000


def test_the_locks_of_another_service_are_no_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEDIAN_INGEST_TOKEN", "MEDIAN_TLS_CA"):
        monkeypatch.setenv(name, OLD)
    assert Coordinator.strangers() == []
    assert Coordinator.of([], "").tokens("read") == Tokens()


def test_a_wrong_token_beside_a_file_of_it_is_told_by_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(NEW)
    monkeypatch.setenv("MEDIAN_READ_TOKEN", "short")
    monkeypatch.setenv("MEDIAN_READ_TOKEN_FILE", str(file))
    assert mistake(Worker).startswith("MEDIAN_READ_TOKEN: a token has")


@pytest.mark.parametrize("kind", [Coordinator, Worker])
@pytest.mark.parametrize("name", sorted(LOCKS))
@pytest.mark.parametrize("empty", ["", " "])
def test_a_lock_that_is_set_but_empty_stops_the_start(
    kind: type[ServiceSettings], name: str, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, empty)
    assert mistake(kind).startswith(f"{name}: it is set, but empty")


SECRETS = [OLD, "abc/def+" * 5, "-----BEGIN PRIVATE KEY-----\nMIIEv/dir\n", "x/" * 3000]


@pytest.mark.parametrize("name", ["READ_TOKEN_FILE", "TLS_CERT", "TLS_KEY", "TLS_CA"])
@pytest.mark.parametrize("secret", SECRETS, ids=["token", "base64", "key", "long"])
def test_a_secret_in_place_of_the_file_that_has_it_is_not_shown(
    name: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"MEDIAN_{name}", secret)
    monkeypatch.setenv("MEDIAN_COORDINATOR_URL", "https://c")
    told = mistake(Worker)
    assert f"MEDIAN_{name}: " in told
    assert secret[:8] not in told


def test_a_file_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIAN_READ_TOKEN_FILE", f"{tmp_path}/read")
    assert mistake(Worker).startswith(f"MEDIAN_READ_TOKEN_FILE={tmp_path}/read: cannot be read: ")


def test_a_password_in_an_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIAN_COORDINATOR_URL", "https://user:pw12345@c:8000")
    told = mistake(Worker)
    assert told.startswith("MEDIAN_COORDINATOR_URL=https://...@c:8000: has no user")
    assert "pw12345" not in told


def test_whom_to_trust_is_of_no_use_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    with authority.cert_pem.tempfile() as pem:
        monkeypatch.setenv("MEDIAN_TLS_CA", pem)
        monkeypatch.setenv("MEDIAN_COORDINATOR_URL", "http://c")
        assert "begin MEDIAN_COORDINATOR_URL with https://" in mistake(Worker)
        monkeypatch.setenv("MEDIAN_COORDINATOR_URL", "https://c")
        assert Worker.of([], "").tls_ca == pem


def test_to_listen_nowhere_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIAN_HOST", "")
    assert mistake(Coordinator).startswith("MEDIAN_HOST=: ")
