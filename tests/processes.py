"""The services as real processes, clients that load them, and the oracle for what they answer.

Each process is on a leash (`leash.py`), in a group of its own, and writes its log to a file, which
is shown when a test fails. Nothing here is timed but by bounds so generous that only what hangs
exceeds them.

The truth is a multiset: all values that got a 202. Of batches that got no answer nobody knows
whether they are counted; all sizes differ so that the count tells which.
"""

import itertools
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import numpy as np

from shared.values import Floats
from tests.exact import TALLY, rank_errors

TOP = Path(__file__).parent.parent
HEARTBEAT_S = 0.5
EPSILON = 0.02
SOON_S = 60  # what takes longer hangs
OCTETS = {"content-type": "application/octet-stream"}
# Below those that the system hands out, and far from those of tests in the next process.
PORTS = itertools.count(20_000 + 97 * os.getpid() % 10_000)

Trusts = ssl.SSLContext | None  # whom clients of services believe that speak TLS
Draw = Callable[[int], Floats]
Answer = dict[str, Any]


def until(what: Callable[[], Any], words: str) -> Any:
    """What it says, as soon as that is true."""
    deadline = time.monotonic() + SOON_S
    while not (found := what()):
        assert time.monotonic() < deadline, f"waited {SOON_S} s until {words}"
        time.sleep(0.02)
    return found


def free_port() -> int:
    for port in PORTS:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


