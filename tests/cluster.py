"""A cluster in one process: the real apps, the real bytes, no ports, a network that may fail.

Each app stands behind an `Address`, where it can be paused, or killed, or be another one after a
restart. Given a directory, all keep what they know; what is killed leaves the files as they were.
Between a client and an address lies a `Flaky` way, which by seed loses requests, loses responses,
delivers late or brings back rubbish, and counts what it did.

    client -> Flaky -> Address of a worker -> app -> courier -> Flaky -> Address of the coordinator

The oracle, `Truth`, keeps every value of every source, in order. Each source has one poster, so its
values are numbered as they were posted. A batch without its 202 may be counted or not: what the
truth is at an answer, the rows behind that answer tell.
"""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar, cast
from unittest.mock import AsyncMock, patch

import httpx
import msgpack
import numpy as np
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

import coordinator_service.app
import coordinator_service.settings
import coordinator_service.store
import worker_service.app
import worker_service.settings
import worker_service.store
from coordinator_service.app import App
from coordinator_service.coordinator import Coordinator
from shared.protocol import REQUEST_BYTES_MAX
from shared.serving.storage import Storage
from shared.values import Floats
from tests.exact import TALLY, rank_errors
from tests.sources import OTHERS_MAX
from worker_service.app import Worker

OCTETS = "application/octet-stream"
COORDINATOR = "http://coordinator"
QUICK: dict[str, Any] = {
    "linger_s": 0.03,
    "backoff_s_max": 0.05,
    "request_s_max": 0.5,
    "answer_s_max": 20.0,
    "goodbye_s_max": 3.0,
}
RESPONSES_LOST = ("unanswered", "abandoned", "rubbish")
TOLD = TypeVar("TOLD")


def run(story: Coroutine[Any, Any, TOLD], *, within_s: float = 30.0) -> TOLD:
    """Play a story to its end; one that hangs is a failure."""

    async def bounded() -> TOLD:
        async with asyncio.timeout(within_s):
            return await story

    return asyncio.run(bounded())


async def until(holds: Callable[[], Awaitable[bool]], what: str, *, within_s: float = 15.0) -> None:
    """Wait, generously, for what must come to hold by itself."""
    end = time.monotonic() + within_s
    while not await holds():
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.01)


class Address(httpx.AsyncBaseTransport):
    """Where an app can be reached: it may be paused, or killed, or there may be none."""

    def __init__(self) -> None:
        self.app: FastAPI | None = None
        self._runs = asyncio.Event()
        self._runs.set()
        self._asking: set[asyncio.Task[httpx.Response]] = set()

    def pause(self) -> None:
        self._runs.clear()

    def resume(self) -> None:
        self._runs.set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self._runs.wait()
        if (app := self.app) is None:
            raise httpx.ConnectError("nobody listens here")
        asking = asyncio.create_task(httpx.ASGITransport(app).handle_async_request(request))
        self._asking.add(asking)
        try:
            await asyncio.wait([asking])
        finally:
            asking.cancel()
            self._asking.discard(asking)
        if asking.cancelled() or self.app is not app:
            raise httpx.ReadError("it was killed before it answered")
        return asking.result()

    def kill(self) -> None:
        """Nobody listens from now on, and no answer that is under way gets out."""
        self.app = None
        for asking in self._asking:
            asking.cancel()


@dataclass(frozen=True)
class Weather:
    """How likely it is that something happens to a request."""

    lost: float = 0.0  # it never arrives
    unanswered: float = 0.0  # it arrives, the response is lost
    abandoned: float = 0.0  # it arrives after its sender gave up
    rubbish: float = 0.0  # something else comes back
    kinds: tuple[str, ...] = ("status",)
    delay_s: float = 0.0


CALM = Weather()
CUT = Weather(lost=1.0)


