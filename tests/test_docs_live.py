"""What the pages show of running services is what these answer.

A page is a story: its blocks that speak to services are told in order to one system of its own, a
coordinator and a worker, which take the place of localhost:8000 and localhost:8001. The reader is
slow: before each command everything comes to rest, all that was taken is counted, and answers are
complete. Nothing is flushed for that: it happens by itself, some heartbeats later.

What cannot be the same twice, times above all, is masked in answers. In transcripts all numbers
are, and then each line that is shown must be among those that are printed. What would take long is
run in a shorter form: as `SHORTER` says, or `<!-- tested with: ... -->` above the transcript.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.pages import ADDRESS, PAGES, TOP, Block, blocks_of, name_of, printed_by
from tests.processes import Processes, until

COMMAND_S_MAX = 120
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
TOLD = [block for block in BLOCKS if block.is_live]
TRANSCRIPTS = [block for block in BLOCKS if block.language == "console" and not block.is_live]
STORIES = sorted({block.page for block in TOLD})
SHORTER = {"make demo": ".venv/bin/python -m loadgen demo --values 800000"}
PYTHON = re.compile(r"\.venv/bin/python\b|(?<![\w/.])python(?= -m)")
QUIET_CURL = 'curl() { command curl --silent --show-error "$@"; }\n'
VARIES = "as_of|worker|source|deltas|bytes|last_heard_s|heartbeat_s"  # ours beats faster
FIELD = re.compile(rf'("(?:{VARIES})":) ?("[^"]*"|[^\s,}}]+)')
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
LATENCY = re.compile(r"\bN m?s\b")
NUMBER = re.compile(r"[-+]?\d+(,\d{3})*(\.\d+)?(e[-+]?\d+)?")


class System:
    """What the pages call localhost:8000 and localhost:8001."""

    def __init__(self, processes: Processes) -> None:
        self._coordinator = processes.cluster("one", epsilon=0.01, linger_s=0.1)
        self._worker = processes.workers["one"]
        self._ports = {"8000": self._coordinator.port, "8001": self._worker.port}

    def meant(self, words: str) -> str:
        """The same words, with the ports that these services have."""
        return ADDRESS.sub(lambda found: f"127.0.0.1:{self._ports[found[1]]}", words)

    def named(self, answers: str) -> str:
        """The same answers, with the ports that the pages name."""
        for named, real in self._ports.items():
            answers = re.sub(rf"\b127\.0\.0\.1:{real}\b", f"localhost:{named}", answers)
        return answers

    def rest(self) -> None:
        until(lambda: self._is_at_rest, "all that was taken is counted, and answers are complete")

    @property
    def _is_at_rest(self) -> bool:
        ask = self._coordinator.get
        metrics = httpx.get(f"{self._worker.url}/metrics").text
        taken = re.findall(r"^median_worker_values_total.* (\S+)$", metrics, re.MULTILINE)
        streams = ask("/streams")["streams"]
        return sum(map(float, taken)) == sum(one["count"] for one in streams) and all(
            ask("/median", stream=one["stream"])["complete"] for one in streams
        )


@pytest.fixture(autouse=True)
def _as_a_reader_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TOP)
    for name in [name for name in os.environ if name.startswith("MEDIAN_")]:
        monkeypatch.delenv(name)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("page", STORIES, ids=name_of)
def test_services_answer_as_shown(page: Path, tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        system = System(processes)
        for block in (block for block in TOLD if block.page == page):
            if block.language == "console":
                assert lines_missing(block, system) == []
            else:
                assert masked(system.named(told(block, system))) == masked(block.shown or "")


@pytest.mark.parametrize("block", TRANSCRIPTS, ids=name_of)
def test_a_transcript_shows_what_is_printed(block: Block) -> None:
    assert lines_missing(block) == []


def told(block: Block, system: System) -> str:
    code = system.meant(block.code)
    if block.language == "python":
        system.rest()
        return printed_by(code, block.page)
    answers = []
    for command in commands_of(code):
        system.rest()
        answers.append(run(command).rstrip("\n"))
    return "\n".join(filter(None, answers))


def lines_missing(block: Block, system: System | None = None) -> list[str]:
    """Those that a transcript shows, and that the command does not print."""
    printed = {"", "..."}
    for command in block.commands:
        if system:
            system.rest()
        words = SHORTER.get(command, command)
        printed.update(map(label, run(system.meant(words) if system else words).splitlines()))
    shown = [line for line in block.code.splitlines() if not line.startswith("$ ")]
    return [line for line in shown if label(line) not in printed]


def masked(answers: str) -> str:
    lines = "\n".join(line.rstrip() for line in answers.strip().splitlines())
    return FIELD.sub(r"\1...", TIME.sub("then", lines))


def label(line: str) -> str:
    """What stays the same, whatever was measured; what took long is shown in seconds."""
    return " ".join(LATENCY.sub("N s", NUMBER.sub("N", masked(line))).split())


def commands_of(code: str) -> Iterator[str]:
    """Each runs in a shell of its own; it has as many lines as it takes until a shell likes it."""
    command = ""
    for line in code.splitlines(keepends=True):
        command += line
        if command.strip() and not line.endswith("\\\n") and is_whole(command):
            yield command
            command = ""
    assert not command.strip(), f"this is no whole command: {command}"


def is_whole(command: str) -> bool:
    return shell("-n", "-c", command).returncode == 0


def run(command: str) -> str:
    """What a reader sees who types it at the top of the repository, but not on a terminal."""
    here = PYTHON.sub(lambda _: shlex.quote(sys.executable), command)
    return shell("-c", QUIET_CURL + here).stdout


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  the words of our own pages
        ["/bin/sh", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_S_MAX,
        check=False,
    )


def test_a_latency_of_seconds_is_a_latency_too() -> None:
    quick, slow = (
        "latency 3.5 ms half; 99 % 59.6 ms, all 162.5 ms",
        "latency 3.5 ms half; 99 % 1.02 s, all 2.10 s",
    )
    assert label(quick) == label(slow) != label("latency 3.5 values")
