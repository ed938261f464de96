"""`python -m loadgen simulate`: exact answers held to sorted values, and each error a sentence."""

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from rich.console import Console

from loadgen import simulate as command
from loadgen.simulate import BadProblem, _patience, medians, play
from shared.values import Floats
from tests.exact import TALLY, rank_errors

TOP = Path(__file__).parent.parent
LONG_S = 60
GOOD = {"N": 2, "epsilon": 0.01, "data_streams": [[3, 1, 2], [10, 20]], "queries": [1, 2, 5]}


def written(**changed: Any) -> str:
    return json.dumps({**GOOD, **changed})


def arrived(streams: Sequence[Floats], arrival: str) -> Floats:
    if arrival == "sequential":
        return np.concatenate(streams)
    longest = max(map(len, streams))
    return np.array([one[at] for at in range(longest) for one in streams if at < len(one)])


class TestMedians:
    def test_few_values_are_exact_and_one_comes_from_each_stream_in_turn(self) -> None:
        assert medians(written()) == [3.0, 6.5, 3.0]
        assert medians(written(arrival="round_robin")) == [3.0, 6.5, 3.0]

    def test_or_stream_after_stream(self) -> None:
        assert medians(written(arrival="sequential")) == [3.0, 2.0, 3.0]

    @pytest.mark.parametrize("arrival", ["round_robin", "sequential"])
    @pytest.mark.parametrize("epsilon", [0.05, 0.01])
    def test_each_is_within_epsilon(
        self, arrival: str, epsilon: float, rng: np.random.Generator
    ) -> None:
        streams = [rng.normal(node, 1 + node, rng.integers(1, 900)) for node in range(6)]
        values = arrived(streams, arrival)
        queries = [*rng.integers(1, len(values) + 1, 40).tolist(), 1, len(values)]
        text = written(
            N=6,
            epsilon=epsilon,
            data_streams=[one.tolist() for one in streams],
            queries=queries,
            arrival=arrival,
        )
        for t, median in zip(queries, medians(text), strict=True):
            error = rank_errors(np.array([median]), np.sort(values[:t]), np.array([t / 2]))
            assert TALLY.all(error <= epsilon * t)

    def test_no_query_no_median(self) -> None:
        assert medians(written(queries=[])) == []

    @pytest.mark.parametrize("value", ["1.7e308", "5e-324", "9007199254740992", "-0.1", "1E+2"])
    def test_what_a_float64_holds_comes_back_as_it_was(self, value: str) -> None:
        text = written(N=1, data_streams="VALUES", queries=[2]).replace(
            '"VALUES"', f"[[{value}, {value}]]"
        )
        assert medians(text) == [float(value)]


