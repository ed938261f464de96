"""What a replay looks like, on a terminal and elsewhere, and what its table says at the end."""

import io
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import RenderableType

from loadgen.calls import Traffic
from loadgen.report import Report
from loadgen.view import Console, result, view
from tests.processes import TOP, Processes

REPORT = Report(
    "/data/times.csv.gz",
    workers=3,
    planned=1_000,
    verify=True,
    acknowledged=400,
    sent=450,
    counted=400,
    median=12.5,
    exact=12.25,
    beside_exact=12.5,
    beside_error=0.0012,
    error=0.0012,
    certificate=0.0061,
    epsilon=0.01,
    checked=7,
    quiet=3,
    seconds=2.0,
    processor_s=0.5,
    traffic=Traffic(count=400, deltas=5, bytes=320, raw_bytes=3_200),
)


def shown(what: RenderableType, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


def rows(text: str) -> dict[str, str]:
    """What stands beside each name."""
    found = re.findall(r"^ +(\w[\w ]*?) {2,}(\S.*?) *$", text, re.MULTILINE)
    return {name: " ".join(what.split()) for name, what in found}


def plain(*reports: Report) -> list[str]:
    console = Console(width=200, file=io.StringIO(), highlight=False)
    with console.capture() as captured, view(console, reports[0]) as show:
        for report in reports:
            show(report)
    return captured.get().splitlines()


def test_elsewhere_there_is_a_line_for_each_tenth() -> None:
    lines = plain(*(replace(REPORT, acknowledged=at) for at in range(0, 1_001, 10)))
    assert 10 <= len(lines) <= 11
    assert lines[0].split()[:4] == ["times.csv.gz", "0", "values", "median"]


def test_a_line_says_how_right_the_answer_is() -> None:
    (line,) = plain(REPORT)
    assert "400 values  median 12.5000  exact 12.2500  off by 0.12 %" in line
    assert line.endswith("certificate 0.61 %  sent 10.00 %")


def test_where_nobody_knows_how_long_it_will_be_there_is_a_line_each_five_seconds() -> None:
    endless = replace(REPORT, planned=None)
    assert len(plain(*(replace(endless, seconds=at / 10) for at in range(200)))) == 4


def test_what_is_of_one_moment_stands_side_by_side() -> None:
    (line,) = plain(replace(REPORT, median=99.0, error=0.5))
    assert "median 12.5000  exact 12.2500  off by 0.12 %" in line
    (line,) = plain(replace(REPORT, median=99.0, error=0.5, exact=None))
    assert "median 99.0000  off by 50.00 %" in line


def test_what_nobody_knows_yet_is_no_number() -> None:
    (line,) = plain(replace(REPORT, median=None, exact=None, checked=0, traffic=Traffic()))
    assert line.endswith("median -  off by -  certificate -  sent -")


def test_before_anything_was_told_nothing_is_said_of_traffic() -> None:
    (line,) = plain(replace(REPORT, verify=False, exact=None, traffic=Traffic()))
    assert line.endswith("median 12.5000  certificate 0.61 %  sent -")


def test_the_table_says_what_came_of_it() -> None:
    text = shown(
        result(
            replace(REPORT, acknowledged=1_000, sent=1_000, counted=1_000, left_out=2, settled=True)
        )
    )
    assert "The promise was kept" in text
    told = rows(text)
    assert told["answers checked"] == "7 3 with nothing in flight"
    assert told["values counted"] == "1,000 none lost, none counted twice"
    assert told["left out"] == "2 no values"
    assert told["seconds"] == "2.0 25 % of a core was spent here"
    assert told["bytes of deltas"] == "320 10.00 % of all 3,200; bodies only"


def test_what_was_sent_and_not_acknowledged_may_be_counted_or_not() -> None:
    told = rows(shown(result(REPORT), 100))
    assert told["values acknowledged"] == "400 50 more may be counted or not, 550 not sent"
    assert told["values counted"] == "400"


def test_late_batches_are_told_beside_their_latency() -> None:
    late = replace(REPORT, late_s_max=0.25)
    late.posts.add(0.5)
    told = rows(shown(result(late)))
    assert told["late to leave"] == "250.0 ms at most, and part of latency"
    assert told["latency of requests"] == "500.0 ms half; 99 % 500.0 ms, all 500.0 ms"


@pytest.mark.parametrize(
    ("report", "headline"),
    [
        (REPORT, "The promise was kept"),
        (replace(REPORT, verify=False), "Replayed"),
        (replace(REPORT, stopped_early=True), "Stopped before the end"),
        (replace(REPORT, failed="no worker"), "It could not be done"),
        (replace(REPORT, broken=1, breaches=["it is wrong"]), "The promise was broken\n"),
        (replace(REPORT, broken=3, breaches=["it is wrong"]), "The promise was broken, 3 times"),
    ],
)
def test_a_headline_says_how_it_ended(report: Report, headline: str) -> None:
    text = shown(result(report))
    assert headline in re.sub(r" +$", "", text, flags=re.MULTILINE)
    assert ("- it is wrong" in text) == bool(report.broken)
    assert "none lost" not in text  # nothing was compared


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_fits_the_width(width: int) -> None:
    assert max(map(len, shown(result(REPORT), width).splitlines())) <= width


def test_on_a_terminal_it_shows_a_bar_and_leaves_the_table(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        coordinator = processes.cluster("one")
        ours, theirs = pty.openpty()
        command = ["-m", "loadgen", "replay", "calm", "--values", "3e4", "--verify"]
        command += ["--workers", processes.workers["one"].url, "--coordinator", coordinator.url]
        process = subprocess.Popen(  # noqa: S603  our own module, no shell
            [sys.executable, *command],
            cwd=TOP,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        drawn = b""
        while part := _read(ours):
            drawn += part
        os.close(ours)
        assert process.wait() == 0
    text = drawn.decode()
    assert "━" in text
    assert "of 30,000 values" in text
    assert text.rindex("\x1b[?25h") > text.index("\x1b[?25l"), "the cursor stays hidden"
    assert "The promise was kept" in text


def _read(file: int) -> bytes:
    """What a terminal has; nothing once nobody writes to it any more."""
    try:
        return os.read(file, 2**16)
    except OSError:
        return b""
