"""The system in containers, as a test sees it: what Docker says of it, and what it answers.

A `System` is the project's own docker-compose.yml, under a name and on ports of its own, so that it
cannot hurt one that runs here. It remembers every value that a worker acknowledged: the exact
oracle. Every wait has an end, and what was seen goes into `SEEN`, which is shown after the tests.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Seen = TypeVar("Seen")

TOP = Path(__file__).parent.parent.parent
PROJECT = f"running-median-test-{zlib.crc32(str(TOP).encode()):08x}"  # one for each checkout

EPSILON = 0.02  # not the default: it has to come through
HEARTBEAT_S = 2
SILENT_S = 3 * HEARTBEAT_S
SLACK_S = 5  # a machine with other things to do
HEALTHY_S_MAX = 30
ACKNOWLEDGED_S_MAX = 60

SEEN: list[str] = []

# Runs in a worker: posts each batch it reads from stdin, and prints the statuses.
FROM_INSIDE = """
import http.client, json, sys, time
for values in json.load(sys.stdin):
    worker = http.client.HTTPConnection("127.0.0.1", 8001, timeout=60)
    kind = {"Content-Type": "application/json"}
    worker.request("POST", "/values", json.dumps({"values": values}), kind)
    print(worker.getresponse().status, flush=True)
    time.sleep(0.1)
