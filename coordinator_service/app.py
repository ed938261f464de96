"""The coordinator over HTTP: takes deltas, and answers.

Nothing here waits but for bodies, for a turn, and for an answer that rests. The ledger judges
deltas and knows the answers; whoever asks for the median of the default stream gets bytes that are
ready, by a route ahead of all others.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Path, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel, ConfigDict
from starlette.types import Receive, Scope, Send

from coordinator_service.answers import Answers, Clock
from coordinator_service.metrics import Metrics
from coordinator_service.noticed import Noticed
from coordinator_service.settings import Settings
from coordinator_service.store import Store
from shared.ledger import Ledger, Outcome
from shared.protocol import (
    NAME_MAX,
    REQUEST_BYTES_MAX,
    Delta,
    MalformedMessage,
    Receipt,
    Refusal,
    pack_response,
    unpack_request,
)
from shared.rows import Row
from shared.serving.bodies import body_of
from shared.serving.errors import Problem, answer_errors, by_name, not_written, responses
from shared.serving.logs import facts
from shared.serving.queries import NO_NAME, NO_Q, UNKNOWN, Q, Qs, Stream, name_of, only
from shared.serving.room import Room
from shared.serving.storage import NotWritten, tended
from shared.serving.tasks import vital

MSGPACK = "application/msgpack"
BINARY = {MSGPACK: {"schema": {"type": "string", "format": "binary"}}}

WorkerName = Annotated[str, Path(max_length=NAME_MAX, description="as in `GET /workers`")]

RECEIPTS: dict[int | str, dict[str, Any]] = {
    200: {"content": BINARY, "description": "for each delta, in order, a receipt or a refusal"}
}

log = logging.getLogger("coordinator")


class Told(BaseModel):
    """The words under a field are its description in the documentation."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Workers(Told):
    live: int
    """Sources of the stream that keep their promise: they were heard of within three heartbeats."""
    silent: int
    """Sources that may have received values which the answer does not cover."""


class Said(Told):
    """What every answer says of itself."""

    stream: str
    count: int
    """How many values the answer covers."""
    epsilon: float
    """What the operator promised: the median's `rank_error` is at most this."""
    exact: bool
    """No acknowledged value could make the answer another."""
    complete: bool
    """Nobody is silent, and the coordinator has listened for three heartbeats."""
    workers: Workers
    as_of: str
    """When the answer was made; it stays the same until something changes it."""


class Median(Said):
    median: float | None
    low: float | None
    """The true median is certainly no less; null where nothing bounds it."""
    high: float | None
    """The true median is certainly no more; null where nothing bounds it."""
    rank_error: float
    """The certificate: the median's rank is off by at most this share of all ranks."""


class Quantile(Told):
    q: float
    value: float | None
    low: float | None
    """The true quantile is certainly no less; null where nothing bounds it."""
    high: float | None
    """The true quantile is certainly no more; null where nothing bounds it."""
    rank_error: float
    """The certificate: the value's rank is off by at most this share of all ranks."""


class Quantiles(Said):
    quantiles: list[Quantile]


class Source(Told):
    worker: str
    stream: str
    source: str
    """A number drawn when its data began: it tells this source from all others."""
    state: Literal["live", "silent", "gone", "retired"]
    """`gone` has said goodbye."""
    count: int
    """How many of its values are covered."""
    allowance: float
    """How many ranks it may have moved since it last spoke."""
    patience: int
    """How many values it may have received since it last spoke."""
    rank_shift: float
    """How many ranks it was off when it last spoke."""
    deltas: int
    bytes: int
    """Of the bodies of its deltas."""
    raw_bytes: int
    """Of the bodies that its users sent."""
    last_heard_s: float | None
    """Seconds ago; null: not since the coordinator started."""


class WorkersList(BaseModel):
    workers: list[Source]


class Picture(Told):
    x: list[float]
    """Knots, in order; straight lines lead from one to the next."""
    below: list[float]
    """How many values lie below each knot."""
    upto: list[float]
    """How many lie up to it; where that is more, the picture jumps."""


class ExplainedRow(Source):
    share_below: float
    """Of its values, the share below the answer."""
    share_upto: float
    """Of its values, the share up to the answer."""
    picture: Picture


class Explanation(Said, Quantile):
    rows: list[ExplainedRow]


class StreamSummary(BaseModel):
    stream: str
    count: int
    sources: int


class Streams(BaseModel):
    streams: list[StreamSummary]


class Retired(BaseModel):
    worker: str
    streams: list[str]


class Health(BaseModel):
    status: str
    epsilon: float
    heartbeat_s: float
    storage: str


class Ready(BaseModel):
    ready: bool


