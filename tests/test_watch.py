"""`python -m loadgen watch`: what it asks, what it draws, and how it ends."""

import asyncio
import fcntl
import io
import itertools
import json
import os
import pty
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from loadgen.watch import (
    BLOCKS,
    CURVE_S,
    GLYPHS,
    HEAD,
    MOMENTS,
    Answer,
    Away,
    Coordinator,
    Lines,
    Look,
    Moment,
    Page,
    Source,
    Stranger,
    Watched,
    ago,
    bar,
    begun,
    columns,
    curve,
    follow,
    large,
    legible,
    line,
    number,
    page,
    rate,
    size,
    watch,
)
from tests.cluster import Cluster, run, until
from tests.processes import Processes, free_port
from tests.processes import until as happens

TOP = Path(__file__).parent.parent
URL = "http://coordinator"
LONG_S = 60
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
            (httpx.DecodingError("bad gzip"), "cannot be read: bad gzip"),
            (ssl.SSLCertVerificationError("certificate verify failed"), None),
        ],
    )
    @pytest.mark.parametrize("path", ["health", "median", "workers"])
    def test_who_never_was_a_coordinator_is_a_stranger(
        self, path: str, instead: Any, what: str | None
    ) -> None:
        if isinstance(instead, ssl.SSLError):
            what, cause = "over TLS: not trusted", instead
            instead = httpx.ConnectError("not trusted")
            instead.__cause__ = cause
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

        monkeypatch.setattr("loadgen.watch.LOOK_S_MAX", 0.01)
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
        ("url", "what"),
        [
            ("localhost:8000", "begins with http:// or https://"),
            ("127.0.0.1:8000", "begins with http:// or https://"),
            ("ftp://host", "begins with http:// or https://"),
            ("", "begins with http:// or https://"),
            ("http://", "is a host"),
            ("http://:8000", "is a host"),
            ("http://host?stream=x", "is a host"),
            ("http://host:port", "is no address"),
            ("http://host:99999999", "is a host"),
            ("http://host:0", "is a host"),
            ("http://host\n", "begins with"),
            ("http://host\udc80", "begins with"),
        ],
    )
    def test_an_address_that_is_none(self, url: str, what: str) -> None:
        with pytest.raises(Stranger, match=what):
            begun(url, "default", 1.0)

    @pytest.mark.parametrize("every_s", [float("nan"), 0.0, -1.0, float("inf")])
    def test_an_interval_that_is_none(self, every_s: float) -> None:
        with pytest.raises(Stranger, match="--every is from"):
            begun(URL, "default", every_s)

    @pytest.mark.parametrize("stream", ["", "a\nb", "\udc80"])
    def test_a_stream_that_has_no_name(self, stream: str) -> None:
        with pytest.raises(Stranger, match="a stream's name"):
            begun(URL, stream, 1.0)

    def test_each_is_one_sentence_and_status_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        for url, every_s in (("localhost:8000", 1.0), (URL, 0.0)):
            assert watch(url, "x", every_s) == 2
            out, said = capsys.readouterr()
            assert (out, said.count("\n"), said[-1]) == ("", 1, "\n")


# What was seen

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


