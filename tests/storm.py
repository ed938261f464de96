"""Storms: workers, a coordinator and a network that does its worst, from one seed.

Everything that can happen to the protocol happens here, in an order the seed decides: requests and
responses are lost, in one direction only too, repeated, delayed and overtaken; workers are cut off
for longer than anybody waits; both sides crash and come back with their memory, without it, or with
an old copy; epsilon is another after a restart; sources say goodbye; every clock has an origin and
a speed of its own. What a worker stored is copied, now or as it was once, and runs elsewhere too,
beside the original, or after it; workers are paused; directories are moved. The code under test is
the product's. Only the couriers are played.

The oracle keeps every value of every process, in order. The process whose delta was accepted last
*has* its source. After each event

* each row is a prefix: its picture is no further from the first `upto` values than it says;
* nothing that a row covered is lost when it becomes another, unless a ledger that had forgotten
  whose it is let somebody take it;
* each source that is heard keeps its promise, by what is counted for it;
* wherever an answer is complete, its certificate is at least its true error, where truth is every
  acknowledged value and every value a row covers.

Another process gets a source only when the one that has it was not heard for three heartbeats, or
said goodbye. When the storm is over, no two processes have one source, and all that a living one
has acknowledged is counted, exactly once.

Four things no ledger can know, so the oracle does not ask for them. A copy that is older than a
source, or than its return from a goodbye, cannot miss it: that source counts from when it is heard
again. A worker restored from an old copy has lost what it acknowledged since, unless a row covers
it; the oracle forgets that too, and nobody restores any more what was copied of either side while
the same numbers were other values, nor does what was sent then arrive at an old copy. What a dead
source had acknowledged beyond its row is lost; the ledger lists it as silent, for ever. And so is
what a process acknowledged beyond the row before another took its place, while it was cut off for
three heartbeats; or while the ledger had forgotten whose the row was.
"""

import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from shared.digest import Digest
from shared.ledger import Answer, Ledger, Outcome, Verdict
from shared.outbox import NotTaken, Outbox
from shared.picture import Picture
from shared.protocol import (
    NO_MARK,
    SILENT_HEARTBEATS,
    Receipt,
    Refusal,
    Source,
    mark_of,
    pack_request,
    pack_response,
    unpack_delta,
    unpack_request,
    unpack_response,
)
from shared.rank_shift import Estimate, Grant
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

WORKERS_MAX = 6

Place = tuple[str, str]
"""A worker and a stream: where one source at a time lives."""


@dataclass
class Clock:
    """Shows a time of its own, up to 2 % too fast or too slow."""

    origin: float
    speed: float

    def show(self, time: float) -> float:
        return self.origin + self.speed * time


class Stored(NamedTuple):
    """What a worker has of a source in its directory."""

    digest: bytes
    homes: tuple[int, ...]


@dataclass(eq=False)
class Life:
    """A source as it truly is: all its values in order, and the outbox that has them now."""

    outbox: Outbox
    homes: tuple[int, ...]  # of its directory, the present one last
    began: float  # at this home
    ended: float = math.inf
    values: list[float] = field(default_factory=list)
    received: int = 0  # so many were acknowledged
    met: int = 0  # the last start of the coordinator that it got through to
    request: int = -1  # the newest one
    waiting: bool = False
    sent: float = 0.0
    heard: float = -math.inf  # when a delta of it was last accepted
    heard_in: int = 0  # in which start of the coordinator
    heard_from: int = 0  # from which home
    made: bytes = NO_MARK  # and which row that made
    copies: list[Stored] = field(default_factory=list)

    @property
    def source(self) -> Source:
        return self.outbox.source


