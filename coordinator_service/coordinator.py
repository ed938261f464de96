"""The coordinator without HTTP: the ledger, and all that stands around it.

The ledger judges deltas and knows the answers. Here rows are written down before anything is said
of them, and what is judged is counted and logged.
"""

import asyncio
import logging
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from coordinator_service.answers import Answers, Clock
from coordinator_service.history import Histories
from coordinator_service.live import Live
from coordinator_service.metrics import Metrics
from coordinator_service.noticed import Noticed
from coordinator_service.settings import Settings
from coordinator_service.store import Store
from coordinator_service.told import Retired
from coordinator_service.turns import Turn, Turns
from shared.ledger import Ledger, Outcome
from shared.protocol import (
    Delta,
    MalformedMessage,
    Receipt,
    Refusal,
    pack_response,
    unpack_delta,
    unpack_request,
)
from shared.rows import Row
from shared.serving.crowd import Crowd
from shared.serving.doors import Doors
from shared.serving.errors import Problem
from shared.serving.logs import as_of, facts
from shared.serving.queries import name_of
from shared.serving.room import Room
from shared.serving.storage import NotWritten

log = logging.getLogger("coordinator")

Judged = tuple[Delta | None, Receipt | Refusal]
LARGE_BYTES = 16 * 1024  # a worker's deltas are smaller, unless epsilon is far below a hundredth
TWICE = Refusal("malformed", "a request has one delta of a source: only the first was judged")


