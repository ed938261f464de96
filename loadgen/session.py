"""One replay from the command line: what is asked for is found, played, shown, and summed up.

The status to exit with: 0, all went well; 1, a promise was found broken; 2, it could not be done,
and a sentence says why; 130, it was stopped before its end, after what was in flight had landed.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from loadgen.access import Access, NoAccess
from loadgen.calls import DEFAULT, BadReply, Calls, Target, address_of, resolved
from loadgen.inputs import BadInput, Input, Wanted, opened
from loadgen.pacer import Deal, Split, Turn, turns
from loadgen.replay import Manner, Replay
from loadgen.report import Report
from loadgen.truth import CannotKeep
from loadgen.view import Console, result, view

KEPT, BROKEN, FAILED, STOPPED = 0, 1, 2, 130
IN_FLIGHT, IN_FLIGHT_AT_A_RATE = 4, 64


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be replayed, and how."""

    input: str
    workers: list[str]
    coordinator: str
    values: int | None = None
    column: str | None = None
    skip_bad: bool = False
    seed: int = 1
    rate: float | None = None
    batch: int = 1_000
    split: Split = Split.ROUND_ROBIN
    stream: str = DEFAULT
    in_flight: int | None = None
    verify: bool = False


def replay(order: Order, *, as_json: bool) -> int:
    """All but the report goes to standard error, where the report is for programs."""
    console, report = Console(highlight=False, stderr=as_json), Report(order.input, workers=0)
    try:
        asyncio.run(_replayed(order, console, report))
    except (BadInput, BadReply, CannotKeep, NoAccess) as error:
        report.failed = str(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        report.stopped_early = True
    if as_json:
        sys.stdout.write(json.dumps(report.facts, indent=2) + "\n")
    elif report.sent:
        console.print(result(report))
    if report.failed:
        Console(stderr=True, highlight=False).print(report.failed, markup=False, soft_wrap=True)
    return _status(report)


def _status(report: Report) -> int:
    if report.broken:
        return BROKEN
    if report.stopped_early:
        return STOPPED
    return FAILED if report.failed else KEPT


async def _replayed(order: Order, console: Console, report: Report) -> None:
    access = Access.of(os.environ)
    target = Target(
        workers=resolved(order.workers),
        coordinator=address_of(order.coordinator),
        stream=order.stream,
    )
    if not (workers := len(target.workers)):
        raise BadInput("There is no worker to send anything to: name some with --workers.")
    given = opened(
        order.input,
        Wanted(
            values=order.values,
            column=order.column,
            skips=order.skip_bad,
            seed=order.seed,
            workers=workers,
        ),
    )
    report.input, report.workers, report.planned = given.name, workers, given.count
    report.verify = order.verify
    manner = Manner(
        rate=order.rate,
        batch=order.batch,
        in_flight=order.in_flight or (IN_FLIGHT_AT_A_RATE if order.rate else IN_FLIGHT),
    )
    plan = _turns(given, _deal(order, given), order.batch, report)
    calls = Calls(access=access)
    try:
        with view(console, report) as show:
            await Replay(calls, target, manner, report).play(plan, show, _stop_by_signals())
    finally:
        await calls.close()


def _deal(order: Order, given: Input) -> Deal:
    try:
        return order.split.deal(order.values if given.count is None else given.count)
    except ValueError as error:
        raise BadInput(str(error)) from None


def _turns(given: Input, deal: Deal, batch: int, report: Report) -> Iterator[Turn]:
    """So many values at a time that, dealt out in turn, each worker has a whole batch."""
    chunks = given.chunks(batch * report.workers)
    for turn in turns(chunks, deal, workers=report.workers, batch=batch):
        report.share_read, report.left_out = given.share_read(), given.sieve.left_out
        yield turn
    report.left_out = given.sieve.left_out


def _stop_by_signals() -> asyncio.Event:
    """Set by the first Ctrl-C or SIGTERM; another ends all at once."""
    stop, loop, whole = asyncio.Event(), asyncio.get_running_loop(), asyncio.current_task()

    def signalled() -> None:
        if stop.is_set() and whole:
            whole.cancel()
        stop.set()

    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, signalled)
    return stop
