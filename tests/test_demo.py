"""The demo: its plan, its judgement, its leash, and whole runs of it as a user starts them."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from loadgen import services
from loadgen.calls import Calls, Traffic
from loadgen.demo import BrokenPromise, Replay
from loadgen.services import Service, ServiceFailed, Services, free_ports, is_taken, running
from loadgen.streams import BATCH, PHASES, Floats, planned, rounds
from loadgen.truth import Answer, Values, judged

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
            means = [batch.mean().round() for batch in one.values()]
            assert means == [-1, -1, 1, 1]
            assert all(abs(abs(batch) - 1).max() < 0.5 for batch in one.values())

    def test_then_only_one_side_grows(self) -> None:
        for one in played("one side grows"):
            assert list(one) == [2, 3]
            assert all(batch.min() > 0.5 for batch in one.values())

    def test_then_all_means_fall(self) -> None:
        means = np.array([[b.mean() for b in one.values()] for one in played("drift")])
        assert means.shape[1] == WORKERS
        assert (np.diff(means, axis=0) < 0).all()
        assert (means[0] - means[-1] > 8).all()

    def test_the_median_visits_both_islands_and_leaves_them(self) -> None:
        values = Values(planned(1_000_000, WORKERS))
        medians = []
        for one in rounds(1_000_000, WORKERS, seed=1):
            for batch in one.batches.values():
                values.add(batch)
            medians.append(values.median())
        assert max(medians) > 0.9
        assert min(medians) < -1.5

    @pytest.mark.parametrize("asked", [1, 200_000, 3_000_000])
    def test_it_holds_as_many_values_as_it_says(self, asked: int) -> None:
        held = sum(len(b) for one in rounds(asked, WORKERS, seed=1) for b in one.batches.values())
        assert held == planned(asked, WORKERS)
        assert abs(held - asked) <= len(PHASES) * WORKERS * BATCH

    def test_the_same_seed_plays_the_same(self) -> None:
        first, again, other = ([one.batches for one in rounds(1, 2, seed)] for seed in (7, 7, 8))
        assert all((a[1] == b[1]).all() for a, b in zip(first, again, strict=True))
        assert all((a[1] != b[1]).any() for a, b in zip(first, other, strict=True))


def played(phase: str) -> list[dict[int, Floats]]:
    plan = rounds(1_000_000, WORKERS, seed=1)
    return [one.batches for one in plan if one.phase.name == phase]


def answer(
    median: float | None, count: int = 1000, rank_error: float = 0.01, complete: bool = True
) -> Answer:
    return Answer(median, count, 0.01, rank_error, complete)


class TestTheJudgement:
    VALUES = np.random.default_rng(1).permutation(
        np.arange(1000.0)
    )  # the median is from 499 to 500
    TIED = np.repeat([1.0, 2.0, 3.0], [100, 800, 100])

    @pytest.mark.parametrize(
        ("median", "error"),
        [(499.5, 0), (499, 0), (500, 0), (490, 0.009), (489, 0.010), (510, 0.010)],
    )
    def test_a_median_within_its_certificate_is_good(self, median: float, error: float) -> None:
        verdict = judged(answer(median), self.VALUES)
        assert verdict.breach is None
        assert verdict.error == pytest.approx(error)

    @pytest.mark.parametrize("median", [488, 511, -1, 1e308, -np.inf, np.inf, np.nan, None])
    def test_one_beyond_it_is_not(self, median: float | None) -> None:
        verdict = judged(answer(median), self.VALUES)
        assert "certificate says" in str(verdict.breach)
        assert verdict.error > 0.01

    def test_a_certificate_must_hold_to_the_last_rank(self) -> None:
        assert judged(answer(490, rank_error=0.009), self.VALUES).breach is None
        assert judged(answer(490, rank_error=0.00899), self.VALUES).breach

    def test_a_certificate_that_is_no_number_proves_nothing(self) -> None:
        assert judged(answer(499.5, rank_error=np.nan), self.VALUES).breach

    def test_ties_never_count_against_it(self) -> None:
        assert judged(answer(2.0, rank_error=0.0), self.TIED).breach is None

    @pytest.mark.parametrize("toward", [-np.inf, np.inf])
    def test_beside_the_ties_it_is_off_by_all_of_them(self, toward: float) -> None:
        verdict = judged(answer(float(np.nextafter(2.0, toward))), self.TIED)
        assert verdict.breach
        assert verdict.error == pytest.approx(0.4)

    def test_a_certificate_beyond_epsilon_breaks_the_promise(self) -> None:
        assert "beyond epsilon" in str(judged(answer(499.5, rank_error=0.011), self.VALUES).breach)

    def test_an_answer_that_is_not_complete_promises_nothing(self) -> None:
        assert judged(answer(0.0, complete=False), self.VALUES).breach is None
        assert judged(answer(0.0, rank_error=0.5, complete=False), self.VALUES).breach is None

    def test_more_counted_than_sent_is_never_right(self) -> None:
        for complete in (True, False):
            verdict = judged(answer(499.5, count=1001, complete=complete), self.VALUES)
            assert "only 1,000 were sent" in str(verdict.breach)

    def test_without_values_there_is_no_median_and_nothing_wrong(self) -> None:
        assert judged(answer(None, count=0), np.empty(0)).breach is None

    def test_what_is_in_flight_may_be_counted_or_not(self) -> None:
        above = [np.full(100, 2000.0), np.full(100, 3000.0)]
        for median, count in ((499.5, 1000), (549.5, 1100), (599.5, 1200)):
            kept = answer(median, count, rank_error=0.0)
            assert judged(kept, self.VALUES, above).breach is None
            assert count == 1000 or judged(kept, self.VALUES).breach

    def test_a_batch_in_flight_counts_whole_or_not_at_all(self) -> None:
        flying = [np.full(100, 2000.0)]
        assert judged(answer(524.5, rank_error=0.01), self.VALUES, flying).breach
        assert judged(answer(499.5, count=1101), self.VALUES, flying).breach

    def test_it_agrees_with_sorting_every_state(self, rng: np.random.Generator) -> None:
        for _ in range(200):
            known, *flying = (rng.choice(np.arange(9.0), rng.integers(1, 9)) for _ in range(3))
            median = float(rng.integers(-1, 19)) / 2
            states = [[known], [known, flying[0]], [known, flying[1]], [known, *flying]]
            errors = [off(median, np.sort(np.concatenate(state))) for state in states]
            assert judged(answer(median), known, flying).error == pytest.approx(min(errors))


def off(median: float, ordered: Floats) -> float:
    target = len(ordered) / 2
    below, upto = ordered.searchsorted(median), ordered.searchsorted(median, "right")
    return float(max(below - target, target - upto, 0)) / len(ordered)


COORDINATOR = "http://127.0.0.1:0"


class Honest(Calls):
    """Services that hold every value, and answer exactly; those below each tell one lie."""

    def __init__(self) -> None:
        self.held: dict[str, Floats] = {}

    def post(self, worker: str, batch: Floats) -> int:
        self.held[worker] = np.append(self.held.get(worker, np.empty(0)), batch)
        return len(self.held[worker])

    def flush(self, worker: str) -> None:
        pass

    def median(self, coordinator: str) -> Answer:
        assert coordinator == COORDINATOR
        held = np.concatenate([np.empty(0), *list(self.held.values())])
        median = float(np.median(held)) if len(held) else None
        return answer(median, len(held), rank_error=0.0)

    def traffic(self, coordinator: str) -> dict[str, Traffic]:
        assert coordinator == COORDINATOR
        return {f"worker-{at[-1]}": Traffic(count=len(held)) for at, held in self.held.items()}


class LosesABatch(Honest):
    def traffic(self, coordinator: str) -> dict[str, Traffic]:
        told = super().traffic(coordinator)
        return {**told, "worker-1": Traffic(told["worker-1"].count - BATCH)}


class MixesUpTheWorkers(Honest):
    def traffic(self, coordinator: str) -> dict[str, Traffic]:
        told = super().traffic(coordinator)
        return {**told, "worker-1": told["worker-4"], "worker-4": told["worker-1"]}


class CountsTwice(Honest):
    def median(self, coordinator: str) -> Answer:
        told = super().median(coordinator)
        return replace(told, count=2 * told.count)


class CountsTooFew(Honest):
    def median(self, coordinator: str) -> Answer:
        told = super().median(coordinator)
        return replace(told, count=max(0, told.count - 1))


class AnswersWrongly(Honest):
    def median(self, coordinator: str) -> Answer:
        told = super().median(coordinator)
        return replace(told, median=told.median and told.median + 1.0)


class ProvesTooLittle(Honest):
    def median(self, coordinator: str) -> Answer:
        return replace(super().median(coordinator), rank_error=0.02)


class IsNeverComplete(Honest):
    def median(self, coordinator: str) -> Answer:
        return replace(super().median(coordinator), complete=False)


class AcceptsTwice(Honest):
    def post(self, worker: str, batch: Floats) -> int:
        return super().post(worker, batch) + len(batch)


class TestTheReplay:
    def test_it_ends_well_where_all_are_honest(self, replay: Callable[[Calls], Replay]) -> None:
        score = replay(Honest()).score
        assert score.acknowledged == score.counted == score.planned == planned(1, WORKERS)
        assert score.checked == 2 * len(PHASES) + 1
        assert score.error_max == 0

    @pytest.mark.parametrize(
        ("lie", "sentence"),
        [
            (LosesABatch, "acknowledged were"),
            (MixesUpTheWorkers, "acknowledged were"),
            (CountsTooFew, "acknowledged were"),
            (CountsTwice, "values are counted"),
            (AnswersWrongly, "certificate says"),
            (ProvesTooLittle, "beyond epsilon"),
            (IsNeverComplete, "no answer was complete"),
            (AcceptsTwice, "says that it received"),
        ],
    )
    def test_each_lie_is_found_out(
        self, lie: type[Honest], sentence: str, replay: Callable[[Calls], Replay]
    ) -> None:
        with pytest.raises(BrokenPromise, match=sentence):
            replay(lie())

    @pytest.fixture
    def replay(self, tmp_path: Path) -> Iterator[Callable[[Calls], Replay]]:
        with ThreadPoolExecutor(WORKERS) as pool:

            def replay(calls: Calls) -> Replay:
                made = Replay(imagined(tmp_path), calls, pool, planned(1, WORKERS))
                made.play(rounds(1, WORKERS, seed=1), show=lambda _: None)
                made.settle()
                return made

            yield replay


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
        status, said = end_of(marked.begin_demo("--values", "200000"))
        assert (status, "The promise was kept" in said) == (0, True), said
        shown = dict(re.findall(r"^ +(\w[\w ]+\w) {2,}([\d,.]+)", said, re.MULTILINE))
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
