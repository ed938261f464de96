"""The demo: its plan, its leash, and whole runs of it as a user starts them."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from loadgen import services
from loadgen.islands import BATCH, PHASES, planned, turns
from loadgen.scenarios import Floats
from loadgen.services import Service, ServiceFailed, Services, free_ports, is_taken, running
from loadgen.truth import Values

TOP = Path(__file__).parent.parent
PROC = Path("/proc")
LONG_S = 120  # no test takes so long; one that hangs does
WORKERS = 4

needs_proc = pytest.mark.skipif(
    not (PROC / "self/environ").exists(), reason="looks for processes in /proc, which is not here"
)


class TestThePlan:
    def test_the_islands_are_two_and_weigh_the_same(self) -> None:
        for one in played("two islands"):
            means = [batch.mean().round() for _, batch in one]
            assert means == [-1, -1, 1, 1]
            assert all(abs(abs(batch) - 1).max() < 0.5 for _, batch in one)

    def test_then_only_one_side_grows(self) -> None:
        for one in played("one side grows"):
            assert [worker for worker, _ in one] == [2, 3]
            assert all(batch.min() > 0.5 for _, batch in one)

    def test_then_all_means_fall(self) -> None:
        means = np.array([[batch.mean() for _, batch in one] for one in played("drift")])
        assert means.shape[1] == WORKERS
        assert (np.diff(means, axis=0) < 0).all()
        assert (means[0] - means[-1] > 8).all()

    def test_the_median_visits_both_islands_and_leaves_them(self) -> None:
        values, medians = Values(), []
        for one in turns(1_000_000, WORKERS, seed=1):
            for _, batch in one.batches:
                values.add(batch)
            medians.append(values.median() or 0.0)
        values.close()
        assert max(medians) > 0.9
        assert min(medians) < -1.5

    @pytest.mark.parametrize("asked", [1, 200_000, 3_000_000])
    def test_it_holds_as_many_values_as_it_says(self, asked: int) -> None:
        plan = turns(asked, WORKERS, seed=1)
        held = sum(len(batch) for one in plan for _, batch in one.batches)
        assert held == planned(asked, WORKERS)
        assert abs(held - asked) <= len(PHASES) * WORKERS * BATCH

    def test_the_same_seed_plays_the_same(self) -> None:
        plans = ([one.batches for one in turns(1, 2, seed)] for seed in (7, 7, 8))
        first, again, other = ([batch for turn in plan for _, batch in turn] for plan in plans)
        assert all((a == b).all() for a, b in zip(first, again, strict=True))
        assert all((a != b).any() for a, b in zip(first, other, strict=True))


def played(phase: str) -> list[list[tuple[int, Floats]]]:
    return [one.batches for one in turns(1_000_000, WORKERS, seed=1) if one.phase == phase]


def imagined(logs: Path) -> Services:
    made = Services(logs)
    names = ["coordinator", *(f"worker-{number + 1}" for number in range(WORKERS))]
    running_on = Mock(poll=lambda: None)
    made.all = [Service(name, port, logs, running_on) for port, name in enumerate(names)]
    return made


class Marked:
    """Processes that are known by a mark in their environment, which their children inherit."""

    def __init__(self, room: Path) -> None:
        self._mark = f"MARK_{uuid.uuid4().hex}"
        self._room = room

    def begin(self, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join([str(self._room), os.environ.get("PYTHONPATH", "")])
        given = {"PYTHONPATH": paths, "TMPDIR": str(self._room), self._mark: "", **settings}
        return subprocess.Popen(  # noqa: S603  our own modules, no shell
            [sys.executable, *arguments],
            cwd=TOP,
            env={**os.environ, **given},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def begin_demo(self, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        return self.begin("-m", "loadgen", "demo", *arguments, **settings)

    def pids(self, running: str = "") -> list[int]:
        return [
            int(process.name)
            for process in PROC.glob("[0-9]*")
            if self._mark in text_of(process / "environ")
            and running in text_of(process / "cmdline")
        ]

    def wait_for(self, number: int) -> None:
        end = time.monotonic() + LONG_S
        while len(self.pids()) != number:
            assert time.monotonic() < end, f"{len(self.pids())} processes, not {number}"
            time.sleep(0.05)


def text_of(file: Path) -> str:
    """Empty where the process has ended meanwhile, or is of somebody else."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def read_until(said: str, process: subprocess.Popen[bytes]) -> None:
    assert process.stdout
    assert any(said in line.decode() for line in process.stdout), f"it never said {said!r}"


