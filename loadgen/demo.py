"""The demo: a whole system on this machine, hard streams through it, and every answer checked.

It is a replay like any other, see `loadgen/replay.py`, but that it starts the services itself, goes
slowly enough to be looked at, and lets everything land after each turn. Whatever fails ends it with
a sentence, and everything it started is stopped.
"""

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from loadgen.calls import BadReply, Calls, Target, address_of
from loadgen.islands import planned, turns
from loadgen.pacer import Turn
from loadgen.replay import Manner, Replay, ungrouped
from loadgen.report import Report
from loadgen.services import ServiceFailed, Services, running
from loadgen.view import Console, result, view

WORKERS = 4
TURN_S = 0.1
REPLAY_S_MAX = 25.0
LOOK_S = 0.2


def demo(values: int, seed: int) -> int:
    """Play it; returns the status to exit with."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C does
    console, logs = Console(highlight=False), Path(tempfile.mkdtemp(prefix="running-median-demo-"))
    status = 1
    try:
        status = _played(console, logs, values, seed)
    except (BadReply, ServiceFailed) as failed:
        console.print(f"\n{failed}", markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print("Stopped before the end: nothing is shown by this.")
        status = 130
    if status == 1:
        console.print(f"All logs are in {logs}", soft_wrap=True)
    else:
        shutil.rmtree(logs)
    return status


def _played(console: Console, logs: Path, values: int, seed: int) -> int:
    console.print(f"Starting a coordinator and {WORKERS} workers.")
    with running(WORKERS, logs) as services:
        console.print(f"The coordinator is {services.coordinator.url}: see it in a browser.")
        report = Report("demo", WORKERS, planned(values, WORKERS), verify=True)
        asyncio.run(_replayed(console, services, _paced(turns(values, WORKERS, seed)), report))
        console.print(result(report, times=False))
        if console.is_terminal and not report.broken:
            _stay(console, services)
    return 1 if report.broken else 0


async def _replayed(
    console: Console, services: Services, plan: Iterable[Turn], report: Report
) -> None:
    workers = [address_of(worker.url) for worker in services.workers]
    target = Target(workers=workers, coordinator=address_of(services.coordinator.url))
    calls = Calls()
    try:
        with view(console, report) as show, ungrouped():
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(_watch(services))
                replay = Replay(calls, target, Manner(quiet_s=0.0), report)
                await replay.play(plan, show, stop=asyncio.Event())
                watching.cancel()
    finally:
        await calls.close()


async def _watch(services: Services) -> None:
    while True:
        services.watch()
        await asyncio.sleep(LOOK_S)


def _paced(plan: Iterable[Turn]) -> Iterator[Turn]:
    """No turn sooner than a while after the one before, and none when the time is over."""
    start = time.monotonic()
    for one in plan:
        began = time.monotonic()
        if began - start > REPLAY_S_MAX:
            return
        yield one
        time.sleep(max(0.0, began + TURN_S - time.monotonic()))


def _stay(console: Console, services: Services) -> None:
    console.print(f"It runs until Ctrl-C. Try: curl {services.coordinator.url}/median")
    with suppress(KeyboardInterrupt):
        while True:
            services.watch()
            time.sleep(LOOK_S)
    console.print("Stopping.")
