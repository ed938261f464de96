"""The courier: the one task that carries deltas to the coordinator, and waits on the network.

One request at a time, with what is due of all streams together. A request that failed is repeated
with the same bytes, after a pause that doubles each time, up to a limit, and is never twice the
same, so that workers whose coordinator was away do not come back all at once. Only the response to
the newest request is read: there is no other, because each is waited for or given up.

What a push costs on the wire beyond its two bodies: 104 bytes of request and 74 of response
headers, for a coordinator called `coordinator:8000`. The bodies, of normal values at epsilon 2 %:
71 bytes of a delta that only counts on, as most do, 100 to 550 of others; about 50 of a receipt.
httpx by itself would send 102 bytes more.

It speaks through httpx's transport, as a client of httpx knows cookies, and where redirects lead:
what is wrong with these would be trouble of ours, and neither means anything here.
"""

import asyncio
import json
import logging
import math
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import httpx

from shared.outbox import Flight
from shared.protocol import (
    DELTA_BYTES_MAX,
    DELTAS_MAX,
    HEARTBEAT_S_MAX,
    HEARTBEAT_S_MIN,
    REQUEST_BYTES_MAX,
    MalformedMessage,
    Receipt,
    Refusal,
    pack_request,
    too_coarse,
    unpack_response,
)
from shared.serving.doors import is_loopback
from shared.serving.logs import facts
from shared.serving.storage import NotWritten
from worker_service.metrics import Metrics
from worker_service.settings import Settings
from worker_service.sources import Clock, Line, Sources

BACKOFF_S = 0.1
LOOK_S = 0.02
HEALTH_BYTES_MAX = 500  # more of it is not read; so it cannot nest any deeper either
HEADERS = {"content-type": "application/msgpack"}
KEEP_ALIVE_S = HEARTBEAT_S_MAX + 5.0  # else httpx lets go of a connection after 5 s without use
ROOM = DELTA_BYTES_MAX + 8 * DELTAS_MAX  # for one more delta, and what packs them all

Transport: TypeAlias = httpx.AsyncBaseTransport | None
"""Instead of a network; for tests."""

log = logging.getLogger("worker.courier")


class Unreached(Exception):
    """The request may have arrived or not; no response that means anything came back."""


class TurnedAway(Unreached):
    """The coordinator asks for a token, and this worker has not the right one."""


@dataclass
class Tries:
    """How often something failed in a row, and until when it rests."""

    failures: int = 0
    until: float = -math.inf

    def failed(self, now: float, *, s_max: float) -> None:
        pause = min(s_max, BACKOFF_S * 2.0 ** min(self.failures, 30))
        pause *= random.uniform(0.5, 1)  # noqa: S311  no secret: it only spreads them
        self.failures, self.until = self.failures + 1, now + pause

    def succeeded(self) -> None:
        self.failures, self.until = 0, -math.inf