class TestWatched:
    def test_the_rate_is_that_of_the_last_seconds(self) -> None:
        assert counted(100).rate is None
        assert counted(100, 300, 300).rate == 100
        assert counted(*[0] * 50, *range(0, 110, 10)).rate == 10
        assert counted(0, 6000, every_s=60).rate == 100

    def test_no_rate_spans_a_loss_of_memory(self) -> None:
        assert counted(900, 1000, 0).rate is None
        assert counted(900, 1000, 0, 40, 80).rate == 40
        assert counted(5, 0, 900, 3, 9).rate == 6

    def test_trouble_keeps_what_was_seen_and_ends_with_an_answer(self) -> None:
        watched = seen().failed("away")
        assert (watched.answer, watched.trouble) == (ANSWER, "away")
        assert watched.saw(Look(ANSWER), 1001.0).trouble == ""

    def test_a_stream_that_is_not_there_is_trouble(self) -> None:
        watched = Watched(URL, "x", 1.0).saw(Look(None, others=tuple("abcde")), 0.0)
        assert watched.trouble == "there is no stream 'x' yet: there are a, b, c and 2 more"
        assert Watched(URL, "x", 1.0).saw(Look(None), 0.0).trouble.endswith("yet")

    @pytest.mark.parametrize("every_s", [0.1, 1.0, 100.0])
    def test_it_does_not_grow_for_ever_and_keeps_enough(self, every_s: float) -> None:
        watched = counted(*range(5000), every_s=every_s)
        assert MOMENTS <= len(watched.moments) <= max(MOMENTS, 2 * CURVE_S / every_s) + 1
        assert watched.moments[-1].count == 4999
        assert watched.at - watched.moments[0].at >= 2 * CURVE_S

    def test_complete_or_not_and_why(self) -> None:
        assert seen().state == "yes: 4 live, none silent"
        silent = [source(at, state="silent") for at in range(1, 6)]
        assert (
            seen(*silent, complete=False, live=0, silent=5).state
            == "no: 0 live, 5 silent: worker-1, worker-2, worker-3 and 2 more"
        )
        starting = seen(complete=False)
        assert starting.state == "no: it has not listened for long enough"
        assert replace(starting, not_ready="wait").state == "no: wait"
        assert Watched(URL, "x", 1.0).state == ""


class TestWords:
    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (None, "-"), (0.0, "0"), (2.5, "2.5"), (5007.0, "5,007"),
            (-0.00881234567, "-0.008812346"),
            (1234567.8, "1,234,568"), (1.7e308, "1.7e+308"), (5e-324, "4.940656e-324"),
        ],
    )  # fmt: skip
    def test_numbers(self, value: float | None, shown: str) -> None:
        assert number(value) == shown

    def test_every_number_can_be_written_large(self, rng: np.random.Generator) -> None:
        for value in rng.normal(size=500) * 10.0 ** rng.integers(-320, 308, 500):
            rows = large(number(float(value)))
            assert len(rows) == 3
            assert len({cell_len(row) for row in rows}) == 1
        assert large("-1.0") == ["   ╶╮  ╭─╮", "╶─╴ │  │ │", "   ╶┴╴.╰─╯"]
        assert len(set(GLYPHS.values())) == len(GLYPHS)

    @pytest.mark.parametrize(
        ("count", "shown"),
        [
            (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (50_761, "50.8 kB"), (999_499, "999 kB"),
            (999_500, "1 MB"), (20_160_000, "20.2 MB"), (10**18, "1 EB"),
            (10**5 * 2**64, "1.84 YB"),
        ],
    )  # fmt: skip
    def test_sizes(self, count: int, shown: str) -> None:
        assert size(count) == shown

    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [
            (None, "never"), (0.4, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7199.0, "120 min"),
            (7200.0, "2 h"), (172_800.0, "2 d"),
        ],
    )  # fmt: skip
    def test_times(self, seconds: float | None, shown: str) -> None:
        assert ago(seconds) == shown

    def test_rates(self) -> None:
        assert [rate(one) for one in (None, 0.0, 0.25, 9.94, 9.95, 41_000.4)] == [
            "", "0 a second", "0.2 a second", "9.9 a second", "10 a second", "41,000 a second",
        ]  # fmt: skip

    def test_what_others_said_is_made_legible(self) -> None:
        assert legible("a\x1b[2J\nb\u202e") == "a [2J b "
        assert legible("x" * 301) == "x" * 296 + " ..."


