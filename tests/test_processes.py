"""Real processes, real signals: told to stop, paused, killed, under load; and how they begin."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import coordinator_service.settings
import worker_service.settings
from shared.protocol import SILENT_HEARTBEATS
from shared.serving.settings import ServiceSettings
from shared.values import Floats
from tests.processes import (
    HEARTBEAT_S,
    Answer,
    Draw,
    Load,
    Processes,
    Service,
    certified,
    check,
    free_port,
    until,
)

SILENT_S = SILENT_HEARTBEATS * HEARTBEAT_S
CUT_OFF_S = 2 * SILENT_S
CLEAN = {0, -signal.SIGTERM}
SERVICES: list[tuple[str, type[ServiceSettings]]] = [
    ("coordinator_service", coordinator_service.settings.Settings),
    ("worker_service", worker_service.settings.Settings),
]
MODULES = [module for module, _ in SERVICES]

# Whoever does the work that nobody asks for dies at its first step.
DYING = """
import sys
from tests.leash import hold
hold()
from {module} import __main__
from {home} import {kind}
async def dies(self):
    raise ZeroDivisionError("for a test")
{kind}.{work} = dies
del sys.argv[1:]
__main__.main()
"""

# Starts a service and waits to be killed; the service's end of the leash is then alone. It ends
# when it likes, so it must not add to the coverage of a run that may have ended by then.
HOLDER = """
import os
import sys
from pathlib import Path
from tests.processes import Service
for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
    del os.environ[name]
Service(sys.argv[1], port=int(sys.argv[2]), log=Path(sys.argv[3]))
sys.stdin.read()
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as processes:
        yield processes


def draws(rng: np.random.Generator, mean: float = 0) -> Draw:
    """Normal values, for several threads."""
    lock = threading.Lock()

    def draw(size: int) -> Floats:
        with lock:
            return rng.normal(mean, 1, size)

    return draw


def median(coordinator: Service) -> Answer:
    answer: Answer = coordinator.get("/median")
    return answer


def states(coordinator: Service) -> dict[str, str]:
    return {one["worker"]: one["state"] for one in coordinator.get("/workers")["workers"]}


def complete(coordinator: Service) -> Callable[[], Answer | None]:
    def answer() -> Answer | None:
        found = median(coordinator)
        return found if found["complete"] else None

    return answer


def told(coordinator: Service, batches: dict[Service, Floats]) -> None:
    """Let the workers take these, and the coordinator know all of them."""
    for worker, values in batches.items():
        worker.take(values)
        worker.flush()
    until(complete(coordinator), "it knows that they know it")


def pause(process: Service, seconds: float) -> None:
    process.tell(signal.SIGSTOP)
    threading.Event().wait(seconds)
    process.tell(signal.SIGCONT)


def test_a_worker_told_to_stop_under_load_loses_nothing_that_it_acknowledged(
    processes: Processes, rng: np.random.Generator
) -> None:
    coordinator = processes.cluster("a", "b")
    worker, other = processes.workers.values()
    others = rng.normal(5, 1, 5000)
    other.take(others)
    with Load([worker.url], draws(rng)) as load:
        load.reaches(batches=40)
        worker.tell(signal.SIGTERM)
        assert worker.ended() in CLEAN
    assert states(coordinator)["a"] == "gone"
    other.flush()
    answer = until(complete(coordinator), "the other has spoken")
    check(answer, np.append(load.values, others), load.unanswered)


def test_a_worker_told_to_stop_while_requests_wait_for_the_coordinator_ends(
    processes: Processes, rng: np.random.Generator
) -> None:
    coordinator = processes.cluster("a", goodbye_s_max=1)
    worker = processes.workers["a"]
    coordinator.tell(signal.SIGSTOP)
    with Load([worker.url], draws(rng)) as load:
        until(lambda: worker.get("/median")["count"] > 400, "batches wait")
        worker.tell(signal.SIGTERM)
        assert worker.ended() in CLEAN
    assert (len(load.acknowledged), len(load.unanswered)) == (0, 4)
    told = [(one.status_code, one.json()["error"]["code"]) for one in load.refusals]
    assert told == 4 * [(503, "not_acknowledged")]
    coordinator.tell(signal.SIGCONT)
    check(median(coordinator), load.values, load.unanswered)


def test_a_coordinator_killed_under_load_knows_all_again_once_the_workers_have_spoken(
    processes: Processes, rng: np.random.Generator
) -> None:
    coordinator = processes.cluster("a", "b")
    a, b = processes.workers.values()
    with Load([a.url, b.url], draws(rng)) as load:
        load.reaches(batches=40)
        coordinator.tell(signal.SIGKILL)
        assert coordinator.ended() == -signal.SIGKILL
        load.reaches(batches=20)  # again acknowledged once certainly nobody counts on them
        coordinator = processes.coordinator()
        until(lambda: coordinator.is_up, "the coordinator is back")
        assert not median(coordinator)["complete"]
        until(complete(coordinator), "the workers have spoken")
        load.reaches(batches=40)
    assert not load.unanswered
    certified(until(complete(coordinator), "still complete"), load.values)
    a.flush()
    b.flush()
    check(until(complete(coordinator), "all is told"), load.values)
    assert states(coordinator) == {"a": "live", "b": "live"}


