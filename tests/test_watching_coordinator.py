"""How a coordinator is asked, and what becomes of those who are none."""

import asyncio
import json
from typing import Any

import httpx
import numpy as np
import pytest

from loadgen.watching.coordinator import Away, Coordinator, Stranger, check_address
from loadgen.watching.look import Answer, Look, Source
from loadgen.watching.watched import Watched
from tests.cluster import Cluster, run, until
from tests.watching import MEDIAN, REPLIES, UNKNOWN, URL, Scripted, drawn

LONG_S = 60


def looked(transport: httpx.AsyncBaseTransport, stream: str = "default", url: str = URL) -> Look:
    async def story() -> Look:
        async with Coordinator(url, stream, transport=transport) as coordinator:
            return await coordinator.look()

    return run(story())


class TestTheCoordinatorIsAsked:
    def test_for_its_answer_and_the_sources_of_the_stream(self) -> None:
        transport = Scripted()
        look = looked(transport)
        assert look.answer == Answer(2.5, 2.0, 3.0, 0.005, 0.01, 3, False, True, 1, 0)
        assert look.sources == (Source("w1", "default", "live", 3, 1.5, 7, 2, 90, 24, 0.5),)
        assert transport.asked == ["/health", "/median?stream=default", "/workers"]

    def test_and_why_it_is_not_ready_while_nobody_is_silent(self) -> None:
        why = "it listens for three heartbeats after its start, 2.0 s more"
        ready = (503, {"error": {"code": "not_ready", "message": why}})
        starting = {**MEDIAN, "complete": False}
        assert looked(Scripted(median=starting, ready=ready)).not_ready == why
        assert looked(Scripted(median=starting)).not_ready == ""
        silent = Scripted(median={**starting, "workers": {"live": 0, "silent": 1}}, ready=ready)
        assert looked(silent).not_ready == ""
        assert "/ready" not in silent.asked

    def test_who_it_is_only_once(self) -> None:
        transport = Scripted()

        async def story() -> None:
            async with Coordinator(URL, "default", transport=transport) as coordinator:
                await coordinator.look()
                await coordinator.look()

        run(story())
        assert transport.asked.count("/health") == 1

    def test_a_stream_that_is_not_there_yet_is_no_error(self) -> None:
        look = looked(Scripted(median=(404, UNKNOWN)), "x")
        assert look == Look(None, others=("default",))

    def test_an_address_may_have_a_path_before_all_others(self) -> None:
        transport = Scripted(**{f"behind{path}": reply for path, reply in REPLIES.items()})
        assert looked(transport, url=f"{URL}/behind/").answer
        assert transport.asked[0] == "/behind/health"

    def test_a_real_one_has_what_is_read(self, rng: np.random.Generator) -> None:
        async def story() -> None:
            async with Cluster(rng, workers=2, heartbeat_s=0.5) as cluster:
                async with Coordinator(URL, "default", transport=cluster.at) as coordinator:
                    first = await coordinator.look()
                    assert first.answer
                    assert (first.answer.median, first.answer.count) == (None, 0)
                    assert "it listens for three heartbeats" in first.not_ready
                    for node in cluster.nodes:
                        await cluster.post(node, rng.normal(size=1000))
                    await cluster.flush()

                    async def complete() -> bool:
                        answer = (await coordinator.look()).answer
                        return bool(answer and answer.complete)

                    await until(complete, "it is complete")
                    look = await coordinator.look()
                    assert look.answer
                    assert look.answer.count == sum(one.count for one in look.sources) == 2000
                    assert {one.state for one in look.sources} == {"live"}
                    shown = drawn(Watched(URL, "default", 1.0).saw(look, 0.0), now=0.0)
                    assert "yes" in shown
                    assert "w1" in shown
                    cluster.stop_coordinator()
                    with pytest.raises(Away, match="nobody listens here"):
                        await coordinator.look()
                    cluster.put_back_coordinator()
                    assert (await coordinator.look()).answer
                async with Coordinator(URL, "x", transport=cluster.at) as coordinator:
                    assert (await coordinator.look()).others == ("default",)
                async with Coordinator(URL, "x" * 999, transport=cluster.at) as coordinator:
                    with pytest.raises(Stranger, match="is refused: stream: String should have"):
                        await coordinator.look()

        run(story())

    def test_a_real_worker_is_told_from_one(self, rng: np.random.Generator) -> None:
        async def story() -> None:
            async with Cluster(rng, workers=1) as cluster:
                await cluster.post(cluster.nodes[0], [1.0])
                at = httpx.ASGITransport(cluster.nodes[0].app)
                async with Coordinator("http://w", "default", transport=at) as coordinator:
                    with pytest.raises(Stranger, match="is the worker w1, not a coordinator"):
                        await coordinator.look()

        run(story())