class TestShapes:
    @pytest.mark.parametrize(
        ("share", "shown"),
        [
            (0.0, "────"), (1e-9, "╸───"), (0.125, "╸───"), (0.25, "━───"), (0.5, "━━──"),
            (0.99, "━━━━"), (1.0, "━━━━"), (7.0, "━━━━"), (-1.0, "────"),
        ],
    )  # fmt: skip
    def test_a_bar(self, share: float, shown: str) -> None:
        assert bar(share, 4, "blue").plain == shown

    def test_a_curve_goes_from_the_least_to_the_greatest(self) -> None:
        assert curve([0, 1, 2, 3, 4, 5, 6, 7], 1) == [BLOCKS[1:]]
        assert curve([float(at) for at in range(16)], 2) == [
            " " * 8 + BLOCKS[1:],
            BLOCKS[1:] + "█" * 8,
        ]
        assert curve([1.0, None, 0.0], 1) == ["█ ▁"]

    def test_of_one_value_it_is_in_the_middle(self) -> None:
        assert curve([5.0, 5.0], 1) == ["▄▄"]
        assert curve([5.0], 2) == [" ", "█"]

    def test_of_nothing_it_is_nothing(self) -> None:
        assert curve([None, None], 2) == ["  ", "  "]

    def test_it_knows_all_floats(self) -> None:
        assert curve([-1.7e308, 0.0, 1.7e308], 1) == ["▁▅█"]
        assert curve([0.0, 5e-324], 1) == ["▁█"]

    def test_its_columns_are_steps_of_time_of_which_the_last_is_now(self) -> None:
        moments = [Moment(at, at, 0) for at in (100.0, 101.0, 102.0, 103.5)]
        assert columns(moments, 4, 1.0, 103.9) == [100, 101, 102, 103.5]
        assert columns(moments, 2, 1.0, 103.9) == [102, 103.5]
        assert columns(moments, 3, 2.0, 103.9) == [None, 101, 103.5]

    def test_one_step_without_an_answer_is_no_gap_and_two_are_one(self) -> None:
        moments = [Moment(at, at, 0) for at in (100.0, 102.0, 105.0)]
        assert columns(moments, 6, 1.0, 105.0) == [100, 100, 102, None, None, 105]

    def test_no_column_changes_while_time_goes_on_within_a_step(self) -> None:
        moments = [Moment(100 + at / 3, at, 0) for at in range(60)]
        shown = [columns(moments, 20, 1.0, 119.7 + at / 100) for at in range(30)]
        assert all(one == shown[0] for one in shown)


# What is drawn


def drawn(watched: Watched, width: int = 80, height: int = 40, now: float = 1000.6) -> str:
    console = Console(record=True, width=width, height=height, file=io.StringIO())
    for one in page(watched, width, height, now):
        console.print(one)
    return console.export_text()


SIZES = [
    (60, 24),
    (80, 24),
    (80, 50),
    (120, 40),
    (200, 60),
    (40, 12),
    (30, 8),
    (20, 4),
    (5, 2),
    (1, 1),
]