class Process:
    """Python on a leash, with settings; what it says goes to a file."""

    def __init__(self, *arguments: str, log: Path, **settings: object) -> None:
        self.log = log
        mine = {name: value for name, value in os.environ.items() if name[:7] != "MEDIAN_"}
        given = {f"MEDIAN_{name.upper()}": str(value) for name, value in settings.items()}
        with log.open("ab") as file:
            self._popen = subprocess.Popen(  # noqa: S603  this Python, with arguments of our own
                [sys.executable, *arguments],
                cwd=TOP,
                env=mine | given,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                process_group=0,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def tell(self, what: signal.Signals) -> None:
        self._popen.send_signal(what)

    def ended(self) -> int:
        """With which status, or by which signal if that is negative."""
        return self._popen.wait(SOON_S)

    def stop(self) -> None:
        """At once, whatever it was doing."""
        if self._popen.poll() is None:
            os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()
        if self._popen.stdin:
            self._popen.stdin.close()


class Service(Process):
    """One of the two services, and how to ask it."""

    def __init__(
        self, module: str, *, port: int, log: Path, trusts: Trusts = None, **settings: object
    ) -> None:
        super().__init__("-m", "tests.leash", module, log=log, port=port, **settings)
        self.port, self.url = port, f"{'https' if trusts else 'http'}://127.0.0.1:{port}"
        self._client = httpx.Client(
            base_url=self.url, timeout=SOON_S, trust_env=False, verify=trusts or True
        )

    def get(self, path: str, **params: str) -> Any:
        return self._client.get(path, params=params).raise_for_status().json()

    def post(self, path: str, content: bytes = b"") -> httpx.Response:
        return self._client.post(path, content=content, headers=OCTETS)

    def take(self, values: Floats) -> None:
        """Until they are acknowledged."""
        response = self.post("/values", values.tobytes())
        assert (response.status_code, response.json()["accepted"]) == (202, len(values))

    def flush(self) -> None:
        assert self.post("/flush").status_code == 200

    @property
    def is_up(self) -> bool:
        assert self._popen.poll() is None, f"it ended:\n{self.said}"
        try:
            return self._client.get("/health").is_success
        except httpx.TransportError:
            return False

    @property
    def is_ready(self) -> bool:
        return self._client.get("/ready").is_success

    def stop(self) -> None:
        super().stop()
        self._client.close()


One = TypeVar("One", bound=Process)


class Processes:
    """A coordinator, its workers, and whatever else a test starts; all stopped at its end."""

    def __init__(self, logs: Path, *, trusts: Trusts = None) -> None:
        self._logs, self._all, self._trusts = logs, list[Process](), trusts
        self.port = free_port()
        self.workers: dict[str, Service] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for one in self._all:
            one.stop()
            sys.stdout.write(f"--- {one.log.name}\n{one.said}")

    def cluster(self, *names: str, epsilon: float = EPSILON, **settings: object) -> Service:
        """A coordinator that is ready, and workers that have met it."""
        coordinator = self.coordinator(epsilon=epsilon)
        workers = [self.worker(name, **settings) for name in names]
        until(lambda: coordinator.is_up and coordinator.is_ready, "the coordinator is ready")
        until(lambda: all(one.is_up and one.is_ready for one in workers), "the workers are ready")
        return coordinator

    def start(self, *arguments: str, **settings: object) -> Process:
        log = self._logs / f"process-{len(self._all)}.log"
        return self._kept(Process(*arguments, log=log, **settings))

    def coordinator(self, **settings: object) -> Service:
        """Begun, and soon up; always on the same port."""
        settings = {"epsilon": EPSILON, "heartbeat_s": HEARTBEAT_S} | settings
        log = self._logs / "coordinator.log"
        self.coordinator_ = Service(
            "coordinator_service", port=self.port, log=log, trusts=self._trusts, **settings
        )
        return self._kept(self.coordinator_)

    def worker(self, name: str, **settings: object) -> Service:
        """On a port of its own, unless one is among the settings."""
        settings = {
            "port": free_port(),
            "worker_name": name,
            "coordinator_url": f"{'https' if self._trusts else 'http'}://127.0.0.1:{self.port}",
            "backoff_s_max": HEARTBEAT_S / 2,
        } | settings
        log = self._logs / f"worker-{name}.log"
        port = int(str(settings.pop("port")))
        worker = Service("worker_service", port=port, log=log, trusts=self._trusts, **settings)
        self.workers[name] = worker
        return self._kept(worker)

    def _kept(self, one: One) -> One:
        self._all.append(one)
        return one


class Load:
    """Clients that post one batch after the other, as fast as they are answered, until stopped.

    A client whose batch got no 202 stops: that batch may be counted or not.
    """

    def __init__(self, urls: Sequence[str], draw: Draw, *, clients: int = 4) -> None:
        self.acknowledged: list[Floats] = []
        self.unanswered: list[Floats] = []
        self.refusals: list[httpx.Response] = []
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(url, draw, 200 + 2**number), daemon=True)
            for number, url in zip(range(clients), itertools.cycle(urls), strict=False)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """After the answers that are still to come."""
        self._stopping.set()
        self.wait()

    def wait(self) -> None:
        for thread in self._threads:
            thread.join(SOON_S)
            assert not thread.is_alive(), "a client still waits for its answer"

    def reaches(self, batches: int) -> None:
        more = len(self.acknowledged) + batches
        until(lambda: len(self.acknowledged) >= more, f"{batches} more batches are acknowledged")

    @property
    def values(self) -> Floats:
        """All that were acknowledged."""
        return np.concatenate([np.empty(0), *self.acknowledged])

    def _client(self, url: str, draw: Draw, size: int) -> None:
        with httpx.Client(base_url=url, timeout=SOON_S, trust_env=False) as client:
            while not self._stopping.is_set():
                values = draw(size)
                try:
                    response = client.post("/values", content=values.tobytes(), headers=OCTETS)
                except httpx.HTTPError:
                    self.unanswered.append(values)
                    return
                if response.status_code != 202:
                    self.unanswered.append(values)
                    self.refusals.append(response)
                    return
                self.acknowledged.append(values)


def check(answer: Answer, acknowledged: Floats, unanswered: Sequence[Floats] = ()) -> None:
    """All that was acknowledged is counted, once, and the median is as right as it says."""
    truths = [
        truth for truth in _possible(acknowledged, unanswered) if len(truth) == answer["count"]
    ]
    assert truths, f"{answer['count']} of {len(acknowledged)} and {list(map(len, unanswered))}"
    for truth in truths:
        certified(answer, truth)


def certified(answer: Answer, truth: Floats) -> None:
    """The median is as right as it says, of these values, however many of them it covers."""
    count = len(truth)
    if not count and answer["median"] is None:
        return
    assert answer["median"] is not None, f"none of {count} values"
    error = rank_errors(np.array([answer["median"]]), np.sort(truth), np.array([count / 2]))
    assert TALLY.all(error <= answer["rank_error"] * count), f"off by {error} of {count}: {answer}"


def _possible(acknowledged: Floats, unanswered: Sequence[Floats]) -> Iterator[Floats]:
    for kept in itertools.product((False, True), repeat=len(unanswered)):
        yield np.concatenate([acknowledged, *itertools.compress(unanswered, kept)])
