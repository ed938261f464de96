"""The outbox: the worker's half of the protocol, without I/O.

One for each source. It holds the digest of all values received, and a copy of the picture that the
coordinator holds. It decides when the two have moved so far apart that something must be said, and
what is the shortest that says it. It never waits: whoever carries its deltas asks `due_at`, takes
the bytes of `delta`, and brings back what came of them to `receive`.

The promise
-----------
`acknowledged` values may be reported as received. For them holds at all times, of the picture that
the coordinator holds, whichever that is:

    rank shift <= allowance     and     pending <= patience

While a delta is in flight nobody here knows whether the coordinator holds the picture from before
it or after. So then the promise must hold of both. A batch that would break it waits until a delta
that covers it is signed. Each value moves the shift by at most one rank, so with `r` ranks to spare
the next `r` values need no look.

In flight
---------
One delta at a time, always the same bytes, until it is *signed*: until a receipt names its mark.
A receipt that names another says that the picture was not what was thought. Then nothing more is
acknowledged until the next signature, and a whole follows, drawn on the mark the receipt named.
After a restart it is the same, but that no value is even taken before the first signature: until
then a receipt may tell that the row covers more than is here. Then this is an old copy, its numbers
are used up, and only a new source may go on. And a source that had said goodbye is not open again
before the coordinator knows.

Cut off
-------
A source that has had no receipt for six heartbeats is listed as silent, whatever of what it sent
arrived, and however late (`ledger.py` says why). So then the promise binds nobody any more, and
everything is acknowledged again, until the next receipt; or, if that is what is asked for, nothing
is taken. A source that never heard of a coordinator waits on: nobody could list what nobody knows.

Copies
------
What is stored can be copied, and then two processes have one source. Each has a home of its own.
Its wholes name that, and the homes that its directory had before; the ledger lets one go on, and
refuses the other. *In use* needs nothing: the same bytes are sent until they are accepted or get a
receipt. On a *conflict* the source gives way: its numbers are used elsewhere. A copy takes no value
before its first signature, so one that gives way before that loses nothing. Who was not heard for
three heartbeats, and finds its place taken, loses what it acknowledged beyond the row that was
taken: at most what it held back then, and what it took since. That is in no answer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from numpy.typing import ArrayLike

from shared.digest import Digest
from shared.picture import NOTHING, Picture
from shared.protocol import (
    COARSEST,
    FORMER_MAX,
    HEARTBEAT_S_MAX,
    NO_MARK,
    SILENT_HEARTBEATS,
    Cause,
    Delta,
    Form,
    Receipt,
    Source,
    mark_of,
    pack_delta,
)
from shared.rank_shift import NO_GRANT, Grant, batch_shift, own_part, rank_shift
from shared.values import as_values
from shared.wording import worded

# Of allowance and patience, left when it speaks, so that few batches have to wait. Share of the raw
# bytes as in `wording.py`:   0      3.24  4.29  3.59 | 1.11  1.84  2.04
#                             0.02   3.27  4.30  3.59 | 1.14  1.87  2.06
#                             0.05   3.29  4.33  3.59 | 1.17  1.90  2.12
#                             0.1    3.35  4.33  3.59 | 1.20  2.00  2.18
LATE = 0.02

# A batch of so many values or more is looked at by itself first. Processor time of an outbox and a
# ledger, measured once, for 20 million normal values in batches of 10,000 at epsilon 1 %: 61 ns a
# value without, 49 with.
GLANCE = 256
ECHO_S = 0.05  # an answer is not complete before; but whatever a coordinator says, not at once
CLOCKS = 1.05  # no two clocks, of worker and coordinator, run apart by more than this factor


class NotTaken(RuntimeError):
    """No value is taken now; the message says why."""


@dataclass(frozen=True, eq=False)
class Held:
    """What the coordinator holds, or would hold after the delta in flight."""

    upto: int = 0
    mark: bytes = NO_MARK
    picture: Picture = NOTHING
    shift: float = 0.0  # when it covered all there was


@dataclass(frozen=True, eq=False)
class Flight:
    data: bytes
    delta: Delta
    makes: Held
    grant: Grant  # by which it lives meanwhile


class Outbox:
    """Decides what to say of one source, and when."""

    def __init__(  # noqa: PLR0913  two things, and by name what is known of them
        self,
        source: Source,
        digest: Digest,
        *,
        now: float,
        linger_s: float = 1.0,
        counts_cut_off: bool = True,
        home: int = 0,
        former: Sequence[int] = (),
        raw: int | None = None,
    ) -> None:
        self.source, self.digest = source, digest
        self._home, self._former = home, tuple(former[:FORMER_MAX])
        self.acknowledged = 0
        self.closed = False
        self.outdated = False
        self._linger_s, self._counts_cut_off = linger_s, counts_cut_off
        self._returning = digest.count > 0
        self.grant = NO_GRANT
        self.shift = 0.0  # of the picture that the coordinator holds, when it was last looked at
        self.flight: Flight | None = None
        self._held = Held()
        self._trusted = not self._returning
        self._epsilon: float | None = None
        self._heartbeat_s = HEARTBEAT_S_MAX
        self._ledger = self._echoed = 0
        self._cause = Cause.REPAIR if self._returning else None
        self._look_at: float = 0  # values; below that many the promise needs no look
        self._looked, self._ranks = 0, 0.0  # how many there were then, and ranks to spare
        self._waits = True  # nothing can be acknowledged before the next signature
        self._closing = False
        self._flush_to = self._told_upto = 0
        self.raw = 8 * digest.count if raw is None else raw  # bytes of values that users sent
        self._touched = self._signed = self._told = now

    def __repr__(self) -> str:
        return f"<outbox of {self.source}: {self.acknowledged} of {self.count} acknowledged>"

    def add(self, values: ArrayLike, *, now: float, raw: int | None = None) -> int:
        """Take a batch; it is received once as many values are `acknowledged` as are returned.

        `raw` is how many bytes its users sent. If one is not a value, none is taken: `BadValue`.
        """
        if reason := self.why_not(now=now):
            raise NotTaken(reason)
        before = self.digest.count
        self.digest.add(values)
        count = self.digest.count
        self.raw += 8 * (count - before) if raw is None else raw
        self._touched = now
        if count < self._look_at:
            self.acknowledged = self.acknowledged if self._waits else count
        elif not self._glance(values, count - before):
            self._look(now)
        return count

    @property
    def count(self) -> int:
        return self.digest.count

    @property
    def covered(self) -> int:
        """How many values of this one the coordinator has in its answers, as far as is known."""
        return min(self._held.upto, self._told_upto)

    @property
    def heard(self) -> bool:
        """Whether it echoed what its last receipt bore, so that it is live for the coordinator."""
        return self._echoed == self._ledger

    @property
    def due(self) -> bool:
        """Whether something must be said at once, whatever the time."""
        return self._cause is not None

    @property
    def due_at(self) -> float:
        """From when on a new delta is wanted; -inf for at once. A delta in flight goes first."""
        if self.due:
            return -math.inf
        if self.closed or self.outdated or not self.digest.count:
            return math.inf
        if not self.heard:
            return self._signed + ECHO_S
        return min(self._settles_at, self._signed + self._heartbeat_s)

    @property
    def _settles_at(self) -> float:
        unsettled = self.digest.count > self._held.upto
        return max(self._touched, self._signed) + self._linger_s if unsettled else math.inf

    def delta(self, *, now: float) -> bytes | None:
        """The bytes to send now: those in flight again, or new ones; None if nothing is due."""
        flight = self.flight
        if flight is None:
            if now < self.due_at:
                return None
            flight = self.flight = self._cut(self._cause or self._quiet_cause(now))
            self._look(now)
        elif self.is_cut_off(now=now):
            self._look(now)
        return flight.data

    def _quiet_cause(self, now: float) -> Cause:
        if not self.heard:
            return Cause.ECHO
        return Cause.LINGER if now >= self._settles_at else Cause.HEARTBEAT

    def receive(self, receipt: Receipt, *, now: float) -> None:
        """What came of the newest bytes that were sent."""
        flight = self.flight
        if flight is None:
            return
        self.flight, self._told = None, now
        self._epsilon, self._ledger = receipt.epsilon, receipt.ledger
        self._heartbeat_s, self.grant = receipt.heartbeat_s, receipt.grant
        if receipt.mark == flight.makes.mark:
            self._is_signed(flight, now)
        else:
            self._is_refused(receipt)

    def is_cut_off(self, *, now: float) -> bool:
        """Whether the coordinator certainly lists this source as silent."""
        silent_s = 2 * SILENT_HEARTBEATS * self._heartbeat_s
        return self._ledger != 0 and now - self._told >= CLOCKS * silent_s

    def flush(self) -> None:
        """Say what is pending at once, or as soon as what is in flight is signed."""
        self._flush_to = self.digest.count
        if not (self.flight or self.outdated) and self._held.upto < self._flush_to:
            self._cause = self._cause or Cause.FLUSH

    def goodbye(self) -> None:
        """Take nothing more, say what there is, and that this was all."""
        self.closed = self.closed or self.outdated or not self.digest.count
        self._closing, self._cause = True, None if self.closed else Cause.GOODBYE

    def give_way(self) -> None:
        """Another process runs this source: say, take and acknowledge nothing more."""
        self.outdated, self.closed = True, self._closing
        self.flight = self._cause = None

    def why_not(self, *, now: float) -> str | None:
        """Why no value is taken now; None if one is."""
        if self.outdated:
            return "this source went on elsewhere, with values that are not here; begin a new one"
        if self._closing:
            return "this source has said goodbye"
        if self._returning:
            return "restored, and waiting for the coordinator to sign what this source still has"
        if not self._counts_cut_off and self.is_cut_off(now=now):
            return "cut off from the coordinator, which lists this source as silent"
        return None

    def _is_signed(self, flight: Flight, now: float) -> None:
        self._held, self._trusted, self._returning = flight.makes, True, False
        self._told_upto = flight.makes.upto
        self.acknowledged = max(self.acknowledged, flight.makes.upto)
        self._signed, self._echoed = now, flight.delta.ledger
        self.closed = flight.delta.final and self.heard
        lowered = self.grant.allowance < flight.grant.allowance
        outgrown = lowered and flight.delta.shift > self.grant.allowance  # said once, not for ever
        self._cause = self._next_cause(outgrown)
        self._look(now)

    def _next_cause(self, outgrown: bool) -> Cause | None:
        if self.closed:
            return None
        if self._closing:
            return Cause.GOODBYE
        if outgrown:
            return Cause.SHIFT
        return Cause.FLUSH if self._held.upto < self._flush_to else None

    def _is_refused(self, receipt: Receipt) -> None:
        """The picture is not what it was thought to be; whatever it is, a whole replaces it."""
        self._held, self._trusted = Held(receipt.upto, receipt.mark), False
        self.outdated = receipt.upto > self.digest.count
        self._cause = None if self.outdated else Cause.REPAIR
        self._waits, self._look_at = True, math.inf

    def _look(self, now: float) -> None:
        """Does the promise hold, for how many more values at least, and is it time to speak?"""
        count, flight = self.digest.count, self.flight
        if self._counts_cut_off and self.is_cut_off(now=now):
            self._acknowledge(count, look_at=0)
            return
        self._waits, self._look_at = True, math.inf
        if not self._trusted:
            return
        values, ranks = self._room(self._held)
        if values >= 0:
            self.shift = self.grant.allowance - ranks
        if flight is not None:
            in_flight = self._room(flight.makes)
            values, ranks = min(values, in_flight[0]), min(ranks, in_flight[1])
        self._conclude(values, ranks)

    def _glance(self, values: ArrayLike, size: int) -> bool:
        """Spare a look, if what these values alone can move leaves room; or see that there is none.

        A look gives all that is buffered to the clusters first. This looks at the batch only.
        """
        if self._waits or self.flight is not None or size < GLANCE:
            return False
        batch, count = as_values(values), self.digest.count
        moved = count - size - self._looked + batch_shift(batch, self._held.picture)
        pending, ranks = count - self._held.upto, self._ranks - moved
        if pending > self.grant.patience or ranks <= LATE * self.grant.allowance:
            return False
        self._conclude(self.grant.patience - pending, ranks)
        return True

    def _conclude(self, values: int, ranks: float) -> None:
        """With so many values and ranks to spare, until when is that so, and what is to be done?"""
        count, flight = self.digest.count, self.flight
        self._looked, self._ranks = count, ranks
        spare = min(values, ranks)
        early = min(values - LATE * self.grant.patience, ranks - LATE * self.grant.allowance)
        if spare >= 0:
            look_in = math.floor(spare) + 1 if flight or early <= 0 else math.ceil(early)
            self._acknowledge(count, look_at=count + look_in)
        if flight is None and early <= 0 and count > self._held.upto:
            self._cause = self._cause or (Cause.SHIFT if ranks < values else Cause.PATIENCE)

    def _acknowledge(self, count: int, look_at: float) -> None:
        self.acknowledged, self._waits, self._look_at = count, False, look_at

    def _room(self, held: Held) -> tuple[int, float]:
        """How many more values may be pending, and ranks shifted; negative where it is broken."""
        count = self.digest.count
        values = self.grant.patience - (count - held.upto)
        if values < 0 or not held.upto:
            return -1, 0
        shift = held.shift if count == held.upto else rank_shift(self.digest.clusters, held.picture)
        return values, self.grant.allowance - shift

    def _cut(self, cause: Cause) -> Flight:
        """A new delta, of all there is."""
        clusters, held = self.digest.clusters, self._held
        form, segments = worded(
            clusters,
            held.picture if self._trusted else NOTHING,
            held.shift,
            self._allowance(clusters.count),
        )
        delta = Delta(
            source=self.source,
            base=held.mark,
            since=0 if form is Form.WHOLE else held.upto,
            upto=clusters.count,
            form=form,
            segments=segments,
            shift=0,
            digest_error=self.digest.rank_error_max,
            ledger=self._ledger,
            cause=cause,
            final=self._closing,
            raw=self.raw,
            home=self._home if form is Form.WHOLE else 0,
            former=self._former if form is Form.WHOLE else (),
        )
        picture = delta.drawn_on(held.picture)
        delta = replace(delta, shift=rank_shift(clusters, picture))
        data = pack_delta(delta)
        self._cause = None
        makes = Held(delta.upto, mark_of(data), picture, delta.shift)
        return Flight(data, delta, makes, self.grant)

    def _allowance(self, count: int) -> float:
        """What to expect when so many values are covered: the own part grows with them.

        Where there is no row yet, as much again from the pool: a whole is within half of that, so
        within the own part, which is certain. And before the first receipt, as if epsilon were the
        least that the digest is good for.
        """
        epsilon = self._epsilon or self.digest.rank_error_max / COARSEST
        own, then = own_part(epsilon, count), own_part(epsilon, self._held.upto)
        if not self._held.upto:
            return 2 * own.allowance
        return max(0.0, self.grant.allowance + own.allowance - then.allowance)
