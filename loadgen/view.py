"""How a replay looks: live on a terminal, as plain lines elsewhere, and the table at its end."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich import console
from rich.console import Group, RenderableType
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
LINE_S = 5.0  # between two, at most
SHOWN_S = 0.001  # what is less is not worth a row

Row = tuple[str, str, str | ProgressBar]


class Console(console.Console):
    """One that leaves it to others what to do where nobody reads any more."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@contextmanager
def view(on: Console, report: Report) -> Iterator[Show]:
    """Call what it gives whenever the report has changed."""
    if on.is_terminal:
        live = _LiveView(report)
        with Live(
            get_renderable=live.render,
            console=on,
            refresh_per_second=FRAMES_A_SECOND,
            transient=True,
        ):
            yield live
    else:
        yield _PlainView(on)


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
    def __init__(self, on: Console) -> None:
        self._console = on
        self._next_share, self._next_s = 0.0, 0.0

    def __call__(self, report: Report) -> None:
        share = report.share_done or 0.0
        is_due = share >= self._next_share and report.share_done is not None
        if report.sent and (is_due or report.seconds >= self._next_s):
            self._next_share, self._next_s = share + 1 / LINES, report.seconds + LINE_S
            self._console.print(_line(report), soft_wrap=True)


def _line(report: Report) -> str:
    """Side by side stands what is of one moment."""
    median, error = report.median, report.error
    if report.exact is not None:
        median, error = report.beside_exact, report.beside_error
    told = f"median {_value(median)}"
    if report.exact is not None:
        told += f"  exact {_value(report.exact)}"
    if report.verify:
        told += f"  off by {percent(error) if report.checked else '-'}"
    certificate = percent(report.certificate) if report.median is not None else "-"
    told += f"  certificate {certificate}  sent {_sent(report)}"
    told += f"  repeated {report.repeated:,}" if report.repeated else ""
    return f"{report.label:14} {report.acknowledged:>9,} values  {told}"


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
        return "The promise was broken" + (
            f", {report.broken:,} times" if report.broken > 1 else ""
        )
    if report.failed:
        return "It could not be done"
    if report.stopped_early:
        return "Stopped before the end"
    return "The promise was kept" if report.verify else "Replayed"


def _breaches(report: Report) -> list[RenderableType]:
    return ["", *(Text(f"- {one}") for one in report.breaches)] if report.breaches else []


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
    counted = "none lost, none counted twice" if report.settled and not report.broken else ""
    unsure = report.sent - report.acknowledged
    left = max(0, (report.planned or 0) - report.sent - report.left_out)
    remarks = [f"{unsure:,} more may be counted or not"] if unsure else []
    remarks += [f"{left:,} not sent"] if left else []
    rows: list[Row] = [
        ("values acknowledged", f"{report.acknowledged:,}", ", ".join(remarks)),
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
        ("latency of requests", *_latency(report.posts)),
        ("latency of answers", *_latency(report.asked)),
        ("answers behind by", *_latency(report.stale)),
    ]
    if report.late_s_max:
        rows.insert(
            4, ("late to leave", _seconds(report.late_s_max), "at most, and part of latency")
        )
    if report.input_late_s >= SHOWN_S:
        rows.append(("input was late", _seconds(report.input_late_s), "in all, and not of latency"))
    if report.unanswered:
        rows.append(("not answered", f"{report.unanswered:,}", "of the questions for the median"))
    return rows


def _latency(latencies: Latencies) -> tuple[str, str]:
    """What half of them take at most; and how the rest are."""
    facts = latencies.facts
    if not facts:
        return "-", ""
    return (
        _seconds(facts["p50"]),
        f"half; 99 % {_seconds(facts['p99'])}, all {_seconds(facts['max'])}",
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
