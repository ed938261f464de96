"""What docs/analysis.md draws; its tables are made by `benchmarks.costs`.

    python -m benchmarks.plots all         every plot, into docs/images; six minutes
    python -m benchmarks.plots traffic     what is said against the number of values
    python -m benchmarks.plots trade       against epsilon, and against the number of workers
    python -m benchmarks.plots certificate what is proven and what is true, as values come
    python -m benchmarks.plots computation clusters, time a value, time an answer

What is played
--------------
As in `benchmarks.communication`: a delta counts with 200 bytes of headers, no time passes, and a
delta that is due is signed before the next batch. All is seeded, and drawn without a date: so only
what shows times changes when it is drawn again. A certificate that is less than the true error is
not drawn: the run stops.

What is derived
---------------
One line of `trade` is not measured: the messages of a source whose data stay as they are, in
batches of `m`. It speaks whenever `p` has grown by `1 / z` of itself, `z = 1 / (PATIENCE epsilon)`;
while that is less than a batch, until `p = m z`, each batch is a delta:

    n / m                     while n < m z
    z (1 + ln(n / (m z)))     from there on
"""

import math
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from benchmarks.communication import (
    BATCH,
    NOW,
    SEED,
    STREAMS,
    Arrivals,
    in_turns,
    rank_error,
)
from benchmarks.costs import PATIENCE, Moment, growing, made_anew, moment, told
from shared.digest import Digest
from shared.rank_shift import Estimate
from shared.values import Floats
from tests.streams import STREAMS as VALUES

IMAGES = Path(__file__).parent.parent / "docs" / "images"
WIDTH, HEIGHT = 7.2, 2.9  # inches; 72 points each, so that a page shows it as wide as its text
INK, GREY = "#222222", "#777777"
COLOURS = ("#0072B2", "#D55E00", "#009E73")  # that nobody confuses (Okabe and Ito)
MARKS = ("o", "s", "^")
MOVING = ("identical workers", "slow sine drift", "globally sorted")

app = typer.Typer(add_completion=False, help=__doc__.partition("\n")[0])
out = Console(width=120)


@cache
def history(stream: str, k: int, n: int, epsilon: float) -> tuple[Moment, ...]:
    """One run of n values, in batches of 1,000."""
    arrivals = STREAMS[stream](n, k, np.random.default_rng(SEED))
    looks = growing(k * BATCH, n)
    return tuple(moment(*one) for one in told(arrivals, k, epsilon, looks))


def panels(columns: int, height: float = HEIGHT) -> tuple[Figure, Sequence[Axes]]:
    mpl.rcParams.update({
        "svg.hashsalt": "running-median",
        "font.size": 9,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
    })  # fmt: skip
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for one in axes:
        one.grid(visible=True, which="major")
        one.set_axisbelow(True)
    return figure, axes


def kept(figure: Figure, name: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = IMAGES / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    out.print(f"{path.relative_to(Path.cwd())}, {path.stat().st_size / 1000:.0f} kB")


def percents(axis: Any) -> None:
    axis.set_major_formatter(lambda share, _: f"{100 * share:g} %")


def words(axes: Axes, at: tuple[float, float], text: str, colour: str, **more: Any) -> None:
    """Beside a line, in its colour: there are no legends."""
    where = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"} | more
    axes.annotate(text, at, color=colour, **where)


def counts(axis: Any) -> None:
    """Powers of ten as people write them."""
    axis.set_major_formatter(lambda count, _: short(count))


def short(count: float) -> str:
    for size, name in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g} {name}"
    return f"{count:g}"


LENGTHS = {0.05: (10_000_000, 3_000_000), 0.01: (10_000_000, 3_000_000), 0.001: (1_000_000,) * 2}


