"""A running system on a terminal: its median, how sure that is, and who is behind it.

    a coordinator  <--- Coordinator asks ---  follow  --- Watched --->  Page, or Lines

Every so often the coordinator is asked what it knows, and the answer goes into a `Watched`: a value
that never changes, with all that was seen so far. What is drawn is a pure function of it, of the
room there is, and of the time. So nothing decides and draws at once, and this file does neither: it
asks, waits, and ends. All else has its file in `watching`.

A page is drawn where a terminal can show it. Elsewhere the same goes out as one line for each
answer, in columns with a head, and what goes wrong as lines that begin with `#`.

A coordinator that does not answer is away, which is no reason to stop: the last numbers stay,
dimmed, and it is asked again. Only what was never a coordinator ends this, with a sentence.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.live import Live

from loadgen.access import Access, NoAccess
from loadgen.watching.coordinator import Away, Coordinator, Stranger, check_address, shown
from loadgen.watching.lines import Lines
from loadgen.watching.page import Page
from loadgen.watching.watched import Watched

EVERY_S_MIN, EVERY_S_MAX = 0.1, 3600.0
FRAMES_A_SECOND = 4
STOPS = (signal.SIGINT, signal.SIGTERM)


async def follow(
    coordinator: Coordinator,
    watched: Watched,
    show: Callable[[Watched], None],
    clock: Callable[[], float],
) -> None:
    """Look and show, for ever: `Stranger` ends it."""
    while True:
        began = clock()
        try:
            watched = watched.saw(await coordinator.look(), clock())
        except Away as error:
            watched = watched.failed(str(error))
        show(watched)
        await asyncio.sleep(max(0.0, began + watched.every_s - clock()))


def watch(url: str, stream: str, every_s: float) -> int:
    """Until it is stopped, which is its good end; returns the status to exit with."""
    try:
        watched = begun(url, stream, every_s)
        with suppress(KeyboardInterrupt, asyncio.CancelledError), _quiet_when_nobody_reads():
            asyncio.run(_until_stopped(url, watched, Access.of(os.environ)))
    except (NoAccess, Stranger) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def begun(url: str, stream: str, every_s: float) -> Watched:
    """Nothing seen yet; `Stranger` says which of these makes no sense."""
    if not EVERY_S_MIN <= every_s <= EVERY_S_MAX:  # NaN passes the command line
        raise Stranger(f"--every is from {EVERY_S_MIN} to {EVERY_S_MAX:.0f} s, not {every_s}")
    if not stream or not stream.isprintable():
        raise Stranger(f"a stream's name has characters, all to be printed, unlike {stream!r}")
    check_address(url)
    return Watched(shown(url), stream, every_s)


async def _until_stopped(url: str, watched: Watched, access: Access) -> None:
    task = asyncio.current_task()
    with suppress(NotImplementedError):  # on Windows Ctrl-C is an exception
        for one in STOPS:
            asyncio.get_running_loop().add_signal_handler(one, task.cancel)  # type: ignore[union-attr]  # there is one: this
    console = Console(highlight=False)
    async with Coordinator(url, watched.stream, access=access) as coordinator:
        with _shown(console, watched) as show:
            await follow(coordinator, watched, show, time.monotonic)


@contextmanager
def _shown(console: Console, watched: Watched) -> Iterator[Callable[[Watched], None]]:
    """A page where a terminal can show it, and lines elsewhere."""
    terminal = sys.stdout.isatty() and console.is_terminal  # FORCE_COLOR makes one of a pipe
    if not terminal or console.is_dumb_terminal or console.options.ascii_only:
        yield Lines(_say, time.time)
        return
    last = watched

    def show(now: Watched) -> None:
        nonlocal last
        last = now

    drawn = Page(lambda: last, time.monotonic)
    with Live(drawn, console=console, screen=True, refresh_per_second=FRAMES_A_SECOND):
        yield show


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextmanager
def _quiet_when_nobody_reads() -> Iterator[None]:
    """Who reads a pipe may stop before us; then nothing is written at the end either."""
    try:
        yield
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
