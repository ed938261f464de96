"""What is seen as lines, where no page can be shown: columns under a head, to be cut and plotted.

Each answer is one line. What goes wrong is a line that begins with `#`: one, however often it goes
wrong in the same way before the next answer.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from loadgen.watching.look import Answer
from loadgen.watching.watched import Watched

HEAD = (
    f"{'time':<20} {'median':>15} {'low':>15} {'high':>15} {'count':>13} {'certificate':>11}"
    f" {'live':>5} {'silent':>6} complete"
)


def line(answer: Answer, wall: float) -> str:
    """One answer, under `HEAD`: a dash is nothing, the certificate is a share of all ranks."""
    median, low, high = (
        "-" if one is None else f"{one:.8g}" for one in (answer.median, answer.low, answer.high)
    )
    return (
        f"{_time(wall)} {median:>15} {low:>15} {high:>15} {answer.count:>13}"
        f" {answer.rank_error:>11.7f} {answer.live:>5} {answer.silent:>6}"
        f" {'yes' if answer.complete else 'no'}"
    )


def _time(wall: float) -> str:
    return f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%dT%H:%M:%S}Z"


class Lines:
    """Says each answer, and of what goes wrong what it has not said yet."""

    def __init__(self, say: Callable[[str], None], wall: Callable[[], float]) -> None:
        self._say, self._wall = say, wall
        self._begun, self._trouble = False, ""

    def __call__(self, watched: Watched) -> None:
        if watched.trouble:
            if watched.trouble != self._trouble:
                self._say(f"# {_time(self._wall())} {watched.trouble}; asking again")
        elif watched.answer is not None:
            if not self._begun:
                self._say(HEAD)
                self._begun = True
            self._say(line(watched.answer, self._wall()))
        self._trouble = watched.trouble