class Coordinator:
    """What the routes share."""

    def __init__(
        self, settings: Settings, *, clock: Clock, wall: Clock, store: Store | None
    ) -> None:
        self.settings, self.clock, self.store = settings, clock, store
        self.ledger = Ledger(
            settings.epsilon,
            number=1 + secrets.randbelow(2**64 - 1),
            now=clock(),
            heartbeat_s=settings.heartbeat_s,
            rows=store.rows() if store else (),
        )
        self.answers = Answers(self.ledger, clock=clock, wall=wall)
        self.room = Room(requests_max=settings.requests_max, bytes_max=settings.work_bytes_max)
        self.metrics = Metrics(self.ledger, self.room, clock, store)
        self.noticed = Noticed(self.answers)
        self._turns = asyncio.Lock()
        self._unkept: dict[tuple[str, int], Row] = {}  # changed, and not known to be written down
        if store is not None:
            what = facts(file=str(store.storage.path), rows=len(list(self.ledger.rows)))
            log.info("storage opened", extra=what)

    async def watch(self) -> None:
        """Notice who turns silent, also while nobody asks."""
        while True:
            await asyncio.sleep(self.settings.heartbeat_s)
            rows, now = list(self.ledger.known), self.clock()
            for row in rows:
                self.noticed.state(row, now)
            self.noticed.names(rows)
            with suppress(NotWritten):
                await self._keep(self._unkept)

    async def turn(self) -> None:
        """One by one: between any two the event loop looks who else is there.

        Else a thousand workers that come back at once are all heard before the next question is.
        """
        async with self._turns:
            await asyncio.sleep(0)

    async def receive(self, body: bytes) -> bytes:
        """Judge a request of deltas, each alone."""
        try:
            deltas = unpack_request(body)
        except MalformedMessage as error:
            raise Problem(400, "malformed", str(error)) from None
        judged = [self._judged(data) for data in deltas]
        await self._keep([delta.source.key for delta, _ in judged if delta])
        answer = pack_response([answer for _, answer in judged])
        self.metrics.carried(len(body), len(answer))
        return answer

    async def _keep(self, sources: Iterable[tuple[str, int]]) -> None:
        """Have their rows written down before anything is said of them."""
        rows = {source: self._unkept[source] for source in sources if source in self._unkept}
        if not rows or self.store is None:
            return
        await self.store.save(rows.values())
        for source, row in rows.items():
            if self._unkept.get(source) is row:
                del self._unkept[source]

    def _judged(self, data: bytes) -> tuple[Delta | None, Receipt | Refusal]:
        now = self.clock()
        delta, outcome, answer = self.ledger.judge(data, now=now)
        if delta is None:
            self.metrics.judged("none", outcome)
            log.warning("delta refused", extra=facts(bytes=len(data), why=answer))
            return None, answer
        form = delta.form.name.lower()
        self.metrics.judged(form, outcome)
        worker, stream, _ = delta.source
        what = facts(worker=worker, stream=stream, form=form, upto=delta.upto, bytes=len(data))
        log.info("delta %s", outcome, extra=what)
        row = self.ledger.row(delta.source)
        self.noticed.state(row, now)
        if outcome is Outcome.ACCEPTED and self.store is not None:
            self._unkept[row.source.key] = row
        return delta, answer

    def known(self, stream: str) -> str:
        """A stream that can be asked for: one that has values, or the default."""
        if name_of(stream) != "default" and not self.ledger.has(stream):
            raise Problem(404, "unknown_stream", f"there is no stream {stream!r} yet")
        return stream

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


