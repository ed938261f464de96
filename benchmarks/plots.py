"""What docs/analysis.md shows: its plots, and the numbers of its tables.

    python -m benchmarks.plots all         every plot, into docs/images; six minutes
    python -m benchmarks.plots traffic     what is said against the number of values
    python -m benchmarks.plots trade       against epsilon, and against the number of workers
    python -m benchmarks.plots certificate what is proven and what is true, as values come
    python -m benchmarks.plots computation clusters, time a value, time an answer
    python -m benchmarks.plots operations  a table: how long each operation takes
    python -m benchmarks.plots doublings   a table: messages, beside what is derived
    python -m benchmarks.plots even        a table: from where on the values would cost more
    python -m benchmarks.plots failures    a table: what is said because something failed
    python -m benchmarks.plots deltas      how many a coordinator takes over HTTP

Played as in `benchmarks.communication`: a delta counts with 200 bytes of headers, no time passes,
and a delta that is due is signed before the next batch. All is seeded, and drawn without a date: so
only what shows times changes when it is drawn again.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import typer
import uvloop
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.communication import (
    BATCH,
    GROWTH,
    HEADERS,
    NOW,
    RAW,
    SEED,
    STREAMS,
    Arrivals,
    rank_error,
)
from benchmarks.services import EPSILON, a_coordinator, ask, exchange, filled, request
from coordinator_service.answers import Answers
from shared.digest import Digest
from shared.ledger import Ledger
from shared.outbox import LATE, Outbox
from shared.protocol import (
    Form,
    Receipt,
    Source,
    digest_error_for,
    pack_delta,
    pack_request,
    pack_response,
    unpack_delta,
)
from shared.rank_shift import OWN, POOL, Estimate, batch_shift, rank_shift
from shared.values import Floats
from shared.wording import worded
from tests.streams import STREAMS as VALUES

IMAGES = Path(__file__).parent.parent / "docs" / "images"
WIDTH, HEIGHT = 7.2, 2.9  # inches; 72 points each, so that a page shows it as wide as its text
INK, GREY = "#222222", "#777777"
COLOURS = ("#0072B2", "#D55E00", "#009E73")  # that nobody confuses (Okabe and Ito)
MARKS = ("o", "s", "^")
MOVING = ("identical workers", "slow sine drift", "globally sorted")
PATIENCE = (OWN[1] + POOL[1]) * (1 - LATE)  # of epsilon, of sources that have equally many values
SHIFT = (OWN[0] + POOL[0]) * (1 - LATE)  # the same of ranks

app = typer.Typer(add_completion=False, help=__doc__.partition("\n")[0])
out = Console(width=120)


@dataclass(frozen=True)
class Moment:
    """What was said until so many values had come."""

    count: int
    messages: int
    wire: int

    @property
    def share(self) -> float:
        return self.wire / (RAW * self.count)


def in_turns(values: Floats, k: int, batch: int) -> Arrivals:
    ends = np.append(np.arange(batch, len(values), batch), len(values))
    return Arrivals(values, ends, np.arange(len(ends)) % k)


def outbox(at: int, epsilon: float) -> Outbox:
    """With an id as long as real ones."""
    source = Source(f"worker-{at + 1}", "default", 2**63 + at)
    return Outbox(source, Digest(digest_error_for(epsilon)), now=NOW)


def told(
    arrivals: Arrivals, k: int, epsilon: float, looks: Iterable[float]
) -> Iterator[tuple[int, Ledger]]:
    """The ledger, whenever so many values have come."""
    ledger = Ledger(epsilon, number=2**63, now=NOW)
    outboxes = [outbox(at, epsilon) for at in range(k)]
    count, wanted = 0, sorted(looks)
    for worker, batch in arrivals:
        outboxes[worker].add(batch, now=NOW)
        exchange(outboxes[worker], ledger)
        count += len(batch)
        if wanted and count >= wanted[0]:
            yield count, ledger
            wanted = [look for look in wanted if look > count]


def growing(first: int, last: int) -> list[float]:
    steps = math.ceil(math.log(last / first, GROWTH))
    return [*(first * GROWTH**step for step in range(steps)), last]


def moment(count: int, ledger: Ledger) -> Moment:
    rows = list(ledger.rows)
    messages = sum(row.deltas for row in rows)
    return Moment(count, messages, sum(row.bytes_ for row in rows) + HEADERS * messages)


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


def made_anew(rows: int, rounds: int) -> float:
    """Seconds, after one row has changed; the best of some rounds."""
    ledger, changing = filled(rows)
    best = math.inf
    for turn in range(rounds):
        changing.add(np.full(100_000, float(turn)), now=NOW)
        exchange(changing, ledger)
        best = min(best, seconds(lambda: whole_answer(ledger)))
    return best


def whole_answer(ledger: Ledger) -> None:
    estimate = cast(Estimate, ledger.answer(now=NOW).estimate)
    _ = estimate.value, estimate.rank_error, estimate.low, estimate.high


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@app.command(name="all")
def every_plot() -> None:
    """Every plot, into docs/images."""
    for draw in (computation, certificate, traffic, trade):
        draw()


def listed(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(title=title)
    for at, heading in enumerate(headings):
        table.add_column(heading, justify="right" if at else "left")
    for row in rows:
        table.add_row(*map(str, row))
    out.print(table)


@app.command()
def operations() -> None:
    """How long each operation takes, at two sizes; the best of several tries."""
    few = dict(timed(epsilon=0.05, rank_error=0.0025, rows=100))
    many = dict(timed(epsilon=0.01, rank_error=0.0005, rows=1_000))
    rows = [(name, few[name], many[name]) for name in many]
    listed("microseconds", ("", "epsilon 5 %, 100 rows", "epsilon 1 %, 1,000 rows"), rows)


def each_of(add: Callable[[Any], object], values: Iterable[object]) -> None:
    for one in values:
        add(one)


def best(work: Callable[[], object], times: int, each: int = 1) -> str:
    spent = min(seconds(work) for _ in range(times)) * 1e6 / each
    return f"{spent:,.{2 if spent < 10 else 0}f}"


def timed(*, epsilon: float, rank_error: float, rows: int) -> Iterator[tuple[str, str]]:
    rng = np.random.default_rng(SEED)
    values = rng.normal(size=1_000_000)
    digest = Digest(rank_error)
    singles = values[:10_000].tolist()
    yield "Digest.add, one float", best(lambda: each_of(digest.add, singles), 5, 10_000)
    digest = Digest(rank_error)
    parts = np.split(values, 100)
    yield (
        "Digest.add, a batch of 10,000",
        best(lambda: each_of(digest.add, parts), 3, 100),
    )

    def asked() -> None:
        digest.add(0.5)
        digest.median()

    yield "Digest, one value and a question", best(asked, 50)
    yield "Digest.to_bytes", best(digest.to_bytes, 20)
    data = digest.to_bytes()
    yield "Digest.from_bytes", best(lambda: Digest.from_bytes(data), 20)
    source, ledger = Source("worker-1", "default", 2**63), Ledger(epsilon, number=2**63, now=NOW)
    box = Outbox(source, Digest(rank_error), now=NOW)
    box.add(values, now=NOW)
    exchange(box, ledger)
    add = partial(box.add, now=NOW)
    yield "Outbox.add, one float, no look", best(lambda: each_of(add, singles[:100]), 20, 100)
    (row,) = ledger.rows
    picture, allowance = row.picture, row.granted.allowance
    clusters = box.digest.clusters
    yield "a glance at 10,000 values", best(lambda: batch_shift(parts[0], picture), 20)
    yield "a look, nothing buffered", best(lambda: rank_shift(clusters, picture), 20)
    yield "wording: same", best(lambda: worded(clusters, picture, row.shift, allowance), 20)
    moved = Digest(rank_error)
    moved.add(np.append(values, values[:50_000] + 3))
    clusters_moved = moved.clusters
    yield (
        "wording: more or whole, drawn",
        best(lambda: worded(clusters_moved, picture, row.shift, allowance), 5),
    )
    yield from judged(epsilon, values, rank_error)
    ledger, _ = filled(rows)
    yield "an answer made anew, rows of 52 knots", f"{made_anew(rows, 5) * 1e6:,.0f}"
    answers = Answers(ledger, clock=lambda: NOW, wall=lambda: NOW)
    answers.median("default")
    yield (
        "GET /median, kept",
        best(lambda: [answers.median("default") for _ in range(1_000)], 5, 1_000),
    )


def judged(epsilon: float, values: Floats, rank_error: float) -> Iterator[tuple[str, str]]:
    """Of the ledger, by form: each on a ledger that can take it."""
    best_of: dict[Form, float] = {}
    for shift in range(5):
        ledger = Ledger(epsilon, number=2**63, now=NOW)
        box = Outbox(Source("worker-1", "default", 2**63), Digest(rank_error), now=NOW)
        for part in np.split(values + np.linspace(0, shift, len(values)), 1_000):
            box.add(part, now=NOW)
            while box.due and (delta := box.delta(now=NOW)):
                form = unpack_delta(delta).form
                start = time.perf_counter()
                receipt = ledger.receive(delta, now=NOW)
                spent = time.perf_counter() - start
                best_of[form] = min(spent, best_of.get(form, math.inf))
                box.receive(cast(Receipt, receipt), now=NOW)
    for form in Form:
        yield f"Ledger.receive, {form.name.lower()}", f"{best_of[form] * 1e6:,.0f}"


@app.command()
def doublings(k: int = 2, n: int = 1_000_000, batch: int = 100) -> None:
    """Messages of a worker while its values double, from a quarter of all of them on."""
    rows = []
    for epsilon in track((0.05, 0.01, 0.002), "doublings", console=out, transient=True):
        for stream, spans in (("identical workers", PATIENCE), ("globally sorted", SHIFT)):
            values = STREAMS[stream](n, 1, np.random.default_rng(SEED)).values
            runs = told(in_turns(values, k, batch), k, epsilon, [n / 4, n])
            quarter, whole = (moment(*one) for one in runs)
            measured = (whole.messages - quarter.messages) / k / 2
            wire = (whole.wire - quarter.wire) / (whole.messages - quarter.messages)
            derived = math.log(2) / (spans * epsilon)
            cells = f"{measured:.1f}", f"{derived:.1f}", f"{wire:.0f}"
            rows.append((stream, f"{epsilon:.1%}", *cells))
    headings = ("stream", "epsilon", "messages a doubling", "derived", "bytes each")
    listed(f"{k} workers, up to {n:,} values, batches of {batch}", headings, rows)


@app.command()
def even(k: int = 2) -> None:
    """Values of a worker after which all that was said is less than 8 bytes for each."""
    cases = [(batch, epsilon) for batch in (1, 10, 100, 1_000) for epsilon in LENGTHS]
    cells = {
        case: "not tried" if case in {(1, 0.001), (10, 0.001)} else evened(k, *case)
        for case in track(cases, "even", console=out, transient=True)
    }
    rows = [
        (f"{batch:,}", *(cells[batch, epsilon] for epsilon in LENGTHS))
        for batch in dict.fromkeys(batch for batch, _ in cases)
    ]
    headings = ("a batch", *(f"{epsilon * 100:g} %" for epsilon in LENGTHS))
    listed(f"values of each of {k} workers; normal data", headings, rows)


def evened(k: int, batch: int, epsilon: float) -> str:
    values = np.random.default_rng(SEED).normal(size=1_000_000)
    looks = growing(k * batch, len(values))
    before: Moment | None = None
    for count, ledger in told(in_turns(values, k, batch), k, epsilon, looks):
        now = moment(count, ledger)
        if now.share < 1:
            if before is None:
                return "at once"
            way = math.log(before.share) / math.log(before.share / now.share)
            return f"{before.count * (count / before.count) ** way / k:,.0f}"
        before = now
    return f"more than {len(values) / k:,.0f}"


@app.command()
def failures(n: int = 1_000_000) -> None:
    """What a source says because something failed, or because nothing happens; bodies only."""
    rows = []
    for epsilon in (0.05, 0.01):
        for title, found in failed(n, epsilon):
            requests, responses = (sum(map(len, part)) for part in zip(*found, strict=True))
            rows.append((title, f"{epsilon:.0%}", len(found), requests, responses))
    headings = ("", "epsilon", "deltas", "bytes of requests", "of responses")
    listed(f"a source of {n:,} normal values", headings, rows)


@app.command()
def deltas(sources: int = 5_000) -> None:
    """Deltas/s that a coordinator takes over HTTP, one a request, each of a source of its own."""
    digest = Digest(digest_error_for(EPSILON))
    digest.add(np.random.default_rng(SEED).normal(size=1_000_000))
    restored = Outbox(Source("worker", "default", 1), digest, now=NOW)
    first = unpack_delta(cast(bytes, restored.delta(now=NOW)))
    packed = [
        pack_delta(replace(first, source=Source(f"worker-{at}", "default", at)))
        for at in range(sources)
    ]
    requests = (
        request("POST", "/deltas", pack_request([one]), "application/msgpack") for one in packed
    )
    with a_coordinator() as (port, _):
        spent = seconds(lambda: uvloop.run(ask(port, requests, b"200", 8)))
    out.print(f"{sources / spent:,.0f} deltas/s, {len(packed[0])} bytes each, one a request")


Said = list[tuple[bytes, bytes]]


def failed(n: int, epsilon: float) -> Iterator[tuple[str, Said]]:
    values = np.random.default_rng(SEED).normal(size=n)
    box, ledger = outbox(0, epsilon), Ledger(epsilon, number=2**63, now=NOW)
    box.add(values[:1_000], now=NOW)
    yield "a source begins, with 1,000 values", settled(box, ledger, NOW)
    for part in np.split(values[1_000:], 999):
        box.add(part, now=NOW)
        exchange(box, ledger)
    box.flush()
    exchange(box, ledger)
    data = cast(bytes, box.delta(now=box.due_at))
    receipt = ledger.receive(data, now=NOW)
    again = ledger.receive(data, now=NOW)
    yield "a heartbeat", [(pack_request([data]), pack_response([receipt]))]
    yield "its response was lost: once more", [(pack_request([data]), pack_response([again]))]
    box.receive(cast(Receipt, again), now=NOW)
    another = Ledger(epsilon, number=2**62, now=NOW)
    yield "the coordinator forgot everything", settled(box, another, box.due_at)


def settled(box: Outbox, ledger: Ledger, now: float) -> Said:
    """What is said until the source is live, and all is covered."""
    said: Said = []
    while not said or box.due or not box.heard:
        now = max(now, box.due_at)
        data = cast(bytes, box.delta(now=now))
        answer = ledger.receive(data, now=now)
        said.append((pack_request([data]), pack_response([answer])))
        box.receive(cast(Receipt, answer), now=now)
    return said


if __name__ == "__main__":
    app()
