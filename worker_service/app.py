"""The worker over HTTP: takes values, and answers from its own digests.

A `202` means that the batch is received: the promise holds for it. Mostly it comes at once. Where
taking a batch makes a delta due, it waits until the coordinator has signed.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from hashlib import blake2b
from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, FastAPI, Header, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel, ConfigDict

from shared.digest import Digest
from shared.outbox import NotTaken
from shared.serving import metrics
from shared.serving.bodies import body_of
from shared.serving.crowd import Crowd
from shared.serving.documents import documents
from shared.serving.doors import Doors
from shared.serving.errors import RETRY, Problem, answer_errors, by_name, not_written, responses
from shared.serving.logs import facts
from shared.serving.queries import NO_NAME, NO_Q, UNKNOWN, Qs, Stream, StreamOrAll, name_of, only
from shared.serving.room import Place, Room, Watch
from shared.serving.storage import NotWritten, tended
from shared.serving.tasks import vital
from shared.values import BadValue, Floats
from worker_service.courier import Courier, Transport
from worker_service.intake import BadBody, decode
from worker_service.keys import KEY_MAX, BadKey, Keys, checked
from worker_service.metrics import Metrics
from worker_service.settings import Settings
from worker_service.sources import (
    Batch,
    Clock,
    Line,
    Shared,
    Sources,
    Taken,
    TooManyStreams,
    in_thread,
)
from worker_service.store import Key, Store

# Bytes: a larger body is decoded in a thread, as it may take 3 ms; or much less, being packed.
LARGE_BODY, LARGE_OCTETS, OCTETS = 2**14, 2**17, "application/octet-stream"
HUGE_BODY = 2**18  # bytes: the large ones that are shorter are decoded beside those beyond
UNSURE = (
    "this may be counted or not; sent again to {}, with the same Idempotency-Key, it counts once"
)
TOLD_LATER = "it will be told as soon as it can be"

log = logging.getLogger("worker")

KeyHeader = Annotated[
    str | None,
    Header(
        description=f"1 to {KEY_MAX} printable ASCII characters; repeated requests with one key "
        "count once",
        json_schema_extra={"minLength": 1, "maxLength": KEY_MAX, "pattern": "^[ -~]+$"},
    ),
]

NameHeader = Annotated[
    str | None,
    Header(
        description="the worker that is meant, by its name in `GET /health`, percent-encoded: "
        "another refuses, as it would not know the key",
    ),
]

STATUS_OF = {"unknown_content_type": 415, "malformed": 400, "empty": 422}
NUMBER = {"type": "number", "minimum": -(2**53), "maximum": 2**53}
NUMBERS = {"type": "array", "items": NUMBER, "minItems": 1}
BATCH = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"values": NUMBERS},
            "required": ["values"],
            "additionalProperties": False,
        },
        NUMBERS,
        NUMBER,
    ]
}
BINARY = {"schema": {"type": "string", "format": "binary"}}
VALUES_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": BATCH, "example": {"values": [1, 2.5]}},
            "application/msgpack": BINARY,
            "application/octet-stream": BINARY,
            "text/plain": {"schema": {"type": "string"}, "example": "1\n2.5\n"},
        },
    }
}


class Told(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Accepted(Told):
    accepted: int
    """Values of this request: all of them."""
    count: int
    """Values of the stream on this worker, with these."""


class Flushed(Told):
    streams: dict[str, int]
    """By name, how many of its values the coordinator's answers cover."""


class Answer(Told):
    """What every answer says of itself: it is of this worker's own values."""

    stream: str
    count: int
    """Values that it is of."""
    rank_error: float
    """Its rank is off by at most this share of them: proven."""
    exact: bool
    """It is the very value."""


class Median(Answer):
    median: float | None
    """Null while there are no values."""


class Quantile(Told):
    q: float
    value: float | None
    """Null while there are no values."""


class Quantiles(Answer):
    quantiles: list[Quantile]


class Centroids(Told):
    stream: str
    means: list[float]
    """Of its clusters, in order."""
    weights: list[int]
    """How many values each has."""
    count: int
    rank_error: float
    """Of any rank that is read off the digest itself."""


class Health(Told):
    status: str
    worker: str
    """What it is called."""
    storage: str
    """`disk`, or `memory`: then what was not told is lost with it."""
    closed: list[str]
    """The doors that stay closed to whoever asks this: they ask for tokens that he did not show."""


