"""The ledger: the coordinator's half of the protocol, without I/O. It keeps one row a source.

When a delta changes a row
--------------------------
    base == mark of the row,  and  since == upto of the row  or, of a whole, upto >= upto of the row

Anything else changes nothing. Either way the answer is the receipt of the row as it then is: a pure
function of the row, so that a repeated delta gets the same receipt, with the same grants, again. An
accepted delta, even an empty one, makes a new mark, and earns a new grant (see `rows.py`).

Who is silent
-------------
A source is heard when a delta of it is accepted; a repeat is not news. It is live while it was
heard within three heartbeats, its last delta echoes the number that its receipts bear, and nothing
since claimed to know more than the row covers. That number is drawn at each start, and becomes
another when a source is heard for the first time, or after it was late. One that said goodbye, and
echoed that number, is not silent; nor is one that was retired, until it speaks again. An answer is
complete when nobody is silent, the ledger has listened for three heartbeats, and nobody was turned
away within these, as said below.

So a source that has read no receipt for six heartbeats is silent, whatever the network does with
what it sent: bytes may be stuck for an hour in a buffer or a paused process. *Proof.* Let the mark
in the last receipt it read be made at time a; what it sent since is drawn on that mark, and so at
most one delta of it is accepted, at time t. If t is three heartbeats after a or later, or a start
of the ledger lies between the two, the source was late, and its receipts bear a number now that it
has not read. Otherwise it is live until at most three heartbeats after t. And what was drawn on
older marks is not accepted, but by a ledger that has forgotten; then too it was late. []

Who goes on
-----------
A source is what one process at a time goes on with. But where its values are kept can be copied,
and two processes would then replace the row by turns, each with values that the other lacks. So a
whole names its home, and those that its directory had before. A whole of another home than the
row's is a *claim*. It is judged before its base, and casts no doubt.

* If the row's home is none of those before, it is refused for good, as a *conflict*: somebody else
  went on with the row, and his values are not all here.
* Else, if the row is closed, or nothing was heard of it for three heartbeats, and the ledger is not
  younger than that, the claim is judged like any other whole: a copy of who died takes its place.
* Else it is refused as *in use*, and repeated, and as a conflict once two deltas of the row's own
  home were accepted since the first claim of this one.

So what a row covers stays covered. *Proof.* A row covers a prefix of what was taken at its home h.
A copy takes no value before its first signature, when the row bears its home, and from then on only
copies of that one are accepted. So as long as the row bears h, whoever has h among his homes before
has taken nothing since: what he has is a prefix of what was taken at h. A whole that covers no less
than the row then covers all that the row does. (A directory that is put back as it once was,
as new files, is another, and has another home.) []

Nor is a copy refused for good where it is alone. *Proof.* Two deltas came after the claim. The
second was drawn on the mark that the first one made, so by one who had read a receipt that is
younger than the claim: it ran when the claimant ran already. (One delta alone does not tell: it may
have been on its way since before.) []

All that was said of silence is said of a source that nobody takes over. Who is not heard for three
heartbeats while a copy takes its place is not listed as silent: its row lives. What it acknowledged
beyond the row is in no answer. And a ledger that has forgotten a row takes whoever comes first.

Who is turned away
------------------
Memory has an end, `bytes_max`. Each row is counted with room for 3 / epsilon knots, 300 at 1 %, and
at most 1,000, whether it has them or not; with more, as it is (`rows.py`). Sources that have no row
get three quarters of the memory, and the rest is for rows that grow beyond what is kept for them. A
delta that would take more is refused, with the code *no_room*. One that makes a row no larger than
what is kept for it, or than it was, is always taken; rows that are restored are, too. But where a
*more* has no room, a *whole* may have: a row to which is added for a while has up to 1,060 knots,
and drawn anew mostly below 100. So a more is answered as if it were drawn on another row, with the
receipt of this one. Its source then sends a whole, as it does after every such receipt.

So whoever is in stays in, and goes on in a full ledger, whoever fills the rest, as long as its
wholes have no more knots than are kept for it. Of ten times 1 / epsilon values or more, those of
the streams that were tried at 1 % and 5 % have not. Of fewer values, nearly all different, a whole
may have more. Such a source needs the part that is left for growth; once others have filled that,
by rows as long as can be, it is refused, repeats its whole, and is listed as silent.

A row whose delta was refused is doubted, like any whose source claims to know more. But a source of
which nothing is known leaves nothing behind either, or whoever invents sources would fill what was
to be protected. Of all of them together one number is kept for each stream, and one for all streams
without a source: when the last was turned away. For three heartbeats from then on, no answer of the
stream is complete.

So no answer is complete while a source that was turned away goes on to try, as it does at least
each heartbeat. Who is turned away and falls silent is forgotten after three heartbeats, as if he
had never been heard of. *No promise of his is broken by that, if he was new*: nothing is
acknowledged before a first signature. If he was not, it had been forgotten already, by a ledger
that began anew, what he had told before; what he acknowledged is in no answer, and from then on
none says so.

What a liar can do
------------------
Whatever a valid delta says, it gets a receipt or a refusal, and is judged alone. Who may push may
lie about values of his own, and so move every answer of a stream; claim shifts, so that no
certificate is worth anything, and none of the pool is left to others; and invent sources, so that
none is complete, until they are retired, or memory is full. He cannot make the ledger fail, nor
break what it promises of the values that others told it: of the sum of what was claimed, each
answer is as near the quantile as its certificate says, also of weights beyond 2**53.

A mark is no secret: whoever names a source gets the receipt of its row. So who may push, and knows
the number of a source, which is random and told with its row to who may read, can go on with it in
place of its worker. That puts the row right by a whole of its own when it speaks next; but if the
row covers more than it has by then, it begins a new source, and the row stays as the liar left it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from shared.distribution import Distribution
from shared.protocol import (
    EPSILON_MIN,
    ID_MAX,
    SEGMENTS_MAX,
    SILENT_HEARTBEATS,
    Delta,
    Form,
    MalformedMessage,
    Receipt,
    Refusal,
    Source,
    mark_of,
    too_coarse,
    unpack_delta,
)
from shared.rank_shift import NO_GRANT, Estimate
from shared.rows import (
    SOURCE_BYTES,
    STREAM_BYTES,
    Attendance,
    Hearing,
    Memory,
    Row,
    Rows,
)

# No outbox lets a row have more: what it adds to has fewer than `wording.KNOTS_MAX` knots, 1000,
# and n segments have n + 1.
ROW_KNOTS_MAX = SEGMENTS_MAX + 1000
CLAIMS_MAX = 16  # homes that are remembered of a source; any more of them wait, and are never told
CONFLICT = 2  # deltas of a row that came after a claim: then who drew the last was there after it

IN_USE = (
    "another process may still run this source, as its data directory was copied or moved; wait: "
    "when that one is silent, this one is accepted"
)
IN_CONFLICT = (
    "another process went on with this source, from another copy of its data directory; stop one "
    "of the two, or give one an empty data directory"
)
NO_ROOM = (
    "the coordinator has no room for more, of {} bytes of rows: give it more of them, or fewer "
    "streams and sources"
)


class Outcome(StrEnum):
    ACCEPTED = "accepted"
    REPEATED = "repeated"  # it is the one that made the row
    STRANGE = "strange"  # it was drawn on another picture than the row's
    REFUSED = "refused"


class Verdict(NamedTuple):
    delta: Delta | None  # None: it is none
    outcome: Outcome
    answer: Receipt | Refusal


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A quantile of all values in a stream; `estimate` is None while there are none."""

    stream: str
    q: float
    count: int
    epsilon: float
    estimate: Estimate | None
    exact: bool
    complete: bool
    live: int
    silent: int
    until: float  # so long it stays the answer, if nothing is heard before