WRONG = [
    # what JSON itself says no to, and where
    ("", "line 1, column 1: this is not JSON: expecting value"),
    ('{"N": 1,\n "epsilon" 2}', r"line 2, column 12: this is not JSON: expecting ':' delimiter"),
    ("{'N': 1}", "line 1, column 2: this is not JSON: expecting property name"),
    (written() + "\n{}", "line 2, column 1: this is not JSON: extra data"),
    (written().replace("]}", "]"), "this is not JSON: expecting ',' delimiter"),
    # what it says yes to, and should not
    (written().replace("10,", "NaN,"), "line 1, column 56: NaN is neither JSON nor a value"),
    (written().replace("10,", "-Infinity,"), "column 56: -Infinity is neither"),
    (written().replace("10,", "\n1e999,"), "line 2, column 1: 1e999 is beyond the largest float64"),
    (written().replace("10,", "-1e999,"), "column 56: -1e999 is beyond"),
    (written().replace("10,", "1e999e9,"), "column 56: 1e999 is beyond"),
    (written(arrival='1e999 "NaN"\\').replace("10,", "1e999,"), "column 56: 1e999 is beyond"),
    ('{"NaN": 1e99, "1e999": NaN}', "line 1, column 24: NaN is neither"),
    (written().replace("10,", "9" * 5000 + ","), r"column 56: 9{36} \.\.\. is an integer beyond"),
    (written().replace('"N": 2', '"N": 2, "N": 3'), "the key 'N' is given more than once"),
    (written().replace("10,", '{"a": 1, "a": 1},'), "the key 'a' is given more than once"),
    ("[" * 100_000, "nested too deep"),
    (written().replace("10,", "[" * 990 + "]" * 990 + ","), "nested too deep|value 0 is list"),
    # an object of another shape
    ("[1, 2]", "a problem is an object with the keys N, epsilon, data_streams and queries"),
    ("null", "a problem is an object"),
    (written(eps=1), "no key 'eps' here: known are N, epsilon, data_streams, queries and arrival"),
    ('{"N": 1, "queries": []}', "it lacks epsilon and data_streams: a problem has N, epsilon"),
    ("{}", "it lacks N, epsilon, data_streams and queries"),
    # values of another kind, or out of range
    (written(N=True), "N must be a whole number of at least 1, not True"),
    (written(N="2"), "N must be a whole number of at least 1, not '2'"),
    (written(N=2.0), "N must be a whole number of at least 1, not 2.0"),
    (written(N=3), "N is 3, but there are 2 data_streams"),
    (written(N=0, data_streams=[]), "N must be a whole number of at least 1, not 0"),
    (written(epsilon="0.01"), "epsilon must be a number, not '0.01'"),
    (written(epsilon=False), "epsilon must be a number, not False"),
    (written(epsilon=0), "epsilon must be from 0.0005 to below 0.5, not 0"),
    (written(epsilon=0.5), "epsilon must be from 0.0005 to below 0.5, not 0.5"),
    (written(epsilon=10**299), "epsilon must be from"),
    (written(data_streams=7), "data_streams must be a list"),
    (written(data_streams={"0": [1]}), "data_streams must be a list"),
    (written(data_streams=[[1], 2]), r"data_streams\[1\] must be a list"),
    (written(data_streams=[[1], []]), r"data_streams\[1\] is empty"),
    (written(data_streams=[[1], [2, True]]), r"data_streams\[1\]: value 1 is a boolean"),
    (written(data_streams=[[1], [2, None]]), r"data_streams\[1\]: value 1 is missing"),
    (written(data_streams=[[1], ["2"]]), r"data_streams\[1\]: value 0 is text"),
    (written(data_streams=[[1], [[2]]]), r"data_streams\[1\]: value 0 is list, not a number"),
    (written(data_streams=[[1], [2**53 + 1]]), r"data_streams\[1\]: value 0 is an integer beyond"),
    (written(queries=3), "queries must be a list"),
    (written(queries=[1, 0]), r"queries\[1\] must be a whole number from 1 to 5, not 0"),
    (written(queries=[6]), r"queries\[0\] must be a whole number from 1 to 5, not 6"),
    (written(queries=[1.0]), r"queries\[0\] must be a whole number from 1 to 5, not 1.0"),
    (written(queries=[True]), r"queries\[0\] must be a whole number from 1 to 5, not True"),
    (written(arrival="random"), "arrival is 'round_robin' or 'sequential', not 'random'"),
    (written(arrival=["sequential"]), "arrival is 'round_robin' or 'sequential'"),
]


@pytest.mark.parametrize(("text", "what"), WRONG, ids=[what for _, what in WRONG])
def test_what_is_wrong_is_said_where_it_is(text: str, what: str) -> None:
    with pytest.raises(BadProblem, match=what):
        medians(text)