class Letter(NamedTuple):
    """A request on its way."""

    worker: str
    number: int
    request: bytes
    lives: list[Life]
    outboxes: list[Outbox]
    start: int  # of the coordinator, when it was sent


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
        self._has: dict[tuple[str, int], Life] = {}  # who has each source
        self._forgotten: set[tuple[str, int]] = set()  # was taken as the ledger forgot whose it is
        self._keeps = self._one_of(True, True, False)  # workers have directories
        self._paused: dict[str, float] = {}  # until when
        self._drawn_of: dict[bytes, Floats] = {}  # by mark: the values a delta covers
        self._sound: set[bytes] = set()  # marks of pictures that were looked at
        self._kept: set[tuple[bytes, Grant, int]] = set()  # promises that were
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
        what += [self._say_goodbye, self._copy, self._start_copy, self._pause]
        likely = [0.80, 0.1, 0.015, 0.02, 0.005, 0.03, 0.02, 0.01]
        what[self.rng.choice(len(what), p=likely)]()

    def _weather(self) -> None:
        """Somebody is cut off, in one direction or both; or the cut is mended."""
        worker = self._one_of(*self._clocks)
        self._cut[worker] = [self._chance(share) for share in [self._one_of(0.0, 0.5, 1.0)] * 2]

    def _calm(self) -> None:
        self._loss, self._repeat, self._delay, self._cut = [0.0, 0.0], 0.0, 0.1, {}
        self._stuck, self._paused = 0.0, {}

    def _copy(self) -> None:
        """Backups, which somebody may restore much later."""
        self._old_rows.append(list(self._ledger.rows))
        for life in self._places.values():
            life.copies.append(self._stored(life))

    def _stored(self, life: Life) -> Stored:
        return Stored(life.outbox.digest.to_bytes(), life.homes)

    # Workers

    def _a_clock(self) -> Clock:
        return Clock(self.rng.uniform(-1e6, 1e6), self.rng.uniform(0.98, 1.02))

    def _now(self, worker: str) -> float:
        return self._clocks[worker].show(self.time)

    def _another_home(self, before: tuple[int, ...] = ()) -> tuple[int, ...]:
        return (*before, int(self.rng.integers(1, 2**32)) if self._keeps else 0)

    def _outbox(self, source: Source, digest: Digest, homes: tuple[int, ...]) -> Outbox:
        now, (*former, home) = self._now(source.worker), homes
        return Outbox(source, digest, now=now, home=home, former=former[::-1])

    def _begin(self, place: Place) -> None:
        source = Source(*place, int(self.rng.integers(2**63)))
        homes = self._another_home()
        life = Life(self._outbox(source, Digest(DIGEST_ERROR), homes), homes, self.time)
        if place in self._places:
            self._places[place].ended = self.time
        self._lives.append(life)
        self._places[place] = self._has[source.key] = life

    def _pause(self) -> None:
        worker = self._one_of(*self._clocks)
        self._paused[worker] = self.time + self._one_of(5.0, 20.0, 60.0)
        self.seen["pauses"] += 1

    def _is_paused(self, worker: str) -> bool:
        return self.time < self._paused.get(worker, 0.0)

    def _start_copy(self) -> None:
        """What a worker has stored, or had once, is started as another worker."""
        if not self._keeps or len(self._clocks) == WORKERS_MAX:
            return
        worker, copy = self._one_of(*self._clocks), f"w{len(self._clocks)}"
        lives = [life for place, life in self._places.items() if place[0] == worker]
        at = int(self.rng.integers(1, 4))
        self._clocks[copy] = self._a_clock()
        for life in lives:
            stored = life.copies[-at] if len(life.copies) >= at else self._stored(life)
            self._start(life, copy, stored)

    def _start(self, original: Life, worker: str, stored: Stored) -> None:
        place, digest = (worker, original.source.stream), Digest.from_bytes(stored.digest)
        if not digest.count:
            self._begin(place)
            return
        homes = self._another_home(stored.homes)
        outbox = self._outbox(original.source._replace(worker=worker), digest, homes)
        life = Life(outbox, homes, self.time, values=original.values[: digest.count])
        self._lives.append(life)
        self._places[place] = life
        self.seen["copies started"] += 1

    def _some_values(self) -> None:
        life = self._one_of(*self._places.values())
        if self._is_paused(life.source.worker):
            return
        size = self._one_of(1, 1, 1, 3, 3, 20, 100, 300)
        middle = self._one_of(0.0, self.time / 50, 5.0 * len(self._has))
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
        stored = self._stored(life)
        if memory == "old" and life.copies:
            del life.copies[1 + self.rng.integers(len(life.copies)) :]
            stored = life.copies[-1]
        digest = Digest.from_bytes(stored.digest)
        if memory == "none" or not digest.count:
            self._begin(place)
            return
        if memory == "old" or (memory == "whole" and self._chance(0.3)):
            life.homes, life.began = self._another_home(stored.homes), self.time
            self.seen["directories moved"] += self._keeps
        life.outbox = self._outbox(life.source, digest, life.homes)
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
            if self._is_paused(worker):
                continue
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
        lives = list(sending)
        letter = Letter(
            worker=worker,
            number=number,
            request=pack_request(list(sending.values())),
            lives=lives,
            outboxes=[life.outbox for life in lives],
            start=self._starts,
        )
        self._carry(worker, 0, lambda: self._arrive(letter))

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

    def _arrive(self, letter: Letter) -> None:
        now, deltas = self._clock.show(self.time), unpack_request(letter.request)
        if self._marks_recur and not self._is_of_their_values(letter):
            return
        posts = zip(letter.lives, deltas, strict=True)
        verdicts = [self._judged(life, data, now) for life, data in posts]
        self._changed = True
        response = pack_response([verdict.answer for verdict in verdicts])
        self._carry(letter.worker, 1, lambda: self._answered(letter, response))

    def _judged(self, life: Life, data: bytes, now: float) -> Verdict:
        before = self._ledger.row(life.source)
        verdict = self._ledger.judge(data, now=now)
        if verdict.outcome is not Outcome.REPEATED:  # as may be an old goodbye, to an old copy
            life.met = self._starts
        if verdict.outcome is Outcome.ACCEPTED:
            self._is_heard(life, before)
        return verdict

    def _is_of_their_values(self, letter: Letter) -> bool:
        """Of who sent it; and of who has the source now, if that was before a restart."""
        posts = list(zip(letter.lives, unpack_request(letter.request), strict=True))
        if letter.start < self._starts:
            posts += [(self._has[life.source.key], data) for life, data in posts]
        return all(
            same_as_far_as_both_go(self._drawn_of[mark_of(data)], np.array(life.values))
            for life, data in posts
        )

    def _answered(self, letter: Letter, response: bytes) -> None:
        """Only what answers the newest request of a process that still runs is read."""
        if self._is_paused(letter.worker):
            self._at(self._paused[letter.worker], lambda: self._answered(letter, response))
            return
        answers = unpack_response(response)
        for life, outbox, answer in zip(letter.lives, letter.outboxes, answers, strict=True):
            if life.request == letter.number and life.outbox is outbox:
                life.request, life.waiting = -1, False
                if isinstance(answer, Receipt):
                    outbox.receive(answer, now=self._now(life.source.worker))
                else:
                    self._is_refused(life, answer)
                self._note(life)
                self._turn_over(life)

    def _is_refused(self, life: Life, refusal: Refusal) -> None:
        assert refusal.code in ("in_use", "conflict"), refusal
        self.seen[f"claims refused: {refusal.code}"] += 1
        if refusal.code == "conflict":
            self._check_conflict(life)
            life.outbox.give_way()

    def _turn_over(self, life: Life) -> None:
        place = life.source.worker, life.source.stream
        if self._places[place] is life and (life.outbox.outdated or life.outbox.closed):
            self.seen["sources outdated"] += life.outbox.outdated
            if (
                life.outbox.closed and not life.outbox.outdated and self._chance(0.5)
            ):  # it comes back, and goes on
                self._restart(place, life, "whole")
                self.seen["returns after a goodbye"] += 1
            else:
                self._begin(place)

    # The coordinator

    def _start_coordinator(self, rows: list[Row]) -> None:
        self._starts += 1
        self._started = self.time
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
        life = self._has[row.source.key]
        covered, living = self._drawn_of[row.mark], life in self._places.values()
        too_long = living and len(covered) > len(life.values)
        return not too_long and same_as_far_as_both_go(covered, np.array(life.values))

    # The oracle

    def _is_heard(self, life: Life, before: Row) -> None:
        """Of a process whose delta made a row another."""
        row, had = self._ledger.row(life.source), self._has[life.source.key]
        if life is not had:
            self._check_taken(life, had, before)
            self._has[life.source.key] = life
        if before.upto and life.source.key not in self._forgotten:
            kept = same_as_far_as_both_go(self._drawn_of[before.mark], self._drawn_of[row.mark])
            assert kept, "values that were counted are not any more"
        life.heard, life.heard_in = self.time, self._starts
        life.made, life.heard_from = row.mark, row.home

    def _check_taken(self, life: Life, had: Life, before: Row) -> None:
        forgotten = not before.upto or before.mark != had.made
        assert forgotten or before.closed or self._was_silent(had), "who is heard was replaced"
        if had.heard_from not in life.homes:
            assert forgotten, "a row was taken by who has not all that it covers"
            self._forgotten.add(life.source.key)
        self.seen["sources taken over"] += 1

    def _check_conflict(self, life: Life) -> None:
        """Nobody gives way who has the source, nor where nobody else can have been."""
        row, key = self._ledger.row(life.source), life.source.key
        if self._has[key] is life:
            assert life.received <= row.upto, "who has the source gave way"
        elif row.home in life.homes:
            others = [one for one in self._lives if one is not life and one.source.key == key]
            assert any(one.ended > life.began for one in others), "who is alone gave way"

    def _was_silent(self, life: Life) -> bool:
        since = max(life.heard, self._started if life.heard_in < self._starts else -math.inf)
        return self.time - since >= SILENT_HEARTBEATS * HEARTBEAT_S / 1.02

    def _check(self) -> None:
        self._changed = False
        truths: dict[str, list[Floats]] = {"default": [], "other": []}
        for life in self._has.values():
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
        looked_at = row.mark, row.counted, hash(truth.tobytes())
        if row.upto and looked_at not in self._kept:
            assert len(truth) - row.upto <= row.counted.patience
            shift = true_shift(truth, row.picture.scaled(len(truth)))
            assert TALLY.all(np.array(shift <= row.counted.allowance + 1e-6))
            self._kept.add(looked_at)

    def _check_answers(self, stream: str, truth: Floats) -> None:
        for q in QUANTILES:
            answer = self._ledger.answer(q, stream=stream, now=self._clock.show(self.time))
            answer = self._as_computed(answer)
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

    def _as_computed(self, answer: Answer) -> Answer:
        """The same, but of the same parts nothing is computed twice."""
        *_, told = self._told.get((answer.stream, answer.q), (answer,))
        same = parts(told.estimate) == parts(answer.estimate)
        return replace(answer, estimate=told.estimate) if same else answer

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
            assert self._has[life.source.key] is life, "two have one source"
            assert row.upto == life.received == len(life.values), "not everything is counted"
            assert (not row.upto) or (self._drawn_of[row.mark] == life.values).all()
        living = {life.source.key for life in self._places.values()}
        for row in self._ledger.rows:
            lives = row.source.key in living
            if not row.final or lives:  # of who is gone, a late word may raise doubt
                assert self._is_silent(row) != lives


def parts(estimate: Estimate | None) -> tuple[object, ...]:
    """All that it is made of, but q: the same things, not equal ones."""
    return (id(estimate.total), estimate.allowance, id(estimate.patience)) if estimate else ()


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
    below, upto = picture.ranks(x)
    off_upto = abs(ordered.searchsorted(x, "right") - upto)
    off_below = abs(ordered.searchsorted(x) - below)
    return float(max(off_upto.max(), off_below.max()))