class TestThePage:
    def test_it_says_all_there_is(self) -> None:
        shown = drawn(seen(), 120)
        for one in large("-2.329012"):
            assert one in shown
        for what in (
            "from -2.341234 to -2.31471",
            "2,360,000",
            "0.71 %  ━━",
            " epsilon 1.00 %",
            "yes  4 live, none silent",
            "50.8 kB  512 deltas, 0.25 % of 20.2 MB received",
            "worker-1  live   25.0 %",
            "12,000",
            "1,412",
            "12.7 kB",
            "1 s",
        ):
            assert what in shown, shown

    @pytest.mark.parametrize(("width", "height"), SIZES)
    @pytest.mark.parametrize("trouble", ["", "somebody is away and the reason is long " * 9])
    @pytest.mark.parametrize("number_of_workers", [0, 1, 4, 300])
    def test_it_keeps_within_the_terminal(
        self, width: int, height: int, trouble: str, number_of_workers: int
    ) -> None:
        rows = [source(at, worker=f"工作 {at}" * 9) for at in range(number_of_workers)]
        look = Look(replace(ANSWER, low=None), tuple(rows))
        watched = replace(Watched(URL * 9, "s" * 50, 1.0).saw(look, 1000.0), trouble=trouble)
        for one in (watched, replace(watched, answer=None), seen(median=1.2345678e-300)):
            lines = page(one, width, height, 1000.6)
            assert len(lines) <= height
            assert max(one.cell_len for one in lines) <= width
            assert all(line.plain.isprintable() for line in lines)

    def test_what_has_room_is_cut_nowhere(self) -> None:
        assert " epsilon 1.00 %\n" in drawn(seen(), 60, 24)
        for width, height in [(60, 24), (80, 24), (80, 50), (120, 40), (200, 60)]:
            assert "…" not in drawn(seen(), width, height)

    def test_the_median_is_large_where_there_is_room(self) -> None:
        assert large("-2.329012")[0] in drawn(seen(), 80, 24)
        assert large("-2.329012")[0] not in drawn(seen(), 80, 15)
        assert "-2.329012  from -2.341234" in drawn(seen(), 80, 15)

    def test_what_encloses_nothing_is_infinite(self) -> None:
        assert "from -∞ to ∞" in drawn(seen(low=None, high=None))

    def test_what_is_exact_says_so(self) -> None:
        shown = drawn(seen(exact=True, rank_error=0.0))
        assert "\n  exact" in shown
        assert "from" not in shown

    def test_before_the_first_value(self) -> None:
        shown = drawn(seen(median=None, low=None, high=None, count=0, rank_error=0.0))
        assert "no values yet" in shown
        assert "the last" not in shown

    def test_before_the_first_answer(self) -> None:
        assert "Asking." in drawn(Watched(URL, "default", 1.0))
        shown = drawn(Watched(URL, "default", 1.0).failed("it is away"))
        assert "it is away.\n  Asking again.\n" in shown

    def test_away_it_keeps_the_last_numbers_and_says_how_old_they_are(self) -> None:
        shown = drawn(seen().failed("it is away"), now=1034.0)
        assert "it is away.\n  Asking again. These numbers are 34 s old." in shown
        assert "2,360,000" in shown
        assert "35 s" not in drawn(seen(), now=1000.0)
        assert "34 s\n" in shown, "who was heard 0.4 s before was not heard since"

    def test_away_all_of_them_are_dimmed(self) -> None:
        console = Console(width=80, color_system="standard", file=io.StringIO())

        def dimmed(watched: Watched) -> list[bool]:
            """Each piece of text that has a number in it, but for how old they are."""
            lines = page(watched, 80, 40, 1001.0)
            pieces = itertools.chain.from_iterable(one.render(console) for one in lines)
            told = [one for one in pieces if "2,360,000" in one.text or "599,999" in one.text]
            assert len(told) == 2
            return [bool(one.style and one.style.dim) for one in told]

        assert not any(dimmed(seen()))
        assert all(dimmed(seen().failed("away")))

    def test_a_certificate_at_epsilon_fills_its_bar_and_red_is_beyond(self) -> None:
        assert "─" not in certificate(seen(rank_error=0.01))
        full = certificate(seen(rank_error=0.01)).count("━")
        assert certificate(seen(rank_error=0.005)).count("━") == full // 2
        for error, style in ((0.01, "green"), (0.02, "red")):
            lines = page(seen(rank_error=error), 80, 40, 1001.0)
            (found,) = [one for one in lines if "certificate" in one.plain]
            assert style in {str(span.style) for span in found.spans}

    def test_another_stream_has_its_name_in_the_title(self) -> None:
        assert "median of cpu" in drawn(replace(seen(), stream="cpu"))
        assert "median of" not in drawn(seen())

    def test_the_curve_has_its_range_beside_it(self) -> None:
        watched = Watched(URL, "default", 1.0)
        for at in range(30):
            watched = watched.saw(Look(replace(ANSWER, median=float(at))), 1000.0 + at)
        shown = drawn(watched, 80, 24, now=1029.0)
        assert "█ 29\n" in shown
        assert "█ 0\n" in shown
        assert "the last 73 s" in shown
        assert "from 0 to 29" in drawn(watched, 80, 18, now=1029.0)

    @pytest.mark.parametrize(("every_s", "looks"), [(0.1, 3000), (1.0, 300), (30.0, 60)])
    def test_the_curve_holds_the_last_minutes(self, every_s: float, looks: int) -> None:
        watched = counted(*range(looks), every_s=every_s)
        for width in (60, 80, 200):
            shown = drawn(watched, width, 24, now=watched.at)
            (caption,) = [one for one in shown.splitlines() if "the last" in one]
            amount, unit = caption.split()[2:4]
            assert float(amount) * {"s": 1, "min": 60, "h": 3600}[unit.strip(",")] >= CURVE_S
            curve_ = next(one for one in shown.splitlines() if "▄" in one or "█" in one)
            assert curve_.count("█") + curve_.count("▄") > min(looks, width / 3) / 2

    def test_it_is_drawn_as_wide_and_tall_as_the_console_is(self) -> None:
        console = Console(record=True, width=66, height=20, file=io.StringIO())
        console.print(Page(seen, lambda: 1000.6))
        shown = console.export_text()
        assert shown.splitlines() == drawn(seen(), 66, 20).splitlines()


