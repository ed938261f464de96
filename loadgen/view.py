"""How a replay looks: live on a terminal, as plain lines elsewhere, and the table at its end."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadgen.auditor import Show
from loadgen.report import Latencies, Report

WIDTH_MAX = 90
FRAMES_A_SECOND = 8
LINES = 10  # plain ones, over a whole replay
LINE_S = 5.0  # between two, where nobody knows how long it will be

Row = tuple[str, str, str | ProgressBar]


@contextmanager
def view(console: Console, report: Report) -> Iterator[Show]:
    """Call what it gives whenever the report has changed."""
    if console.is_terminal:
        live = _LiveView(report)
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
    def __init__(self, report: Report) -> None:
        self._report = report
        of = f" of {report.planned:,}" if report.planned else ""
        digits = len(f"{report.planned or 10**9:,}")  # as wide from the beginning: nothing jumps
        self._progress = Progress(
            TextColumn("{task.description:14}"),
            BarColumn(bar_width=None, complete_style="blue", finished_style="blue"),
            TextColumn(f"{{task.fields[values]:>{digits},}}{of} values"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            expand=True,
        )
        self._task = self._progress.add_task("", total=None, values=0)

    def __call__(self, report: Report) -> None:
        share = report.share_done
        self._progress.update(
            self._task,
            total=None if share is None else 1.0,
            completed=share or 0.0,
            values=report.acknowledged,
            description=report.label,
        )

    def render(self) -> RenderableType:
        what = [Text(self._report.what, style="dim")] if self._report.what else []
        return _page(Group(self._progress, *what, "", _numbers(self._report)))


class _PlainView:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_share, self._next_s = 0.0, 0.0

    def __call__(self, report: Report) -> None:
        share = report.share_done
        is_due = report.seconds >= self._next_s if share is None else share >= self._next_share
        if report.acknowledged and is_due:
            self._next_share, self._next_s = (share or 0.0) + 1 / LINES, report.seconds + LINE_S
            self._console.print(_line(report), soft_wrap=True)


def _line(report: Report) -> str:
    median = f"median {_value(report.median)}"
    if report.verify and report.exact is not None:
        median = f"median {_value(report.beside_exact)}  exact {_value(report.exact)}"
    if report.verify:
        median += f"  off by {percent(report.error)}"
    return (
        f"{report.label:14} {report.acknowledged:>9,} values  {median}"
        f"  certificate {percent(report.certificate)}  sent {_sent(report)}"
    )


def _numbers(report: Report) -> Table:
    gauges = [("certificate", report.certificate, "yellow")]
    rows: list[Row] = [("median", _value(report.median), "")]
    if report.verify:
        gauges.insert(0, ("true rank error", report.error, "green"))
        rows.append(("exact median", _value(report.exact), "when last nothing was in flight"))
    rows += [(name, percent(share), _gauge(report, share, style)) for name, share, style in gauges]
    rows.append(("epsilon", percent(report.epsilon), "the length of a bar"))
    if report.verify:
        rows.append(("answers checked", f"{report.checked:,}", "each against all values"))
    rows.append(("latency", *_latency(report.posts)))
    rows += [("values a second", f"{report.values_a_second:,.0f}", ""), *_traffic(report)]
    return _grid(*rows)


def result(report: Report, *, times: bool = True) -> RenderableType:
    """What is left to say at the end; without times where they were not the services' doing."""
    some = _times(report) if times else []
    grid = _grid(*_promise(report), *_counts(report), *some, *_traffic(report))
    return _page(Group(Text(_headline(report), style="bold"), "", grid, *_breaches(report)))


def _headline(report: Report) -> str:
    if report.broken:
        return f"The promise was broken, {report.broken:,} times"
    if report.stopped_early:
        return "Stopped before the end"
    return "The promise was kept" if report.verify else "Replayed"


def _breaches(report: Report) -> list[RenderableType]:
    return ["", *(Text(f"- {breach}") for breach in report.breaches)] if report.breaches else []


def _promise(report: Report) -> list[Row]:
    if not report.verify:
        return [("median", _value(report.median), ""), ("epsilon", percent(report.epsilon), "")]
    return [
        ("answers checked", f"{report.checked:,}", f"{report.quiet:,} with nothing in flight"),
        ("not complete", f"{report.incomplete:,}", "these said so, and were not judged"),
        ("worst true rank error", percent(report.error_max), ""),
        ("worst certificate", percent(report.certificate_max), ""),
        ("epsilon", percent(report.epsilon), ""),
    ]


def _counts(report: Report) -> list[Row]:
    counted = "none lost, none counted twice" if report.verify and not report.broken else ""
    left = (report.planned or 0) - report.acknowledged - report.left_out
    rows: list[Row] = [
        (
            "values acknowledged",
            f"{report.acknowledged:,}",
            f"{left:,} not sent" if left > 0 else "",
        ),
        ("values counted", f"{report.counted:,}", counted),
    ]
    if report.left_out:
        rows.append(("left out", f"{report.left_out:,}", "no values"))
    return rows


def _times(report: Report) -> list[Row]:
    busy = report.processor_s / max(report.seconds, 1e-9)
    own = f"{100 * busy:.0f} % of a core was spent here"
    repeated = f"{report.repeated:,} repeated" if report.repeated else ""
    rows: list[Row] = [
        ("seconds", f"{report.seconds:,.1f}", own),
        ("values a second", f"{report.values_a_second:,.0f}", ""),
        ("requests", f"{report.requests:,}", repeated),
        ("their latency", *_latency(report.posts)),
        ("that of answers", *_latency(report.asked)),
        ("answers were behind", *_latency(report.stale)),
    ]
    if report.late_s_max:
        rows.insert(
            4, ("late to leave", _seconds(report.late_s_max), "at most, and part of latency")
        )
    return rows


def _latency(latencies: Latencies) -> tuple[str, str]:
    """The middle, and how the rest are."""
    facts = latencies.facts
    if not facts:
        return "-", ""
    return (
        _seconds(facts["p50"]),
        f"99 % within {_seconds(facts['p99'])}, all {_seconds(facts['max'])}",
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def _traffic(report: Report) -> list[Row]:
    traffic = report.traffic
    share = f"{_sent(report)} of all {traffic.raw_bytes:,}; bodies only"
    return [("deltas", f"{traffic.deltas:,}", ""), ("bytes of deltas", f"{traffic.bytes:,}", share)]


def _sent(report: Report) -> str:
    return percent(report.share_sent) if report.traffic.raw_bytes else "-"


def _page(content: RenderableType) -> RenderableType:
    return Constrain(Padding(content, (1, 2)), WIDTH_MAX)


def _grid(*rows: Row) -> Table:
    grid = Table.grid(padding=(0, 3, 0, 0), expand=True)
    grid.add_column(style="dim", no_wrap=True, min_width=15)
    grid.add_column(justify="right", no_wrap=True, min_width=11)
    grid.add_column(ratio=1)
    for name, number, remark in rows:
        grid.add_row(name, number, Text(remark, "dim") if isinstance(remark, str) else remark)
    return grid


def _gauge(report: Report, share: float, style: str) -> ProgressBar:
    """A share beside epsilon."""
    total = report.epsilon or 1.0
    return ProgressBar(total=total, completed=share, complete_style=style, finished_style=style)


def _value(value: float | None) -> str:
    """As wide as its neighbours; seven digits, however large."""
    return "-" if value is None else f"{value:7.4f}" if abs(value) < 1e6 else f"{value:.6g}"


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"
