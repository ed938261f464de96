"""How a replay looks: live on a terminal, as plain lines elsewhere, and the table at its end."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadgen.calls import Traffic

WIDTH_MAX = 90
FRAMES_A_SECOND = 8
LINES = 10  # plain ones, over a whole replay


@dataclass(frozen=True)
class Score:
    """Where a replay stands."""

    planned: int
    phase: str = ""
    what: str = ""
    acknowledged: int = 0
    counted: int = 0
    exact: float | None = None
    served: float | None = None
    error: float = 0.0
    certificate: float = 0.0
    epsilon: float = 0.0
    checked: int = 0
    incomplete: int = 0
    error_max: float = 0.0
    certificate_max: float = 0.0
    traffic: Traffic = field(default_factory=Traffic)


class Show(Protocol):
    def __call__(self, score: Score) -> None: ...


@contextmanager
def view(console: Console, planned: int) -> Iterator[Show]:
    """Call what it gives with every score; on a terminal it shows the last some times a second."""
    if console.is_terminal:
        live = _LiveView(planned)
        with Live(
            get_renderable=live.render,
            console=console,
            refresh_per_second=FRAMES_A_SECOND,
            transient=True,
        ):
            yield live
    else:
        yield _PlainView(console)


class _LiveView:
    def __init__(self, planned: int) -> None:
        self._score = Score(planned)
        digits = len(f"{planned:,}")  # as wide from the beginning: nothing jumps
        self._progress = Progress(
            TextColumn("{task.description:14}"),
            BarColumn(bar_width=None, complete_style="blue", finished_style="blue"),
            TextColumn(f"{{task.completed:>{digits},.0f}} of {planned:,} values"),
            TimeElapsedColumn(),
            expand=True,
        )
        self._task = self._progress.add_task("", total=planned)

    def __call__(self, score: Score) -> None:
        self._score = score
        self._progress.update(self._task, completed=score.acknowledged, description=score.phase)

    def render(self) -> RenderableType:
        what = Text(self._score.what, style="dim")
        return _page(Group(self._progress, what, "", _numbers(self._score)))


class _PlainView:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def __call__(self, score: Score) -> None:
        if score.acknowledged >= self._next:
            self._next = score.acknowledged + score.planned / LINES
            self._console.print(_line(score), soft_wrap=True)


def _line(score: Score) -> str:
    return (
        f"{score.phase:14} {score.acknowledged:>9,} values  median {_value(score.served)}"
        f"  exact {_value(score.exact)}  off by {percent(score.error)}"
        f"  certificate {percent(score.certificate)}  sent {_share_sent(score)}"
    )


def _numbers(score: Score) -> Table:
    return _grid(
        ("exact median", _value(score.exact), ""),
        ("served median", _value(score.served), ""),
        ("true rank error", percent(score.error), _gauge(score, score.error, "green")),
        ("certificate", percent(score.certificate), _gauge(score, score.certificate, "yellow")),
        ("epsilon", percent(score.epsilon), "the length of both bars"),
        ("answers checked", f"{score.checked:,}", "each against all values"),
        *_traffic(score),
    )


def result(score: Score) -> RenderableType:
    """What is left to say when a replay has ended, and no promise was broken."""
    grid = _grid(
        ("answers checked", f"{score.checked:,}", "each against all values"),
        ("not complete", f"{score.incomplete:,}", "these said so, and were not judged"),
        ("worst true rank error", percent(score.error_max), ""),
        ("worst certificate", percent(score.certificate_max), ""),
        ("epsilon", percent(score.epsilon), ""),
        ("values acknowledged", f"{score.acknowledged:,}", _left_out(score)),
        ("values counted", f"{score.counted:,}", "none lost, none counted twice"),
        *_traffic(score),
    )
    return _page(Group(Text("The promise was kept", style="bold"), "", grid))


def _left_out(score: Score) -> str:
    left = score.planned - score.acknowledged
    return f"time was over, {left:,} left out" if left else ""


def _traffic(score: Score) -> list[tuple[str, str, str]]:
    traffic = score.traffic
    share = f"{_share_sent(score)} of all {traffic.raw_bytes:,}; bodies only"
    return [("deltas", f"{traffic.deltas:,}", ""), ("bytes of deltas", f"{traffic.bytes:,}", share)]


def _page(content: RenderableType) -> RenderableType:
    return Constrain(Padding(content, (1, 2)), WIDTH_MAX)


def _grid(*rows: tuple[str, str, str | ProgressBar]) -> Table:
    grid = Table.grid(padding=(0, 3, 0, 0), expand=True)
    grid.add_column(style="dim", no_wrap=True, min_width=15)
    grid.add_column(justify="right", no_wrap=True, min_width=11)
    grid.add_column(ratio=1)
    for name, number, remark in rows:
        grid.add_row(name, number, Text(remark, "dim") if isinstance(remark, str) else remark)
    return grid


def _gauge(score: Score, share: float, style: str) -> ProgressBar:
    """A share beside epsilon."""
    total = score.epsilon or 1.0
    return ProgressBar(total=total, completed=share, complete_style=style, finished_style=style)


def _share_sent(score: Score) -> str:
    return percent(score.traffic.bytes / max(1, score.traffic.raw_bytes))


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:7.4f}"


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"