def certificate(watched: Watched) -> str:
    return next(one for one in drawn(watched).splitlines() if "certificate" in one)


class TestTheTable:
    def test_the_silent_come_first_and_then_the_largest(self) -> None:
        rows = [
            source(1, count=5, state="gone"),
            source(2, count=7),
            source(3, count=9),
            source(4, count=1, state="silent", last_heard_s=None),
        ]
        shown = drawn(seen(*rows))
        places = [shown.index(f"worker-{at}") for at in (4, 3, 2, 1)]
        assert places == sorted(places)
        assert "never" in shown

    def test_the_longest_bar_is_the_largest_share(self) -> None:
        shown = drawn(seen(source(1, count=800), source(2, count=400), source(3, count=0)), 120)
        bars = [row.count("━") for row in shown.splitlines() if "worker-" in row]
        assert bars == [24, 12, 0]
        assert "66.7 %" in shown

    def test_those_without_room_are_counted(self) -> None:
        rows = [source(at) for at in range(40)] + [source(99, state="gone", count=1)]
        shown = drawn(seen(*rows), 80, 30)
        there = sum("worker-" in row for row in shown.splitlines())
        assert there > 5
        assert f"... and {41 - there} more: {40 - there} live, 1 gone" in shown
        assert len(shown.splitlines()) == 30

    @pytest.mark.parametrize("height", range(12, 40))
    def test_every_one_is_there_or_counted(self, height: int) -> None:
        shown = drawn(seen(*map(source, range(12))), 80, height)
        there = sum("worker-" in row for row in shown.splitlines())
        more = [row for row in shown.splitlines() if "more:" in row]
        assert there == 12 or f"and {12 - there} more: {12 - there} live" in more[0]
        assert len(more) <= 1

    @pytest.mark.parametrize(
        ("width", "shown", "hidden"),
        [
            (44, ["worker", "state", "share", "heard"], ["patience", "allowance"]),
            (66, ["sent", "patience"], ["allowance"]),
            (120, ["sent", "patience", "values", "allowance", "deltas"], []),
        ],
    )
    def test_a_wider_one_says_more(self, width: int, shown: list[str], hidden: list[str]) -> None:
        head = next(one for one in drawn(seen(), width).splitlines() if "heard" in one)
        assert all(one in head for one in shown)
        assert not any(one in head for one in hidden)

    def test_its_columns_stand_below_their_heads(self) -> None:
        wide = [source(1, worker="工作者"), source(2, worker="a"), source(3, worker="x" * 60)]
        for width in (60, 80, 120):
            lines = [one.plain for one in page(seen(*wide), width, 40, 1000.6)]
            table = lines[next(at for at, one in enumerate(lines) if "heard" in one) :]
            assert len({cell_len(one) for one in table}) == 1
            assert len({cell_len(one.partition("live")[0]) for one in table[1:]}) == 1
        assert f"{'x' * 19}…" in drawn(seen(*wide), 84)


# Lines


class TestLines:
    def test_a_line_is_columns_under_their_heads(self) -> None:
        shown = line(ANSWER, 1767225600.9)
        assert shown.split() == [
            "2026-01-01T00:00:00Z", "-2.3290123", "-2.341234", "-2.31471", "2360000", "0.0071000",
            "4", "0", "yes",
        ]  # fmt: skip
        assert len(HEAD.split()) == len(shown.split())
        for head, text in zip(HEAD.split()[1:-1], shown.split()[1:-1], strict=True):
            assert HEAD.index(f" {head}") + len(head) == shown.index(f" {text} ") + len(text)

    def test_a_dash_is_nothing(self) -> None:
        nothing = replace(ANSWER, median=None, low=None, high=None, complete=False)
        assert line(nothing, 0.0).split()[1:4] == ["-", "-", "-"]
        assert line(nothing, 0.0).endswith(" no")

    def test_the_head_comes_once_and_trouble_when_it_is_new(self) -> None:
        said: list[str] = []
        lines = Lines(said.append, lambda: 0.0)
        away, other = seen().failed("away"), seen().failed("other")
        for one in (away, away, seen(), seen(), away, away, other, seen(), away):
            lines(one)
        kinds = [one.split()[2] if one[0] == "#" else one.split()[0] for one in said]
        at = "1970-01-01T00:00:00Z"
        assert kinds == ["away;", "time", at, at, "away;", "other;", at, "away;"]


