"""`python -m loadgen replay`, as a user starts it, against real services."""

import gzip
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen import session
from loadgen.calls import address_of
from loadgen.session import Order
from tests.processes import EPSILON, SOON_S, TOP, Processes, check, until
from tests.test_replay import AnswersWrongly


class System:
    """Two workers and a coordinator, and a load generator for them."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.coordinator = processes.cluster("one", "two")
        self.workers = ",".join(worker.url for worker in processes.workers.values())

    def tell(self, worker: str, what: signal.Signals) -> None:
        self._processes.workers[worker].tell(what)

    def restart(self, worker: str) -> None:
        """As an operator would, on the same port."""
        old = self._processes.workers[worker]
        old.tell(signal.SIGTERM)
        old.ended()
        self._processes.worker(worker, port=old.port)

    def begin(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        addresses = ["--workers", self.workers, "--coordinator", self.coordinator.url]
        return subprocess.Popen(  # noqa: S603  our own module, no shell
            [sys.executable, "-m", "loadgen", "replay", *addresses, *arguments],
            cwd=TOP,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **({"stdout": subprocess.PIPE} | more),
        )

    def replay(self, *arguments: str, given: str = "") -> tuple[int, str, str]:
        """Its status, and what it said on standard output and error."""
        process = self.begin(*arguments)
        said, complained = process.communicate(given, timeout=SOON_S)
        return process.returncode, said, complained

    def facts(self, *arguments: str, given: str = "") -> dict[str, Any]:
        status, said, complained = self.replay("--json", *arguments, given=given)
        assert status == 0, complained
        facts: dict[str, Any] = json.loads(said)
        return facts

    def count(self, stream: str) -> int:
        """How many values of a stream are counted; none where it is not known."""
        streams = self.coordinator.get("/streams")["streams"]
        return sum(one["count"] for one in streams if one["stream"] == stream)

    def holds(self, values: np.ndarray, stream: str) -> None:
        """What the coordinator has is what was sent."""
        check(self.coordinator.get("/median", stream=stream), values)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with Processes(tmp_path_factory.mktemp("system")) as processes:
        yield System(processes)


def test_a_stream_with_a_name_is_replayed_and_every_answer_checked(system: System) -> None:
    facts = system.facts("two_islands", "--verify", "--values", "2e5", "--stream", "islands")
    values, promise = facts["values"], facts["promise"]
    assert values["sent"] == values["acknowledged"] == values["counted"] == 200_000
    assert promise["checked"] > 1
    assert promise["violations"] == 0
    assert promise["rank_error_max"] <= promise["certificate_max"] <= promise["epsilon"] == EPSILON
    latency = facts["requests"]["latency_s"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]
    assert 0 < facts["traffic"]["share"] < 0.2
    assert facts["workers"] == 2


def test_on_no_terminal_it_prints_plain_lines_and_a_table(system: System) -> None:
    status, said, complained = system.replay("calm", "--values", "5e4", "--stream", "plain")
    assert (status, complained) == (0, "")
    assert "Replayed" in said
    assert "\x1b" not in said
    assert re.search(r"values acknowledged +50,000", said)


@pytest.mark.parametrize("split", ["round_robin", "hash", "skewed", "contiguous"])
def test_a_table_is_replayed_by_any_split(split: str, system: System, tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=30_000)
    rows = [f"{at},{value!r},x" for at, value in enumerate(values.tolist())]
    table = tmp_path / "table.csv.gz"
    table.write_bytes(gzip.compress("\n".join(["time,value,host", *rows]).encode()))
    facts = system.facts(
        str(table), "--column", "value", "--split", split, "--values", "30000",
        "--stream", f"table-{split}", "--verify",
    )  # fmt: skip
    assert facts["promise"]["violations"] == 0
    system.holds(values, f"table-{split}")


def test_at_a_rate_it_takes_as_long_as_it_should(system: System) -> None:
    facts = system.facts("calm", "--values", "2e4", "--rate", "4e4", "--stream", "rate", "--verify")
    assert facts["seconds"] > 0.45
    assert facts["promise"]["violations"] == 0


def test_standard_input_is_replayed_as_it_comes(system: System) -> None:
    process = system.begin("-", "--stream", "pipe")
    assert process.stdin
    process.stdin.write("1\n2\n3\n")
    process.stdin.flush()
    until(lambda: system.count("pipe") == 3, "the first values are counted")
    said, complained = process.communicate("4\n5", timeout=SOON_S)
    assert (process.returncode, complained) == (0, ""), said
    system.holds(np.arange(1.0, 6.0), "pipe")


def test_what_is_no_value_stops_it_with_a_sentence_or_is_left_out(system: System) -> None:
    bad = ["-", "--stream", "bad"]
    status, said, complained = system.replay(*bad, "--json", given="1\n2\nthree\n")
    assert (status, complained.strip()) == (2, json.loads(said)["failed"])
    assert "line 3: 'three' is no number" in complained
    facts = system.facts("-", "--stream", "some", "--skip-bad", given="1\nNaN\n\n3\n")
    assert (facts["values"]["acknowledged"], facts["values"]["left_out"]) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no-such-thing"], "is no file, and no scenario"),
        (["calm", "--values", "1.5"], "is not a whole number"),
        (["calm", "--rate", "0"], "--rate"),
        (["calm", "--split", "odd"], "--split"),
        (["-", "--split", "contiguous"], "how many values there are"),
        (["calm", "--stream", "\x07"], "can be printed"),
        (["calm", "--workers", "http://127.0.0.1:9"], "got no answer"),
        (["calm", "--workers", "no-such-host"], "is no address"),
        (["calm", "--workers", ","], "no worker"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    arguments: list[str], sentence: str, system: System
) -> None:
    status, _, complained = system.replay(*arguments)
    assert status == 2
    assert sentence in " ".join(complained.replace("│", " ").split())
    assert "Traceback" not in complained


def test_who_is_no_worker_or_no_coordinator_is_named(system: System) -> None:
    swapped = [system.coordinator.url, system.workers.split(",")[0]]
    status, _, complained = system.replay("calm", "--workers", swapped[0])
    assert (status, "is no worker" in complained) == (2, True)
    status, _, complained = system.replay("calm", "--coordinator", swapped[1])
    assert (status, "is no coordinator" in complained) == (2, True)


def test_a_stream_with_values_is_not_verified_but_added_to(system: System) -> None:
    twice = ["-", "--stream", "twice"]
    assert system.replay(*twice, given="1\n2\n")[0] == 0
    status, _, complained = system.replay(*twice, "--verify", given="3\n")
    assert (status, "choose another --stream" in complained) == (2, True)
    assert system.replay(*twice, given="3\n")[0] == 0
    system.holds(np.arange(1.0, 4.0), "twice")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_lets_land_what_flies_and_says_what_came_of_it(
    how: signal.Signals, system: System
) -> None:
    stream = f"stopped-{how.name}"
    process = system.begin("calm", "--values", "1e9", "--json", "--verify", "--stream", stream)
    until(lambda: system.count(stream), "it has begun")
    process.send_signal(how)
    said, _ = process.communicate(timeout=SOON_S)
    facts = json.loads(said)
    assert (process.returncode, facts["stopped_early"]) == (130, True)
    assert facts["values"]["acknowledged"] == facts["values"]["counted"] > 0
    assert facts["promise"]["violations"] == 0


def test_a_broken_promise_is_status_one_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "Calls", lambda **_: AnswersWrongly())
    monkeypatch.setattr(session, "resolved", lambda urls: list(map(address_of, urls)))
    order = Order(
        input="calm", workers=["http://w1"], coordinator="http://c", values=5_000, verify=True
    )
    assert session.replay(order, as_json=False) == 1
    said = capsys.readouterr().out
    assert "The promise was broken" in said
    assert "- the served median 1.0 is off by" in said


@pytest.mark.parametrize("arguments", [["calm"], ["calm", "--json"], ["calm", "--verify"]])
def test_where_nobody_reads_it_ends_quietly(arguments: list[str], system: System) -> None:
    process = system.begin(*arguments, "--values", "2e5", "--stream", f"unread{arguments}")
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    with process:
        complained = process.stderr.read()
    assert (process.returncode, "Traceback" in complained) == (141, False)


def test_where_nothing_can_be_written_it_says_so(system: System) -> None:
    with Path("/dev/full").open("w") as full:
        process = system.begin("-", "--stream", "full", stdout=full)
        _, complained = process.communicate("1\n2\n", timeout=SOON_S)
    assert (process.returncode, complained) == (2, "This cannot go on: No space left on device.\n")


def test_a_worker_that_stops_and_starts_again_breaks_nothing(system: System) -> None:
    """It says goodbye, and is another source then: all is counted."""
    arguments = ["calm", "--values", "6e4", "--rate", "2e4", "--batch", "100", "--verify"]
    process = system.begin(*arguments, "--json", "--stream", "again")
    until(lambda: system.count("again") > 5_000, "some are counted")
    system.restart("two")
    said, complained = process.communicate(timeout=SOON_S)
    facts = json.loads(said)
    assert process.returncode == 0, (facts, complained)
    assert facts["values"]["counted"] == 60_000
    assert facts["requests"]["repeated"] > 0


def test_stopped_twice_it_ends_at_once_and_still_reports(system: System) -> None:
    """The second time while it waits for a worker that does not answer."""
    process = system.begin("calm", "--values", "1e9", "--json", "--stream", "stopped-twice")
    until(lambda: system.count("stopped-twice"), "it has begun")
    system.tell("one", signal.SIGSTOP)
    try:
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=SOON_S)
    finally:
        system.tell("one", signal.SIGCONT)
    facts = json.loads(said)
    assert (process.returncode, facts["stopped_early"]) == (130, True)
    assert facts["values"]["sent"] >= facts["values"]["acknowledged"] > 0
    assert not facts["promise"]["verified"]
    assert "Traceback" not in complained
