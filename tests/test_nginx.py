"""The proxy of docs/nginx.conf, before a real coordinator and a real worker, where nginx is."""

import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from tests.processes import SOON_S, TOP, Processes, Service, free_port, until

TOKENS = {name: f"the-{name}-token-of-2026" for name in ("push", "ingest", "read", "admin")}
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="there is no nginx")


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKENS[name]}"}


def configured(folder: Path, port: int, coordinator: Service, worker: Service) -> Path:
    """The file as it is, but for ports and the certificate, and in what nginx wants around it."""
    text = (TOP / "docs" / "nginx.conf").read_text()
    for shown, here in (
        (r"listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        (r"/etc/ssl/median\.pem", f"{folder}/cert.pem"),
        (r"/etc/ssl/median\.key", f"{folder}/key.pem"),
        (r"http://127\.0\.0\.1:8000", coordinator.url),
        (r"http://127\.0\.0\.1:8001", worker.url),
    ):
        text, found = re.subn(shown, here, text)
        assert found, f"{shown} is not in the file"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    own = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    path = folder / "nginx.conf"
    path.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off;\n{own}{text}\n}}\n"
    )
    return path


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client that knows nothing but the proxy."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(folder / "cert.pem", append=True)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with Processes(folder) as processes:
        shared = {"push_token": TOKENS["push"], "read_token": TOKENS["read"]}
        coordinator = processes.coordinator(admin_token=TOKENS["admin"], **shared)
        worker = processes.worker("w", ingest_token=TOKENS["ingest"], **shared)
        until(lambda: coordinator.is_up and worker.is_up and worker.is_ready, "they are ready")
        conf = configured(folder, port, coordinator, worker)
        nginx = subprocess.Popen([str(NGINX), "-p", folder, "-c", conf])  # noqa: S603  of the system
        try:
            base = f"https://127.0.0.1:{port}"
            with httpx.Client(
                base_url=base, verify=context, trust_env=False, timeout=SOON_S
            ) as client:
                until(lambda: answers(client), "nginx is up")
                yield client
        finally:
            nginx.terminate()
            nginx.wait(SOON_S)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


def test_values_go_in_and_the_median_comes_out(proxy: httpx.Client) -> None:
    assert proxy.post("/values", json=[1, 2, 3]).status_code == 401
    assert proxy.post("/values", json=[1, 2, 3], headers=bearer("ingest")).status_code == 202
    large = bytes(8 * 500_000)
    headers = bearer("ingest") | {"content-type": "application/octet-stream"}
    assert proxy.post("/values", content=large, headers=headers).json()["accepted"] == 500_000
    assert proxy.get("/median").status_code == 401
    assert proxy.get("/median", headers=bearer("read")).json()["median"] == 0
    assert "Running median" in proxy.get("/").text


def test_an_event_comes_as_it_happens(proxy: httpx.Client) -> None:
    with proxy.stream("GET", "/median/events", headers=bearer("read")) as events:
        lines = events.iter_lines()
        assert next(lines) == "retry: 2000"
        assert next(line for line in lines if line.startswith("data: "))


@pytest.mark.parametrize(
    "path",
    [
        "/deltas",
        "/%64eltas",
        "/deltas%0A",
        "/workers/%2e%2e/w/retire",
        "/workers/w/retire%0A",
        "/workers/w/retire",
        "/workers/w%2Fx/retire",
    ],
)
@pytest.mark.parametrize("token", ["push", "admin"])
def test_what_is_for_workers_and_operators_is_not_for_all(
    proxy: httpx.Client, path: str, token: str
) -> None:
    response = proxy.post(path, headers=bearer(token))
    assert response.status_code == 403
    assert "nginx" in response.text