class TestFollow:
    def test_it_goes_on_through_trouble_and_ends_at_a_stranger(self) -> None:
        transport, shown = Scripted(health=httpx.ConnectError("down")), list[Watched]()

        def show(watched: Watched) -> None:
            shown.append(watched)
            if len(shown) == 2:
                transport.replies["/health"] = HEALTH
            if len(shown) == 4:
                transport.replies["/workers"] = httpx.ReadTimeout("")
            if len(shown) == 6:
                raise Stranger("the end")

        async def story() -> None:
            async with Coordinator(URL, "default", transport=transport) as coordinator:
                watched = Watched(URL, "default", 0.001)
                await follow(coordinator, watched, show, time.monotonic)

        with pytest.raises(Stranger, match="the end"):
            run(story())
        assert [bool(one.trouble) for one in shown] == [True, True, False, False, True, True]
        assert [one.answer is not None for one in shown] == [False, False, True, True, True, True]


# As a user starts it


def started(*arguments: str, **how: Any) -> "subprocess.Popen[str]":
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    given = {**pipes, "text": True, "env": {**buffered, "FORCE_COLOR": "1"}, **how}
    command = [sys.executable, "-m", "loadgen", "watch", *arguments]
    return subprocess.Popen(command, cwd=TOP, stdin=subprocess.DEVNULL, **given)  # noqa: S603  our own module, no shell


