"""Storms: workers, a coordinator and a network that does its worst, from one seed.

Everything that can happen to the protocol happens here, in an order the seed decides: requests and
responses are lost, in one direction only too, repeated, delayed and overtaken; workers are cut off
for longer than anybody waits; both sides crash and come back with their memory, without it, or with
an old copy; epsilon is another after a restart; sources say goodbye; every clock has an origin and
a speed of its own. The code under test is the product's. Only the couriers are played.

The oracle keeps every value of every source, in order. After each event

* each row is a prefix: its picture is no further from the first `upto` values than it says;
* each source that is heard keeps its promise, by what is counted for it;
* wherever an answer is complete, its certificate is at least its true error, where truth is every
  acknowledged value and every value a row covers.

When the storm is over, all that a living source has acknowledged is counted, exactly once.

Three things no ledger can know, so the oracle does not ask for them. A copy that is older than a
source, or than its return from a goodbye, cannot miss it: that source counts from when it is heard
again. A worker restored from an old copy has lost what it acknowledged since, unless a row covers
it; the oracle forgets that too, and nobody restores any more what was copied of either side while
the same numbers were other values, nor does what was sent then arrive at an old copy. And what a
dead source had acknowledged beyond its row is lost; the ledger lists it as silent, for ever.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from shared.digest import Digest
from shared.ledger import Answer, Ledger, Outcome
from shared.outbox import NotTaken, Outbox
from shared.picture import Picture
from shared.protocol import (
    Receipt,
    Source,
    mark_of,
    pack_request,
    pack_response,
    unpack_delta,
    unpack_request,
    unpack_response,
)
from shared.rows import Row
from shared.values import Floats
from tests.exact import TALLY, rank_errors

TIMEOUT_S = 3.0  # a courier tries again so soon, while the first try may still arrive
HEARTBEAT_S = 5.0
STUCK_S = 60.0  # longer than anybody waits
STORM_S, CALM_S, TICK_S = 300.0, 150.0, 0.5
EPSILONS = (0.4, 0.2, 0.1)
DIGEST_ERROR = 0.005
QUANTILES = (0.5, 0.1, 0.9)

Place = tuple[str, str]
"""A worker and a stream: where one source at a time lives."""


@dataclass
class Clock:
    """Shows a time of its own, up to 2 % too fast or too slow."""

    origin: float
    speed: float

    def show(self, time: float) -> float:
        return self.origin + self.speed * time


@dataclass(eq=False)
class Life:
    """A source as it truly is: all its values in order, and the outbox that has them now."""

    outbox: Outbox
    values: list[float] = field(default_factory=list)
    received: int = 0  # so many were acknowledged
    met: int = 0  # the last start of the coordinator that it got through to
    request: int = -1  # the newest one
    waiting: bool = False
    sent: float = 0.0
    copies: list[bytes] = field(default_factory=list)

    @property
    def source(self) -> Source:
        return self.outbox.source


class Storm:
    """One run. `seen` counts what happened in it, so that a test can see that things do happen."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 3])
        self.seen: Counter[str] = Counter()
        self.time = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self._lives: list[Life] = []
        self._places: dict[Place, Life] = {}
        self._drawn_of: dict[bytes, Floats] = {}  # by mark: the values a delta covers
        self._sound: set[bytes] = set()  # marks of pictures that were looked at
        self._changed = True
        self._told: dict[tuple[str, float], tuple[int, int, Answer]] = {}
        self._loss = [self._one_of(0.0, 0.1, 0.5) for _ in ("there", "back")]
        self._repeat = self._one_of(0.0, 0.3)
        self._delay = self._one_of(0.01, 1.0, 4.0)
        self._stuck = self._one_of(0.0, 0.02, 0.2)
        self._cut: dict[str, list[bool]] = {}
        self._starts = 0
        self._old_rows: list[list[Row]] = []
        self._marks_recur = False  # a mark names one row for ever, but for one that was restored
        self._start_coordinator([])
        self._clocks = {f"w{one}": self._a_clock() for one in range(self._one_of(1, 2, 4))}
        for worker in self._clocks:
            for stream in ("default", "other")[: self._one_of(1, 2)]:
                self._begin((worker, stream))

    def run(self) -> None:
        time = 0.0
        while (time := time + self.rng.exponential(1.0)) < STORM_S:
            self._at(time, self._something)
        for tick in np.arange(0, STORM_S + CALM_S, TICK_S):
            self._at(tick, self._couriers)
        self._at(STORM_S, self._calm)
        while self._events and self._events[0][0] <= STORM_S + CALM_S:
            self.time, _, event = heapq.heappop(self._events)
            event()
            if self._changed:
                self._check()
        self._check_the_end()

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (float(time), next(self._number), event))

    def _one_of(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def _something(self) -> None:
        what = [self._some_values, self._weather, self._crash_worker, self._crash_coordinator]
        what += [self._say_goodbye, self._copy]
        likely = [0.83, 0.1, 0.015, 0.02, 0.005, 0.03]
        what[self.rng.choice(len(what), p=likely)]()

    def _weather(self) -> None:
        """Somebody is cut off, in one direction or both; or the cut is mended."""
        worker = self._one_of(*self._clocks)
        self._cut[worker] = [self._chance(share) for share in [self._one_of(0.0, 0.5, 1.0)] * 2]

    def _calm(self) -> None:
        self._loss, self._repeat, self._delay, self._cut = [0.0, 0.0], 0.0, 0.1, {}
        self._stuck = 0.0

    def _copy(self) -> None:
        """Backups, which somebody may restore much later."""
        self._old_rows.append(list(self._ledger.rows))
        for life in self._places.values():
            life.copies.append(life.outbox.digest.to_bytes())

    # Workers

    def _a_clock(self) -> Clock:
        return Clock(self.rng.uniform(-1e6, 1e6), self.rng.uniform(0.98, 1.02))

    def _now(self, worker: str) -> float:
        return self._clocks[worker].show(self.time)

    def _outbox(self, source: Source, digest: Digest) -> Outbox:
        return Outbox(source, digest, now=self._now(source.worker))

    def _begin(self, place: Place) -> None:
        source = Source(*place, int(self.rng.integers(2**63)))
        life = Life(self._outbox(source, Digest(DIGEST_ERROR)))
        self._lives.append(life)
        self._places[place] = life

    def _some_values(self) -> None:
        life = self._one_of(*self._places.values())
        size = self._one_of(1, 1, 1, 3, 3, 20, 100, 300)
        middle = self._one_of(0.0, self.time / 50, 5.0 * len(self._lives))
        values = middle + self._one_of(0.0, 1.0) * self.rng.normal(size=size).round(2)
        try:
            life.outbox.add(values, now=self._now(life.source.worker))
        except NotTaken:
            self.seen["batches not taken"] += 1
            return
        life.values += values.tolist()
        self._note(life)

    def _note(self, life: Life) -> None:
        assert life.outbox.count == len(life.values)
        self._changed |= life.outbox.acknowledged > life.received
        life.received = max(life.received, life.outbox.acknowledged)

    def _crash_worker(self) -> None:
        """All its sources: gone, or back from what was stored, or from an old copy of that."""
        worker = self._one_of(*self._clocks)
        self._clocks[worker] = self._a_clock()
        memory = self._one_of("whole", "whole", "none", "old")
        self.seen[f"workers restarted with memory {memory}"] += 1
        for place, life in list(self._places.items()):
            if place[0] == worker:
                self._restart(place, life, memory)

    def _restart(self, place: Place, life: Life, memory: str) -> None:
        stored = life.outbox.digest.to_bytes()
        if memory == "old" and life.copies:
            del life.copies[1 + self.rng.integers(len(life.copies)) :]
            stored = life.copies[-1]
        digest = Digest.from_bytes(stored)
        if memory == "none" or not digest.count:
            self._begin(place)
            return
        life.outbox = self._outbox(life.source, digest)
        life.values = life.values[: digest.count]
        life.received = min(life.received, digest.count)
        life.waiting = False
        self._changed = True

    def _say_goodbye(self) -> None:
        self._one_of(*self._places.values()).outbox.goodbye()
        self.seen["goodbyes"] += 1

    # Couriers, and the network

    def _couriers(self) -> None:
        for worker in self._clocks:
            now = self._now(worker)
            lives = [life for place, life in self._places.items() if place[0] == worker]
            sending = {}
            for life in lives:
                if life.waiting and now - life.sent < TIMEOUT_S:
                    continue
                delta = life.outbox.delta(now=now)
                self._note(life)
                if delta:
                    self._remember(life, delta)
                    sending[life] = delta
            if sending:
                self._send(worker, sending, now)

    def _remember(self, life: Life, data: bytes) -> None:
        delta = unpack_delta(data)
        self._drawn_of.setdefault(mark_of(data), np.array(life.values[: delta.upto]))
        self.seen[f"deltas {delta.form.name.lower()}"] += 1

    def _send(self, worker: str, sending: dict[Life, bytes], now: float) -> None:
        number = next(self._number)
        for life in sending:
            life.request, life.waiting, life.sent = number, True, now
        request, lives = pack_request(list(sending.values())), list(sending)
        outboxes = [life.outbox for life in lives]
        self._carry(worker, 0, lambda: self._arrive(worker, number, request, lives, outboxes))

    def _carry(self, worker: str, back: int, event: Callable[[], None]) -> None:
        for _ in range(1 + self._chance(self._repeat)):
            cut = worker in self._cut and self._cut[worker][back]
            if cut or self._chance(self._loss[back]):
                self.seen["messages lost"] += 1
            else:
                stuck = self._chance(self._stuck)
                delay = self.rng.exponential(STUCK_S if stuck else self._delay)
                self.seen["messages stuck"] += stuck
                self._at(self.time + delay, event)

    def _arrive(
        self, worker: str, number: int, request: bytes, lives: list[Life], outboxes: list[Outbox]
    ) -> None:
        now, deltas = self._clock.show(self.time), unpack_request(request)
        if self._marks_recur and not all(map(self._is_of_its_values, lives, deltas)):
            return
        verdicts = [self._ledger.judge(data, now=now) for data in deltas]
        for life, verdict in zip(lives, verdicts, strict=True):
            if verdict.outcome is not Outcome.REPEATED:  # as may be an old goodbye, to an old copy
                life.met = self._starts
        self._changed = True
        response = pack_response([verdict.answer for verdict in verdicts])
        self._carry(worker, 1, lambda: self._answered(number, response, lives, outboxes))

    def _is_of_its_values(self, life: Life, data: bytes) -> bool:
        return same_as_far_as_both_go(self._drawn_of[mark_of(data)], np.array(life.values))

    def _answered(
        self, number: int, response: bytes, lives: list[Life], outboxes: list[Outbox]
    ) -> None:
        """Only what answers the newest request of a process that still runs is read."""
        for life, outbox, answer in zip(lives, outboxes, unpack_response(response), strict=True):
            if life.request == number and life.outbox is outbox:
                assert isinstance(answer, Receipt), answer
                life.request, life.waiting = -1, False
                outbox.receive(answer, now=self._now(life.source.worker))
                self._note(life)
                self._turn_over(life)

    def _turn_over(self, life: Life) -> None:
        place = life.source.worker, life.source.stream
        if self._places[place] is life and (life.outbox.outdated or life.outbox.closed):
            self.seen["sources outdated"] += life.outbox.outdated
            if life.outbox.closed and self._chance(0.5):  # it comes back, and goes on
                self._restart(place, life, "whole")
                self.seen["returns after a goodbye"] += 1
            else:
                self._begin(place)

    # The coordinator

    def _start_coordinator(self, rows: list[Row]) -> None:
        self._starts += 1
        self._clock = self._a_clock()
        self._ledger = Ledger(
            self._one_of(*EPSILONS),
            number=int(self.rng.integers(1, 2**63)),
            now=self._clock.show(self.time),
            heartbeat_s=HEARTBEAT_S,
            rows=rows,
        )
        self._changed = True

    def _crash_coordinator(self) -> None:
        memory = self._one_of("whole", "whole", "none", "old")
        rows = list(self._ledger.rows) if memory == "whole" else []
        if memory == "old":
            rows = self._one_of([], *filter(self._of_these_values, self._old_rows))
            self._marks_recur = True
        self.seen[f"coordinators restarted with memory {memory}"] += 1
        self._start_coordinator(rows)

    def _of_these_values(self, rows: list[Row]) -> bool:
        """Whether a copy has only values that still have those numbers, wherever they live on."""
        return all(self._is_of_these_values(row) for row in rows)

    def _is_of_these_values(self, row: Row) -> bool:
        (life,) = (life for life in self._lives if life.source == row.source)
        covered, living = self._drawn_of[row.mark], life in self._places.values()
        too_long = living and len(covered) > len(life.values)
        return not too_long and same_as_far_as_both_go(covered, np.array(life.values))

    # The oracle

    def _check(self) -> None:
        self._changed = False
        truths: dict[str, list[Floats]] = {"default": [], "other": []}
        for life in self._lives:
            row = self._ledger.row(life.source)
            covered = self._drawn_of[row.mark] if row.upto else np.empty(0)
            self._check_prefix(row, covered)
            received = np.array(life.values[: life.received])
            assert same_as_far_as_both_go(covered, received), "the row is of other values"
            unknown = 0 < life.met < self._starts and (not row.upto or row.final)
            if not (unknown or self._is_silent(row)):
                self._check_promise(row, max(covered, received, key=len))
            longer = covered if unknown or len(covered) > len(received) else received
            truths[life.source.stream].append(longer)
        for stream, parts in truths.items():
            self._check_answers(stream, np.sort(np.concatenate([np.empty(0), *parts])))

    def _check_prefix(self, row: Row, covered: Floats) -> None:
        assert row.upto == len(covered)
        if row.upto and row.mark not in self._sound:
            assert true_shift(covered, row.picture) <= row.shift
            self._sound.add(row.mark)

    def _is_silent(self, row: Row) -> bool:
        return self._ledger.is_silent(row, now=self._clock.show(self.time))

    def _check_promise(self, row: Row, truth: Floats) -> None:
        """What the theorem takes for granted of every source that is heard."""
        if row.upto:
            assert len(truth) - row.upto <= row.counted.patience
            shift = true_shift(truth, row.picture.scaled(len(truth)))
            assert TALLY.all(np.array(shift <= row.counted.allowance + 1e-6))

    def _check_answers(self, stream: str, truth: Floats) -> None:
        for q in QUANTILES:
            answer = self._ledger.answer(q, stream=stream, now=self._clock.show(self.time))
            self._check_news(answer)
            estimate, target = answer.estimate, q * len(truth)
            self.seen["answers complete" if answer.complete else "answers incomplete"] += 1
            if answer.complete and estimate is None:
                assert not len(truth)
            elif answer.complete and estimate is not None:
                error = rank_errors(np.array([estimate.value]), truth, np.array([target]))
                assert TALLY.all(error <= estimate.rank_error * len(truth)), (q, error, estimate)
                assert truth.searchsorted(estimate.low) <= target
                assert truth.searchsorted(estimate.high, "right") >= target

    def _check_news(self, answer: Answer) -> None:
        """Who is there is as if nothing was kept; and no answer changes that said it would not."""
        rows = [row for row in self._ledger.known if row.source.stream == answer.stream]
        silent = [row for row in rows if self._is_silent(row)]
        live = [row for row in rows if not self._is_silent(row) and not row.closed]
        assert (answer.silent, answer.live) == (len(silent), len(live))
        key, changes = (answer.stream, answer.q), self._ledger.changes(answer.stream)
        if key in self._told and self._told[key][:2] == (self._starts, changes):
            told = self._told[key][2]
            if self._clock.show(self.time) < told.until:
                assert said(answer) == said(told)
                self.seen["answers that stayed"] += 1
        self._told[key] = self._starts, changes, answer

    def _check_the_end(self) -> None:
        for life in self._places.values():
            row = self._ledger.row(life.source)
            assert row.upto == life.received == len(life.values), "not everything is counted"
            assert (not row.upto) or (self._drawn_of[row.mark] == life.values).all()
        living = {life.source for life in self._places.values()}
        for row in self._ledger.rows:
            if not row.final or row.source in living:  # of who is gone, a late word may raise doubt
                assert self._is_silent(row) == (row.source not in living)


def said(answer: Answer) -> tuple[object, ...]:
    estimate = answer.estimate
    value = estimate and (estimate.value, estimate.rank_error)
    return answer.count, answer.exact, answer.complete, answer.live, answer.silent, value


def same_as_far_as_both_go(some: Floats, others: Floats) -> bool:
    both = min(len(some), len(others))
    return bool((some[:both] == others[:both]).all())


def true_shift(values: Floats, picture: Picture) -> float:
    """How far a picture is from the values it is of, over all real x, on both sides of each."""
    ordered = np.sort(values)
    x = np.unique(np.concatenate((ordered, picture.x)))
    upto = abs(ordered.searchsorted(x, "right") - picture.rank(x))
    below = abs(ordered.searchsorted(x) - picture.rank_below(x))
    return float(max(upto.max(), below.max()))
