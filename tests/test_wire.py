"""What a push costs on the wire beyond its two bodies, counted by one who stands between.

A worker talks to a real coordinator through a plain socket that keeps every byte of both ways.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import pytest

from shared.protocol import HEARTBEAT_S_MAX, Receipt, unpack_delta, unpack_request, unpack_response
from shared.serving import server
from shared.serving.server import clock
from tests.processes import HEARTBEAT_S, OCTETS, Processes, Service, until
from worker_service import courier
from worker_service.app import create_app
from worker_service.settings import Settings

HEADERS_BYTES_MAX = 200


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Service]:
    with Processes(tmp_path) as processes:
        coordinator = processes.coordinator()
        until(lambda: coordinator.is_up, "the coordinator is up")
        yield coordinator


class Message(NamedTuple):
    head: bytes
    body: bytes

    @property
    def fields(self) -> dict[str, str]:
        lines = self.head.decode().removesuffix("\r\n\r\n").split("\r\n")[1:]
        return {name.lower(): value for name, value in (line.split(": ") for line in lines)}


class Between:
    """Carries bytes from clients to a port and back, and keeps them."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.connections = 0
        self.there, self.back = bytearray(), bytearray()
        self.ended = 0

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        theirs, mine = await asyncio.open_connection("127.0.0.1", self._port)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._carry(reader, mine, self.there))
            both.create_task(self._carry(theirs, writer, self.back))
        await asyncio.gather(writer.wait_closed(), mine.wait_closed())
        self.ended += 1

    @staticmethod
    async def _carry(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray
    ) -> None:
        while data := await reader.read(2**16):
            kept += data
            writer.write(data)
        writer.close()


def messages(data: bytes) -> Iterator[Message]:
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        size = int(Message(head + end, b"").fields.get("content-length", "0"))
        yield Message(head + end, rest[:size])
        data = rest[size:]


async def carried(port: int, rng: np.random.Generator) -> Between:
    """All bytes between a worker that takes some values, and the coordinator."""
    between = Between(port)
    listening = await asyncio.start_server(between.meet, "127.0.0.1", 0)
    url = "http://127.0.0.1:{1}".format(*listening.sockets[0].getsockname())
    app = create_app(Settings(coordinator_url=url, worker_name="worker-1"), clock=clock)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as client,
    ):
        for _ in range(30):
            values = rng.normal(100, 15, 1000)
            response = await client.post("/values", content=values.tobytes(), headers=OCTETS)
            assert response.status_code == 202
        await asyncio.sleep(2 * HEARTBEAT_S)  # for a heartbeat, with no news
    while between.ended < between.connections:
        await asyncio.sleep(0.01)
    listening.close()
    await listening.wait_closed()
    return between


def test_a_push_costs_at_most_two_hundred_bytes_beyond_its_bodies(
    coordinator: Service, rng: np.random.Generator
) -> None:
    between = asyncio.run(carried(coordinator.port, rng))
    asked, answered = [*messages(bytes(between.there))], [*messages(bytes(between.back))]
    assert len(asked) == len(answered) > 10
    assert between.connections == 1
    greeting, *pushes = asked
    assert greeting.head.startswith(b"GET /health HTTP/1.1\r\n")
    for there, back in zip(pushes, answered[1:], strict=True):
        assert there.head.startswith(b"POST /deltas HTTP/1.1\r\n")
        assert back.head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert set(there.fields) == {"host", "content-type", "content-length"}
        assert set(back.fields) == {"content-type", "content-length"}
        assert len(there.head) + len(back.head) <= HEADERS_BYTES_MAX
        (delta,), (receipt,) = unpack_request(there.body), unpack_response(back.body)
        assert unpack_delta(delta).source.worker == "worker-1"
        assert isinstance(receipt, Receipt)


def test_a_connection_outlives_the_longest_heartbeat(
    coordinator: Service, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert HEARTBEAT_S_MAX < courier.KEEP_ALIVE_S < server.KEEP_ALIVE_S
    monkeypatch.setattr(courier, "KEEP_ALIVE_S", HEARTBEAT_S / 4)
    assert asyncio.run(carried(coordinator.port, rng)).connections > 1
