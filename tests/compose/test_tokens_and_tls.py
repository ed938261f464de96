"""The system of docs/compose-tls.yml: its secrets are files, and nobody is let in without them."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import trustme

from tests.compose.conftest import SYSTEM
from tests.compose.system import TOP, System, docker

TOKENS = {name: f"secret-of-{name}-0123456789" for name in ("push", "ingest", "read", "admin")}


class Locked(System):
    """Asks with the read token, posts with the ingest token, and trusts an authority of its own."""

    def __init__(self, ca: Path) -> None:
        super().__init__()
        self.coordinator_url = self.coordinator_url.replace("http:", "https:")
        trusts = ssl.create_default_context(cafile=ca)
        for how, name in ((self.asks, "read"), (self.posts, "ingest")):
            headers = {"authorization": f"Bearer {TOKENS[name]}"}
            how |= {"verify": trusts, "headers": headers}

    def compose(self, *words: str, within_s: float = 60) -> str:
        locks = "--file", str(TOP / "docs" / "compose-tls.yml")
        return super().compose(*locks, *words, within_s=within_s)

    def url(self, worker: str) -> str:
        return super().url(worker).replace("http:", "https:")


@pytest.fixture
def locked(
    request: pytest.FixtureRequest,
    images: None,  # noqa: ARG001  they have to be there
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Locked]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("coordinator", "worker"):
        made = authority.issue_cert(name, "localhost", "127.0.0.1")
        made.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        for pem in made.cert_chain_pems:
            pem.write_to_path(tmp_path / f"{name}.pem", append=True)
    for name, token in TOKENS.items():
        (tmp_path / name).write_text(f"{token}\n")
    for file in tmp_path.iterdir():
        file.chmod(0o644)
    monkeypatch.setenv("SECRETS", str(tmp_path))
    running = request.node.stash[SYSTEM] = Locked(tmp_path / "ca.pem")
    try:
        running.start()
        running.until_complete(live=0, what="complete, over TLS")
        yield running
    finally:
        running.remove()


def test_who_has_the_secrets_is_served_and_who_has_none_is_not(
    locked: Locked, rng: np.random.Generator
) -> None:
    for worker in locked.workers():
        locked.give(worker, rng.normal(size=500))
    locked.flush()
    locked.check_counted()
    trusts = {"verify": locked.asks["verify"], "trust_env": False}
    assert httpx.get(f"{locked.coordinator_url}/median", **trusts).status_code == 401
    one = locked.url(locked.workers()[0])
    assert httpx.post(f"{one}/values", json=[1.0], **trusts).status_code == 401
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(locked.coordinator_url, trust_env=False)
    locked.check_counted()


def test_the_load_generator_has_them_too_and_no_token_is_told(locked: Locked) -> None:
    said = locked.loadgen("replay", "calm", "--verify", "--values", "50000", "--stream", "one")
    assert "none lost, none counted twice" in said
    told = [said, locked.logs()]
    told += [docker("inspect", container) for container in locked.containers()]
    assert [name for name, token in TOKENS.items() if any(token in one for one in told)] == []