"""


def say(seen: str) -> None:
    SEEN.append(seen)


def docker(
    *words: str, given: str = "", within_s: float = 60, ports: tuple[str, str] = ("", "")
) -> str:
    """Run a docker command and return what it prints; raise where it fails or takes too long."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
    own = {"MEDIAN_EPSILON": str(EPSILON), "COORDINATOR_PORT": ports[0], "WORKER_PORTS": ports[1]}
    done = subprocess.run(  # noqa: S603  our own words, never a shell's
        [shutil.which("docker") or "docker", *words],
        capture_output=True,
        check=False,
        cwd=TOP,
        env=kept | own,
        input=given,
        text=True,
        timeout=within_s,
    )
    if done.returncode:
        raise AssertionError(f"docker {' '.join(words)}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def missing() -> str | None:
    """Why nothing can be tried here; None where an engine answers."""
    if not shutil.which("docker"):
        return "docker is not installed"
    for words in (["info"], ["compose", "version"]):
        try:
            docker(*words, within_s=20)
        except (AssertionError, subprocess.TimeoutExpired):
            return f"docker {' '.join(words)} fails: no engine answers, or compose is not there"
    return None


def free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    for first in range(18_000, 30_000, count):
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise AssertionError(f"no {count} free ports in a row")


def until(
    holds: Callable[[Seen], bool], ask: Callable[[], Seen], *, within_s: float, what: str
) -> Seen:
    """Ask until the answer holds, say how long that took, and return it."""
    begin = time.monotonic()
    last: Seen | str = "nothing"
    while time.monotonic() - begin < within_s:
        try:
            last = seen = ask()
        except httpx.TransportError as error:
            last = repr(error)
        else:
            if holds(seen):
                say(f"{what} after {time.monotonic() - begin:.1f} s (of {within_s} s)")
                return seen
        time.sleep(0.3)
    raise AssertionError(f"{what}: not within {within_s} s; last seen: {last}")


class System:
    """A coordinator and its workers; a worker is known by the id of its container."""

    def __init__(self) -> None:
        first = free_ports(33)
        self.ports = str(first), f"{first + 1}-{first + 32}"
        self.coordinator_url = f"http://127.0.0.1:{first}"
        self.acknowledged: list[Values] = []
        self.asks: dict[str, Any] = {"trust_env": False}
        self.posts: dict[str, Any] = {"trust_env": False}

    def compose(self, *words: str, within_s: float = 60) -> str:
        which = ["--project-name", PROJECT, "--file", str(TOP / "docker-compose.yml")]
        return docker(
            "compose", "--ansi", "never", *which, *words, within_s=within_s, ports=self.ports
        )

    def start(self, workers: int = 3, within_s: float = HEALTHY_S_MAX) -> None:
        """Start, or scale; return when all is healthy."""
        self.compose("up", "--detach", "--no-recreate", "--scale", f"worker={workers}")
        self.until_healthy(workers, within_s)

    def until_healthy(self, workers: int = 3, within_s: float = HEALTHY_S_MAX) -> None:
        until(
            lambda health: health == ["healthy"] * (workers + 1),
            self.health,
            within_s=within_s,
            what=f"{workers} workers and a coordinator healthy",
        )

    def health(self) -> list[str]:
        return docker(
            "inspect", "--format", "{{.State.Health.Status}}", *self.containers()
        ).splitlines()

    def remove(self, *more: str) -> None:
        self.compose(
            "--profile", "loadgen", "down", "--volumes", "--remove-orphans", "--timeout", "5", *more
        )

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--timestamps", "--tail", "100")

    def containers(self, service: str = "") -> list[str]:
        """Ids, running or not, in the order of their names."""
        label = "label=com.docker.compose."
        which = ["--filter", f"{label}project={PROJECT}"]
        which += ["--filter", f"{label}service={service}"] if service else []
        listed = docker("ps", "--all", "--format", "{{.Names}} {{.ID}}", *which).splitlines()
        return [line.split()[1] for line in sorted(listed)]

    def workers(self) -> list[str]:
        return self.containers("worker")

    def coordinator(self) -> str:
        (found,) = self.containers("coordinator")
        return found

    def inspect(self, container: str, field: str) -> Any:
        return json.loads(docker("inspect", "--format", f"{{{{json {field}}}}}", container))

    def stop(self, container: str) -> tuple[float, int]:
        """As `docker stop`: how long it took, in seconds, and the exit code."""
        begin = time.monotonic()
        docker("stop", container)
        took_s, code = time.monotonic() - begin, self.inspect(container, ".State.ExitCode")
        say(f"stopped after {took_s:.1f} s with exit code {code}")
        return took_s, code

    def url(self, worker: str) -> str:
        return f"http://{docker('port', worker, '8001/tcp').splitlines()[0]}"

    def name(self, worker: str) -> str:
        """While it runs: it is called after its slot, and only it knows which that is."""
        found = httpx.get(f"{self.url(worker)}/health", timeout=5, **self.asks)
        return str(found.raise_for_status().json()["worker"])

    def sources(self) -> set[tuple[str, str]]:
        """Names and numbers of all sources that there ever were."""
        return {(row["worker"], row["source"]) for row in self.get("/workers")["workers"]}

    def post(self, url: str, content: object = None) -> httpx.Response:
        return httpx.post(url, json=content, timeout=ACKNOWLEDGED_S_MAX, **self.posts)

    def give(self, worker: str, values: Values) -> None:
        """Through the published port."""
        response = self.post(f"{self.url(worker)}/values", {"values": values.tolist()})
        assert response.status_code == 202, response.text
        assert response.json()["accepted"] == len(values)
        self.acknowledged.append(values)

    def give_from_inside(self, worker: str, batches: list[Values]) -> None:
        """Past all networks, for a worker that has none."""
        given = json.dumps([values.tolist() for values in batches])
        words = ["exec", "--interactive", worker, "python", "-c", FROM_INSIDE]
        statuses = docker(*words, given=given, within_s=120).split()
        assert statuses == ["202"] * len(batches)
        self.acknowledged += batches

    def loadgen(self, *words: str, mounted: Sequence[str] = ()) -> str:
        """As a user runs it: `docker compose run --rm loadgen ...`; what it prints."""
        volumes = [word for one in mounted for word in ("--volume", f"{one}:ro")]
        return self.compose("run", "--rm", "--no-TTY", *volumes, "loadgen", *words, within_s=120)

    def flush(self) -> None:
        """Every worker says all it has, and was heard."""
        for worker in self.workers():
            self.post(f"{self.url(worker)}/flush").raise_for_status()

    def answer(self) -> dict[str, Any]:
        return self.get("/median")

    def get(self, path: str) -> dict[str, Any]:
        response = httpx.get(f"{self.coordinator_url}{path}", timeout=5, **self.asks)
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return found

    def until(
        self, *, within_s: float, what: str, counted: bool = False, **fields: object
    ) -> dict[str, Any]:
        """Wait for an answer with these fields; `counted`: with all that was acknowledged."""
        expected = fields | ({"count": len(self.everything())} if counted else {})
        return until(
            lambda found: expected.items() <= found.items(),
            self.answer,
            within_s=within_s,
            what=what,
        )

    def until_complete(self, *, live: int, what: str, within_s: float = SILENT_S + SLACK_S) -> None:
        self.until(complete=True, workers={"live": live, "silent": 0}, within_s=within_s, what=what)

    def everything(self) -> Values:
        return np.concatenate(self.acknowledged) if self.acknowledged else np.empty(0)

    def check(self, answer: dict[str, Any]) -> None:
        """The promise of an answer, against every value acknowledged."""
        values, median = self.everything(), answer["median"]
        half = len(values) / 2
        below, upto = np.sum(values < median), np.sum(values <= median)
        error = max(below - half, half - upto, 0.0) / len(values)
        seen = f"{len(values):,} values, rank error {error:.5f}, proven {answer['rank_error']:.5f}"
        say(seen)
        assert error <= answer["rank_error"], (seen, answer)
        assert answer["low"] <= np.median(values) <= answer["high"], answer

    def check_promise(self) -> None:
        """The same of a complete answer, which is never worse than epsilon."""
        answer = self.answer()
        assert answer["complete"], answer
        assert answer["epsilon"] == EPSILON
        assert answer["rank_error"] <= EPSILON, answer
        self.check(answer)

    def check_counted(self) -> None:
        """All that was acknowledged arrives, counted once, and the promise holds."""
        self.until(within_s=SLACK_S, counted=True, what=f"all {len(self.everything()):,} counted")
        self.check_promise()