async def _too_long() -> AsyncIterator[bytes]:
    for _ in range(2 * REQUEST_BYTES_MAX // 2**20):
        yield bytes(2**20)


async def _endless() -> AsyncIterator[bytes]:
    while True:
        yield b"\x90"
        await asyncio.sleep(0.02)


def _one_answer_less(content: bytes) -> bytes:
    answers = _answers(content)
    return content if answers is None else bytes(msgpack.packb(answers[:-1]))


def _claiming_more(content: bytes) -> bytes:
    """Receipts of rows that cover more than there is, with marks that nobody made."""
    answers = _answers(content)
    if answers is None:
        return content
    claims = [[one[0], one[1] + 1000, bytes(range(8)), *one[3:]] for one in answers]
    return bytes(msgpack.packb(claims))


def _strange(content: bytes, rng: np.random.Generator) -> bytes:
    """Receipts of rows that nobody made, and that cover nothing."""
    answers = _answers(content)
    if answers is None:
        return content
    return bytes(msgpack.packb([[one[0], 0, rng.bytes(8), *one[3:]] for one in answers]))


def _answers(content: bytes) -> list[Any] | None:
    """The answers to deltas; None where the content is that of something else."""
    answers = None if content.startswith(b"{") else msgpack.unpackb(content)
    return answers if isinstance(answers, list) else None


@dataclass(frozen=True)
class Files:
    """All that is on the disk of one storage, at some moment between two commits."""

    contents: dict[Path, bytes]

    @classmethod
    async def of(cls, storage: Storage | None) -> "Files":
        """As they are now, if there is one; nothing that is committed later is among them."""

        def read() -> dict[Path, bytes]:
            return {
                path: path.read_bytes() for path in cast(Storage, storage).path.parent.iterdir()
            }

        if storage is None:
            return cls({})
        thread = storage._thread  # noqa: SLF001  so that no commit is under way
        return cls(await asyncio.get_running_loop().run_in_executor(thread, read))

    def put_back(self) -> None:
        """Into the same files, so it is the same place to whoever opens them."""
        for path, content in self.contents.items():
            path.write_bytes(content)


def said(content: bytes, status: int = 200, **headers: str) -> httpx.Response:
    """As from a network: to be read."""
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(content))


RUBBISH: dict[str, Callable[[bytes, np.random.Generator], httpx.Response]] = {
    "status": lambda _, __: said(b'{"error": {"code": "internal", "message": "a bug"}}', 500),
    "no gateway": lambda _, __: said(b"<html>no gateway</html>", 502),
    "elsewhere": lambda _, __: said(b"", 307, location="http://elsewhere/"),
    "nothing": lambda _, __: said(b""),
    "bytes": lambda _, rng: said(rng.bytes(40)),
    "truncated": lambda content, _: said(content[:-1]),
    "fewer answers": lambda content, _: said(_one_answer_less(content)),
    "too long": lambda _, __: httpx.Response(200, content=_too_long()),
    "endless": lambda _, __: httpx.Response(200, content=_endless()),
    "strange": lambda content, rng: said(_strange(content, rng)),
    "claims": lambda content, _: said(_claiming_more(content)),
}
HARMLESS = tuple(kind for kind in RUBBISH if kind != "claims")


class Flaky(httpx.AsyncBaseTransport):
    """A way to somewhere else; `seen` counts what happened on it."""

    def __init__(self, onward: httpx.AsyncBaseTransport, rng: np.random.Generator) -> None:
        self._onward, self._rng = onward, rng
        self.weather = CALM
        self.seen: Counter[str] = Counter()
        self._late: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        weather, fate = self.weather, self._fate()
        self.seen[fate] += 1
        if weather.delay_s:
            await asyncio.sleep(self._rng.uniform(0, weather.delay_s))
        if fate == "lost":
            raise httpx.ConnectError("lost on its way")
        if fate == "abandoned":
            self._deliver_late(request, self._rng.uniform(0, 0.05))
            raise httpx.ReadTimeout("nobody waits any more")
        response = await self._onward.handle_async_request(request)
        if fate == "delivered":
            return response
        content = await response.aread()
        if fate == "unanswered":
            raise httpx.ReadError("the response was lost")
        kind = str(self._rng.choice(weather.kinds))
        self.seen[kind] += 1
        return RUBBISH[kind](content, self._rng)

    def _fate(self) -> str:
        weather, dice = self.weather, self._rng.random()
        for fate in ("lost", *RESPONSES_LOST):
            dice -= getattr(weather, fate)
            if dice < 0:
                return fate
        return "delivered"

    def _deliver_late(self, request: httpx.Request, delay_s: float) -> None:
        async def deliver() -> None:
            await asyncio.sleep(delay_s)
            await self._onward.handle_async_request(request)

        task = asyncio.create_task(deliver())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def end(self) -> None:
        """Whatever is still on its way is lost."""
        late = list(self._late)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


