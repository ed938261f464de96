"""What the tests of `loadgen watch` share: a coordinator by script, and what was seen of one."""

import io
from dataclasses import replace
from typing import Any

import httpx
from rich.console import Console

from loadgen.watching.look import Answer, Look, Source
from loadgen.watching.page import page
from loadgen.watching.watched import Watched

URL = "http://coordinator"
MEDIAN = {
    "stream": "default", "median": 2.5, "low": 2.0, "high": 3.0, "rank_error": 0.005, "count": 3,
    "epsilon": 0.01, "exact": False, "complete": True, "workers": {"live": 1, "silent": 0},
    "as_of": "2026-01-01T00:00:00.123Z",
}  # fmt: skip
WORKER = {
    "worker": "w1", "stream": "default", "source": "00", "state": "live", "count": 3,
    "allowance": 1.5, "patience": 7, "rank_shift": 0.0, "deltas": 2, "bytes": 90, "raw_bytes": 24,
    "last_heard_s": 0.5,
}  # fmt: skip
HEALTH = {"status": "ok", "epsilon": 0.01, "heartbeat_s": 5.0, "storage": "memory"}
REPLIES: dict[str, Any] = {
    "/health": HEALTH,
    "/median": MEDIAN,
    "/workers": {"workers": [WORKER, {**WORKER, "stream": "other"}]},
    "/streams": {"streams": [{"stream": "default", "count": 3, "sources": 1}]},
    "/ready": {"ready": True},
}
UNKNOWN = {"error": {"code": "unknown_stream", "message": "there is no stream 'x' yet"}}


class Scripted(httpx.AsyncBaseTransport):
    """Replies by path: a body, a status with a body, or what happens instead."""

    def __init__(self, **changed: Any) -> None:
        self.replies = {**REPLIES, **{f"/{name}": reply for name, reply in changed.items()}}
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url.raw_path, "ascii"))
        reply = self.replies[request.url.path]
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, httpx.Response):
            return reply
        status, body = reply if isinstance(reply, tuple) else (200, reply)
        return httpx.Response(status, json=body)


ANSWER = Answer(-2.3290123, -2.341234, -2.31471, 0.0071, 0.01, 2_360_000, False, True, 4, 0)


def source(at: int, **changed: Any) -> Source:
    made = Source(
        f"worker-{at}", "default", "live", 600_000 - at, 1412.5, 12_000, 128, 12_690, 5_040_000, 0.4
    )
    return replace(made, **changed)


def seen(*sources: Source, every_s: float = 1.0, **changed: Any) -> Watched:
    look = Look(replace(ANSWER, **changed), sources or tuple(map(source, range(1, 5))))
    return Watched(URL, "default", every_s).saw(look, 1000.0)


def counted(*counts: int, every_s: float = 1.0) -> Watched:
    watched = Watched(URL, "default", every_s)
    for at, count in enumerate(counts):
        watched = watched.saw(Look(replace(ANSWER, count=count)), 1000.0 + at * every_s)
    return watched


def drawn(watched: Watched, width: int = 80, height: int = 40, now: float = 1000.6) -> str:
    console = Console(record=True, width=width, height=height, file=io.StringIO())
    for one in page(watched, width, height, now):
        console.print(one)
    return console.export_text()