class Courier:
    def __init__(
        self,
        sources: Sources,
        metrics: Metrics,
        settings: Settings,
        *,
        clock: Clock,
        transport: Transport = None,
    ) -> None:
        self._sources, self._metrics, self._clock = sources, metrics, clock
        self._url, self._digest_rank_error = settings.coordinator_url, settings.digest_rank_error
        self._request_s_max, self._backoff_s_max = settings.request_s_max, settings.backoff_s_max
        self._token, self._trust = settings.tokens("push"), settings.trust
        self._instead, self._trusts = transport, self._trust.context
        self._way = self._new_way()
        if self._token and not _is_overheard_by_nobody(self._url):
            log.warning(
                "the push token goes unencrypted: begin MEDIAN_COORDINATOR_URL with https://"
            )
        self._heartbeat_s = HEARTBEAT_S_MAX
        self._tries = Tries()
        self._tries_of: dict[Line, Tries] = {}
        self._refusals: dict[Line | None, Refusal] = {}
        self._unmet: str | None = "it was not asked yet"
        self._coarse: str | None = None
        self._trouble = ""

    def _new_way(self) -> httpx.AsyncBaseTransport:
        return self._instead or httpx.AsyncHTTPTransport(
            trust_env=False,
            verify=self._trusts,
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE_S),
        )

    def why_not(self) -> Iterator[str]:
        """Why values would not be received now, as far as that is to do with the coordinator."""
        if self._unmet:
            yield f"no coordinator was heard of at {self._url}: {self._unmet}"
        if self._coarse:
            yield self._coarse
        for line in self._sources:
            if line in self._refusals:
                yield f"stream {line.outbox.source.stream}: {self._refusals[line].sentence}"

    def hopeless(self, stream: str) -> str | None:
        """Why no value of this stream will be received, however long one waits; None if it may."""
        refusal = self._refusals.get(self._sources.line(stream))
        return self._coarse or (refusal.sentence if refusal else None)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._pause()
            if self._unmet or self._coarse:
                await self._greet()
            if not self._unmet:
                await self._until_due()
                await self._round()
            if self._sources.broken:
                raise self._sources.broken

    async def goodbye(self, *, s_max: float) -> None:
        """Instead of `run`, at the end: say the last of all sources, within the time there is."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(s_max):
                    await self._sources.goodbye()
                    await self._until_closed()
        finally:
            await self._way.aclose()
        for outbox in (line.outbox for line in self._sources if not line.outbox.closed):
            what = facts(stream=outbox.source.stream, values=outbox.count - outbox.covered)
            if outbox.count > outbox.covered and self._sources.kept:
                log.warning("the last values will be told after the next start", extra=what)
            elif outbox.count > outbox.covered:
                log.error("the last values were not told in time, and are lost", extra=what)
            else:
                log.warning("the goodbye was not heard; all values were told", extra=what)

    async def _until_closed(self) -> None:
        while not self._sources.closed:
            await self._round()
            await asyncio.sleep(LOOK_S)
            await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(max(0.0, self._tries.until - self._clock()))

    async def _until_due(self) -> None:
        self._sources.news.clear()
        now = self._clock()
        at = min((self._wanted_at(line) for line in self._sources), default=math.inf)
        if self._coarse:
            at = min(at, now + self._backoff_s_max)  # and ask again who it is
        self._sources.planned = at
        if at > now:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if at == math.inf else at - now):
                    await self._sources.news.wait()
        self._sources.planned = -math.inf

    def _wanted_at(self, line: Line) -> float:
        outbox = line.outbox
        at_once = outbox.flight is not None or outbox.outdated
        return max(-math.inf if at_once else outbox.due_at, self._rests_until(line))

    def _rests_until(self, line: Line) -> float:
        return self._tries_of[line].until if line in self._tries_of else -math.inf

    async def _greet(self) -> None:
        """Ask the coordinator who it is, so that a wrong address shows before the first value."""
        try:
            greeting = httpx.Request("GET", f"{self._url}/health", headers=self._token.header)
            epsilon, self._heartbeat_s, is_closed = _greeted(await self._asked(greeting))
            if is_closed:
                raise self._turned_away
            self._coarse = too_coarse(self._digest_rank_error, epsilon)
        except Unreached as error:
            self._unmet = str(error)
            self._failed(self._unmet)
        else:
            if self._coarse:
                log.error("coordinator met: %s", self._coarse, extra=facts(url=self._url))
            elif self._unmet:
                log.info("coordinator met", extra=facts(url=self._url))
            self._unmet = None
            self._reached()

    async def _round(self) -> None:
        """Send what is wanted now, and bring back what came of it."""
        for line in self._sources:
            if line.outbox.outdated and self._rests_until(line) <= self._clock():
                await self._replace(line)
        sending = await self._collected()
        if not sending:
            return
        since = self._clock()
        body = pack_request(list(sending.values()))
        try:
            answers = await self._pushed(body, len(sending))
        except Unreached as error:
            if isinstance(error, TurnedAway):
                self._unmet = str(error)
            self._failed(str(error))
            return
        self._unmet = None
        self._reached()
        self._metrics.pushed(self._clock() - since)
        for line, answer in zip(sending, answers, strict=True):
            await self._judged(line, answer)

    async def _collected(self) -> dict[Line, bytes]:
        """What is in flight first, then what is due, as much as one request may hold."""
        sending: dict[Line, bytes] = {}
        size = 0
        for line in sorted(self._sources, key=self._in_turn):
            if len(sending) == DELTAS_MAX or size + ROOM > REQUEST_BYTES_MAX:
                break
            if self._wanted_at(line) <= self._clock() and (data := await line.delta()):
                sending[line], line.last_sent = data, self._clock()
                size += len(data)
        return sending

    def _in_turn(self, line: Line) -> tuple[bool, float]:
        return line.outbox.flight is None, line.last_sent

    async def _pushed(self, body: bytes, deltas: int) -> list[Receipt | Refusal]:
        headers = HEADERS | self._token.header
        request = httpx.Request("POST", f"{self._url}/deltas", content=body, headers=headers)
        self._metrics.sent(len(body))
        content = await self._asked(request)
        self._metrics.received(len(content))
        try:
            answers = unpack_response(content)
        except MalformedMessage as error:
            raise Unreached(f"rubbish came back: {error}") from None
        if len(answers) != deltas:
            raise Unreached(f"{len(answers)} answers came back, to {deltas} deltas")
        return answers

    async def _asked(self, request: httpx.Request) -> bytes:
        """The content of a response with status 200, in time and within limits."""
        request_s = min(self._request_s_max, max(1.0, 1.5 * self._heartbeat_s))
        try:
            async with asyncio.timeout(request_s):
                await self._keep_to_who_is_trusted()
                response = await self._way.handle_async_request(request)
                try:
                    content = await self._content(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise Unreached(f"no answer within {request_s:g} s") from None
        except httpx.HTTPError as error:
            raise Unreached(self._trust.trouble(error) or _said(error, self._url)) from None
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise self._turned_away
        if response.status_code != httpx.codes.OK:
            raise Unreached(f"it answered with status {response.status_code}")
        return content

    async def _keep_to_who_is_trusted(self) -> None:
        """On a connection of before, whom it trusted then would be heard on."""
        if self._trusts is not self._trust.context:
            self._trusts, before = self._trust.context, self._way
            self._way = self._new_way()
            await before.aclose()

    @property
    def _turned_away(self) -> TurnedAway:
        what = "is not what it asks for" if self._token else "is not set, and it asks for one"
        return TurnedAway(f"MEDIAN_PUSH_TOKEN {what}")

    async def _content(self, response: httpx.Response) -> bytes:
        content = bytearray()
        async for piece in response.aiter_raw():
            content += piece
            if len(content) > REQUEST_BYTES_MAX:
                raise Unreached("its answer does not end")
        return bytes(content)

    async def _judged(self, line: Line, answer: Receipt | Refusal) -> None:
        tries = self._tries_of.setdefault(line, Tries())
        if isinstance(answer, Refusal):
            self._refused(line, answer, tries)
            if answer.code == "conflict":
                await line.give_way()
                _log_end(line, "another process runs this source")
            return
        outbox = line.outbox
        flight = cast(Flight, outbox.flight)  # it was sent
        self._heartbeat_s = answer.heartbeat_s
        await line.receive(answer)
        signed = answer.mark == flight.makes.mark
        self._refusals.pop(line, None)
        self._note_tries(tries, signed)
        self._metrics.answered(flight, signed)
        log.info("delta signed" if signed else "delta not signed", extra=_facts(flight, answer))
        if outbox.outdated:
            _log_end(line, "the coordinator knows more than is here")

    async def _replace(self, line: Line) -> None:
        """By a new source, as soon as it is certain that no restart brings the old one back."""
        try:
            await self._sources.replace(line)
        except NotWritten:
            self._rest(self._tries_of[line])
        else:
            del self._tries_of[line]
            self._refusals.pop(line, None)

    def _note_tries(self, tries: Tries, signed: bool) -> None:
        """A coordinator that forgot is told the whole at once, but not for ever."""
        if signed:
            tries.succeeded()
        elif tries.failures:
            self._rest(tries)
        else:
            tries.failures = 1

    def _rest(self, tries: Tries) -> None:
        """With a request, shorter than three heartbeats: a new coordinator waits no longer."""
        tries.failed(self._clock(), s_max=min(self._backoff_s_max, self._heartbeat_s))

    def _refused(self, line: Line, refusal: Refusal, tries: Tries) -> None:
        self._rest(tries)
        self._metrics.refused(refusal.code)
        if self._refusals.get(line) != refusal:
            self._refusals[line] = refusal
            what = facts(stream=line.outbox.source.stream, code=refusal.code)
            worry = logging.WARNING if refusal.code == "in_use" else logging.ERROR
            log.log(worry, "delta refused: %s", refusal.sentence, extra=what)

    def _failed(self, trouble: str) -> None:
        if self._trouble != trouble or not self._tries.failures:
            log.warning("coordinator not reached", extra=facts(url=self._url, why=trouble))
        self._trouble = trouble
        self._rest(self._tries)
        self._metrics.retried()

    def _reached(self) -> None:
        if self._tries.failures:
            log.info("coordinator reached", extra=facts(after_failures=self._tries.failures))
        self._tries.succeeded()


def _is_overheard_by_nobody(url: str) -> bool:
    where = httpx.URL(url)
    return where.scheme == "https" or is_loopback(where.host)


def _said(error: httpx.HTTPError, url: str) -> str:
    said = str(error) or type(error).__name__
    if isinstance(error, httpx.RemoteProtocolError) and url.startswith("http:"):
        return f"{said.rstrip('.')}; if it speaks TLS, begin MEDIAN_COORDINATOR_URL with https://"
    return said


def _greeted(health: bytes) -> tuple[float, float, bool]:
    """Of a coordinator what `GET /health` says: epsilon, heartbeat, if it would let nobody push."""
    try:
        said = json.loads(health[:HEALTH_BYTES_MAX])
    except ValueError:
        said = None
    match said:
        case {"epsilon": float(epsilon), "heartbeat_s": float(heartbeat_s), **more} if (
            0 < epsilon < 0.5 and HEARTBEAT_S_MIN <= heartbeat_s <= HEARTBEAT_S_MAX
        ):
            closed = more.get("closed")
            return epsilon, heartbeat_s, isinstance(closed, list) and "push" in closed
        case _:
            raise Unreached("what listens there is no coordinator")


def _log_end(line: Line, why: str) -> None:
    """What it had acknowledged, and no answer covers, is lost."""
    outbox = line.outbox
    what = facts(
        stream=outbox.source.stream,
        source=f"{outbox.source.number:016x}",
        count=outbox.count,
        lost_at_most=max(0, outbox.acknowledged - outbox.covered),
    )
    log.error("%s; a new source begins", why, extra=what)


def _facts(flight: Flight, receipt: Receipt) -> dict[str, Any]:
    delta = flight.delta
    return facts(
        stream=delta.source.stream,
        form=delta.form.name.lower(),
        cause=delta.cause.name.lower(),
        since=delta.since,
        upto=delta.upto,
        bytes=len(flight.data),
        shift=delta.shift,
        allowance=receipt.grant.allowance,
        patience=receipt.grant.patience,
    )
