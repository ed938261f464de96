"""A coordinator and some workers, as processes of this machine, on ports that nobody else uses.

They begin together and are ready together. They end in order: the workers first, so that they can
say goodbye, then the coordinator; whoever has not ended some seconds after SIGTERM is killed. Each
runs on a leash and in a session of its own: so Ctrl-C reaches only the one who started them, and if
that one is killed, they end too. See `loadgen/leash.py`.

What they log goes to files in one directory. A service that fails is a sentence, with the end of
its log.

The system picks the ports. Until a service listens on its port somebody else may take it; then all
begin once more, on other ports.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

HOST = "127.0.0.1"
START_S_MAX = 25.0
STOP_S_MAX = 12.0  # requests may take five, and a goodbye five more
LOOK_S = 0.1
TAIL = 12  # lines
OF_OTHERS = re.compile(r"MEDIAN_(TLS_.*|.*_TOKEN(_FILE)?)")  # for services that are kept shut
HASTE = {"MEDIAN_HEARTBEAT_S": "1"}  # they are ready after three; the environment may say else


class ServiceFailed(RuntimeError):
    """A service did not start, or ended by itself; the message says which, and its last words."""


class PortTaken(ServiceFailed):
    """It could not start because somebody else listens on its port."""


@dataclass(frozen=True)
class Service:
    name: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def is_ready(self) -> bool:
        try:
            response = httpx.get(f"{self.url}/ready", trust_env=False, timeout=2)
        except httpx.TransportError:
            return False
        return response.status_code == httpx.codes.OK

    def failure(self, what: str) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL:]
        said = "\n".join(f"    {line}" for line in lines) or "    (nothing)"
        return f"The {self.name} {what}. The end of its log:\n\n{said}\n"


class Services:
    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self.all: list[Service] = []

    @property
    def coordinator(self) -> Service:
        return self.all[0]

    @property
    def workers(self) -> list[Service]:
        return self.all[1:]

    def start(self, workers: int) -> None:
        """Returns when all are ready."""
        ports = free_ports(1 + workers)
        self._begin("coordinator", "coordinator_service", ports[0])
        for number, port in enumerate(ports[1:], start=1):
            self._begin(
                f"worker-{number}",
                "worker_service",
                port,
                MEDIAN_COORDINATOR_URL=self.coordinator.url,
                MEDIAN_WORKER_NAME=f"worker-{number}",
            )
        self._wait_until_ready()

    def watch(self) -> None:
        """Raise `ServiceFailed` if one has ended."""
        for service in self.all:
            if (status := service.process.poll()) is not None:
                how = f"was ended by signal {-status}" if status < 0 else f"ended, status {status}"
                raise ServiceFailed(service.failure(how))

    def stop(self) -> None:
        for some in (self.workers, self.all[:1]):
            _stop(some)
        self.all = []

    def _begin(self, name: str, module: str, port: int, **settings: str) -> None:
        settings |= {"MEDIAN_HOST": HOST, "MEDIAN_PORT": str(port), "MEDIAN_DATA_DIR": ""}
        log = self._logs / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603  our own module, no shell
                [sys.executable, "-m", "loadgen.leash", module],
                env={**HASTE, **inherited(), **settings},
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.all.append(Service(name, port, log, process))

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + START_S_MAX
        for service in self.all:
            while not service.is_ready:
                self._watch_the_start()
                if time.monotonic() > end:
                    raise ServiceFailed(service.failure(f"is not ready after {START_S_MAX:.0f} s"))
                time.sleep(LOOK_S)
        self._watch_the_start()  # it may have been somebody else who was ready on that port

    def _watch_the_start(self) -> None:
        try:
            self.watch()
        except ServiceFailed as failed:
            ended = [service for service in self.all if service.process.poll() is not None]
            if any(is_taken(service.port) for service in ended):
                raise PortTaken(*failed.args) from None
            raise


@contextmanager
def running(workers: int, logs: Path) -> Iterator[Services]:
    """All of them, ready; in the end, however it comes, all are stopped."""
    services = Services(logs)
    try:
        try:
            services.start(workers)
        except PortTaken:
            services.stop()
            services.start(workers)
        yield services
    finally:
        with _undisturbed():
            services.stop()


def inherited() -> dict[str, str]:
    """All but what would shut them, and what would open others to whoever sees their variables."""
    return {name: value for name, value in os.environ.items() if not OF_OTHERS.fullmatch(name)}


def free_ports(number: int) -> list[int]:
    """Ports that nobody uses now, all different: taken together, then given back."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]


def is_taken(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server would
        try:
            one.bind((HOST, port))
        except OSError:
            return True
    return False


def _stop(services: Sequence[Service]) -> None:
    for service in services:
        service.process.terminate()
    end = time.monotonic() + STOP_S_MAX
    for service in services:
        try:
            service.process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            service.process.kill()
        service.process.communicate()  # closes the leash, and waits


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not stop the stopping, which is bounded."""
    before = {one: signal.signal(one, signal.SIG_IGN) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