@app.command()
def traffic() -> None:
    """Bytes as a share of raw, against the number of values; 8 workers, batches of 1,000."""
    figure, axes = panels(3)
    lines = [(at, epsilon) for at in range(len(MOVING)) for epsilon in LENGTHS]
    for at, epsilon in track(lines, "traffic", console=out, transient=True):
        n = LENGTHS[epsilon][at > 0]
        said = history(MOVING[at], 8, n, epsilon)
        x, y = [one.count for one in said], [one.share for one in said]
        colour = COLOURS[list(LENGTHS).index(epsilon)]
        axes[at].loglog(x, y, color=colour)
        words(axes[at], (x[-1], y[-1]), f"{epsilon * 100:g} %", colour)
    for at, panel in enumerate(axes):
        panel.set_title(MOVING[at])
        panel.axhline(1, color=GREY, linewidth=1, linestyle=":")
        panel.set_xlim(7e3, 8e7)
        panel.set_xticks([1e4, 1e5, 1e6, 1e7])
        panel.set_ylim(1e-3, 4)
        panel.minorticks_off()
        counts(panel.xaxis)
        percents(panel.yaxis)
        panel.tick_params(labelleft=at == 0)
    axes[0].set_ylabel("bytes said, of 8 a value")
    axes[2].annotate("the values themselves", (7e7, 1.1), color=GREY, ha="right", va="bottom")
    axes[0].annotate("epsilon", (1.4e6, 0.5), color=GREY)
    axes[1].set_xlabel("values that came, in all")
    kept(figure, "traffic")


EPSILONS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
WORKERS = (1, 3, 10, 30, 100, 300, 1_000)


@app.command()
def trade() -> None:
    """Bytes against epsilon, and messages against the number of workers; a million values."""
    figure, (left, right) = panels(2, 3.1)
    n = 1_000_000
    for at, stream in enumerate(track(MOVING, "epsilon", console=out, transient=True)):
        shares = [history(stream, 8, n, epsilon)[-1].share for epsilon in EPSILONS]
        left.loglog(EPSILONS, shares, color=COLOURS[at], marker=MARKS[at], markersize=3.5)
        lift = {"identical workers": 6, "slow sine drift": -7}.get(stream, 0)
        words(left, (EPSILONS[-1], shares[-1]), stream, COLOURS[at], xytext=(6, lift))
    left.set_xlim(0.13, 0.00008)
    left.set_xticks([0.1, 0.01, 0.001])
    left.set_ylim(3e-3, 1.2)
    percents(left.xaxis)
    percents(left.yaxis)
    left.set_xlabel("epsilon")
    left.set_title("bytes said, of 8 a value; 8 workers")
    batch, epsilon = 100, 0.05
    for at, stream in ((0, "identical workers"), (2, "globally sorted")):
        said = []
        for k in track(WORKERS, f"workers, {stream}", console=out, transient=True):
            values = STREAMS[stream](n, 1, np.random.default_rng(SEED)).values
            *_, last = told(in_turns(values, k, batch), k, epsilon, [n])
            said.append(moment(*last).messages)
        right.loglog(WORKERS, said, color=COLOURS[at], marker=MARKS[at], markersize=3.5)
        lift = 8 if at else -8
        words(right, (WORKERS[2], said[2]), stream, COLOURS[at], xytext=(-4 if at else 4, lift),
              ha="right" if at else "left")  # fmt: skip
    expected = [k * messages_expected(n / k, batch, epsilon) for k in WORKERS]
    right.loglog(WORKERS, expected, color=GREY, linestyle="--", linewidth=1)
    words(right, (1.3, expected[0]), "derived", GREY, xytext=(0, -9))
    right.axhline(n / batch, color=GREY, linewidth=1, linestyle=":")
    right.annotate("one for each batch", (1, 1.08 * n / batch), color=GREY, fontsize=8)
    right.set_ylim(20, 2e4)
    counts(right.xaxis)
    counts(right.yaxis)
    right.set_xlabel("workers")
    right.set_title("messages; epsilon 5 %, batches of 100")
    for panel in (left, right):
        panel.minorticks_off()
    kept(figure, "trade")


def messages_expected(values: float, batch: int, epsilon: float) -> float:
    """Of a source whose data stay as they are: by its patience, and one a batch while young."""
    spans = 1 / (PATIENCE * epsilon)
    young = batch * spans
    return values / batch if values < young else spans * (1 + math.log(values / young))


