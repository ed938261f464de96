"""What containers are told, as far as it can be tried without Docker: health, secrets, TLS.

The certificates are those that docs/operations.md says how to make, made by its own commands.
"""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import coordinator_service.settings
import worker_service.settings
from loadgen import access
from shared.serving import tls
from shared.serving.settings import ServiceSettings
from tests.processes import TOP, Processes, until

PAGE = (TOP / "docs" / "operations.md").read_text()
COMMANDS = re.findall(r"^    (mkdir -m 700 secrets authority|openssl .*)$", PAGE, re.MULTILINE)
SETTINGS: dict[str, type[ServiceSettings]] = {
    "coordinator": coordinator_service.settings.Settings,
    "worker": worker_service.settings.Settings,
}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the page says how to make them."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    room = tmp_path_factory.mktemp("room")
    words = " && ".join(COMMANDS)
    done = subprocess.run(["bash", "-c", words], cwd=room, capture_output=True, check=False)  # noqa: S603, S607  our page's
    if b"Unknown option" in done.stderr or b"Unrecognized" in done.stderr:
        pytest.skip("openssl is older than 3.0")
    assert done.returncode == 0, done.stderr
    return room / "secrets"


def health_check(port: int, **more: str) -> int:
    """The status of what the image asks itself, here."""
    text = (TOP / "Dockerfile").read_text().replace("\\\n", "")
    (command,) = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", text, re.MULTILINE)
    python, *arguments = json.loads(command)
    assert python == "python"
    bare = {name: value for name, value in os.environ.items() if name[:7] != "MEDIAN_"}
    environment = bare | {"MEDIAN_PORT": str(port)} | more
    return subprocess.run(  # noqa: S603  our image's
        [sys.executable, *arguments], env=environment, check=False, stderr=subprocess.DEVNULL
    ).returncode


def test_a_certificate_of_ones_own_takes_three_commands_and_the_image_sees_health_by_it(
    secrets: Path, tmp_path: Path
) -> None:
    assert len(COMMANDS) == 4
    trusts = tls.client_context("https:", str(secrets / "ca.pem"))
    trusts.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does by itself
    cert, key = secrets / "coordinator.pem", secrets / "coordinator.key"
    with Processes(tmp_path, trusts=trusts) as processes:
        one = processes.coordinator(tls_cert=cert, tls_key=key)
        until(lambda: one.is_up, "it is believed")
        assert health_check(one.port, MEDIAN_TLS_CERT=str(cert)) == 0
        assert health_check(one.port) != 0
        assert "the certificate" not in one.said


def test_the_image_sees_health_without_tls_as_before(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        one = processes.coordinator()
        until(lambda: one.is_up, "it is up")
        assert health_check(one.port) == 0
        assert health_check(one.port, MEDIAN_TLS_CERT="") == 0


def test_each_service_is_given_what_its_settings_name_and_nothing_else() -> None:
    yaml: Any = pytest.importorskip("yaml")
    files = "docker-compose.yml", "docs/compose-tls.yml"
    plain, locked = (yaml.safe_load((TOP / file).read_text()) for file in files)
    assert set(locked["services"]) == set(plain["services"])
    for name, service in locked["services"].items():
        values = service["environment"].values()
        used = {value.removeprefix("/run/secrets/") for value in values if value[:5] == "/run/"}
        assert used == set(service["secrets"]) <= set(locked["secrets"])
        known = {variable for variable, _, _ in SETTINGS[name].table()} if name in SETTINGS else {
            access.CA, f"{access.INGEST}_FILE", f"{access.READ}_FILE",
            *plain["services"][name]["environment"],
        }  # fmt: skip
        assert set(service["environment"]) <= known
    assert "ca.key" not in locked["secrets"]
    assert {one["file"] for one in locked["secrets"].values()} == {
        f"${{SECRETS:-./secrets}}/{name}" for name in locked["secrets"]
    }


@pytest.mark.parametrize("service", ["coordinator", "worker", "loadgen"])
def test_no_container_can_write_where_it_stands_or_has_a_capability(service: str) -> None:
    yaml: Any = pytest.importorskip("yaml")
    one = yaml.safe_load((TOP / "docker-compose.yml").read_text())["services"][service]
    assert (one["read_only"], one["cap_drop"]) == (True, ["ALL"])
    assert one["security_opt"] == ["no-new-privileges:true"]
