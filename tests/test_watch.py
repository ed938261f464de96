"""`python -m loadgen watch`: what it takes, how it goes on, and how it ends."""

import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from loadgen.watch import begun, follow, watch
from loadgen.watching.coordinator import Coordinator, Stranger
from loadgen.watching.lines import HEAD
from loadgen.watching.shapes import large
from loadgen.watching.watched import Watched
from tests.cluster import run
from tests.processes import Processes, free_port
from tests.processes import until as happens
from tests.watching import HEALTH, URL, Scripted

TOP = Path(__file__).parent.parent
LONG_S = 60


class TestWhatMakesNoSense:
    @pytest.mark.parametrize("every_s", [float("nan"), 0.0, -1.0, float("inf")])
    def test_an_interval_that_is_none(self, every_s: float) -> None:
        with pytest.raises(Stranger, match="--every is from"):
            begun(URL, "default", every_s)

    @pytest.mark.parametrize("stream", ["", "a\nb", "\udc80"])
    def test_a_stream_that_has_no_name(self, stream: str) -> None:
        with pytest.raises(Stranger, match="a stream's name"):
            begun(URL, stream, 1.0)

    def test_each_is_one_sentence_and_status_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        for url, every_s in (("localhost:8000", 1.0), (URL, 0.0)):
            assert watch(url, "x", every_s) == 2
            out, said = capsys.readouterr()
            assert (out, said.count("\n"), said[-1]) == ("", 1, "\n")


class TestFollow:
    def test_it_goes_on_through_trouble_and_ends_at_a_stranger(self) -> None:
        transport, shown = Scripted(health=httpx.ConnectError("down")), list[Watched]()

        def show(watched: Watched) -> None:
            shown.append(watched)
            if len(shown) == 2:
                transport.replies["/health"] = HEALTH
            if len(shown) == 4:
                transport.replies["/workers"] = httpx.ReadTimeout("")
            if len(shown) == 6:
                raise Stranger("the end")

        async def story() -> None:
            async with Coordinator(URL, "default", transport=transport) as coordinator:
                watched = Watched(URL, "default", 0.001)
                await follow(coordinator, watched, show, time.monotonic)

        with pytest.raises(Stranger, match="the end"):
            run(story())
        assert [bool(one.trouble) for one in shown] == [True, True, False, False, True, True]
        assert [one.answer is not None for one in shown] == [False, False, True, True, True, True]


# As a user starts it


def started(*arguments: str, **how: Any) -> "subprocess.Popen[str]":
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    given = {**pipes, "text": True, "env": {**buffered, "FORCE_COLOR": "1"}, **how}
    command = [sys.executable, "-m", "loadgen", "watch", *arguments]
    return subprocess.Popen(command, cwd=TOP, stdin=subprocess.DEVNULL, **given)  # noqa: S603  our own module, no shell


