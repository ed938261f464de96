"""The coordinator over HTTP: takes deltas, and answers.

Nothing here waits but for bodies, for a turn, and for an answer that rests. Whoever asks for the
median of the default stream gets bytes that are ready, by a route ahead of all others.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.types import Receive, Scope, Send

from coordinator_service.answers import Clock
from coordinator_service.coordinator import Coordinator
from coordinator_service.history import LAST_S_MAX
from coordinator_service.long import LongAnswers, Turn, told_when_stopped
from coordinator_service.pages import FOLDER, files_in, pages
from coordinator_service.settings import Settings
from coordinator_service.store import Store
from coordinator_service.told import (
    Cdf,
    Explanation,
    Health,
    History,
    Median,
    Quantiles,
    Ready,
    Retired,
    Streams,
    WorkersList,
)
from shared.protocol import NAME_MAX, REQUEST_BYTES_MAX
from shared.serving import metrics
from shared.serving.bodies import body_of
from shared.serving.documents import documents
from shared.serving.errors import Problem, answer_errors, by_name, not_written, responses
from shared.serving.queries import (
    NO_NAME,
    NO_Q,
    UNKNOWN,
    Q,
    Qs,
    Stream,
    StreamOrAll,
    name_of,
    only,
)
from shared.serving.slices import Sliced
from shared.serving.storage import NotWritten, tended
from shared.serving.tasks import vital

MSGPACK = "application/msgpack"
BINARY = {MSGPACK: {"schema": {"type": "string", "format": "binary"}}}

LastS = Annotated[
    float, Query(ge=1, le=LAST_S_MAX, description="of the last so many seconds, up to a day")
]
WorkerName = Annotated[
    str,
    Path(
        max_length=NAME_MAX,
        description="as in `GET /workers`",
        json_schema_extra={"pattern": r"^[^\x00-\x1f\x7f]+$"},
    ),
]
Points = Annotated[int, Query(ge=2, le=1000, description="at most so many, from 2 to 1000")]

RECEIPTS: dict[int | str, dict[str, Any]] = {
    200: {"content": BINARY, "description": "for each delta, in order, a receipt or a refusal"}
}

EVENT_STREAM = "text/event-stream"
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
        "description": "events without an end; the data of each is what `GET /median` says",
    }
}
MANY_ASK = "as many ask different such questions as may at once"
NOT_STORED = {"cache-control": "no-store", "x-accel-buffering": "no"}  # nor held up by a proxy


class App(FastAPI):
    """FastAPI, behind one plain route: `GET /median`, the bytes that are ready."""

    coordinator: Coordinator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hot = scope["type"] == "http" and scope["path"] == "/median" and scope["method"] == "GET"
        body, doors = None, self.coordinator.doors
        if scope["type"] == "http" and scope["path"] == "/deltas" and doors["push"].opens_to(scope):
            await self.coordinator.turns.enter()
        if hot and not scope["query_string"] and doors["read"].opens_to(scope):
            with suppress(Exception):  # whatever it is, FastAPI's route meets it again, and says so
                body = (await self.coordinator.answers.median("default")).body
        if body is None:
            await super().__call__(scope, receive, send)
            return
        self.coordinator.metrics.median_asked()
        length = str(len(body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def create_app(  # noqa: PLR0913  settings, and by name what it runs on
    settings: Settings,
    *,
    clock: Clock,
    wall: Clock,
    fail: Callable[[], None] = lambda: None,
    stopping: asyncio.Event | None = None,
    store: Store | None = None,
) -> App:
    stopping = stopping or asyncio.Event()
    coordinator = Coordinator(settings, clock=clock, wall=wall, stopping=stopping, store=store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with (
            tended(store.storage if store else None, fail=fail),
            vital(coordinator.watch(), name="watch", fail=fail),
            vital(coordinator.live.watch(), name="live answers", fail=fail),
        ):
            yield

    app = App(
        title="running-median coordinator",
        version="0.1.0",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=by_name,
    )
    app.coordinator, app.state.crowd = coordinator, coordinator.crowd
    answer_errors(app)
    app.include_router(reads(coordinator))
    app.include_router(writes(coordinator))
    app.include_router(operations(coordinator))
    app.include_router(documents(app))
    app.include_router(pages(files_in(FOLDER)))
    return app


def reads(coordinator: Coordinator) -> APIRouter:
    door = coordinator.doors["read"]
    router = APIRouter(tags=["answers"], dependencies=door.locks, responses=door.refusals)
    answers, asked = coordinator.answers, coordinator.metrics.asked
    cdfs, lists = LongAnswers(coordinator.clock), LongAnswers(coordinator.clock)
    quantiles = LongAnswers(coordinator.clock, rests=1)  # asked more often than drawn
    explains = Turn(coordinator.clock, rests=0)  # asked by people, one answer at a time

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
        return Response(found.body, media_type="application/json")

    @router.get(
        "/median/events",
        dependencies=[only("stream")],
        response_class=Response,
        responses=EVENTS
        | responses(_404=UNKNOWN, _422=NO_NAME, _503="as many listen as there may be"),
    )
    async def get_median_events(stream: Stream = "default") -> Response:
        """The median live: server-sent events, each with what `GET /median` says.

        One comes at once, another whenever the answer changes enough to matter, or a second after
        any other change; where there is none, a comment each heartbeat.
        """
        events = await coordinator.live.events(coordinator.known(stream))
        asked("events")
        return StreamingResponse(events, media_type=EVENT_STREAM, headers=NOT_STORED)

    @router.get(
        "/median/history",
        dependencies=[only("stream", "last_s")],
        response_model=History,
        responses=responses(_404=UNKNOWN, _422="not a name, or not so many seconds"),
    )
    async def get_median_history(stream: Stream = "default", last_s: LastS = 300) -> Response:
        """What the median was, as far as it is remembered: for a plot."""
        found = await coordinator.history(coordinator.known(stream), last_s)
        asked("history")
        return JSONResponse(found)

    @router.get(
        "/quantile",
        dependencies=[only("q", "stream")],
        response_model=Quantiles,
        responses=responses(_404=UNKNOWN, _422=NO_Q, _503=MANY_ASK),
    )
    async def get_quantile(q: Qs, stream: Stream = "default") -> Response:
        """Any quantiles, each with its own certificate."""
        name, asks = coordinator.known(stream), tuple(q)
        found = await quantiles.answer((name, asks), lambda: answers.quantiles(name, asks))
        asked("quantile")
        return Sliced(found)

    @router.get("/streams", response_model=Streams, responses=responses(_503=MANY_ASK))
    async def get_streams() -> Response:
        """All streams that have values."""
        found = await lists.answer((), answers.streams)
        asked("streams")
        return Sliced(found)

    @router.get(
        "/cdf",
        dependencies=[only("stream", "points")],
        response_model=Cdf,
        responses=responses(
            _404=UNKNOWN, _422="not a number from 2 to 1000, or not a name", _503=MANY_ASK
        ),
    )
    async def get_cdf(stream: Stream = "default", points: Points = 200) -> Response:
        """Which share of all values lies up to where, for a plot, and how wrong each share is."""
        name = coordinator.known(stream)
        found = await cdfs.answer((name, points), lambda: answers.cdf(name, points))
        asked("cdf")
        return Sliced(found)

    @router.get(
        "/workers",
        dependencies=[only("stream")],
        response_model=WorkersList,
        responses=responses(_404=UNKNOWN, _422=NO_NAME, _503=MANY_ASK),
    )
    async def get_workers(stream: StreamOrAll = None) -> Response:
        """One entry for each source, a stream on a worker: what it may live by, if it is silent."""
        name = coordinator.known(stream) if stream else None
        found = await lists.answer(name, lambda: answers.workers(name))
        asked("workers")
        return Sliced(found)

    @router.get(
        "/explain",
        dependencies=[only("q", "stream")],
        response_model=Explanation,
        responses=responses(_404=UNKNOWN, _422=NO_Q, _503=MANY_ASK),
    )
    async def get_explain(q: Q = 0.5, stream: Stream = "default") -> Response:
        """The rows behind an answer, enough to compute it and its certificate again."""
        name = coordinator.known(stream)
        with told_when_stopped():
            async with explains:  # each may be as large as all rows
                body = await asyncio.to_thread(answers.explain(name, q))
        asked("explain")
        return Sliced(body)

    return router


def writes(coordinator: Coordinator) -> APIRouter:
    router = APIRouter(tags=["workers"])
    push, admin = coordinator.doors["push"], coordinator.doors["admin"]

    @router.post(
        "/deltas",
        dependencies=push.locks,
        openapi_extra={"requestBody": {"required": True, "content": BINARY}},
        response_class=Response,
        responses=RECEIPTS
        | push.refusals
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
        dependencies=admin.locks,
        responses=admin.refusals
        | responses(
            _400="a control character is in the address",
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
            return await coordinator.retire(name_of(name))
        except NotWritten as error:
            raise not_written(error) from None

    return router


def operations(coordinator: Coordinator) -> APIRouter:
    router = APIRouter(tags=["operations"])
    read, scrapes = coordinator.doors["read"], LongAnswers(coordinator.clock)

    @router.get("/health")
    async def get_health(request: Request) -> Health:
        """Whether it runs, what it promises, where it keeps its rows, and who may do what."""
        settings = coordinator.settings
        return Health(
            status="ok",
            epsilon=settings.epsilon,
            heartbeat_s=settings.heartbeat_s,
            storage="disk" if coordinator.store else "memory",
            started=coordinator.started,
            closed=coordinator.doors.closed_to(request),
        )

    @router.get("/ready", responses=responses(_503="answers are not complete; it says why"))
    async def get_ready(request: Request) -> Ready:
        """Whether it has listened for long enough to know who is there."""
        if reason := coordinator.why_not_ready():
            raise Problem(503, "not_ready", read.tells(request, reason))
        return Ready(ready=True)

    @router.get(
        "/metrics",
        dependencies=read.locks,
        response_class=Response,
        responses=metrics.TOLD | read.refusals,
    )
    async def get_metrics() -> Response:
        """For Prometheus."""
        text = await scrapes.answer((), coordinator.metrics.written)
        return Sliced(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router
