"""The commands: `python -m loadgen` lists them."""

import os
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from loadgen.calls import DEFAULT
from loadgen.demo import demo as play_demo
from loadgen.pacer import Split
from loadgen.scenarios import SCENARIOS
from loadgen.session import FAILED, IN_FLIGHT, IN_FLIGHT_AT_A_RATE, Order
from loadgen.session import replay as play
from loadgen.simulate import play as play_problem
from loadgen.watch import EVERY_S_MAX, EVERY_S_MIN
from loadgen.watch import watch as watch_coordinator

NOBODY_READS = 141  # as of one that SIGPIPE ended
BATCH_MAX = 2**22  # values: 32 MiB, what a worker takes unless its operator said otherwise
COORDINATOR, WORKER = "http://127.0.0.1:8000", "http://127.0.0.1:8001"
NAMES = ", ".join(SCENARIOS)

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def count(text: str) -> int:
    """`1e7` is a number of values, too."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 1 <= number <= 1e15 or number != int(number):
        raise typer.BadParameter(f"{text!r} is not a whole number of at least 1, such as 1e7")
    return int(number)


def _ended_by(command: Callable[[], int]) -> NoReturn:
    """With its status; and with a sentence where nobody can be told what came of it."""
    if sys.stdout is None:
        sys.stderr.write("Standard output is closed: nobody could be told what came of it.\n")
        raise typer.Exit(FAILED)
    try:
        status = command()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = NOBODY_READS
    except OSError as error:
        sys.stderr.write(f"This cannot go on: {error.strerror or error}.\n")
        sys.stdout = None  # what is buffered cannot be written either
        status = FAILED
    raise typer.Exit(status)


@app.callback()
def loadgen() -> None:
    """Streams of values for running services, and what came of them."""


@app.command()
def demo(
    values: Annotated[int, typer.Option(min=1, help="about how many values to replay")] = 2_500_000,
    seed: Annotated[int, typer.Option(min=0, help="what they are drawn from")] = 1,
) -> None:
    """Start a coordinator and four workers, replay hard streams, and check every answer.

    On a terminal all stays up until Ctrl-C.
    """
    _ended_by(lambda: play_demo(values, seed))


@app.command()
def replay(  # noqa: PLR0913, PLR0917  one argument for each option
    what: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help=f"a file (.csv, .tsv, text with one number a line, each also as .gz; .npy), - "
            f"for standard input, or a scenario: {NAMES}",
        ),
    ],
    workers: Annotated[
        str,
        typer.Option(
            envvar="LOADGEN_WORKERS",
            help="their addresses, by commas; a name that leads to several means all of them",
        ),
    ] = WORKER,
    coordinator: Annotated[
        str, typer.Option(envvar="LOADGEN_COORDINATOR", help="its address")
    ] = COORDINATOR,
    values: Annotated[
        int | None,
        typer.Option(parser=count, help="at most so many, such as 1e7; by name, 1e6 if not said"),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="which of a table: its name, or its number from 1")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="leave out what is no value, and count it")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="what a scenario is drawn from")] = 1,
    rate: Annotated[
        float | None,
        typer.Option(
            min=1e-6, help="values a second, however slow the answers are; else as fast as it can"
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, max=BATCH_MAX, help="values in a request, at most")
    ] = 1_000,
    split: Annotated[Split, typer.Option(help="who gets which values")] = Split.ROUND_ROBIN,
    stream: Annotated[str, typer.Option(help="the name under which they are counted")] = DEFAULT,
    in_flight: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="requests under way to one worker, at most; if not said, "
            f"{IN_FLIGHT}, and {IN_FLIGHT_AT_A_RATE} at a rate",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="keep all values, and check every answer against them")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the report as JSON, all else to standard error")
    ] = False,
) -> None:
    """Send a file, or a scenario, through running workers, and report what came of it.

    Each value is counted once, however often its batch had to be sent.

    Services that ask for tokens are shown those of MEDIAN_INGEST_TOKEN and MEDIAN_READ_TOKEN, or
    of files that MEDIAN_INGEST_TOKEN_FILE and MEDIAN_READ_TOKEN_FILE name. Over https whoever is
    in the file MEDIAN_TLS_CA is believed, or else those of the certifi package.

    Status 1: a promise was found broken. 2: it could not be done. 130: it was stopped.
    """
    order = Order(
        input=what,
        workers=[url.strip() for url in workers.split(",") if url.strip()],
        coordinator=coordinator,
        values=values,
        column=column,
        skip_bad=skip_bad,
        seed=seed,
        rate=rate,
        batch=batch,
        split=split,
        stream=stream,
        in_flight=in_flight,
        verify=verify,
    )
    _ended_by(lambda: play(order, as_json=as_json))


@app.command()
def simulate(
    problem: Annotated[
        str, typer.Argument(help="a JSON file; - is standard input", show_default=False)
    ],
) -> None:
    """Print the medians of a problem as one line of JSON; no service is needed.

    A problem is {"N": 2, "epsilon": 0.01, "data_streams": [[3, 1], [10, 20]], "queries": [1, 3]}.
    With "arrival": "sequential" values come stream after stream, not one from each in turn.
    """
    _ended_by(lambda: play_problem(problem))


@app.command()
def watch(
    url: Annotated[
        str, typer.Argument(envvar="LOADGEN_COORDINATOR", help="of a coordinator")
    ] = COORDINATOR,
    stream: Annotated[str, typer.Option(help="which of its streams")] = DEFAULT,
    every: Annotated[
        float, typer.Option(min=EVERY_S_MIN, max=EVERY_S_MAX, help="seconds between two looks")
    ] = 1.0,
) -> None:
    """Show a running system: its median, how sure that is, and its workers; until Ctrl-C.

    Where standard output is no terminal, one line for each look.

    A coordinator that asks for a token is shown that of MEDIAN_READ_TOKEN, or of a file that
    MEDIAN_READ_TOKEN_FILE names. Over https whoever is in the file MEDIAN_TLS_CA is believed, or
    else those of the certifi package.
    """
    _ended_by(lambda: watch_coordinator(url, stream, every))


if __name__ == "__main__":
    app()