def end_of(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """With which status it ends, and all that it still says."""
    said, complained = process.communicate(timeout=LONG_S)
    assert complained == b""
    return process.returncode, said.decode()


@pytest.fixture
def marked(tmp_path: Path) -> Iterator[Marked]:
    made = Marked(tmp_path)
    yield made
    for pid in made.pids():
        os.kill(pid, signal.SIGKILL)


BRIEF = "import sys; print(*sys.argv[1:]); sys.exit(int(sys.argv[2]))"
SLEEPER = "import time; print('here', flush=True); time.sleep(1000)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER
STARTER = """
import subprocess, sys, time
command = [sys.executable, "-m", "loadgen.leash", "sleeper"]
started = [
    subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) for _ in range(3)
]
time.sleep(1000)
"""


class TestTheLeash:
    @needs_proc
    def test_all_on_it_end_when_who_started_them_is_killed(
        self, marked: Marked, tmp_path: Path
    ) -> None:
        (tmp_path / "sleeper.py").write_text(SLEEPER)
        starter = marked.begin("-c", STARTER)
        marked.wait_for(4)
        starter.kill()
        assert end_of(starter)[0] == -signal.SIGKILL
        marked.wait_for(0)

    def test_who_does_not_listen_is_killed(self, marked: Marked, tmp_path: Path) -> None:
        (tmp_path / "stubborn.py").write_text(STUBBORN)
        hasty = "from loadgen import leash; leash.GRACE_S = 0.1; leash.run('stubborn')"
        child = marked.begin("-c", hasty)
        read_until("here", child)
        assert end_of(child)[0] == -signal.SIGKILL  # the wait for its end closes the leash

    @pytest.mark.parametrize("status", [0, 3])
    def test_a_module_on_it_has_its_arguments_and_ends_as_it_likes(
        self, status: int, marked: Marked, tmp_path: Path
    ) -> None:
        (tmp_path / "brief.py").write_text(BRIEF)
        child = marked.begin("-m", "loadgen.leash", "brief", "x", str(status))
        child.wait(LONG_S)
        assert end_of(child) == (status, f"x {status}\n")


class TestServices:
    def test_free_ports_are_different_and_free(self) -> None:
        ports = free_ports(20)
        assert len(set(ports)) == 20
        assert not any(map(is_taken, ports))

    def test_a_port_on_which_somebody_listens_is_taken(self) -> None:
        with socket.create_server((services.HOST, 0)) as somebody:
            assert is_taken(somebody.getsockname()[1])

    def test_on_a_taken_port_they_begin_once_more_and_one_that_ends_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server((services.HOST, 0)) as somebody:
            picks = [[somebody.getsockname()[1], *free_ports(1)], free_ports(2)]
            monkeypatch.setattr(services, "free_ports", lambda _: picks.pop(0))
            with running(1, tmp_path) as started:
                assert not picks
                started.watch()
                started.workers[0].process.kill()
                started.workers[0].process.wait()
                with pytest.raises(ServiceFailed, match="The worker-1 was ended by signal 9"):
                    started.watch()

    def test_the_workers_end_first_and_who_does_not_is_killed(self, tmp_path: Path) -> None:
        made, calls = imagined(tmp_path), Mock()
        calls.worker_3.wait.side_effect = subprocess.TimeoutExpired("it", 1)
        made.all = [
            replace(one, process=getattr(calls, one.name.replace("-", "_"))) for one in made.all
        ]
        made.stop()
        names = [name for name, _, _ in calls.mock_calls if not name.endswith("wait")]
        workers = [f"worker_{number + 1}" for number in range(WORKERS)]
        assert names == [
            *(f"{worker}.terminate" for worker in workers),
            *("worker_1.communicate", "worker_2.communicate"),
            *("worker_3.kill", "worker_3.communicate", "worker_4.communicate"),
            *("coordinator.terminate", "coordinator.communicate"),
        ]

    def test_where_every_port_is_taken_it_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server((services.HOST, 0)) as somebody:
            taken = somebody.getsockname()[1]
            monkeypatch.setattr(services, "free_ports", lambda _: [taken, *free_ports(1)])
            with pytest.raises(ServiceFailed, match="address already in use"), running(1, tmp_path):
                pytest.fail("nobody can be ready there")


@needs_proc
class TestAWholeRun:
    def test_it_shows_the_promise_kept_and_leaves_nothing(
        self, marked: Marked, tmp_path: Path
    ) -> None:
        others = {"MEDIAN_READ_TOKEN": "of-other-services", "MEDIAN_TLS_CERT": "theirs"}
        status, said = end_of(marked.begin_demo("--values", "200000", **others))
        assert (status, "The promise was kept" in said) == (0, True), said
        shown = dict(re.findall(r"^ +(\w[\w ]+?) {2,}([\d,.]+)", said, re.MULTILINE))
        number = {name: float(text.replace(",", "")) for name, text in shown.items()}
        assert number["values acknowledged"] == planned(200_000, WORKERS)
        assert number["values counted"] == planned(200_000, WORKERS)
        assert number["answers checked"] > 10
        worst = number["worst certificate"]
        assert number["worst true rank error"] <= worst <= number["epsilon"] == 1
        marked.wait_for(0)
        assert list(tmp_path.iterdir()) == []

    def test_a_service_that_cannot_start_is_a_sentence(self, marked: Marked) -> None:
        status, said = end_of(marked.begin_demo(MEDIAN_EPSILON="7"))
        assert (status, "The coordinator ended, status" in said) == (1, True), said
        marked.wait_for(0)

    def test_a_service_that_ends_in_the_middle_is_a_sentence(self, marked: Marked) -> None:
        demo = marked.begin_demo()
        read_until("two islands", demo)
        os.kill(marked.pids("coordinator_service")[0], signal.SIGKILL)
        status, said = end_of(demo)
        assert (status, "The coordinator was ended by signal 9" in said) == (1, True), said
        marked.wait_for(0)

    def test_killed_in_the_middle_it_leaves_no_process_behind(self, marked: Marked) -> None:
        demo = marked.begin_demo()
        read_until("two islands", demo)
        groups = {os.getpgid(pid) for pid in marked.pids()}
        assert len(groups) == 2 + WORKERS, "Ctrl-C would reach more than the demo"
        demo.kill()
        assert end_of(demo)[0] == -signal.SIGKILL
        marked.wait_for(0)

    @pytest.mark.parametrize(
        ("when", "how"), [("Starting", signal.SIGTERM), ("two islands", signal.SIGINT)]
    )
    def test_stopped_before_its_end_it_says_so_and_leaves_nothing(
        self, when: str, how: signal.Signals, marked: Marked, tmp_path: Path
    ) -> None:
        demo = marked.begin_demo()
        read_until(when, demo)
        demo.send_signal(how)
        status, said = end_of(demo)
        assert (status, "Stopped before the end" in said) == (130, True), said
        marked.wait_for(0)
        assert list(tmp_path.iterdir()) == []