class Ledger:
    """Takes deltas, gives receipts, and knows every quantile of every stream.

    `number` is drawn at random at each start, from 1 to 2**64 - 1.
    """

    def __init__(  # noqa: PLR0913  a promise, and by name what it is kept with
        self,
        epsilon: float,
        *,
        number: int,
        now: float,
        heartbeat_s: float = 10.0,
        bytes_max: int | None = None,
        rows: Iterable[Row] = (),
    ) -> None:
        if not EPSILON_MIN <= epsilon < 0.5:
            raise ValueError(f"epsilon must be from {EPSILON_MIN} to below 0.5, not {epsilon}")
        self.epsilon, self.number, self.heartbeat_s = epsilon, number, heartbeat_s
        self._started = now
        self.memory = Memory(epsilon, bytes_max)
        self._streams: dict[str, Rows] = {}
        self._full_at = -math.inf  # when something was refused last for want of memory
        self._none = Rows(epsilon)  # of all streams of which no source is known
        for row in rows:
            self._begun(row.source.stream).restore(row)

    def _begun(self, stream: str) -> Rows:
        rows = self._streams.get(stream)
        if rows is None:
            rows = self._streams[stream] = Rows(self.epsilon, self.memory)
            rows.changes, rows.turned_away = self._none.changes + 1, self._none.turned_away
            self.memory.taken += STREAM_BYTES
        return rows

    def _ended(self, stream: str) -> None:
        """No source of it is known any more; `changes` never is what it was before."""
        rows = self._streams.pop(stream)
        self.memory.taken -= STREAM_BYTES
        self._none.changes = max(self._none.changes, rows.changes) + 1
        self._none.turned_away = max(self._none.turned_away, rows.turned_away)

    def _rows(self, stream: str) -> Rows:
        return self._streams.get(stream, self._none)

    @property
    def rows(self) -> Iterator[Row]:
        return (row for rows in self._streams.values() for row in rows)

    @property
    def streams(self) -> list[str]:
        return sorted(name for name, rows in self._streams.items() if rows.weight)

    def has(self, stream: str) -> bool:
        """Whether it has values."""
        return self._rows(stream).weight > 0

    @property
    def known(self) -> Iterator[Row]:
        """All rows, and an empty one for each source that was heard of but never accepted."""
        return (rows.of(one) for rows in self._streams.values() for one in rows.sources)

    def changes(self, stream: str) -> int:
        """Another number whenever an answer may be another, but for the passing of time."""
        return self._rows(stream).changes

    def heard_at(self, source: Source) -> float:
        """When a delta of it was last accepted; -inf: never in this start."""
        hearing = self._rows(source.stream).hearings.get(source.number)
        return hearing.at if hearing else -math.inf

    def knows(self, source: Source) -> bool:
        """Whether anything is remembered of it."""
        return self._rows(source.stream).knows(source.number)

    def row(self, source: Source) -> Row:
        """What is held of a source; an empty row if nothing is."""
        return self._rows(source.stream).of(source)

    def receive(self, data: bytes, *, now: float) -> Receipt | Refusal:
        return self.judge(data, now=now).answer

    def judge(self, data: bytes, *, now: float) -> Verdict:
        """Take one delta for what it is, and say what the row now is."""
        try:
            delta = unpack_delta(data)
        except MalformedMessage as error:
            return Verdict(None, Outcome.REFUSED, Refusal("malformed", str(error)))
        return self.judge_unpacked(delta, data, now=now)

    def judge_unpacked(self, delta: Delta, data: bytes, *, now: float) -> Verdict:
        """The same where it is known what these bytes say."""
        row = self.row(delta.source)
        if mark_of(data) == row.mark:
            return Verdict(delta, Outcome.REPEATED, self._receipt(row))
        if row.is_claimed_by(delta) and (claimed := self._claimed(row, delta, now)):
            return Verdict(delta, Outcome.REFUSED, claimed)
        refusal = self._refusal(row, delta)
        if refusal is None and row.accepts(delta):
            if self._has_room(row, delta):
                row = self._changed(row, delta, data, now)
                return Verdict(delta, Outcome.ACCEPTED, self._receipt(row))
            refusal = self._no_room(delta, now)
        self._doubt(row, delta, now)
        if refusal is None:
            return Verdict(delta, Outcome.STRANGE, self._receipt(row))
        return Verdict(delta, Outcome.REFUSED, refusal)

    def _claimed(self, row: Row, delta: Delta, now: float) -> Refusal | None:
        """Why it may not go on with a source of another home; None if it may."""
        if row.home not in delta.former:
            return Refusal("conflict", IN_CONFLICT)
        heard = max(self._started, self.heard_at(row.source))
        if row.closed or now >= heard + SILENT_HEARTBEATS * self.heartbeat_s:
            return None
        claims = self._hearing(row.source).claims
        if len(claims) < CLAIMS_MAX:
            claims.setdefault(delta.home, row.deltas)
        if row.deltas - claims.get(delta.home, row.deltas) >= CONFLICT:
            return Refusal("conflict", IN_CONFLICT)
        return Refusal("in_use", IN_USE)

    def _refusal(self, row: Row, delta: Delta) -> Refusal | None:
        if coarse := too_coarse(delta.digest_error, self.epsilon):
            return Refusal("too_coarse", coarse)
        if delta.form is Form.MORE and len(row.picture) + len(delta.segments) > ROW_KNOTS_MAX:
            return Refusal("too_long", f"a row has at most {ROW_KNOTS_MAX} knots: send a whole")
        return None

    def _no_room(self, delta: Delta, now: float) -> Refusal | None:
        """None where a whole may do with less: the receipt of the row has its source send one."""
        self._full_at = now
        if delta.form is Form.MORE:
            return None
        return Refusal("no_room", NO_ROOM.format(self.memory.most))

    def _has_room(self, row: Row, delta: Delta) -> bool:
        """Drawn on its row only where it matters, and there is not much left."""
        new, of_row = self._new(row.source), self.memory.of_row
        if self.memory.has(new + of_row(len(delta.segments) + 1), new=not row.upto):
            return True
        knots = len(delta.drawn_on(row.picture))
        return self.memory.has(new + of_row(knots) - of_row(len(row.picture)), new=not row.upto)

    def _new(self, source: Source) -> int:
        """Bytes that are taken once a source is known; 0: it is."""
        if self.knows(source):
            return 0
        return SOURCE_BYTES + (0 if source.stream in self._streams else STREAM_BYTES)

    def _changed(self, row: Row, delta: Delta, data: bytes, now: float) -> Row:
        rows = self._begun(delta.source.stream)
        was_silent = self.is_silent(row, now=now)
        hearing = self._hearing(delta.source)
        self._is_heard(hearing, now)
        if row.is_claimed_by(delta):
            hearing.claims.clear()
        row = row.after(delta, data, final=delta.final and delta.ledger == hearing.number)
        row = rows.granted(row)
        rows.keep(row)
        if was_silent != self.is_silent(row, now=now):
            rows.is_another()
        return row

    def _hearing(self, source: Source) -> Hearing:
        return self._begun(source.stream).hearing(source, self.number)

    def _is_heard(self, hearing: Hearing, now: float) -> None:
        if now >= hearing.late_at(self.heartbeat_s):
            hearing.number = hearing.number % ID_MAX + 1
        hearing.at, hearing.doubted = now, False

    def _doubt(self, row: Row, delta: Delta, now: float) -> None:
        """It knows of more than the row covers, or was thought to be gone; unless it went since."""
        gone = row.final and self.heard_at(row.source) > -math.inf
        if gone or not (row.final or delta.upto > row.upto):
            return
        rows = self._rows(delta.source.stream)
        if self.memory.has(self._new(delta.source), new=True):
            self._hearing(delta.source).doubted = True
            rows = self._begun(delta.source.stream)
        else:
            self._full_at = rows.turned_away = now
        rows.is_another()

    def _number_of(self, source: Source) -> int:
        hearing = self._rows(source.stream).hearings.get(source.number)
        return hearing.number if hearing else self.number

    def _receipt(self, row: Row) -> Receipt:
        return Receipt(
            upto=row.upto,
            mark=row.mark,
            grant=row.granted,
            epsilon=self.epsilon,
            heartbeat_s=self.heartbeat_s,
            ledger=self._number_of(row.source),
        )

    def is_silent(self, row: Row, *, now: float) -> bool:
        hearing = self._rows(row.source.stream).hearings.get(row.source.number)
        if hearing is not None and hearing.doubted:
            return True
        if row.closed or hearing is None:
            return not row.closed
        return now >= hearing.late_at(self.heartbeat_s) or row.ledger != hearing.number

    def retire(self, worker: str, *, now: float) -> list[Row]:
        """Its silent sources will not come back: their values stay counted, nobody waits for more.

        Should one speak after all, it is listed again.
        """
        silent = [
            row
            for row in self.known
            if row.source.worker == worker and self.is_silent(row, now=now)
        ]
        return [self._retired(row) for row in silent]

    def _retired(self, row: Row) -> Row:
        """A source without a row is forgotten; so may be its stream."""
        rows, number = self._begun(row.source.stream), row.source.number
        row = replace(row, retired=True)
        if not row.upto:
            rows.forget(number)
        else:
            rows.restore(row)
            if number in rows.hearings:
                rows.hearings[number].doubted = False
        rows.is_another()
        if rows.is_empty:
            self._ended(row.source.stream)
        return row

    def answer(self, q: float = 0.5, *, stream: str = "default", now: float) -> Answer:
        """A quantile of all values in a stream, and how wrong it can be."""
        return self.answers([q], stream=stream, now=now)[0]

    def answers(self, qs: Sequence[float], *, stream: str, now: float) -> list[Answer]:
        """Several at once, of one moment."""
        for q in qs:
            if not 0 <= q <= 1:
                raise ValueError(f"q must be from 0 to 1, not {q}")
        rows = self._rows(stream)
        live, silent, until = self._attendance(rows, now)
        complete = not silent and now >= max(self.listens_until, self._turns_away_until(rows))
        exact = complete and all(row.counted == NO_GRANT for row in rows)
        return [
            Answer(
                stream=stream,
                q=q,
                count=rows.weight,
                epsilon=self.epsilon,
                estimate=rows.estimate(q),
                exact=exact,
                complete=complete,
                live=live,
                silent=silent,
                until=until,
            )
            for q in qs
        ]

    def distribution(self, stream: str) -> Distribution | None:
        """Of all values in a stream, to be evaluated anywhere: it never changes."""
        return self._rows(stream).distribution

    @property
    def listens_until(self) -> float:
        """Before then it cannot know who is missing."""
        return self._started + SILENT_HEARTBEATS * self.heartbeat_s

    def is_full(self, *, now: float) -> bool:
        """Whether there was no memory for something within three heartbeats."""
        return now < self._full_at + SILENT_HEARTBEATS * self.heartbeat_s

    def _turns_away_until(self, rows: Rows) -> float:
        return rows.turned_away + SILENT_HEARTBEATS * self.heartbeat_s

    def _attendance(self, rows: Rows, now: float) -> Attendance:
        if rows.attendance is None or now >= rows.attendance.until:
            rows.attendance = self._taken(rows, now)
        return rows.attendance

    def _taken(self, rows: Rows, now: float) -> Attendance:
        live = silent = 0
        times = (self.listens_until, self._turns_away_until(rows))
        until = min((time for time in times if now < time), default=math.inf)
        for row in map(rows.of, rows.sources):
            if self.is_silent(row, now=now):
                silent += 1
            elif not row.closed:
                live += 1
                until = min(until, rows.hearings[row.source.number].late_at(self.heartbeat_s))
        return Attendance(live, silent, until)