@contextmanager
def watching(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = started(*arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def reads(process: "subprocess.Popen[str]", what: Callable[[str], bool]) -> str:
    """The first line of which that is true."""
    timer = threading.Timer(LONG_S, process.kill)
    timer.start()
    try:
        assert process.stdout
        for one in process.stdout:
            if what(one):
                return one
        assert process.stderr
        raise AssertionError(f"it never said so: {process.stderr.read()}")
    finally:
        timer.cancel()


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, said = process.communicate(timeout=LONG_S)
    return process.returncode, said


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with Processes(tmp_path_factory.mktemp("watch")) as made:
        made.cluster("w1")
        made.workers["w1"].take(np.arange(1.0, 1001.0))
        made.workers["w1"].flush()
        yield made


class TestTheCommand:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_lines_until_it_is_stopped(self, how: signal.Signals, processes: Processes) -> None:
        with watching(processes.coordinator_.url, "--every", "0.1") as process:
            assert reads(process, lambda _: True) == f"{HEAD}\n"
            said = reads(process, lambda one: one.endswith("yes\n")).split()
            assert said[1:] == [
                "500.5",
                "500.5",
                "500.5",
                "1000",
                "0.0000000",
                "1",
                "0",
                "yes",
            ] or (float(said[2]) <= 500.5 <= float(said[3]))
            process.send_signal(how)
            assert ended(process) == (0, "")

    def test_a_line_is_not_kept_back(self, processes: Processes) -> None:
        with watching(processes.coordinator_.url, "--every", "3600") as process:
            assert reads(process, lambda one: one.endswith("yes\n"))

    def test_a_reader_that_goes_ends_it(self, processes: Processes) -> None:
        with watching(processes.coordinator_.url, "--every", "0.1") as process:
            reads(process, lambda _: True)
            assert process.stdout
            process.stdout.close()
            assert process.wait(LONG_S) == 0
            assert process.stderr
            assert process.stderr.read() == ""

    def test_who_is_not_there_may_come(self, tmp_path: Path) -> None:
        with Processes(tmp_path) as made:
            url = f"http://127.0.0.1:{made.port}"
            with watching(url, "--every", "0.1", "--stream", "later") as process:
                assert "is away" in reads(process, lambda one: one.startswith("#"))
                made.cluster("w1")
                assert "no stream 'later' yet" in reads(process, lambda one: "no stream" in one)
                worker = made.workers["w1"]
                assert worker.post("/values?stream=later", np.ones(3).tobytes()).is_success
                assert reads(process, lambda one: one.endswith((" no\n", " yes\n")))
                made.coordinator_.stop()
                assert "is away" in reads(process, lambda one: one.startswith("#"))
                made.coordinator()
                reads(process, lambda one: one.endswith(" yes\n"))
                process.send_signal(signal.SIGINT)
                assert ended(process) == (0, "")

    def test_strangers_are_a_sentence_and_status_2(self, processes: Processes) -> None:
        worker, coordinator = processes.workers["w1"].url, processes.coordinator_.url
        for url, what in [
            (worker, "is the worker w1, not a coordinator"),
            (f"{coordinator}/median", "is no coordinator: GET"),
            (coordinator.replace("http", "https"), "over TLS"),
        ]:
            with watching(url) as process:
                status, said = ended(process)
                assert (status, what in said, said.count("\n")) == (2, True, 1), said

    def test_who_does_not_speak_http_is_one_too(self) -> None:
        with socket.create_server(("127.0.0.1", free_port())) as server:

            def greet() -> None:
                one, _ = server.accept()
                with one:
                    one.sendall(b"220 mail.example ESMTP\r\n\r\n")
                    one.recv(9999)

            thread = threading.Thread(target=greet)
            thread.start()
            with watching(f"http://127.0.0.1:{server.getsockname()[1]}") as process:
                status, said = ended(process)
            thread.join(LONG_S)
        assert (status, "does not speak HTTP" in said) == (2, True), said


class Terminal:
    """A pty with a process on it, and all that this has drawn."""

    def __init__(self, width: int, height: int, *arguments: str, **environment: str) -> None:
        self._mine, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.before = termios.tcgetattr(other)
        env = {**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1", **environment}
        env.pop("NO_COLOR", None)
        self.process = started(*arguments, stdout=other, stderr=other, env=env)
        self._other, self.drawn = other, ""

    def until(self, what: str) -> None:
        happens(lambda: self._read() and what in self.drawn, f"{what!r} is drawn")

    def ended(self) -> int:
        happens(lambda: self._read() and self.process.poll() is not None, "it ends")
        return self.process.returncode

    def _read(self) -> bool:
        while select.select([self._mine], [], [], 0.05)[0]:
            try:
                self.drawn += os.read(self._mine, 65_536).decode(errors="replace")
            except OSError:  # nobody holds the other side
                break
        return True

    @property
    def after(self) -> Any:
        return termios.tcgetattr(self._other)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._mine)
        os.close(self._other)


class TestOnATerminal:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_it_draws_and_leaves_the_terminal_as_it_was(
        self, how: signal.Signals, processes: Processes
    ) -> None:
        terminal = Terminal(80, 24, processes.coordinator_.url, "--every", "0.1")
        try:
            terminal.until(large("500.5")[0])
            terminal.until("w1")
            terminal.process.send_signal(how)
            assert terminal.ended() == 0
            drawn_ = terminal.drawn
            assert "Traceback" not in drawn_
            assert drawn_.count("\x1b[?1049h") == drawn_.count("\x1b[?1049l") == 1
            assert drawn_.rindex("\x1b[?25h") > drawn_.rindex("\x1b[?25l")
            assert terminal.after == terminal.before
        finally:
            terminal.close()

    def test_a_stranger_is_said_after_the_terminal_is_left(self, processes: Processes) -> None:
        terminal = Terminal(80, 24, processes.workers["w1"].url)
        try:
            assert terminal.ended() == 2
            assert terminal.drawn.rindex("not a coordinator") > terminal.drawn.rindex("\x1b[?1049l")
        finally:
            terminal.close()

    @pytest.mark.parametrize("poor", [{"TERM": "dumb"}, {"PYTHONIOENCODING": "ascii"}])
    def test_one_that_cannot_show_it_gets_lines(
        self, poor: dict[str, str], processes: Processes
    ) -> None:
        terminal = Terminal(80, 24, processes.coordinator_.url, "--every", "0.1", **poor)
        try:
            terminal.until(" yes\r\n")
            terminal.process.send_signal(signal.SIGINT)
            assert terminal.ended() == 0
            assert "\x1b" not in terminal.drawn
        finally:
            terminal.close()
