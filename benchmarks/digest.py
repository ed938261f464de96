"""The digest beside its peers: speed, error, bytes; and what chose its constants.

    python -m benchmarks.digest peers      beside fastdigest, crick and DataSketches KLL, in one run
    python -m benchmarks.digest sizes      clusters held and errors made on every named stream
    python -m benchmarks.digest merges     clusters held after merging many digests
    python -m benchmarks.digest constants  what other values of the constants would cost

The machine may be busy: each time is the best of several rounds, every contender takes its turn in
each round, and what counts is the ratio. A peer that is not installed is left out, and said to be.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import shared.clusters
import shared.digest
from shared.digest import Digest
from shared.values import Floats
from tests.attack import Attack
from tests.exact import rank_errors
from tests.streams import STREAMS

BATCHES = {1: 200_000, 100: 1_000_000, 10_000: 4_000_000, 100_000: 4_000_000}  # size: values in all
ROUNDS = 5
Q = np.linspace(0, 1, 201)

app = typer.Typer(add_completion=False, help=__doc__.partition("\n")[0])
out = Console(width=120)


@dataclass(frozen=True)
class Contender:
    """One library under a common name for what they all do."""

    name: str
    make: Callable[[], Any]
    add: Callable[[Any, Floats], None]
    add_one: Callable[[Any], Callable[[float], None]]
    quantile: Callable[[Any, Floats], Floats]
    size: Callable[[Any], int]
    centroids: Callable[[Any], tuple[Floats, Any]] | None = None
    proven: str = "no"


def contenders() -> Iterator[Contender]:
    yield Contender(
        name="Digest(0.0005)",
        make=lambda: Digest(0.0005),
        add=lambda digest, batch: digest.add(batch),
        add_one=lambda digest: digest.add,
        quantile=lambda digest, q: digest.quantile(q),
        size=lambda digest: len(digest.to_bytes()),
        centroids=lambda digest: digest.centroids(),
        proven="yes",
    )
    if find_spec("fastdigest"):
        from fastdigest import TDigest as Fast  # noqa: PLC0415  optional

        yield Contender(
            name="fastdigest TDigest(2000)",
            make=lambda: Fast(max_centroids=2000),
            add=lambda digest, batch: digest.batch_update(batch),
            add_one=lambda digest: digest.update,
            quantile=lambda digest, q: np.array([digest.quantile(one) for one in q]),
            size=lambda digest: len(digest.to_bytes()),
            centroids=lambda digest: tuple(np.array(digest.centroids).T),
        )
    if find_spec("crick"):
        from crick import TDigest as Crick  # noqa: PLC0415  optional

        yield Contender(
            name="crick TDigest(1000)",
            make=lambda: Crick(1000),
            add=lambda digest, batch: digest.update(batch),
            add_one=lambda digest: digest.add,
            quantile=lambda digest, q: digest.quantile(q),
            size=lambda digest: digest.centroids().nbytes,
            centroids=lambda digest: (digest.centroids()["mean"], digest.centroids()["weight"]),
        )
    if find_spec("datasketches"):
        from datasketches import kll_doubles_sketch as kll  # noqa: PLC0415  optional

        yield Contender(
            name="DataSketches KLL(4096)",
            make=lambda: kll(4096),
            add=lambda sketch, batch: sketch.update(batch),
            add_one=lambda sketch: sketch.update,
            quantile=lambda sketch, q: np.array(sketch.get_quantiles(q)),
            size=lambda sketch: len(sketch.serialize()),
            proven="at 99 %",
        )


def ns_a_value(contender: Contender, batches: list[Floats]) -> float:
    """From the first value to the first answer, so that nothing is left undone in a buffer."""
    state = contender.make()
    values = sum(map(len, batches))
    if len(batches[0]) == 1:
        add, singles = contender.add_one(state), np.concatenate(batches).tolist()
        start = time.perf_counter()
        for value in singles:
            add(value)
    else:
        start = time.perf_counter()
        for batch in batches:
            contender.add(state, batch)
    contender.quantile(state, Q[100:101])
    return (time.perf_counter() - start) / values * 1e9


def us_a_question(contender: Contender, state: Any, values: list[float]) -> float:
    """Add one value, ask for the median, again and again: nothing gained from batches."""
    add = contender.add_one(state)
    start = time.perf_counter()
    for value in values:
        add(value)
        contender.quantile(state, Q[100:101])
    return (time.perf_counter() - start) / len(values) * 1e6


def error_of(contender: Contender, state: Any, given: Floats) -> float:
    errors = rank_errors(contender.quantile(state, Q), np.sort(given), Q * len(given))
    return float(errors.max() / len(given))


@dataclass
class Aimed:
    """A contender as the attack wants it: with a count."""

    contender: Contender
    state: Any
    count: int = 0

    def add(self, values: Any) -> None:
        self.count += len(values)
        if len(values):
            self.contender.add(self.state, values)

    def centroids(self) -> tuple[Floats, Any]:
        assert self.contender.centroids is not None  # noqa: S101  the caller has looked
        means, weights = self.contender.centroids(self.state)
        return means, weights.astype(np.int64)


def error_under_attack(contender: Contender) -> float:
    """The worst over several attacks, each reading this contender's own centroids."""
    worst = 0.0
    for decoys, shrink in ((0.1, 1 / 16), (0.2, 1 / 8), (0.3, 1 / 4)):
        for weight_limit in (0.0005, 0.001, 0.002, 0.004):
            victim = Aimed(contender, contender.make())
            given = Attack(1e150, decoys, shrink).on(victim, weight_limit)
            worst = max(worst, error_of(contender, victim.state, given))
    return worst