@contextmanager
def watching(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = started(*arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def reads(process: "subprocess.Popen[str]", what: Callable[[str], bool]) -> str:
    """The first line of which that is true."""
    timer = threading.Timer(LONG_S, process.kill)
    timer.start()
    try:
        assert process.stdout
        for one in process.stdout:
            if what(one):
                return one
        assert process.stderr
        raise AssertionError(f"it never said so: {process.stderr.read()}")
    finally:
        timer.cancel()


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, said = process.communicate(timeout=LONG_S)
    return process.returncode, said


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with Processes(tmp_path_factory.mktemp("watch")) as made:
        made.cluster("w1")
        made.workers["w1"].take(np.arange(1.0, 1001.0))
        made.workers["w1"].flush()
        yield made


class TestTheCommand:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_lines_until_it_is_stopped(self, how: signal.Signals, processes: Processes) -> None:
        with watching(processes.coordinator_.url, "--every", "0.1") as process:
            assert reads(process, lambda _: True) == f"{HEAD}\n"
            said = reads(process, lambda one: one.endswith("yes\n")).split()
            assert said[1:] == [
                "500.5",
                "500.5",
                "500.5",
                "1000",
                "0.0000000",
                "1",
                "0",
                "yes",
            ] or (float(said[2]) <= 500.5 <= float(said[3]))
            process.send_signal(how)
            assert ended(process) == (0, "")

    def test_a_line_is_not_kept_back(self, processes: Processes) -> None:
        with watching(processes.coordinator_.url, "--every", "3600") as process:
            assert reads(process, lambda one: one.endswith("yes\n"))

    def test_a_reader_that_goes_ends_it(self, processes: Processes) -> None:
        with watching(processes.coordinator_.url, "--every", "0.1") as process:
            reads(process, lambda _: True)
            assert process.stdout
            process.stdout.close()
            assert process.wait(LONG_S) == 0
            assert process.stderr
            assert process.stderr.read() == ""

    def test_who_is_not_there_may_come(self, tmp_path: Path) -> None:
        with Processes(tmp_path) as made:
            url = f"http://127.0.0.1:{made.port}"
            with watching(url, "--every", "0.1", "--stream", "later") as process:
                assert "is away" in reads(process, lambda one: one.startswith("#"))
                made.cluster("w1")
                assert "no stream 'later' yet" in reads(process, lambda one: "no stream" in one)
                worker = made.workers["w1"]
                assert worker.post("/values?stream=later", np.ones(3).tobytes()).is_success
                assert reads(process, lambda one: one.endswith((" no\n", " yes\n")))
                made.coordinator_.stop()
                assert "is away" in reads(process, lambda one: one.startswith("#"))
                made.coordinator()
                reads(process, lambda one: one.endswith(" yes\n"))
                process.send_signal(signal.SIGINT)
                assert ended(process) == (0, "")

    def test_strangers_are_a_sentence_and_status_2(self, processes: Processes) -> None:
        worker, coordinator = processes.workers["w1"].url, processes.coordinator_.url
        for url, what in [
            (worker, "is the worker w1, not a coordinator"),
            (f"{coordinator}/median", "is no coordinator: GET"),
            (coordinator.replace("http", "https"), "speaks no TLS"),
        ]:
            with watching(url) as process:
                status, said = ended(process)
                assert (status, what in said, said.count("\n")) == (2, True, 1), said

    def test_who_does_not_speak_http_is_one_too(self) -> None:
        with socket.create_server(("127.0.0.1", free_port())) as server:

            def greet() -> None:
                one, _ = server.accept()
                with one:
                    one.sendall(b"220 mail.example ESMTP\r\n\r\n")
                    one.recv(9999)

            thread = threading.Thread(target=greet)
            thread.start()
            with watching(f"http://127.0.0.1:{server.getsockname()[1]}") as process:
                status, said = ended(process)
            thread.join(LONG_S)
        assert (status, "does not speak HTTP" in said) == (2, True), said


class Terminal:
    """A pty with a process on it, and all that this has drawn."""

    def __init__(self, width: int, height: int, *arguments: str, **environment: str) -> None:
        self._mine, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.before = termios.tcgetattr(other)
        env = {**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1", **environment}
        env.pop("NO_COLOR", None)
        self.process = started(*arguments, stdout=other, stderr=other, env=env)
        self._other, self.drawn = other, ""

    def until(self, what: str) -> None:
        happens(lambda: self._read() and what in self.drawn, f"{what!r} is drawn")

    def ended(self) -> int:
        happens(lambda: self._read() and self.process.poll() is not None, "it ends")
        return self.process.returncode

    def _read(self) -> bool:
        while select.select([self._mine], [], [], 0.05)[0]:
            try:
                self.drawn += os.read(self._mine, 65_536).decode(errors="replace")
            except OSError:  # nobody holds the other side
                break
        return True

    @property
    def after(self) -> Any:
        return termios.tcgetattr(self._other)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._mine)
        os.close(self._other)


class TestOnATerminal:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_it_draws_and_leaves_the_terminal_as_it_was(
        self, how: signal.Signals, processes: Processes
    ) -> None:
        terminal = Terminal(80, 24, processes.coordinator_.url, "--every", "0.1")
        try:
            terminal.until(large("500.5")[0])
            terminal.until("w1")
            terminal.process.send_signal(how)
            assert terminal.ended() == 0
            drawn_ = terminal.drawn
            assert "Traceback" not in drawn_
            assert drawn_.count("\x1b[?1049h") == drawn_.count("\x1b[?1049l") == 1
            assert drawn_.rindex("\x1b[?25h") > drawn_.rindex("\x1b[?25l")
            assert terminal.after == terminal.before
        finally:
            terminal.close()

    def test_a_stranger_is_said_after_the_terminal_is_left(self, processes: Processes) -> None:
        terminal = Terminal(80, 24, processes.workers["w1"].url)
        try:
            assert terminal.ended() == 2
            assert terminal.drawn.rindex("not a coordinator") > terminal.drawn.rindex("\x1b[?1049l")
        finally:
            terminal.close()

    @pytest.mark.parametrize("poor", [{"TERM": "dumb"}, {"PYTHONIOENCODING": "ascii"}])
    def test_one_that_cannot_show_it_gets_lines(
        self, poor: dict[str, str], processes: Processes
    ) -> None:
        terminal = Terminal(80, 24, processes.coordinator_.url, "--every", "0.1", **poor)
        try:
            terminal.until(" yes\r\n")
            terminal.process.send_signal(signal.SIGINT)
            assert terminal.ended() == 0
            assert "\x1b" not in terminal.drawn
        finally:
            terminal.close()