class Ready(BaseModel):
    ready: bool


@contextmanager
def problems(worker: str) -> Iterator[None]:
    """What is wrong with a request, as the client of this worker is told."""
    try:
        yield
    except BadValue as error:
        raise Problem(422, error.code, str(error), position=error.position) from None
    except BadBody as error:
        raise Problem(STATUS_OF[error.code], error.code, str(error)) from None
    except BadKey as error:
        raise Problem(422, error.code, str(error)) from None
    except NotTaken as error:
        raise Problem(503, "not_taken", str(error), headers=RETRY) from None
    except TooManyStreams as error:
        raise Problem(507, "too_many_streams", str(error)) from None
    except NotWritten as error:
        if not error.unsure:
            raise not_written(error) from None
        raise not_acknowledged(str(error), UNSURE.format(worker)) from None


def not_acknowledged(why: str, so: str) -> Problem:
    return Problem(503, "not_acknowledged", f"{why}: {so}", headers=RETRY)


class Worker:
    """What the routes share."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        transport: Transport,
        store: Store | None,
    ) -> None:
        self.settings, self.store = settings, store
        self.name = store.name if store else settings.name
        self.sources = Sources(self.name, settings, clock=clock, store=store)
        if store is not None:
            lines = list(self.sources)
            values = sum(line.outbox.count for line in lines)
            what = facts(file=str(store.storage.path), streams=len(lines), values=values)
            log.info("storage opened", extra=what)
        self.room = Room(requests_max=settings.requests_max, bytes_max=settings.work_bytes_max)
        self.doors, self.crowd = Doors(settings), Crowd(settings.connections_max)
        self.metrics = Metrics(
            self.sources,
            room=self.room,
            doors=self.doors,
            crowd=self.crowd,
            certificate=settings.certificate,
            store=store,
        )
        self._flush_all = Shared(lambda: self._flush(self.sources))
        # One by one, as each takes many times its size; a middle one does not wait for a huge one.
        self._decoding_middle, self._decoding_huge = asyncio.Lock(), asyncio.Lock()
        self.keys = Keys(settings.idempotency_keys_max, store.keys() if store else ())
        self.courier = Courier(
            self.sources, self.metrics, settings, clock=clock, transport=transport
        )

    @asynccontextmanager
    async def running(self, fail: Callable[[], None]) -> AsyncIterator[None]:
        """The courier at work, and at the end its last word."""
        async with tended(self.store.storage if self.store else None, fail=fail):
            try:
                async with vital(self.courier.run(), name="courier", fail=fail):
                    yield
            finally:
                await self.courier.goodbye(s_max=self.settings.goodbye_s_max)

    async def take(self, request: Request, stream: str, key: str | None) -> Accepted:
        if key is None:
            self._check_hope(stream)
        unsure = UNSURE.format(self.name)
        with self.room.place() as place, Watch(request) as watch:
            batch = await self._read(request, place, stream, key)
            try:
                async with asyncio.timeout(self.settings.answer_s_max):
                    taken = await self._taken(stream, batch, place, watch)
                    await self.sources.received(stream, taken)
            except TimeoutError:
                raise self._too_late(unsure) from None
            except asyncio.CancelledError:  # by the server, which stops; or nobody is there to read
                raise not_acknowledged("this worker stops now, unsigned", unsure) from None
        return Accepted(accepted=taken.accepted, count=taken.count)

    async def _taken(self, stream: str, batch: Batch, place: Place, watch: Watch) -> Taken:
        """Given up half done, it would be neither: what a key or the store knows of goes on."""
        if batch.key is None and self.store is None:
            return await self._take(stream, batch, place, watch.begin)
        watch.begin()
        take = partial(self._take, stream, batch, place)
        if batch.key is None:
            return await asyncio.shield(asyncio.create_task(take()))
        return await self.keys.once(batch.key, take)

    async def _take(
        self, stream: str, batch: Batch, place: Place, waits: Callable[[], None] = lambda: None
    ) -> Taken:
        """In the place by itself, as it may go on when the request is given up."""

        def handed_over() -> None:
            place.hold(0)
            waits()

        with place:
            self._check_hope(stream)
            try:
                return await self.sources.take(stream, batch, handed_over)
            except TooManyStreams:
                self.metrics.refused_stream()
                raise

    def check_name(self, meant: str | None) -> None:
        """That this is the worker who is meant, wherever its address leads by now."""
        if meant is not None and unquote(meant) != self.name:
            what = (
                f"this is worker {self.name!r}, and {unquote(meant)!r} is meant: nothing was taken"
            )
            raise Problem(421, "another_worker", what)

    def _check_hope(self, stream: str) -> None:
        """Not asked for a repeat: what was taken once is never told that it was not."""
        if reason := self.courier.hopeless(stream):
            raise NotTaken(reason)

    async def _read(self, request: Request, place: Place, stream: str, name: str | None) -> Batch:
        """Its values, and if it is keyed, a hash of all that it says."""
        bytes_max, s_max = self.settings.body_bytes_max, self.settings.body_s_max
        body = await body_of(request, place, bytes_max=bytes_max, s_max=s_max)
        content_type = request.headers.get("content-type", "")
        name = None if name is None else checked(name)
        said = () if name is None else (content_type.encode(), stream.encode(), body)
        if len(body) <= (LARGE_OCTETS if OCTETS in content_type.lower() else LARGE_BODY):
            content, values = _understood(content_type, body, said)
        else:
            async with self._decoding_huge if len(body) > HUGE_BODY else self._decoding_middle:
                content, values = await in_thread(_understood, content_type, body, said)
        place.hold(values.nbytes)
        return Batch(values, len(body), None if name is None else Key(name, content))

    def _too_late(self, so: str) -> Problem:
        unsigned = f"the coordinator did not sign within {self.settings.answer_s_max:g} s"
        return not_acknowledged((self.store and self.store.storage.trouble) or unsigned, so)

    async def flush(self, request: Request, stream: str | None) -> bytes:
        """As JSON: of a thousand streams, a thousand who ask are told the same bytes."""
        do = self._flush_all.done if stream is None else partial(self._flush, [self.line(stream)])
        with self.room.place(), Watch(request) as watch:
            watch.begin()
            try:
                async with asyncio.timeout(self.settings.answer_s_max):
                    return await do()
            except TimeoutError:
                raise self._too_late(TOLD_LATER) from None
            except asyncio.CancelledError:  # as in `take`
                raise not_acknowledged("this worker stops now, unsigned", TOLD_LATER) from None

    async def _flush(self, lines: Iterable[Line]) -> bytes:
        return Flushed(streams=await self.sources.flush(lines)).model_dump_json().encode()

    def line(self, stream: str) -> Line:
        line = self.sources.line(stream)
        if line is None:
            raise Problem(404, "unknown_stream", f"this worker has no values of stream {stream!r}")
        return line

    async def asked(self, endpoint: str, stream: str, qs: list[float]) -> Quantiles:
        if stream == "default" and self.sources.line(stream) is None:
            answer = _quantiles(stream, qs, Digest())
        else:
            answer = await self.line(stream).asked(lambda digest: _quantiles(stream, qs, digest))
        self.metrics.asked(endpoint)
        return answer

    def why_not_ready(self) -> list[str]:
        stored = [self.store.storage.trouble] if self.store and self.store.storage.trouble else []
        return [*stored, *self.courier.why_not(), *self.sources.why_not()]


def _understood(content_type: str, body: bytes, said: Iterable[bytes]) -> tuple[bytes, Floats]:
    """A hash of what was said, and the values of a body."""
    content = blake2b(digest_size=16)
    for part in said:
        content.update(part)
        content.update(b"\0")
    return content.digest(), decode(content_type, body)


def _quantiles(stream: str, qs: list[float], digest: Digest) -> Quantiles:
    return Quantiles(
        stream=stream,
        quantiles=[Quantile(q=q, value=digest.quantile(q)) for q in qs],
        count=digest.count,
        rank_error=digest.rank_error,
        exact=digest.rank_error == 0,
    )


def _centroids(stream: str, digest: Digest) -> Centroids:
    means, weights = digest.centroids()
    return Centroids(
        stream=stream,
        means=means.tolist(),
        weights=weights.tolist(),
        count=digest.count,
        rank_error=digest.rank_error,
    )


def create_app(
    settings: Settings,
    *,
    clock: Clock,
    transport: Transport = None,
    fail: Callable[[], None] = lambda: None,
    store: Store | None = None,
) -> FastAPI:
    worker = Worker(settings, clock=clock, transport=transport, store=store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with worker.running(fail):
            yield

    app = FastAPI(
        title="running-median worker",
        version="0.1.0",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=by_name,
    )
    app.state.worker, app.state.crowd = worker, worker.crowd
    answer_errors(app)
    app.include_router(writes(worker))
    app.include_router(reads(worker))
    app.include_router(operations(worker))
    app.include_router(documents(app))
    return app


def writes(worker: Worker) -> APIRouter:
    door = worker.doors["ingest"]
    router = APIRouter(tags=["values"], dependencies=door.locks, responses=door.refusals)

    @router.post(
        "/values",
        dependencies=[only("stream")],
        status_code=202,
        response_model=Accepted,
        openapi_extra=VALUES_BODY,
        responses=responses(
            _400="the body is not what its content type says",
            _408="the body took too long",
            _413="the body is too large",
            _415="the content type is none of the four",
            _421="another worker is meant",
            _422="something is not a value, a name or a key; nothing was taken",
            _503="not taken now, too much in work, or not acknowledged in time",
            _507="nothing can be written down, as the disk is full, or there would be too many "
            "streams; nothing was taken",
        ),
    )
    async def post_values(
        request: Request,
        stream: Stream = "default",
        idempotency_key: KeyHeader = None,
        median_worker: NameHeader = None,
    ) -> Response:
        """Take a number, or up to some millions: all of them, or none if one is not a value."""
        with problems(worker.name):
            worker.check_name(median_worker)
            accepted = await worker.take(request, name_of(stream), idempotency_key)
        return Response(accepted.model_dump_json(), 202, media_type="application/json")

    @router.post(
        "/flush",
        dependencies=[only("stream")],
        response_model=Flushed,
        responses=responses(
            _404=UNKNOWN, _422=NO_NAME, _503="too much in work, or not signed in time"
        ),
    )
    async def post_flush(request: Request, stream: StreamOrAll = None) -> Response:
        """Push what is pending, of one stream or of all; answers when that is signed."""
        with problems(worker.name):
            told = await worker.flush(request, stream if stream is None else name_of(stream))
        return Response(told, media_type="application/json")

    return router


def reads(worker: Worker) -> APIRouter:
    door = worker.doors["read"]
    router = APIRouter(tags=["answers"], dependencies=door.locks, responses=door.refusals)

    @router.get(
        "/median", dependencies=[only("stream")], responses=responses(_404=UNKNOWN, _422=NO_NAME)
    )
    async def get_median(stream: Stream = "default") -> Median:
        """The median of this worker's own values; null while there are none."""
        answer = await worker.asked("median", name_of(stream), [0.5])
        return Median(median=answer.quantiles[0].value, **answer.model_dump(exclude={"quantiles"}))

    @router.get(
        "/quantile",
        dependencies=[only("q", "stream")],
        responses=responses(_404=UNKNOWN, _422=NO_Q),
    )
    async def get_quantile(q: Qs, stream: Stream = "default") -> Quantiles:
        """Any quantiles of this worker's own values."""
        return await worker.asked("quantile", name_of(stream), q)

    @router.get(
        "/digest", dependencies=[only("stream")], responses=responses(_404=UNKNOWN, _422=NO_NAME)
    )
    async def get_digest(stream: Stream = "default") -> Centroids:
        """The clusters as other t-digests hold them: means and weights, by mean."""
        name = name_of(stream)
        centroids = await worker.line(name).asked(lambda digest: _centroids(name, digest))
        worker.metrics.asked("digest")
        return centroids

    return router


def operations(worker: Worker) -> APIRouter:
    router = APIRouter(tags=["operations"])
    read = worker.doors["read"]

    @router.get("/health")
    async def get_health(request: Request) -> Health:
        """Whether it runs, where it keeps its values, and who may do what."""
        return Health(
            status="ok",
            worker=worker.name,
            storage="disk" if worker.store else "memory",
            closed=worker.doors.closed_to(request),
        )

    @router.get("/ready", responses=responses(_503="values would not be received; it says why"))
    async def get_ready(request: Request) -> Ready:
        """Whether values are received here."""
        if reasons := worker.why_not_ready():
            raise Problem(503, "not_ready", read.tells(request, "; ".join(reasons)))
        return Ready(ready=True)

    @router.get(
        "/metrics",
        dependencies=read.locks,
        response_class=Response,
        responses=metrics.TOLD | read.refusals,
    )
    async def get_metrics() -> Response:
        """For Prometheus."""
        return Response(worker.metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router
