"""How little is said: bytes on the wire, beside two ways to say it that need no theorem.

    python -m benchmarks.communication cells      eight cases, beside what a prototype reached
    python -m benchmarks.communication table      every stream, few and many workers, short and long
    python -m benchmarks.communication constants  what other values of the constants would cost

What is played
--------------
An outbox for each worker and one ledger, in one process, with all bytes between them packed and
unpacked as for the wire, and ids as long as real ones. No time passes: nobody lingers, no heart
beats, and each delta travels in a request of its own. Values arrive in batches, as they stand in
`Arrivals`; a delta that is due leaves, and is signed, before the next batch.

    on the wire  =  bodies of requests  +  HEADERS for each

HEADERS is all that HTTP is said to cost. The bodies of responses are a column of their own. The
share is that of 8 bytes a value; `!` stands beside it where sending the values was cheaper.

What is checked
---------------
At counts that grow by 30 %, the median is ranked among all values that arrived. Its certificate
must not be less than its true error: if it ever is, the run stops. Both are shown as their worst,
in units of epsilon.

Beside it
---------
*Literal*: each worker sends a digest of its new values whenever there are epsilon / 2 times as many
as it has covered, looked at after each batch: 2 / epsilon centroids, or as many as there are new
values. The prototype's numbers, 0.78 % and 7.2 %, follow from 6 bytes a centroid and 40 for names
and counts in each body, so that is charged here. It is kind: mean and weight in 8 bytes each would
make them 1.4 % and 17 %.

*Flushed*: every T values, all workers that have any new ones send a digest of them, on a timer, as
metric forwarders do: 100 centroids of 16 bytes, which is what common ones use, or as many as there
are new values. T is the largest of a geometric grid for which the median just before a flush is
never further off than ours ever was, looked at as often. The forwarder is favoured three times: its
digests are taken to be exact, it is judged only after the first tenth of the values, and it loses
nothing on the way. `>` stands where even a flush for each batch is further off than ours.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import get_context

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

import shared.drawing
import shared.outbox
import shared.wording
from benchmarks.digest import changed
from shared.digest import Digest
from shared.ledger import Ledger
from shared.outbox import Outbox
from shared.protocol import (
    COARSEST,
    Form,
    Receipt,
    Source,
    pack_request,
    pack_response,
    unpack_delta,
    unpack_request,
    unpack_response,
)
from shared.values import Floats

HEADERS = 200  # bytes a push: what lean HTTP costs
RAW = 8  # bytes a value
BATCH = 1_000
NOW = 0.0
SEED = 1
GROWTH = 1.3  # from one checkpoint to the next
LITERAL_BODY, LITERAL_CENTROID = 40, 6  # bytes
FLUSHED_CENTROID, FLUSHED_CENTROIDS = 16, 100
JUDGED_FROM = 1 / 10  # of all values: there the forwarder's errors begin to count
T_GROWTH = 1.5
PROCESSES = 2
Pool = get_context("fork").Pool  # forked, so that they see constants that were changed

app = typer.Typer(add_completion=False, help=__doc__.partition("\n")[0])
out = Console(width=150)


class BrokenCertificate(RuntimeError):
    """An answer was further off than it was proven to be."""


@dataclass(frozen=True)
class Arrivals:
    """All values in the order they arrive, in batches: where each ends, and whose it is."""

    values: Floats
    ends: NDArray[np.int64]
    workers: NDArray[np.int64]

    def __iter__(self) -> Iterator[tuple[int, Floats]]:
        starts = np.append(0, self.ends[:-1])
        for worker, start, end in zip(self.workers, starts, self.ends, strict=True):
            yield int(worker), self.values[start:end]

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.diff(self.ends, prepend=0)


def in_turns(values: Floats, k: int, batch: int = BATCH) -> Arrivals:
    ends = np.append(np.arange(batch, len(values), batch), len(values))
    return Arrivals(values, ends, np.arange(len(ends)) % k)


def identical(n: int, k: int, rng: np.random.Generator) -> Arrivals:
    return in_turns(rng.normal(size=n), k)


def own_means(n: int, k: int, rng: np.random.Generator) -> Arrivals:
    return in_turns(rng.normal(size=n) + 10.0 * (np.arange(n) // BATCH % k), k)


def sine(n: int, k: int, rng: np.random.Generator) -> Arrivals:
    return in_turns(rng.normal(size=n) + 10 * np.sin(np.linspace(0, 20, n)), k)


def globally_sorted(n: int, k: int, _rng: np.random.Generator) -> Arrivals:
    return in_turns(np.arange(n, dtype=np.float64), k)


def bursts(n: int, k: int, rng: np.random.Generator) -> Arrivals:
    """In the last fifth of each of k rounds one worker bursts far away, the others are quiet."""
    calm = in_turns(rng.normal(size=n), k)
    round_, way = np.divmod(np.arange(len(calm.ends)) * k / len(calm.ends), 1)
    burst = np.repeat(way >= 0.8, calm.sizes)
    values = np.where(burst, 100 + 0.1 * calm.values, calm.values)
    return Arrivals(values, calm.ends, np.where(way >= 0.8, round_.astype(int), calm.workers))


def skewed_nodes(n: int, k: int, rng: np.random.Generator) -> Arrivals:
    """Few nodes with most of the values, and each its own mean; who has any left takes turns."""
    share = rng.pareto(1.1, size=k) + 1
    sizes = np.maximum(1, (share / share.sum() * n).astype(np.int64))
    sizes[sizes.argmax()] += n - sizes.sum()
    workers = np.repeat(np.arange(k), -(-sizes // BATCH))
    turn = np.concatenate([np.arange(-(-size // BATCH)) for size in sizes])
    order = np.lexsort((workers, turn))
    workers, turn = workers[order], turn[order]
    lengths = np.minimum(BATCH, sizes[workers] - turn * BATCH)
    means = 10 * rng.normal(size=k)
    values = rng.normal(size=n) + np.repeat(means[workers], lengths)
    return Arrivals(values, lengths.cumsum(), workers)


def single_values(n: int, k: int, rng: np.random.Generator) -> Arrivals:
    return in_turns(rng.normal(size=n), k, batch=1)


Stream = Callable[[int, int, np.random.Generator], Arrivals]
STREAMS: dict[str, Stream] = {
    "identical workers": identical,
    "each its own mean": own_means,
    "slow sine drift": sine,
    "globally sorted": globally_sorted,
    "bursts": bursts,
    "skewed nodes": skewed_nodes,
    "single values": single_values,
}


@dataclass(frozen=True)
class Case:
    stream: str
    k: int
    n: int
    epsilon: float

    def arrivals(self) -> Arrivals:
        return STREAMS[self.stream](self.n, self.k, np.random.default_rng(SEED))


@dataclass
class Said:
    """What was said, and how true it was: errors as shares of all ranks."""

    case: Case
    forms: dict[Form, int] = field(default_factory=lambda: dict.fromkeys(Form, 0))
    requests: int = 0  # bytes of bodies
    responses: int = 0
    error: float = 0.0
    certificate: float = 0.0

    @property
    def wire(self) -> int:
        return self.requests + HEADERS * sum(self.forms.values())

    @property
    def share(self) -> float:
        return self.wire / (RAW * self.case.n)


def played(case: Case, arrivals: Arrivals) -> Said:
    """Every batch through the outbox of its worker, and every due delta through the ledger."""
    rng = np.random.default_rng(SEED)
    ledger = Ledger(case.epsilon, number=_number(rng), now=NOW)
    outboxes = [_outbox(f"worker-{at + 1}", case.epsilon, rng) for at in range(case.k)]
    said, count, next_ = Said(case), 0, 1.0
    for worker, batch in arrivals:
        outboxes[worker].add(batch, now=NOW)
        _speak(outboxes[worker], ledger, said)
        count += len(batch)
        if count >= next_ or count == case.n:
            _check(ledger, arrivals.values[:count], said)
            next_ = count * GROWTH
    return said


def _number(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63, 2**64, dtype=np.uint64))


def _outbox(worker: str, epsilon: float, rng: np.random.Generator) -> Outbox:
    source = Source(worker, "default", _number(rng))
    return Outbox(source, Digest(epsilon * COARSEST), now=NOW)


def _speak(outbox: Outbox, ledger: Ledger, said: Said) -> None:
    while outbox.due and (delta := outbox.delta(now=NOW)):
        request = pack_request([delta])
        response = pack_response([ledger.receive(one, now=NOW) for one in unpack_request(request)])
        said.requests += len(request)
        said.responses += len(response)
        said.forms[unpack_delta(delta).form] += 1
        (receipt,) = unpack_response(response)
        if not isinstance(receipt, Receipt):
            raise TypeError(receipt.sentence)
        outbox.receive(receipt, now=NOW)


def _check(ledger: Ledger, arrived: Floats, said: Said) -> None:
    estimate = ledger.answer(now=NOW).estimate
    if estimate is None:
        raise BrokenCertificate("values arrived, and there is no median")
    error, certificate = rank_error(estimate.value, arrived), estimate.rank_error
    if error > certificate:
        raise BrokenCertificate(
            f"{said.case}: after {len(arrived):,} values the median is off by {error}, "
            f"and was proven to be off by no more than {certificate}"
        )
    said.error = max(said.error, error)
    said.certificate = max(said.certificate, certificate)


def rank_error(value: float, arrived: Floats) -> float:
    """How far half of all ranks is from the ranks of this value, as a share of all; by counting."""
    half = len(arrived) / 2
    below, upto = np.count_nonzero(arrived < value), np.count_nonzero(arrived <= value)
    return max(0.0, below - half, half - upto) / len(arrived)


def literal(case: Case, arrivals: Arrivals) -> int:
    """Bytes of a digest of what is new whenever that is epsilon / 2 of what is covered."""
    covered, pending, bytes_ = [0] * case.k, [0] * case.k, 0
    for worker, size in zip(arrivals.workers.tolist(), arrivals.sizes.tolist(), strict=True):
        pending[worker] += size
        if pending[worker] >= max(1.0, case.epsilon * covered[worker] / 2):
            centroids = min(math.ceil(2 / case.epsilon), pending[worker])
            bytes_ += HEADERS + LITERAL_BODY + LITERAL_CENTROID * centroids
            covered[worker] += pending[worker]
            pending[worker] = 0
    return bytes_


@dataclass(frozen=True)
class Flushed:
    every: int  # values, of all workers together
    bytes: int
    good_enough: bool


def flushed(arrivals: Arrivals, error: float) -> Flushed:
    """On the slowest timer that is never further off than that; found by halving the grid."""
    n = len(arrivals.values)
    first = n / len(arrivals.ends)
    grid = [round(first * T_GROWTH**at) for at in range(int(math.log(n / first, T_GROWTH)) + 1)]
    good, bad = -1, len(grid)
    while bad - good > 1:
        middle = (good + bad) // 2
        if _is_off_by(arrivals.values, grid[middle], error):
            bad = middle
        else:
            good = middle
    every = grid[max(good, 0)]
    return Flushed(every, _bytes_flushed(arrivals, every), good >= 0)


def _is_off_by(values: Floats, every: int, error: float) -> bool:
    """Is the median of what is flushed, just before the next flush, ever further off?"""
    count = len(values)
    while count >= JUDGED_FROM * len(values):
        if count <= every or rank_error(_median(values[: count - every]), values[:count]) > error:
            return True
        count = int(count / GROWTH)
    return False


def _median(values: Floats) -> float:
    half = len(values) // 2
    if len(values) % 2:
        return float(np.partition(values, half)[half])
    return float(np.partition(values, (half - 1, half))[half - 1 : half + 1].mean())


def _bytes_flushed(arrivals: Arrivals, every: int) -> int:
    flush = (arrivals.ends - 1) // every * (arrivals.workers.max() + 1) + arrivals.workers
    _, inverse = np.unique(flush, return_inverse=True)
    new = np.bincount(inverse, weights=arrivals.sizes)
    centroids = np.minimum(new, FLUSHED_CENTROIDS)
    return int((HEADERS + FLUSHED_CENTROID * centroids).sum())


@dataclass(frozen=True)
class Row:
    said: Said
    literal: int
    flushed: Flushed


def measured(case: Case) -> Row:
    arrivals = case.arrivals()
    said = played(case, arrivals)
    return Row(said, literal(case, arrivals), flushed(arrivals, said.error))


def share_alone(case: Case) -> float:
    return played(case, case.arrivals()).share


def percent(bytes_: int, case: Case) -> str:
    share = bytes_ / (RAW * case.n)
    return f"{share:.{2 if share < 0.1 else 1}%}{'!' if share > 1 else ''}"


PROTOTYPE = {  # stream: share at epsilon 5 %, at 1 %, of the literal trigger and of the prototype
    "identical workers": ((0.0078, 0.0026), (0.072, 0.0099)),
    "each its own mean": ((0.0078, 0.0026), (0.072, 0.0100)),
    "slow sine drift": ((0.0078, 0.0042), (0.072, 0.025)),
    "globally sorted": ((0.0078, 0.0057), (0.072, 0.0175)),
}
EPSILONS = (0.05, 0.01)


@app.command()
def cells() -> None:
    """Eight cases, beside what a prototype reached: 8 workers, 10 million values."""
    cases = [Case(name, 8, 10_000_000, epsilon) for epsilon in EPSILONS for name in PROTOTYPE]
    table = Table(title="share of raw, 8 workers, 10 million values; errors in units of epsilon")
    headings = (
        "ours",
        "prototype",
        "literal",
        "prototype's",
        "with receipts",
        "error",
        "certificate",
    )
    _headed(table, ("stream", "epsilon", *headings))
    with Pool(PROCESSES) as pool:
        rows = pool.imap(measured_without_timer, cases)
        for row in track(rows, "cases", len(cases), console=out, transient=True):
            table.add_row(*_beside_prototype(row))
    out.print(table)


def measured_without_timer(case: Case) -> Row:
    arrivals = case.arrivals()
    return Row(played(case, arrivals), literal(case, arrivals), Flushed(0, 0, good_enough=False))


def _headed(table: Table, headings: Iterable[str]) -> None:
    for at, heading in enumerate(headings):
        table.add_column(heading, justify="right" if at else "left", no_wrap=True)


def _beside_prototype(row: Row) -> Iterator[str]:
    case = row.said.case
    prototype_literal, prototype = PROTOTYPE[case.stream][EPSILONS.index(case.epsilon)]
    yield from (case.stream, f"{case.epsilon:.0%}")
    yield from (percent(row.said.wire, case), f"{prototype:.2%}")
    yield from (percent(row.literal, case), f"{prototype_literal:.2%}")
    yield percent(row.said.wire + row.said.responses, case)
    yield from _errors(row.said)


def _errors(said: Said) -> Iterator[str]:
    yield f"{said.error / said.case.epsilon:.3f}"
    yield f"{said.certificate / said.case.epsilon:.3f}"


def every_case(*, quick: bool) -> list[Case]:
    """By stream, the cheap ones first."""
    few = [(8, 1_000_000)]
    sizes = few if quick else [*few, (8, 10_000_000), (100, 1_000_000), (100, 10_000_000)]
    own = {"skewed nodes": [(1_000, 1_000_000)], "single values": [(100, 100_000)]}
    return [
        Case(name, k, n, epsilon)
        for name in STREAMS
        for k, n in own.get(name, sizes)
        for epsilon in EPSILONS
    ]


COLUMNS = (
    "k", "n", "eps", "same/more/whole", "requests", "responses", "on the wire", "of raw",
    "literal", "flushed", "every", "error", "proven",
)  # fmt: skip


@app.command(name="table")
def whole_table(quick: bool = False) -> None:
    """Every stream, few and many workers, short and long; --quick: only the short ones of few."""
    cases = every_case(quick=quick)
    table: Table | None = None
    with Pool(PROCESSES) as pool:
        rows = track(pool.imap(measured, cases), "cases", len(cases), console=out, transient=True)
        for row, (case, next_) in zip(rows, pairwise([*cases, None]), strict=True):
            table = table or _table_of(row.said.case.stream)
            table.add_row(*_cells(row))
            if case and (next_ is None or next_.stream != case.stream):
                out.print(table)
                table = None


def _table_of(stream: str) -> Table:
    table = Table(title=f"{stream}: kB, shares of raw, errors in units of epsilon")
    _headed(table, COLUMNS)
    return table


def _cells(row: Row) -> Iterator[str]:
    said, case = row.said, row.said.case
    yield from (f"{case.k:,}", f"{case.n:,}", f"{case.epsilon:.0%}")
    yield "/".join(str(said.forms[form]) for form in Form)
    yield from (f"{bytes_ / 1000:,.1f}" for bytes_ in (said.requests, said.responses, said.wire))
    yield from (percent(said.wire, case), percent(row.literal, case))
    yield ("" if row.flushed.good_enough else ">") + percent(row.flushed.bytes, case)
    yield f"{row.flushed.every:,}"
    yield from _errors(said)


CONSTANTS: list[tuple[object, str, list[object]]] = [
    (
        shared.wording,
        "TOLERANCES",
        [(0.1,), (0.2,), (0.4,), (0.6, 0.45, 0.3, 0.15), (0.4, 0.25, 0.12, 0.05)],
    ),
    (shared.wording, "SAME", [0.5, 0.8]),
    (shared.outbox, "LATE", [0.0, 0.05, 0.1]),
    (shared.drawing, "HEIGHTS", [1, 3, 15]),
    (shared.drawing, "COARSENESS", [1 / 64, 1 / 32, 1 / 8]),
]


@app.command()
def constants(n: int = 1_000_000) -> None:
    """What other values of the constants would cost: share of raw, 8 workers."""
    names = ("identical workers", "slow sine drift", "globally sorted")
    cases = [Case(name, 8, n, epsilon) for epsilon in reversed(EPSILONS) for name in names]
    headings = [f"{case.stream.split()[-1]} {case.epsilon:.0%}" for case in cases]
    in_use = _shares(cases)
    for module, name, choices in CONSTANTS:
        table = Table(title=f"{name}: share of raw, 8 workers, {n:,} values")
        _headed(table, ("value", *headings))
        table.add_row(f"{getattr(module, name)} in use", *in_use)
        for value in track(choices, name, console=out, transient=True):
            with changed(module, name, value):
                table.add_row(str(value), *_shares(cases))
        out.print(table)


def _shares(cases: list[Case]) -> list[str]:
    with Pool(PROCESSES) as pool:
        return [f"{share:.3%}" for share in pool.map(share_alone, cases, chunksize=1)]


if __name__ == "__main__":
    app()