@app.command()
def peers() -> None:
    """Beside fastdigest, crick and DataSketches KLL, in the same run."""
    rng = np.random.default_rng(1)
    field = list(contenders())
    times: dict[tuple[str, int], float] = {}
    for size, total in BATCHES.items():
        batches = [rng.normal(size=size) for _ in range(total // size)]
        for _ in track(range(ROUNDS), f"batches of {size:,}", console=out, transient=True):
            for one in field:
                spent = ns_a_value(one, batches)
                times[one.name, size] = min(spent, times.get((one.name, size), np.inf))
    table = Table(
        title="ns a value, in batches of ...; us to add one and ask; worst of 201 quantiles"
    )
    headings = [f"{size:,}" for size in BATCHES]
    for heading in ("", *headings, "asked", "proven", "smooth", "attacked", "bytes"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    smooth = rng.normal(size=2_000_000)
    for one in track(field, "errors", console=out, transient=True):
        state = one.make()
        one.add(state, smooth)
        error, size_of_all = error_of(one, state, smooth), one.size(state)
        asked = us_a_question(one, state, smooth[:2_000].tolist())
        table.add_row(
            one.name,
            *(f"{times[one.name, size]:.1f}" for size in BATCHES),
            f"{asked:.0f}",
            one.proven,
            f"{error:.5%}",
            f"{error_under_attack(one):.3%}" if one.centroids else "-",
            f"{size_of_all:,}",
        )
    out.print(table)
    ours = field[0].name
    for one in field[1:]:
        ratio = times[one.name, 10_000] / times[ours, 10_000]
        out.print(f"batches of 10,000: {ratio:.1f} times as fast as {one.name}")
    missing = {"fastdigest", "crick", "datasketches"} - {
        name for name in ("fastdigest", "crick", "datasketches") if find_spec(name)
    }
    if missing:
        out.print(f"left out, because not installed: {', '.join(sorted(missing))}")


@app.command()
def sizes(rank_error: float = 0.001, values: int = 2_000_000) -> None:
    """Clusters held, the most at any time, and errors made, in units of 1 / rank_error."""
    table = Table(title=f"rank_error {rank_error}, {values:,} values, a question after every batch")
    for heading in ("stream", "batch", "clusters * rank_error", "proven", "worst", "mean"):
        table.add_column(heading, justify="left" if heading == "stream" else "right")
    for name in track(STREAMS, "streams", console=out, transient=True):
        for batch in (1_000, 20_000):
            given = STREAMS[name](values, np.random.default_rng(1))
            digest, most = Digest(rank_error), 0
            for start in range(0, values, batch):
                digest.add(given[start : start + batch])
                most = max(most, len(digest.clusters))
            answers = digest.quantile(Q)
            assert answers is not None  # noqa: S101  it was given values
            errors = rank_errors(answers, np.sort(given), Q * values) / values / rank_error
            proven = digest.rank_error / rank_error
            row = (most * rank_error, proven, errors.max(), errors.mean())
            table.add_row(name, f"{batch:,}", *(f"{number:.3f}" for number in row))
    out.print(table)


@app.command()
def merges(rank_error: float = 0.001, values: int = 20_000) -> None:
    """Clusters held after merging digests one after the other, and as a balanced tree."""
    table = Table(
        title=f"clusters * rank_error, rank_error {rank_error}, {values:,} values a digest"
    )
    for heading in ("stream", "digests", "one after the other", "as a tree", "proven", "without"):
        table.add_column(heading, justify="left" if heading == "stream" else "right")
    for name in ("calm", "drift", "inward"):
        for digests in (4, 16, 64, 256):
            given = STREAMS[name](digests * values, np.random.default_rng(1))
            parts, whole = np.split(given, digests), Digest(rank_error)
            whole.add(given)
            row, tree = Digest(rank_error), [Digest(rank_error) for _ in parts]
            for part, digest in zip(parts, tree, strict=True):
                digest.add(part)
                row.merge(digest)
            while len(tree) > 1:
                for one, other in zip(tree[::2], tree[1::2], strict=True):
                    one.merge(other)
                tree = tree[::2]
            proven = max(row.rank_error, tree[0].rank_error) / rank_error
            numbers = [len(digest.clusters) * rank_error for digest in (row, tree[0])]
            cells = (*numbers, proven, len(whole.clusters) * rank_error)
            table.add_row(name, str(digests), *(f"{number:.2f}" for number in cells))
    out.print(table)


@contextmanager
def changed(module: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    yield
    setattr(module, name, before)


CONSTANTS: list[tuple[Any, str, list[float]]] = [
    (shared.clusters, "ROOM", [0.5, 0.65, 0.8, 0.9, 1.0]),
    (shared.digest, "JOIN_GROWTH", [1.0, 1.25, 1.5, 2.0]),
    (shared.digest, "FLUSH", [8, 16, 32, 64]),
    (shared.digest, "FLUSH_MIN", [4096, 8192, 16384, 32768]),
]


@app.command()
def constants() -> None:
    """What other values of the constants would cost: ns a value and clusters * rank_error."""
    cases = [
        (f"{name} {rank_error}", rank_error, STREAMS[name](4_000_000, np.random.default_rng(1)))
        for rank_error in (0.0005, 0.01)
        for name in ("calm", "drift", "inward")
    ]
    table = Table(title="ns a value, and clusters * rank_error, batches of 10,000")
    for heading in ("constant", "value", *(name for name, _, _ in cases)):
        table.add_column(heading, justify="left" if heading == "constant" else "right")
    for module, name, choices in CONSTANTS:
        for value in track(choices, name, console=out, transient=True):
            with changed(module, name, value):
                cells = []
                for _, rank_error, given in cases:
                    spent, clusters = np.inf, 0
                    for _ in range(3):
                        digest = Digest(rank_error)
                        start = time.perf_counter()
                        for batch in np.split(given, 400):
                            digest.add(batch)
                        clusters = len(digest.clusters)
                        spent = min(spent, time.perf_counter() - start)
                    cells.append(f"{spent / len(given) * 1e9:.1f}  {clusters * rank_error:.1f}")
            table.add_row(name, f"{value:g}", *cells)
    out.print(table)


if __name__ == "__main__":
    app()