class TestWhatGoesWrong:
    @pytest.mark.parametrize(
        ("instead", "what"),
        [
            (httpx.ConnectError("All connection attempts failed"), "is away: All connection"),
            (httpx.ConnectError(""), "is away: ConnectError"),
            (httpx.ConnectTimeout(""), "does not answer"),
            (httpx.ReadTimeout(""), "does not answer"),
            (httpx.ReadError("reset"), "is away: reset"),
            (httpx.RemoteProtocolError("Server disconnected without sending a response."), "away"),
            ((502, "<html>"), "got 502"),
            ((429, {}), "got 429"),
            ((500, {"error": {"code": "internal", "message": "a bug of ours"}}), "got 500"),
        ],
    )
    @pytest.mark.parametrize("path", ["health", "median", "workers"])
    def test_who_may_come_back_is_away(self, path: str, instead: Any, what: str) -> None:
        with pytest.raises(Away, match=what):
            looked(Scripted(**{path: instead}))

    @pytest.mark.parametrize(
        ("instead", "what"),
        [
            ((404, {"error": {"code": "not_found", "message": "GET /x: not found"}}), "got 404"),
            ((404, "nothing"), "got 404 application/json"),
            ((301, {}), "got 301"),
            ((401, {}), "got 401"),
            ((200, "hello"), "is no coordinator"),
            ((200, []), "is no coordinator"),
            ((200, {}), "is no coordinator"),
            (httpx.Response(200, text="<html>"), "got 200 text/plain"),
            (httpx.Response(200, content=b"[" * 100_000), "is no coordinator"),
            (httpx.Response(200, content=b"\xff"), "is no coordinator"),
            (httpx.RemoteProtocolError("illegal status line: 'SSH-2.0'"), "does not speak HTTP"),
            (
                httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] expired"),
                "over TLS: .* expired",
            ),
        ],
    )
    @pytest.mark.parametrize("path", ["health", "median", "workers"])
    def test_who_never_was_a_coordinator_is_a_stranger(
        self, path: str, instead: Any, what: str
    ) -> None:
        with pytest.raises(Stranger, match=what):
            looked(Scripted(**{path: instead}))

    @pytest.mark.parametrize(
        "changed",
        [
            {"median": float("nan")}, {"low": float("inf")}, {"count": "many"}, {"count": 1e999},
            {"count": -1}, {"count": 2.0},
            {"count": True}, {"count": 10**400}, {"median": 10**400},
            {"workers": None}, {"workers": {"live": 1}}, {"rank_error": None}, {"epsilon": []},
        ],
    )  # fmt: skip
    def test_so_is_who_answers_with_what_is_no_answer(self, changed: dict[str, Any]) -> None:
        content = json.dumps({**MEDIAN, **changed}).encode()
        with pytest.raises(Stranger, match="is no coordinator"):
            looked(Scripted(median=httpx.Response(200, content=content)))

    def test_who_was_a_coordinator_once_is_away(self) -> None:
        transport = Scripted()

        async def story() -> None:
            async with Coordinator(URL, "default", transport=transport) as coordinator:
                await coordinator.look()
                transport.replies["/median"] = (404, "the proxy knows nobody")
                with pytest.raises(Away, match="is no coordinator"):
                    await coordinator.look()
                transport.replies["/median"] = MEDIAN
                await coordinator.look()

        run(story())

    def test_a_look_that_hangs_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Hangs(httpx.AsyncBaseTransport):
            async def handle_async_request(self, _: httpx.Request) -> httpx.Response:
                await asyncio.sleep(LONG_S)
                raise AssertionError

        monkeypatch.setattr("loadgen.watching.coordinator.LOOK_S_MAX", 0.01)
        with pytest.raises(Away, match="takes too long"):
            looked(Hangs())

    def test_no_sentence_moves_a_cursor_or_shows_a_password(self) -> None:
        evil = {"error": {"code": "bad_name", "message": "no\x1b[2J\nno" + "x" * 9999}}
        with pytest.raises(Stranger) as caught:
            looked(Scripted(median=(422, evil)), url="http://user:secret@coordinator")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        "url",
        [
            "localhost:8000", "127.0.0.1:8000", "ftp://host", "", "http://", "http://:8000",
            "http://host?stream=x", "http://host#top", "http://host:port", "http://host:99999999",
            "http://host:0", "http://host\n", "http://host\udc80",
        ],
    )  # fmt: skip
    def test_an_address_that_is_none(self, url: str) -> None:
        with pytest.raises(Stranger, match=r"is no address: it must be like http://127\.0\.0\.1"):
            check_address(url)

    @pytest.mark.parametrize(
        "url", [URL, "https://host:8443/behind/a/proxy/", "http://user:secret@[::1]:1"]
    )
    def test_an_address_that_is_one(self, url: str) -> None:
        check_address(url)