def two_islands(n: int, k: int, rng: np.random.Generator) -> Arrivals:
    """Half the workers at -1, half at +1; in the second half only the upper side grows."""
    calm = in_turns(rng.normal(size=n), k, BATCH)
    workers = np.repeat(calm.workers, calm.sizes)
    low = (workers % 2 == 0) & (np.arange(n) < n // 2)
    return Arrivals(np.where(low, -1, 1) + 0.1 * calm.values, calm.ends, calm.workers)


@app.command()
def certificate(n: int = 2_000_000, epsilon: float = 0.01) -> None:
    """The certificate and the true error, as values come; 8 workers."""
    figure, axes = panels(2)
    cases = {"two islands, then one": two_islands, "slow sine drift": STREAMS["slow sine drift"]}
    drawn = track(cases.items(), "certificate", len(cases), console=out, transient=True)
    for panel, (title, stream) in zip(axes, drawn, strict=True):
        arrivals = stream(n, 8, np.random.default_rng(SEED))
        x, proven, true = [], [], []
        for count, ledger in told(arrivals, 8, epsilon, [*range(8_000, n, 10_000), n]):
            estimate = cast(Estimate, ledger.answer(now=NOW).estimate)
            x.append(count)
            proven.append(estimate.rank_error)
            true.append(rank_error(estimate.value, arrivals.values[:count]))
            if true[-1] > proven[-1]:
                raise RuntimeError(f"{title}: broken after {count:,} values")
        panel.plot(x, proven, color=COLOURS[0], linewidth=1.2)
        panel.plot(x, true, color=COLOURS[1], linewidth=1)
        panel.axhline(epsilon, color=INK, linestyle="--", linewidth=1)
        panel.annotate("epsilon", (n * 0.01, 1.02 * epsilon), va="bottom", color=INK)
        panel.annotate("proven", (n * 0.8, proven[-40] + 0.0004), color=COLOURS[0], va="bottom")
        panel.annotate("true", (n * 0.8, max(true[-60:]) + 0.0003), color=COLOURS[1], va="bottom")
        panel.set_title(title)
        panel.set_xlim(0, n)
        panel.set_ylim(0, 1.15 * epsilon)
        counts(panel.xaxis)
        percents(panel.yaxis)
        panel.set_xlabel("values that came, in all")
    axes[0].set_ylabel("rank error of the median")
    kept(figure, "certificate")


RANK_ERRORS = (0.01, 0.003, 0.001, 0.0005, 0.0002, 0.0001)
ROWS = (10, 30, 100, 300, 1_000, 3_000, 10_000)


@app.command()
def computation(n: int = 1_000_000, rounds: int = 9) -> None:
    """Clusters and time a value against the rank error, time an answer against the rows."""
    figure, (left, middle, right) = panels(3)
    for at, stream in enumerate(("calm", "drift", "inward")):
        values = VALUES[stream](n, np.random.default_rng(SEED))
        clusters, spent = [], []
        for one in track(RANK_ERRORS, stream, console=out, transient=True):
            runs = [filled_digest(values, one) for _ in range(rounds)]
            clusters.append(runs[0][0])
            spent.append(min(seconds for _, seconds in runs) / n * 1e9)
        for panel, y in ((left, clusters), (middle, spent)):
            panel.plot(RANK_ERRORS, y, color=COLOURS[at], marker=MARKS[at], markersize=3.5)
            lift = {"drift": -5, "inward": 5}.get(stream, 0)
            words(panel, (RANK_ERRORS[-1], y[-1]), stream, COLOURS[at], xytext=(5, lift))
    for panel, title in ((left, "clusters held"), (middle, "ns a value")):
        panel.set_xscale("log")
        panel.set_xlim(0.014, 0.000018)
        panel.set_xticks([0.01, 0.001, 0.0001])
        panel.set_title(title)
        panel.set_xlabel("rank error of the digest")
        percents(panel.xaxis)
        panel.minorticks_off()
    left.set_yscale("log")
    left.set_yticks([100, 1_000, 10_000])
    left.minorticks_off()
    counts(left.yaxis)
    middle.set_ylim(bottom=0)
    spent = [made_anew(rows, rounds) * 1e3 for rows in track(ROWS, "rows", console=out)]
    right.loglog(ROWS, spent, color=INK, marker="o", markersize=3.5)
    right.set_title("ms to make an answer anew")
    right.set_xlabel("rows, of 52 knots")
    right.set_yticks([1, 3, 10, 30])
    right.minorticks_off()
    counts(right.xaxis)
    counts(right.yaxis)
    kept(figure, "computation")


def filled_digest(values: Floats, rank_error: float) -> tuple[int, float]:
    digest, start = Digest(rank_error), time.perf_counter()
    for at in range(0, len(values), 10_000):
        digest.add(values[at : at + 10_000])
    return len(digest.clusters), time.perf_counter() - start


@app.command(name="all")
def every_plot() -> None:
    """Every plot, into docs/images."""
    for draw in (computation, certificate, traffic, trade):
        draw()


if __name__ == "__main__":
    app()