class Coordinator:
    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        wall: Clock,
        stopping: asyncio.Event,
        store: Store | None,
    ) -> None:
        self.settings, self.clock, self._wall, self.store = settings, clock, wall, store
        self.started = as_of(wall())
        self.ledger = Ledger(
            settings.epsilon,
            number=1 + secrets.randbelow(2**64 - 1),
            now=clock(),
            heartbeat_s=settings.heartbeat_s,
            bytes_max=settings.rows_bytes_max,
            rows=store.rows() if store else (),
        )
        self.answers = Answers(self.ledger, clock=clock, wall=wall)
        self._histories = Histories()
        self.live = Live(self.ledger, self.answers, self._histories, clock=clock, stopping=stopping)
        self.room = Room(requests_max=settings.requests_max, bytes_max=settings.work_bytes_max)
        self.doors, self.crowd = Doors(settings), Crowd(settings.connections_max)
        self.metrics = Metrics(
            self.ledger,
            self.answers,
            self.live,
            room=self.room,
            doors=self.doors,
            crowd=self.crowd,
            certificate=settings.certificate,
            store=store,
        )
        self.noticed = Noticed(self.answers)
        self.turns = Turns(clock)
        self._unkept: dict[tuple[str, int], Row] = {}  # changed, and not known to be written down
        if store is not None:
            what = facts(file=str(store.storage.path), rows=len(list(self.ledger.rows)))
            log.info("storage opened", extra=what)
        if not self.ledger.memory.has(1):
            what = facts(bytes=self.ledger.memory.taken, bytes_max=settings.rows_bytes_max)
            log.warning("rows that were kept take as much memory as rows may, or more", extra=what)

    async def watch(self) -> None:
        """Notice who turns silent, also while nobody asks."""
        while True:
            await asyncio.sleep(self.settings.heartbeat_s)
            rows, now = list(self.ledger.known), self.clock()
            self.noticed.full(self.ledger, now)
            for row in rows:
                self.noticed.state(row, now)
            self.noticed.names(rows)
            with suppress(NotWritten):
                await self._keep(self._unkept)

    async def receive(self, body: bytes) -> bytes:
        """Judge a request of deltas, each alone, and others in between."""
        try:
            deltas = unpack_request(body)
        except MalformedMessage as error:
            raise Problem(400, "malformed", str(error)) from None
        judged = await self._all_judged(deltas)
        whys = [why for delta, why in judged if delta is None and isinstance(why, Refusal)]
        self._note_none(whys, len(body))
        await self._keep([delta.source.key for delta, _ in judged if delta])
        answer = pack_response([answer for _, answer in judged])
        self.metrics.carried(len(body), len(answer))
        return answer

    async def _all_judged(self, deltas: list[bytes]) -> list[Judged]:
        """In their order; what the row of a source was meanwhile, its receipt says."""
        judged, said = list[Judged](), set[tuple[str, int]]()
        async with Turn(self.turns) as turn:
            for data in deltas:
                is_large = len(data) > LARGE_BYTES
                aside = await turn.aside(partial(_unpacked, data)) if is_large else None
                await turn.begin()
                judged.append(self._judged_once(aside or _unpacked(data), data, said))
                await turn.done()
        return judged

    def _judged_once(
        self, delta: Delta | Refusal, data: bytes, said: set[tuple[str, int]]
    ) -> Judged:
        """Of a source that a request has told of, it tells no more."""
        if isinstance(delta, Refusal):
            return None, delta
        if delta.source.key in said:
            return None, TWICE
        said.add(delta.source.key)
        return delta, self._judged(delta, data)

    async def _keep(self, sources: Iterable[tuple[str, int]]) -> None:
        """Have their rows written down before anything is said of them."""
        rows = {source: self._unkept[source] for source in sources if source in self._unkept}
        if not rows or self.store is None:
            return
        await self.store.save(rows.values())
        for source, row in rows.items():
            if self._unkept.get(source) is row:
                del self._unkept[source]

    def _note_none(self, whys: Sequence[Refusal], bytes_: int) -> None:
        """In one line, or who sends a thousand in each request would fill a disk."""
        for why in whys:
            self.metrics.judged("none", Outcome.REFUSED)
            self.metrics.refused(why.code)
        if whys:
            what = facts(deltas=len(whys), bytes=bytes_, why=whys[0].sentence)
            log.warning("delta refused", extra=what)

    def _judged(self, delta: Delta, data: bytes) -> Receipt | Refusal:
        now = self.clock()
        _, outcome, answer = self.ledger.judge_unpacked(delta, data, now=now)
        form = delta.form.name.lower()
        self.metrics.judged(form, outcome)
        if isinstance(answer, Refusal):
            self.metrics.refused(answer.code)
        worker, stream, _ = delta.source
        what = facts(worker=worker, stream=stream, form=form, upto=delta.upto, bytes=len(data))
        log.info("delta %s", outcome, extra=what)
        self.noticed.full(self.ledger, now)
        row = self.ledger.row(delta.source)
        if self.ledger.knows(delta.source):
            self.noticed.state(row, now)
        if outcome is Outcome.ACCEPTED and self.store is not None:
            self._unkept[row.source.key] = row
        return answer

    def known(self, stream: str) -> str:
        """A stream that can be asked for: one that has values, or the default."""
        if name_of(stream) != "default" and not self.ledger.has(stream):
            raise Problem(404, "unknown_stream", f"there is no stream {stream!r} yet")
        return stream

    async def history(self, stream: str, last_s: float) -> dict[str, Any]:
        """What the median was in the last so many seconds, and is."""
        kept = await self.answers.median(stream)  # while others may look, and take its room
        self._histories.look(stream)
        self._histories.add(kept)
        return self._histories.told(stream, last_s, now=self.clock(), wall=self._wall())

    async def retire(self, worker: str) -> Retired:
        now = self.clock()
        if all(row.source.worker != worker for row in self.ledger.known):
            raise Problem(404, "unknown_worker", f"there is no worker {worker!r}")
        rows = self.ledger.retire(worker, now=now)
        if not rows:
            what = f"nothing to retire: no source of worker {worker!r} is silent"
            so = "those that run must be stopped first, those that said goodbye need it not"
            raise Problem(409, "not_silent", f"{what}; {so}")
        for row in rows:
            self.noticed.state(row, now)
            if row.upto and self.store is not None:
                self._unkept[row.source.key] = row
        await self._keep([row.source.key for row in rows])
        return Retired(worker=worker, streams=sorted(row.source.stream for row in rows))

    def why_not_ready(self) -> str | None:
        if self.store is not None and self.store.storage.trouble:
            return self.store.storage.trouble
        left = self.ledger.listens_until - self.clock()
        if left <= 0:
            return None
        return f"it listens for three heartbeats after its start, {left:.1f} s more"


def _unpacked(data: bytes) -> Delta | Refusal:
    try:
        return unpack_delta(data)
    except MalformedMessage as error:
        return Refusal("malformed", str(error))
