"""The commands: `python -m loadgen` lists them."""

from typing import Annotated

import typer

from loadgen.demo import demo as play_demo

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


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
    raise typer.Exit(play_demo(values, seed))


if __name__ == "__main__":
    app()
