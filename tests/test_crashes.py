"""Ends without warning, of services that keep what they know: nothing is lost, nothing twice.

A crash is as by `kill -9`: no answer that is under way gets out, nothing is said any more, and the
files stay as they are at that moment. Whoever starts again has nothing but these. Clients repeat
what was not answered, with its Idempotency-Key; then each value is counted exactly once.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import pytest

from shared.serving.storage import Storage, Work
from shared.values import Floats
from tests.cluster import Cluster, Node, run

STREAMS = ("default", "other")


class Crashing(Cluster):
    """Clients talk to whichever process bears a name now, and insist."""

    ends = False
    crashes = 0

    def named(self, name: str) -> Node | None:
        return next((node for node in self.nodes if node.name == name), None)

    async def insists(self, name: str, stream: str) -> None:
        """One batch after the other, each until it is taken, or the load ends."""
        while not self.ends:
            size = int(self.rng.choice([1, 10, 300, 3000]))
            values = self.rng.normal(self.crashes, 1, size)
            key = {"idempotency-key": self.rng.bytes(8).hex()}
            self.truth.posted[name, stream].append(values)
            while not await self.is_taken(name, values, stream, key):
                await asyncio.sleep(0.005)
            self.truth.acknowledged[name, stream] += size

    async def is_taken(self, name: str, values: Floats, stream: str, key: dict[str, str]) -> bool:
        node = self.named(name)
        if node is None:
            return False
        try:
            response = await self._post(node, values, stream, key)
        except (httpx.TransportError, RuntimeError):  # it is no more
            return False
        return response.status_code == 202

    async def once(self, node: Node, key: str, *values: float) -> httpx.Response:
        """Post these under this key; whether it is to count is for the test to know."""
        return await self._post(node, np.array(values, "<f8"), "default", {"idempotency-key": key})

    async def restart_worker(self, name: str, **changes: Any) -> Node:
        node = self.named(name)
        assert node is not None
        self.crashes += 1
        await self.kill(node)
        return await self.start_worker(worker_name=name, **changes)

    async def restart_coordinator(self, **changes: Any) -> Node:
        self.crashes += 1
        await self.kill_coordinator()
        return await self.start_coordinator(**changes)

    async def crash(self) -> None:
        """Of one, or of all at once, at any moment."""
        await asyncio.sleep(self.rng.exponential(0.05))
        victim = self.rng.choice(["coordinator", "all", *(node.name for node in self.nodes)])
        names = [node.name for node in self.nodes] if victim == "all" else [str(victim)]
        await asyncio.gather(
            *(self.restart_worker(name) for name in names if name != "coordinator"),
            *([self.restart_coordinator()] if victim in {"all", "coordinator"} else []),
        )

    async def under_load(self, what: Coroutine[Any, Any, None]) -> None:
        names = [node.name for node in self.nodes]
        load = [self.insists(name, stream) for name in names for stream in STREAMS]
        async with asyncio.TaskGroup() as group:
            for one in load:
                group.create_task(one)
            await what
            self.ends = True

    async def sources(self) -> set[tuple[str, str, str]]:
        rows = (await self.coordinator.json("/workers"))["workers"]
        return {(row["worker"], row["stream"], row["source"]) for row in rows}


def story_of(
    rng: np.random.Generator,
    tmp_path: Path,
    story: Callable[[Crashing], Coroutine[Any, Any, None]],
    **how: Any,
) -> None:
    async def told() -> None:
        async with Crashing(rng, data_dir=tmp_path, **how) as cluster:
            await story(cluster)

    with patch.multiple("worker_service.store", CHECKPOINT_BYTES=2**14, CHECKPOINTS=1):
        run(told(), within_s=120)


@contextmanager
def slow_disks() -> Iterator[None]:
    """So that what is asked for and not yet written down is there for a while, to be lost."""
    committed = Storage._committed  # noqa: SLF001  before it begins

    def slowly(storage: Storage, works: list[Work]) -> list[Any]:
        time.sleep(0.02)
        return committed(storage, works)

    with patch.object(Storage, "_committed", slowly):
        yield


@pytest.mark.parametrize("number", range(4))
def test_whoever_crashes_and_whenever_each_value_is_counted_once_under_its_own_source(
    rng: np.random.Generator, tmp_path: Path, number: int
) -> None:
    async def story(cluster: Crashing) -> None:
        async def crashes() -> None:
            for _ in range(20):
                await cluster.crash()
                for stream in STREAMS:
                    if await cluster.coordinator.status(f"/median?stream={stream}") == 200:
                        await cluster.check(stream, q=float(cluster.rng.choice([0.1, 0.5, 0.9])))

        await cluster.under_load(crashes())
        await cluster.flush()
        for stream in STREAMS:
            await cluster.check_the_end(stream)
        assert len(await cluster.sources()) == 2 * len(STREAMS)  # each its first and only one

    with slow_disks() if number % 2 else nullcontext():
        story_of(rng, tmp_path / str(number), story, workers=2)