def test_a_worker_that_was_killed_is_silent_until_it_is_retired(
    processes: Processes, rng: np.random.Generator
) -> None:
    coordinator = processes.cluster("a", "b")
    a, b = processes.workers.values()
    values = rng.normal(size=20_000)
    told(coordinator, {a: values[:10_000], b: values[10_000:]})
    a.tell(signal.SIGKILL)
    until(lambda: states(coordinator)["a"] == "silent", "its silence is noticed")
    answer = median(coordinator)
    assert (answer["complete"], answer["workers"]) == (False, {"live": 1, "silent": 1})
    check(answer, values)
    assert coordinator.post("/workers/a/retire").status_code == 200
    answer = median(coordinator)
    assert (answer["complete"], answer["workers"]) == (True, {"live": 1, "silent": 0})
    check(answer, values)


def test_a_worker_that_slept_for_long_goes_on_as_if_it_had_not(
    processes: Processes, rng: np.random.Generator
) -> None:
    coordinator = processes.cluster("a", "b")
    a, b = processes.workers.values()
    values = rng.normal(size=4000)
    told(coordinator, {a: values[:2000], b: values[2000:]})
    pause(a, CUT_OFF_S + 2 * HEARTBEAT_S)
    with Load([a.url, b.url], draws(rng, mean=3)) as load:
        load.reaches(batches=40)
    assert not load.unanswered
    values = np.append(values, load.values)
    certified(until(complete(coordinator), "it is heard again"), values)
    a.flush()
    b.flush()
    check(until(complete(coordinator), "all is told"), values)


def test_a_coordinator_that_slept_claims_nothing_before_the_workers_have_spoken(
    processes: Processes, rng: np.random.Generator
) -> None:
    coordinator = processes.cluster("a", "b")
    a, b = processes.workers.values()
    values = rng.normal(size=4000)
    told(coordinator, {a: values[:2000], b: values[2000:]})
    coordinator.tell(signal.SIGSTOP)
    with Load([a.url, b.url], draws(rng, mean=9)) as load:
        load.reaches(batches=20)  # which move the median far, while it knows nothing of them
    assert not load.unanswered
    coordinator.tell(signal.SIGCONT)
    assert not median(coordinator)["complete"]
    values = np.append(values, load.values)
    for _ in range(20):
        certified(until(complete(coordinator), "the workers have spoken"), values)
    a.flush()
    b.flush()
    check(until(complete(coordinator), "all is told"), values)


def test_services_told_to_stop_end_cleanly_and_in_any_order(
    processes: Processes, rng: np.random.Generator
) -> None:
    coordinator = processes.cluster("a", "b", goodbye_s_max=0.1)
    a, b = processes.workers.values()
    told(coordinator, {a: rng.normal(size=100), b: rng.normal(size=100)})
    for one, what in ((a, signal.SIGTERM), (coordinator, signal.SIGTERM), (b, signal.SIGINT)):
        one.tell(what)
        assert one.ended() in CLEAN
    assert "the last values were not told in time" not in a.said


@pytest.mark.parametrize("module", MODULES)
def test_a_service_whose_port_is_taken_says_so_and_fails(processes: Processes, module: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = processes.start("-m", "tests.leash", module, port=port)
        assert process.ended() > 0
    assert f"error while attempting to bind on address ('127.0.0.1', {port})" in process.said
    assert "Traceback" not in process.said


@pytest.mark.parametrize("module", MODULES)
def test_a_service_names_each_wrong_setting_in_a_line_and_fails(
    processes: Processes, module: str
) -> None:
    process = processes.start("-m", module, port="x", body_s_max="nan", log_format="xml")
    assert process.ended() == 1
    lines = process.said.splitlines()
    begun = ["MEDIAN_PORT=x: ", "MEDIAN_LOG_FORMAT=xml: ", "MEDIAN_BODY_S_MAX=nan: "]
    assert len(lines) == len(begun)
    assert all(any(line.startswith(one) for line in lines) for one in begun), lines


@pytest.mark.parametrize(("module", "settings"), SERVICES, ids=MODULES)
def test_a_service_explains_each_of_its_settings(
    processes: Processes, module: str, settings: type[ServiceSettings]
) -> None:
    process = processes.start("-m", module, "--help", port="x")
    assert process.ended() == 0
    assert process.said.startswith(f"python -m {module}: set by environment variables")
    for variable, default, words in settings.table():
        assert f"  {variable} [{default}]\n      {words}\n" in process.said


@pytest.mark.parametrize("module", MODULES)
def test_a_service_takes_no_arguments(processes: Processes, module: str) -> None:
    process = processes.start("-m", module, "--port=1")
    assert process.ended() == 1
    assert (
        process.said
        == f"python -m {module} takes no arguments: it is set by MEDIAN_... variables\n"
    )


@pytest.mark.parametrize(
    ("module", "kind", "work"),
    [
        ("coordinator_service", "app.Coordinator", "watch"),
        ("worker_service", "courier.Courier", "_greet"),
    ],
    ids=MODULES,
)
def test_a_service_fails_when_the_task_it_cannot_be_without_dies(
    processes: Processes, module: str, kind: str, work: str
) -> None:
    home, kind = kind.split(".")
    code = DYING.format(module=module, home=f"{module}.{home}", kind=kind, work=work)
    process = processes.start("-c", code, port=free_port())
    assert process.ended() == 1
    assert "died; so does this" in process.said
    assert "ZeroDivisionError: for a test" in process.said


@pytest.mark.parametrize("module", MODULES)
def test_no_process_outlives_the_run_that_started_it(
    processes: Processes, tmp_path: Path, module: str
) -> None:
    port, log = free_port(), tmp_path / "left behind"
    holder = processes.start("-c", HOLDER, module, str(port), str(log))
    until(lambda: log.exists() and "Uvicorn running" in log.read_text(), "the service is up")
    holder.tell(signal.SIGKILL)
    holder.ended()
    until(lambda: "Finished server process" in log.read_text(), "the service has ended")