class Truth:
    """Every value that was posted, by worker and stream, in order; how many have their 202."""

    def __init__(self) -> None:
        self.posted: defaultdict[tuple[str, str], list[Floats]] = defaultdict(list)
        self.acknowledged: Counter[tuple[str, str]] = Counter()

    def values(self, stream: str = "default", *, worker: str | None = None) -> Floats:
        """All that was posted, sorted."""
        parts = [
            part
            for (who, what), batches in self.posted.items()
            if what == stream and worker in (None, who)
            for part in batches
        ]
        return np.sort(np.concatenate([np.empty(0), *parts]))

    def count(self, stream: str = "default") -> int:
        return sum(n for (_, what), n in self.acknowledged.items() if what == stream)

    def counted(self, stream: str, acknowledged: Counter[tuple[str, str]], rows: Any) -> Floats:
        """Of each source what was acknowledged or is covered by its row, sorted."""
        covered = Counter({(row["worker"], row["stream"]): row["count"] for row in rows})
        parts = [
            np.concatenate(batches)[: max(acknowledged[key], covered[key])]
            for key, batches in self.posted.items()
            if key[1] == stream
        ]
        return np.sort(np.concatenate([np.empty(0), *parts]))


@dataclass(eq=False)
class Node:
    """An app that runs: its address, a client that talks to it, and the ways between."""

    name: str
    app: FastAPI
    address: Address
    way_in: Flaky  # from its client
    client: httpx.AsyncClient
    way_out: Flaky  # to the coordinator
    life: AsyncExitStack
    failed: list[str] = field(default_factory=list)

    @property
    def coordinator(self) -> Coordinator:
        assert isinstance(self.app, App)
        return self.app.coordinator

    @property
    def worker(self) -> Worker:
        worker: Worker = self.app.state.worker
        return worker

    async def json(self, path: str, **params: Any) -> Any:
        response = await self.client.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    async def status(self, path: str) -> int:
        return (await self.client.get(path)).status_code

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have these labels."""
        text = (await self.client.get("/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


class Cluster:
    """A coordinator and its workers, from one seed: `async with Cluster(rng, workers=3) as ...`."""

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        workers: int = 3,
        epsilon: float = 0.05,
        heartbeat_s: float = 0.2,
        data_dir: Path | None = None,
        **settings: Any,
    ) -> None:
        self.rng, self.truth, self._data_dir = rng, Truth(), data_dir
        self.nodes: list[Node] = []
        self._first = workers
        self._promise = {"epsilon": epsilon, "heartbeat_s": heartbeat_s}
        self._settings = QUICK | {"digest_rank_error": epsilon / 20} | settings
        self._begun = self._starts = 0
        self._life = AsyncExitStack()

    coordinator: Node

    async def __aenter__(self) -> Self:
        self.at = Address()
        await self.start_coordinator()
        for _ in range(self._first):
            await self.start_worker()
        return self

    async def __aexit__(self, *_: object) -> None:
        ways = [way for node in [*self.nodes, self.coordinator] for way in self._ways(node)]
        for way in ways:
            way.weather = CALM
            await way.end()
        self.at.resume()
        await asyncio.gather(*(node.life.aclose() for node in self.nodes))
        await self.coordinator.life.aclose()

    @staticmethod
    def _ways(node: Node) -> tuple[Flaky, Flaky]:
        return node.way_in, node.way_out

    async def _started(self, name: str, app: FastAPI, address: Address, out: Flaky) -> Node:
        life = AsyncExitStack()
        address.app = app
        way_in = Flaky(address, self.rng)
        client = httpx.AsyncClient(transport=way_in, base_url="http://service")
        node = Node(name, app, address, way_in, client, out, life)
        await life.enter_async_context(client)
        await life.enter_async_context(app.router.lifespan_context(app))
        return node

    def _kept_in(self, name: str) -> dict[str, str]:
        return {"data_dir": str(self._data_dir / name)} if self._data_dir else {}

    async def start_coordinator(self, **changes: Any) -> Node:
        """At the one address; whoever stood there before is gone, with all that was not kept."""
        failed: list[str] = []
        if self._starts:
            self.stop_coordinator()
            await self.coordinator.life.aclose()
        settings = coordinator_service.settings.Settings(
            **(self._promise | self._kept_in("coordinator") | changes)
        )
        app = coordinator_service.app.create_app(
            settings,
            clock=time.monotonic,
            wall=time.time,
            fail=lambda: failed.append("watch"),
            store=coordinator_service.store.open_store(settings),
        )
        self._starts += 1
        self.coordinator = await self._started(
            "coordinator", app, self.at, Flaky(self.at, self.rng)
        )
        self.coordinator.failed = failed
        return self.coordinator

    async def kill_coordinator(self) -> None:
        """What it keeps on the disk stays as it is at this moment."""
        store = self.coordinator.coordinator.store
        self.at.kill()
        files = await Files.of(store.storage if store else None)
        await self.coordinator.life.aclose()
        files.put_back()

    def stop_coordinator(self) -> None:
        """Nobody listens at its address; what it knew is not lost if it is put back there."""
        self.at.app = None

    def put_back_coordinator(self) -> None:
        self.at.app = self.coordinator.app

    async def start_worker(self, **changes: Any) -> Node:
        """Another one, or, given its name, one that was there before."""
        self._begun += "worker_name" not in changes
        name, failed = changes.get("worker_name", f"w{self._begun}"), list[str]()
        way_out = Flaky(self.at, self.rng)
        given = self._settings | {"worker_name": name, "coordinator_url": COORDINATOR}
        settings = worker_service.settings.Settings(**(given | self._kept_in(name) | changes))
        app = worker_service.app.create_app(
            settings,
            clock=time.monotonic,
            transport=way_out,
            fail=lambda: failed.append("courier"),
            store=worker_service.store.open_store(settings),
        )
        node = await self._started(name, app, Address(), way_out)
        node.failed = failed
        self.nodes.append(node)
        return node

    async def stop(self, node: Node) -> None:
        """As an operator stops it: it says goodbye."""
        self.nodes.remove(node)
        await node.life.aclose()

    async def kill(self, node: Node) -> None:
        """Without a goodbye; what it keeps on the disk stays as it is at this moment."""
        self.nodes.remove(node)
        node.way_out.weather = CUT
        node.address.kill()
        store = node.worker.store
        files = await Files.of(store.storage if store else None)
        with patch.object(node.worker.courier, "goodbye", AsyncMock()):
            await node.life.aclose()
        await node.way_out.end()
        files.put_back()

    async def post(
        self, node: Node, values: Sequence[float] | Floats, stream: str = "default", **headers: str
    ) -> httpx.Response:
        """Post a batch once; nothing else may be on its way to the same source."""
        batch = np.asarray(values, dtype="<f8")
        source = node.name, stream
        self.truth.posted[source].append(batch)
        response = await self._post(node, batch, stream, headers)
        if response.status_code == 202:
            assert response.json()["accepted"] == len(batch)
            self.truth.acknowledged[source] += len(batch)
        return response

    @staticmethod
    async def _post(
        node: Node, batch: Floats, stream: str, headers: dict[str, str]
    ) -> httpx.Response:
        return await node.client.post(
            "/values",
            params={"stream": stream},
            content=batch.tobytes(),
            headers={"content-type": OCTETS} | headers,
        )

    async def insist(
        self, node: Node, values: Sequence[float] | Floats, stream: str = "default"
    ) -> int:
        """Post a batch until there is a 202, with one key for all tries; how many were needed."""
        batch = np.asarray(values, dtype="<f8")
        source, key = (node.name, stream), {"idempotency-key": self.rng.bytes(8).hex()}
        self.truth.posted[source].append(batch)
        for tries in range(1, 1000):
            try:
                response = await self._post(node, batch, stream, key)
            except httpx.TransportError:
                continue
            if response.status_code == 202:
                self.truth.acknowledged[source] += len(batch)
                return tries
            await asyncio.sleep(0.01)
        raise AssertionError("nobody is that unlucky")

    async def flush(self) -> None:
        responses = await asyncio.gather(*(node.client.post("/flush") for node in self.nodes))
        assert [one.text for one in responses if one.status_code != 200] == []

    async def median(self, stream: str = "default") -> Any:
        return await self.coordinator.json("/median", stream=stream)

    async def is_complete(self, stream: str = "default") -> bool:
        return bool((await self.median(stream))["complete"])

    async def is_incomplete(self, stream: str = "default") -> bool:
        return not await self.is_complete(stream)

    async def are_all_live(self, stream: str = "default") -> bool:
        workers = (await self.median(stream))["workers"]
        return bool(workers == {"live": len(self.nodes), "silent": 0})

    async def state(self, name: str) -> str:
        workers = (await self.coordinator.json("/workers"))["workers"]
        return ",".join(sorted({one["state"] for one in workers if one["worker"] == name}))

    async def check(self, stream: str = "default", q: float = 0.5) -> Any:
        """Hold one answer to the exact multiset; returns it, with the rows behind it.

        Who is silent, or unknown to a coordinator that forgot, may have more than it can tell.
        """
        acknowledged = self.truth.acknowledged.copy()
        said = await self.coordinator.json("/explain", stream=stream, q=q)
        assert said["count"] == sum(row["count"] for row in said["rows"])
        knows_all = said["complete"] or not (self._starts > 1 or said["workers"]["silent"])
        if said["count"] and knows_all:
            ordered = self.truth.counted(stream, acknowledged, said["rows"])
            self._compare(said, ordered)
        return said

    def _compare(self, found: Any, ordered: Floats) -> None:
        target = found["q"] * len(ordered)
        error = rank_errors(np.array([found["value"]]), ordered, np.array([target]))
        assert TALLY.all(error <= found["rank_error"] * len(ordered)), (error, found)
        most = self._promise["epsilon"] * (1 if found["q"] == 0.5 else OTHERS_MAX)
        assert TALLY.all(np.array(found["rank_error"] <= most))
        low, high = found["low"], found["high"]
        assert TALLY.all(np.array(low is None or ordered.searchsorted(low) <= target))
        assert TALLY.all(np.array(high is None or ordered.searchsorted(high, "right") >= target))

    async def check_the_end(self, stream: str = "default", *, values: Floats | None = None) -> Any:
        """When all is quiet and told: each value counted exactly once, and nothing else."""
        ordered = self.truth.values(stream) if values is None else np.sort(values)
        await until(lambda: self.is_complete(stream), "the answer is complete")
        q = [0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0]
        said = await self.coordinator.json("/quantile", stream=stream, q=q)
        assert said["count"] == len(ordered)
        for found in said["quantiles"]:
            self._compare(found, ordered)
        return said

    async def check_each_value(self, stream: str = "default") -> None:
        """For few values: the workers' own digests hold exactly what was posted."""
        for node in self.nodes:
            expected = self.truth.values(stream, worker=node.name)
            if len(expected):
                told = await node.json("/digest", stream=stream)
                held = np.repeat(told["means"], told["weights"])
                assert TALLY.all(held == expected), f"{node.name} holds something else"


def parsed(text: str) -> dict[str, float]:
    """Of a page of metrics each sample, by its name and labels as JSON."""
    return {
        f"{sample.name}{json.dumps(sample.labels, sort_keys=True)}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