class App(FastAPI):
    """FastAPI, behind one plain route: `GET /median`, the bytes that are ready."""

    coordinator: Coordinator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hot = scope["type"] == "http" and scope["path"] == "/median" and scope["method"] == "GET"
        body = None
        if scope["type"] == "http" and scope["path"] == "/deltas":
            await self.coordinator.turn()
        if hot and not scope["query_string"]:
            with suppress(Exception):  # whatever it is, FastAPI's route meets it again, and says so
                body = await self.coordinator.answers.median("default")
        if body is None:
            await super().__call__(scope, receive, send)
            return
        self.coordinator.metrics.median_asked()
        length = str(len(body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def create_app(
    settings: Settings,
    *,
    clock: Clock,
    wall: Clock,
    fail: Callable[[], None] = lambda: None,
    store: Store | None = None,
) -> App:
    coordinator = Coordinator(settings, clock=clock, wall=wall, store=store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with (
            tended(store.storage if store else None, fail=fail),
            vital(coordinator.watch(), name="watch", fail=fail),
        ):
            yield

    app = App(
        title="running-median coordinator",
        version="0.1.0",
        lifespan=lifespan,
        redirect_slashes=False,
        generate_unique_id_function=by_name,
    )
    app.coordinator = coordinator
    answer_errors(app)
    app.include_router(reads(coordinator))
    app.include_router(writes(coordinator))
    app.include_router(operations(coordinator))
    return app


def reads(coordinator: Coordinator) -> APIRouter:
    router = APIRouter(tags=["answers"])
    answers, asked = coordinator.answers, coordinator.metrics.asked

    @router.get(
        "/median",
        dependencies=[only("stream")],
        response_model=Median,
        responses=responses(_404=UNKNOWN, _422=NO_NAME),
    )
    async def get_median(stream: Stream = "default") -> Response:
        """The median of all values in a stream, and how wrong it can be; null if there are none."""
        found = await answers.median(coordinator.known(stream))
        coordinator.metrics.median_asked()
        return Response(found, media_type="application/json")

    @router.get(
        "/quantile",
        dependencies=[only("q", "stream")],
        response_model=Quantiles,
        responses=responses(_404=UNKNOWN, _422=NO_Q),
    )
    async def get_quantile(q: Qs, stream: Stream = "default") -> Response:
        """Any quantiles, each with its own certificate."""
        found = answers.quantiles(coordinator.known(stream), q)
        asked("quantile")
        return JSONResponse(found)

    @router.get("/streams")
    async def get_streams() -> Streams:
        """All streams that have values."""
        asked("streams")
        return Streams(streams=[StreamSummary(**one) for one in answers.streams()])

    @router.get("/workers", response_model=WorkersList)
    async def get_workers() -> Response:
        """One entry for each source, a stream on a worker: what it may live by, if it is silent."""
        asked("workers")
        return Response(await asyncio.to_thread(answers.workers()), media_type="application/json")

    @router.get(
        "/explain",
        dependencies=[only("q", "stream")],
        response_model=Explanation,
        responses=responses(_404=UNKNOWN, _422=NO_Q),
    )
    async def get_explain(q: Q = 0.5, stream: Stream = "default") -> Response:
        """The rows behind an answer, enough to compute it and its certificate again."""
        explain = answers.explain(coordinator.known(stream), q)
        asked("explain")
        return Response(await asyncio.to_thread(explain), media_type="application/json")

    return router


def writes(coordinator: Coordinator) -> APIRouter:
    router = APIRouter(tags=["workers"])

    @router.post(
        "/deltas",
        openapi_extra={"requestBody": {"required": True, "content": BINARY}},
        response_class=Response,
        responses=RECEIPTS
        | responses(
            _400="not a request of deltas",
            _408="the body took too long",
            _413="the body is too large",
            _415="the content type is another",
            _503="too much in work, or nothing can be written down: so nothing is signed",
            _507="nothing can be written down, as the disk is full; so nothing is signed",
        ),
    )
    async def post_deltas(request: Request) -> Response:
        """For workers: `shared/protocol.py` says what is in it."""
        given = request.headers.get("content-type", "")
        if given.partition(";")[0].strip().lower() != MSGPACK:
            raise Problem(415, "unknown_content_type", f"deltas come as {MSGPACK}, not {given!r}")
        s_max = coordinator.settings.body_s_max
        with coordinator.room.place() as place:
            body = await body_of(request, place, bytes_max=REQUEST_BYTES_MAX, s_max=s_max)
            try:
                return Response(await coordinator.receive(body), media_type=MSGPACK)
            except NotWritten as error:
                raise not_written(error) from None

    @router.post(
        "/workers/{name:path}/retire",
        responses=responses(
            _404="there is no such worker",
            _409="it is not silent",
            _422="not a name",
            _503="retired, but that cannot be written down yet",
            _507="retired, but that cannot be written down yet, as the disk is full",
        ),
    )
    async def post_retire(name: WorkerName) -> Retired:
        """A silent worker will not come back: its values stay counted, nobody waits for more."""
        try:
            return await coordinator.retire(name)
        except NotWritten as error:
            raise not_written(error) from None

    return router


def operations(coordinator: Coordinator) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/health")
    async def get_health() -> Health:
        """Whether it runs, what it promises, and where it keeps its rows."""
        settings = coordinator.settings
        return Health(
            status="ok",
            epsilon=settings.epsilon,
            heartbeat_s=settings.heartbeat_s,
            storage="disk" if coordinator.store else "memory",
        )

    @router.get("/ready", responses=responses(_503="answers are not complete; it says why"))
    async def get_ready() -> Ready:
        """Whether it has listened for long enough to know who is there."""
        if reason := coordinator.why_not_ready():
            raise Problem(503, "not_ready", reason)
        return Ready(ready=True)

    @router.get("/metrics", response_class=PlainTextResponse)
    async def get_metrics() -> Response:
        """For Prometheus."""
        return Response(coordinator.metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router