class TestPlay:
    """In this process."""

    def test_one_line_of_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert play(str(saved(tmp_path, written().encode()))) == 0
        assert capsys.readouterr() == ("[3.0, 6.5, 3.0]\n", "")

    def test_what_it_prints_is_read_back_as_the_same_floats(
        self, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
    ) -> None:
        values = (rng.normal(size=99) * 10.0 ** rng.integers(-300, 300, 99)).tolist()
        text = written(N=1, data_streams=[values], queries=list(range(1, 100)))
        assert play(str(saved(tmp_path, text.encode()))) == 0
        assert json.loads(capsys.readouterr().out) == medians(text)

    @pytest.mark.parametrize("text", ["", written(N=3), written(eps=1), '{"a": 1, "a": 1}'])
    def test_an_error_is_one_line_with_the_name_of_the_file(
        self, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = saved(tmp_path, text.encode())
        assert play(str(file)) == 2
        check_complaint(*capsys.readouterr(), f"{file}: ")

    def test_an_error_does_not_quote_a_megabyte(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for text in (written(N="x\n" * 10**6), written(**{"k" * 10**6: 1})):
            assert play(str(saved(tmp_path, text.encode()))) == 2
            out, said = capsys.readouterr()
            check_complaint(out, said, " ...\n")
            assert len(said) < 1000

    def test_what_cannot_be_read(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for file, why in [
            (str(tmp_path / "none.json"), "it cannot be read: No such file"),
            (str(tmp_path), "it cannot be read: Is a directory"),
            (str(tmp_path / ("x" * 999)), "it cannot be read: File name too long"),
            ("null\0", "cannot be read: embedded null byte"),
            (str(saved(tmp_path, b'{"N": "\xff"}')), "byte 7 is not UTF-8"),
            (str(saved(tmp_path, written().encode("utf-16"), "16.json")), "byte 0 is not UTF-8"),
        ]:
            assert play(file) == 2
            check_complaint(*capsys.readouterr(), why)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_what_may_not_be_read(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = saved(tmp_path, written().encode())
        file.chmod(0)
        assert play(str(file)) == 2
        check_complaint(*capsys.readouterr(), "it cannot be read: Permission denied")

    def test_a_file_that_begins_with_a_byte_order_mark_is_as_good(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert play(str(saved(tmp_path, written().encode("utf-8-sig")))) == 0
        assert capsys.readouterr().out == "[3.0, 6.5, 3.0]\n"

    def test_a_name_cannot_forge_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert play("none\n\x1b[2Jgood.json") == 2
        check_complaint(*capsys.readouterr(), r"'none\n\x1b[2Jgood.json': it cannot be read")

    def test_a_closed_standard_input(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "stdin", None)
        assert play("-") == 2
        check_complaint(*capsys.readouterr(), "standard input: it cannot be read: it is closed")

    def test_a_bug_is_not_blamed_on_the_problem(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(command, "simulate", Mock(side_effect=RuntimeError("a bug")))
        with pytest.raises(RuntimeError, match="a bug"):
            play(str(saved(tmp_path, written().encode())))

    def test_stopped_it_ends_without_a_word(
        self,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(command, "simulate", Mock(side_effect=KeyboardInterrupt))
        assert play(str(saved(tmp_path, written().encode()))) == 130
        assert capsys.readouterr() == ("", "")


class TestPatience:
    def test_on_a_terminal_it_says_that_it_works_and_clears_up(self) -> None:
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=True, width=60)
        with _patience(console, after_s=0.0):
            end = time.monotonic() + LONG_S
            while "Simulating" not in screen.getvalue():
                assert time.monotonic() < end, "it never said so"
                time.sleep(0.01)
        assert screen.getvalue().rstrip().endswith("\x1b[2K"), "the line is not cleared"
        assert screen.getvalue().rfind("\x1b[?25h") > screen.getvalue().rfind("\x1b[?25l")

    def test_where_it_is_quick_it_says_nothing(self) -> None:
        screen = io.StringIO()
        with _patience(Console(file=screen, force_terminal=True), after_s=LONG_S):
            pass
        assert "Simulating" not in screen.getvalue()

    def test_where_nobody_looks_it_says_nothing(self) -> None:
        screen = io.StringIO()
        with _patience(Console(file=screen, force_terminal=False), after_s=0.0):
            for thread in threading.enumerate():
                if isinstance(thread, threading.Timer):
                    thread.join(LONG_S)
        assert screen.getvalue() == ""


class TestTheCommand:
    """As a user starts it."""

    def test_a_file(self, tmp_path: Path) -> None:
        assert ran(str(saved(tmp_path, written().encode()))) == (0, "[3.0, 6.5, 3.0]\n", "")

    def test_standard_input(self) -> None:
        assert ran("-", given=written(arrival="sequential")) == (0, "[3.0, 2.0, 3.0]\n", "")

    def test_what_is_wrong(self) -> None:
        status, out, said = ran("-", given=written(queries=[6]))
        assert status == 2
        check_complaint(out, said, "standard input: queries[0] must be a whole number from 1 to 5")

    def test_without_a_file_it_says_how_to_give_one(self) -> None:
        status, out, said = ran()
        assert (status, out) == (2, "")
        assert "--help" in said

    @pytest.mark.parametrize(
        ("where", "complaint"),
        [
            (">/dev/full", "This cannot go on: No space left on device.\n"),
            (">&-", "Standard output is closed: nobody could be told what came of it.\n"),
        ],
    )
    def test_what_nobody_can_be_told(self, where: str, complaint: str) -> None:
        done = subprocess.run(  # noqa: S602  our own words
            f"{sys.executable} -m loadgen simulate - {where}",
            shell=True,
            cwd=TOP,
            input=written(),
            stderr=subprocess.PIPE,
            text=True,
            timeout=LONG_S,
            check=False,
        )
        assert (done.returncode, done.stderr) == (2, complaint)


def saved(room: Path, data: bytes, name: str = "problem.json") -> Path:
    file = room / name
    file.write_bytes(data)
    return file


def check_complaint(out: str, said: str, what: str) -> None:
    assert out == ""
    assert what in said
    assert re.fullmatch(r"[^\n]+\n", said), "an error is one line"
    assert "Traceback" not in said


def ran(*arguments: str, given: str = "") -> tuple[int, str, str]:
    done = subprocess.run(  # noqa: S603  our own module, no shell
        [sys.executable, "-m", "loadgen", "simulate", *arguments],
        cwd=TOP,
        input=given,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
