"""What things cost, for the tables of docs/analysis.md: in time, in messages, in bytes.

    python -m benchmarks.costs operations  how long each operation takes
    python -m benchmarks.costs doublings   messages, beside what is derived
    python -m benchmarks.costs even        from where on the values would cost more
    python -m benchmarks.costs failures    what is said because something failed
    python -m benchmarks.costs deltas      how many a coordinator takes over HTTP

What is derived
---------------
A source of `p` values, among others of as many, is granted `OWN` and its share of `POOL`, parts of
`epsilon p`: one of ranks, for its shift, one of pending values. It speaks when `LATE` of either is
left, after `SHIFT epsilon p` ranks or `PATIENCE epsilon p` values. From one delta to the next, `p`
grows by so many values; so, while `p` doubles, there are about

    ln 2 / (PATIENCE epsilon)   where data stay as they are, and the shift stays small
    ln 2 / (SHIFT epsilon)      where every value is larger than all before: each is a rank of shift

What is played
--------------
Outboxes and one ledger in one process, as in `benchmarks.communication`: no time passes, a delta
that is due is signed before the next batch, and each counts with HEADERS on top of its own bytes.
Of failures the bodies are counted, of requests and of responses. All is seeded: the same code says
the same again. Only times differ; they are the best of some tries, but for `deltas`, which is one
run, beside the client on the same machine.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import typer
import uvloop
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.communication import (
    GROWTH,
    HEADERS,
    NOW,
    RAW,
    SEED,
    STREAMS,
    Arrivals,
    in_turns,
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

    async def thousand() -> None:
        for _ in range(1_000):
            await answers.median("default")

    yield "GET /median, kept", best(lambda: asyncio.run(thousand()), 5, 1_000)


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


def best(work: Callable[[], object], times: int, each: int = 1) -> str:
    spent = min(seconds(work) for _ in range(times)) * 1e6 / each
    return f"{spent:,.{2 if spent < 10 else 0}f}"


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


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
    epsilons = 0.05, 0.01, 0.001
    cases = [(batch, epsilon) for batch in (1, 10, 100, 1_000) for epsilon in epsilons]
    cells = {
        case: "not tried" if case in {(1, 0.001), (10, 0.001)} else evened(k, *case)
        for case in track(cases, "even", console=out, transient=True)
    }
    rows = [
        (f"{batch:,}", *(cells[batch, epsilon] for epsilon in epsilons))
        for batch in dict.fromkeys(batch for batch, _ in cases)
    ]
    headings = ("a batch", *(f"{epsilon * 100:g} %" for epsilon in epsilons))
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


def listed(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(title=title)
    for at, heading in enumerate(headings):
        table.add_column(heading, justify="right" if at else "left")
    for row in rows:
        table.add_row(*map(str, row))
    out.print(table)


if __name__ == "__main__":
    app()
