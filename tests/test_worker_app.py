"""The worker over HTTP: each route and each error, keys, metrics and log lines."""

import asyncio
import json
import logging
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any
from unittest.mock import patch

import httpx
import msgpack
import numpy as np
import pytest

from shared.outbox import NotTaken
from shared.values import Floats
from tests.cluster import CUT, OCTETS, Cluster, Node, Weather, parsed, run, until
from worker_service.intake import decode
from worker_service.keys import Keys
from worker_service.sources import Taken, Waiting, in_thread
from worker_service.store import Key

BARE = {"content-type": OCTETS}


def check_problem(
    response: httpx.Response, status: int, code: str, position: int | None = None
) -> str:
    """The one shape that errors have; returns the message."""
    told = response.json()
    assert (response.status_code, list(told)) == (status, ["error"]), response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    error = told["error"]
    expected = {"code", "message"} | (set() if position is None else {"position"})
    assert (error["code"], error.get("position"), set(error)) == (code, position, expected)
    message: str = error["message"]
    assert message
    return message


def one_worker(rng: np.random.Generator, story: Callable[[Cluster, Node], Any], **how: Any) -> None:
    """Play a story of a worker that has met its coordinator."""

    async def told() -> None:
        async with Cluster(rng, workers=1, **how) as cluster:
            (node,) = cluster.nodes
            await until(lambda: is_ready(node), "it met the coordinator")
            await story(cluster, node)

    run(told())


async def is_ready(node: Node) -> bool:
    return await node.status("/ready") == 200


# Values


BODIES: list[tuple[str, bytes]] = [
    ("application/json", b'{"values": [1, 2.5, -3]}'),
    ("application/json", b"[1, 2.5, -3]"),
    ("application/json; charset=utf-8", b"[1, 2.5, -3]"),
    ("Application/JSON", b"[1, 2.5, -3]"),
    ("application/msgpack", msgpack.packb({"values": [1, 2.5, -3]})),
    ("application/msgpack", msgpack.packb([1, 2.5, -3])),
    ("application/x-msgpack", msgpack.packb([1.0, 2.5, -3.0])),
    ("application/octet-stream", np.array([1, 2.5, -3], dtype="<f8").tobytes()),
    ("text/plain", b"1\n2.5\n-3\n"),
]


def test_values_come_in_four_content_types(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        for at, (content_type, body) in enumerate(BODIES):
            response = await node.client.post(
                "/values",
                params={"stream": f"s{at}"},
                content=body,
                headers={"content-type": content_type},
            )
            assert response.status_code == 202, response.text
            assert response.headers["content-type"] == "application/json"
            assert response.json() == {"accepted": 3, "count": 3}
            told = await node.json("/digest", stream=f"s{at}")
            assert (told["means"], told["weights"]) == ([-3, 1, 2.5], [1, 1, 1])

    one_worker(rng, story)


def test_a_single_number_is_a_batch_and_counts_go_on(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        for count in (1, 2, 3):
            response = await node.client.post("/values", json=7)
            assert response.json() == {"accepted": 1, "count": count}

    one_worker(rng, story)


def test_a_batch_of_a_million_values(rng: np.random.Generator) -> None:
    async def story(cluster: Cluster, node: Node) -> None:
        values = rng.normal(size=1_000_000)
        response = await cluster.post(node, values)
        assert response.json() == {"accepted": 1_000_000, "count": 1_000_000}
        response = await node.client.post("/values", json=values[:30_000].tolist())
        assert response.json() == {"accepted": 30_000, "count": 1_030_000}
        assert (await node.client.post("/flush")).json() == {"streams": {"default": 1_030_000}}
        assert (await cluster.median())["count"] == 1_030_000

    one_worker(rng, story)


REFUSED: list[tuple[str, bytes, int, str, int | None]] = [
    ("application/json", b'{"values": [1, 2, "3"]}', 422, "not_a_number", 2),
    ("application/json", b"[1, true]", 422, "not_a_number", 1),
    ("application/json", b"[1, null]", 422, "not_a_number", 1),
    ("application/json", b"[1, [2]]", 422, "not_a_number", 1),
    ("application/json", b"[1, NaN]", 422, "not_finite", 1),
    ("application/json", b"[1, 2, 9007199254740993]", 422, "not_exact", 2),
    ("application/json", b"[]", 422, "empty", None),
    ("application/json", b"", 422, "empty", None),
    ("application/json", b'{"numbers": [1]}', 400, "malformed", None),
    ("application/json", b"[1, 2", 400, "malformed", None),
    ("application/json", b"[" * 100_000, 400, "malformed", None),
    ("application/msgpack", b"\xdd\xff\xff\xff\xff", 400, "malformed", None),
    ("application/msgpack", msgpack.packb([1.0, "x"]), 422, "not_a_number", 1),
    ("application/octet-stream", bytes(7), 400, "malformed", None),
    ("application/octet-stream", np.array([1, np.inf]).tobytes(), 422, "not_finite", 1),
    ("text/plain", b"1\ntwo\n", 400, "malformed", None),
    ("text/csv", b"1", 415, "unknown_content_type", None),
    ("", b"1", 415, "unknown_content_type", None),
]


def test_what_is_refused_is_refused_in_one_shape_and_nothing_of_it_is_taken(
    rng: np.random.Generator,
) -> None:
    async def story(_: Cluster, node: Node) -> None:
        for content_type, body, status, code, position in REFUSED:
            headers = {"content-type": content_type} if content_type else {}
            response = await node.client.post("/values", content=body, headers=headers)
            check_problem(response, status, code, position)
        assert (await node.json("/median"))["count"] == 0
        assert list(node.worker.sources) == []

    one_worker(rng, story)


def test_streams_have_names_that_can_be_printed(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        for path in ("/values", "/flush"):
            for name, code in (("", "invalid"), ("x" * 101, "invalid"), ("a\nb", "bad_name")):
                response = await node.client.post(path, params={"stream": name}, json=[1])
                check_problem(response, 422, code)
        for path in ("/median", "/digest", "/quantile?q=0.5"):
            response = await node.client.get(path, params={"stream": "\x00"} | q_of(path))
            check_problem(response, 422, "bad_name")
        assert list(node.worker.sources) == []
        for name in ("x" * 100, "中 ü", "a&b=c"):
            response = await node.client.post("/values", params={"stream": name}, json=[1, 2])
            assert response.json() == {"accepted": 2, "count": 2}
            assert (await node.json("/median", stream=name))["stream"] == name

    one_worker(rng, story)


def q_of(path: str) -> dict[str, str]:
    return {"q": "0.5"} if "q=" in path else {}


# Bodies


async def pieces(size: int, *, then: float = 0.0) -> AsyncGenerator[bytes, None]:
    for _ in range(size // 8 // 100):
        yield bytes(800)
        await asyncio.sleep(then)


def test_a_body_that_is_too_large_is_refused_by_what_it_declares_and_by_what_it_is(
    rng: np.random.Generator,
) -> None:
    async def story(_: Cluster, node: Node) -> None:
        headers = {"content-type": OCTETS}
        large = bytes(1032)
        response = await node.client.post("/values", content=large, headers=headers)
        check_problem(response, 413, "too_large")
        assert response.headers["connection"] == "close"
        response = await node.client.post("/values", content=pieces(1600), headers=headers)
        check_problem(response, 413, "too_large")
        response = await node.client.post("/values", content=pieces(800), headers=headers)
        assert response.json() == {"accepted": 100, "count": 100}
        response = await node.client.post("/values", content=large[:1024], headers=headers)
        assert response.json() == {"accepted": 128, "count": 228}

    one_worker(rng, story, body_bytes_max=1024)


def test_a_body_that_takes_too_long_is_refused(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        slow = pieces(80_000, then=0.02)
        response = await node.client.post("/values", content=slow, headers={"content-type": OCTETS})
        message = check_problem(response, 408, "too_slow")
        assert "0.05 s" in message
        assert response.headers["connection"] == "close"
        assert (await node.json("/median"))["count"] == 0
        await slow.aclose()

    one_worker(rng, story, body_s_max=0.05)


async def asked_raw(node: Node, *messages: dict[str, Any], **headers: str) -> httpx.Response:
    """As a server calls an app, message by message."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/values",
        "raw_path": b"/values",
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("worker", 80),
    }
    incoming, sent = iter(messages), list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        return next(incoming)

    async def send(message: Any) -> None:
        sent.append(message)

    await node.app(scope, receive, send)
    start, body = sent
    return httpx.Response(start["status"], headers=start["headers"], content=body["body"])


def test_a_body_that_ends_too_early_is_not_taken(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        part = {"type": "http.request", "body": bytes(8), "more_body": True}
        gone = {"type": "http.disconnect"}
        headers = {"content-type": OCTETS, "content-length": "16"}
        check_problem(await asked_raw(node, part, gone, **headers), 400, "cut_short")
        assert list(node.worker.sources) == []

    one_worker(rng, story)


@pytest.mark.parametrize(
    "declared",
    ["x", "-1", "²", pytest.param("9" * 5000)],
    ids=["text", "negative", "no digit", "endless"],
)
def test_a_declared_length_that_is_no_number_is_not_believed(
    declared: str, rng: np.random.Generator
) -> None:
    async def story(_: Cluster, node: Node) -> None:
        whole = {"type": "http.request", "body": b"1", "more_body": False}
        headers = {"content-type": "text/plain", "content-length": declared}
        response = await asked_raw(node, whole, **headers)
        assert response.status_code in (202, 413)

    one_worker(rng, story)


def test_a_body_that_is_compressed_is_refused(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        headers = {"content-type": OCTETS, "content-encoding": "gzip"}
        body = bytes(24)  # as long as three values, which it is not
        response = await node.client.post("/values", content=body, headers=headers)
        check_problem(response, 415, "unknown_content_encoding")
        assert list(node.worker.sources) == []

    one_worker(rng, story)


# Many at once


def test_batches_that_come_at_once_are_numbered_one_after_the_other(
    rng: np.random.Generator,
) -> None:
    async def story(cluster: Cluster, node: Node) -> None:
        sizes = rng.permutation([1, 2, 3, 5, 100, 32_768, 32_769, 50_000, 200_000] * 3).tolist()
        posts = (node.client.post("/values", content=bytes(8 * one), headers=BARE) for one in sizes)
        answers = [response.json() for response in await asyncio.gather(*posts)]
        assert [one["accepted"] for one in answers] == sizes
        before = 0
        for answer in sorted(answers, key=lambda one: int(one["count"])):
            assert answer["count"] - before == answer["accepted"]
            before = answer["count"]
        await cluster.flush()
        assert (await cluster.median())["count"] == sum(sizes)

    one_worker(rng, story)


def test_who_hangs_up_harms_nobody_else(rng: np.random.Generator) -> None:
    """A batch whose sender went away may be counted or not: but whole; and the others are."""

    async def story(cluster: Cluster, node: Node) -> None:
        large = rng.normal(size=100_000).tobytes()
        posts = [
            asyncio.create_task(node.client.post("/values", content=body, headers=BARE))
            for body in [large, bytes(8)] * 10
        ]
        await asyncio.sleep(0.02)
        for post in posts[1::3]:
            post.cancel()
            await asyncio.sleep(0)
        answers = await asyncio.gather(*posts, return_exceptions=True)
        told = [one for one in answers if isinstance(one, httpx.Response)]
        taken = [one.json() for one in told if one.status_code == 202]
        assert len(taken) >= len(posts) - len(posts[1::3])
        response = await node.client.post("/values", json=[1])
        assert (await node.client.post("/flush")).status_code == 200
        count = (await node.json("/median"))["count"]
        assert count == response.json()["count"] == (await cluster.median())["count"]
        assert count >= 1 + sum(one["accepted"] for one in taken)
        assert len({one["count"] for one in taken}) == len(taken)

    one_worker(rng, story)


@pytest.mark.parametrize("signed", [True, False])
def test_who_hangs_up_in_the_same_moment_is_not_told(signed: bool) -> None:
    async def story() -> None:
        waiting = Waiting()
        tasks = [asyncio.create_task(waiting.until(count)) for count in (1, 2)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        if signed:
            waiting.reached(2)
        else:
            waiting.given_up(NotTaken("a new one begins"))
        gone, told = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(gone, asyncio.CancelledError)
        assert told is None if signed else isinstance(told, NotTaken)

    run(story())


@pytest.mark.parametrize("times", [1, pytest.param(2)])
def test_what_works_in_a_thread_is_waited_for_however_often_it_is_cancelled(times: int) -> None:
    """Else two would use one outbox at once."""
    go = threading.Event()

    async def story() -> None:
        lock = asyncio.Lock()

        async def use() -> None:
            async with lock:
                await in_thread(go.wait)

        task = asyncio.create_task(use())
        for _ in range(times):
            await asyncio.sleep(0.01)
            task.cancel()
        await asyncio.sleep(0.01)
        still_held = lock.locked()
        go.set()
        await asyncio.gather(task, return_exceptions=True)
        assert still_held
        assert task.cancelled()

    run(story())


# Keys


async def keyed(
    node: Node, key: str, body: Any = (1, 2), stream: str = "default"
) -> httpx.Response:
    return await node.client.post(
        "/values", params={"stream": stream}, json=body, headers={"idempotency-key": key}
    )


def test_a_repeat_with_the_same_key_counts_once(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        answers = [(await keyed(node, "k")).json() for _ in range(3)]
        answers += [one.json() for one in await asyncio.gather(*(keyed(node, "k") for _ in "abc"))]
        assert answers == [{"accepted": 2, "count": 2}] * 6
        assert (await keyed(node, "another")).json() == {"accepted": 2, "count": 4}
        assert (await node.json("/median"))["count"] == 4

    one_worker(rng, story)


def test_repeats_while_the_first_still_waits_get_its_answer(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        node.way_out.weather = CUT
        waiting = [asyncio.create_task(keyed(node, "k")) for _ in range(5)]
        await asyncio.sleep(0.1)
        assert not any(one.done() for one in waiting)
        node.way_out.weather = Weather()
        answers = [(await one).json() for one in waiting]
        assert answers == [{"accepted": 2, "count": 2}] * 5

    one_worker(rng, story)


def test_a_key_is_of_one_content_in_one_stream(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        assert (await keyed(node, "k")).status_code == 202
        check_problem(await keyed(node, "k", [1, 3]), 422, "key_reused")
        check_problem(await keyed(node, "k", stream="other"), 422, "key_reused")
        assert (await keyed(node, "k")).json() == {"accepted": 2, "count": 2}
        assert [line.outbox.count for line in node.worker.sources] == [2]

    one_worker(rng, story)


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"a\tb", "ü".encode()])
def test_a_bad_key_is_refused(key: bytes, rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        response = await node.client.post("/values", json=[1], headers=[(b"idempotency-key", key)])
        check_problem(response, 422, "bad_key")
        assert list(node.worker.sources) == []

    one_worker(rng, story)


def test_a_key_may_have_255_characters(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        for _repeat in range(2):
            assert (await keyed(node, "~" * 255)).json() == {"accepted": 2, "count": 2}

    one_worker(rng, story)


def test_only_the_last_keys_are_remembered(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        counts = [(await keyed(node, key)).json()["count"] for key in "abbaca"]
        assert counts == [2, 4, 4, 2, 6, 8], "a was forgotten when c came"
        assert len(node.worker.keys) == 2

    one_worker(rng, story, idempotency_keys_max=2)


def test_a_request_that_failed_frees_its_key(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        check_problem(await keyed(node, "k", [None]), 422, "not_a_number", 0)
        node.worker.sources.closing = True
        check_problem(await keyed(node, "k"), 503, "not_taken")
        assert len(node.worker.keys) == 0
        node.worker.sources.closing = False
        assert (await keyed(node, "k", [1, 2, 3])).json() == {"accepted": 3, "count": 3}

    one_worker(rng, story)


def test_a_request_that_still_waits_is_not_forgotten_however_many_come(
    rng: np.random.Generator,
) -> None:
    async def story(_: Cluster, node: Node) -> None:
        node.way_out.weather = Weather(rubbish=1.0, kinds=("status",))
        waiting = [asyncio.create_task(keyed(node, key)) for key in "abc"]
        await asyncio.sleep(0.05)
        assert len(node.worker.keys) == 3
        again = asyncio.create_task(keyed(node, "a"))
        await asyncio.sleep(0.05)
        node.way_out.weather = Weather()
        counts = [(await one).json()["count"] for one in waiting]
        assert (sorted(counts), (await again).json()["count"]) == ([2, 4, 6], counts[0])
        assert len(node.worker.keys) == 1

    one_worker(rng, story, idempotency_keys_max=1)


def test_a_key_that_still_waits_outlives_later_ones_that_ended() -> None:
    async def story() -> None:
        keys, signed = Keys(1), asyncio.Event()

        async def slow() -> Taken:
            await signed.wait()
            return Taken(1, 1, 7)

        async def quick() -> Taken:
            return Taken(2, 2, 7)

        first = asyncio.create_task(keys.once(Key("a", b""), slow))
        await asyncio.sleep(0)
        for key in "bc":
            assert await keys.once(Key(key, b""), quick) == Taken(2, 2, 7)
        again = asyncio.create_task(keys.once(Key("a", b""), quick))
        await asyncio.sleep(0)
        signed.set()
        assert await first == await again == Taken(1, 1, 7)

    run(story())


def test_a_key_is_of_one_content_type_too(rng: np.random.Generator) -> None:
    """The same bytes mean other values then."""

    async def story(_: Cluster, node: Node) -> None:
        async def posted(content_type: str) -> httpx.Response:
            headers = {"content-type": content_type, "idempotency-key": "k"}
            return await node.client.post("/values", content=b"1\n2\n3\n4\n", headers=headers)

        assert (await posted("text/plain")).json() == {"accepted": 4, "count": 4}
        check_problem(await posted(OCTETS), 422, "key_reused")
        assert (await posted("text/plain")).json() == {"accepted": 4, "count": 4}

    one_worker(rng, story)


def test_who_waits_for_a_202_holds_no_values(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        node.way_out.weather = Weather(rubbish=1.0, kinds=("status",))
        taken: list[weakref.ref[Floats]] = []

        def decoded(*given: Any) -> Floats:
            values = decode(*given).copy()
            taken.append(weakref.ref(values))
            return values

        with patch("worker_service.app.decode", decoded):
            waiting = [
                asyncio.create_task(node.client.post("/values", content=bytes(8), headers=headers))
                for headers in (BARE, BARE | {"idempotency-key": "k"})
            ]

            async def hold_none() -> bool:
                return [one() for one in taken] == [None, None]

            await until(hold_none, "both were handed over")
        assert [one.done() for one in waiting] == [False, False]
        node.way_out.weather = Weather()
        assert [(await one).status_code for one in waiting] == [202, 202]

    one_worker(rng, story)


# Queries


@pytest.mark.parametrize(
    ("query", "code"),
    [("strem=x", "unknown_parameter"), ("stream=a&stream=b", "repeated_parameter")],
)
def test_a_misspelt_parameter_is_refused_and_nothing_is_taken(
    query: str, code: str, rng: np.random.Generator
) -> None:
    async def story(_: Cluster, node: Node) -> None:
        response = await node.client.post(f"/values?{query}", json=[1])
        check_problem(response, 422, code)
        assert list(node.worker.sources) == []
        check_problem(await node.client.get(f"/quantile?q=0&q=1&{query}"), 422, code)
        check_problem(await node.client.get("/median/"), 404, "not_found")

    one_worker(rng, story)


# Reads


def test_an_empty_worker_has_no_median_of_its_default_stream(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        nothing = {"stream": "default", "count": 0, "rank_error": 0.0, "exact": True}
        assert await node.json("/median") == nothing | {"median": None}
        quantiles = [{"q": 0.1, "value": None}, {"q": 1.0, "value": None}]
        assert await node.json("/quantile", q=[0.1, 1]) == nothing | {"quantiles": quantiles}
        assert (await node.client.post("/flush")).json() == {"streams": {}}

    one_worker(rng, story)


def test_a_stream_that_has_no_values_here_is_unknown(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        for path in ("/median?stream=x", "/quantile?q=0.5&stream=x", "/digest?stream=x", "/digest"):
            check_problem(await node.client.get(path), 404, "unknown_stream")
        check_problem(await node.client.post("/flush?stream=x"), 404, "unknown_stream")

    one_worker(rng, story)


def test_a_worker_answers_from_its_own_digests(rng: np.random.Generator) -> None:
    async def story(cluster: Cluster, node: Node) -> None:
        values = np.arange(1.0, 102.0)
        await cluster.post(node, values)
        about = {"stream": "default", "count": 101, "rank_error": 0.0, "exact": True}
        assert await node.json("/median") == about | {"median": 51.0}
        told = await node.json("/quantile", q=[0, 0.5, 1])
        found = [{"q": 0.0, "value": 1.0}, {"q": 0.5, "value": 51.0}, {"q": 1.0, "value": 101.0}]
        assert told == about | {"quantiles": found}
        about.pop("exact")
        held = {"means": values.tolist(), "weights": [1] * 101}
        assert await node.json("/digest") == about | held
        await cluster.post(node, rng.normal(size=100_000))
        told = await node.json("/median")
        assert (told["count"], told["exact"]) == (100_101, False)
        assert 0 < told["rank_error"] <= 0.0025
        assert sum((await node.json("/digest"))["weights"]) == 100_101

    one_worker(rng, story)


@pytest.mark.parametrize("q", ["-0.1", "1.1", "nan", "x", ""])
def test_a_q_that_means_nothing_is_refused(q: str, rng: np.random.Generator) -> None:
    async def story(cluster: Cluster, node: Node) -> None:
        for client in (node.client, cluster.coordinator.client):
            message = check_problem(await client.get(f"/quantile?q=0.5&q={q}"), 422, "invalid")
            assert message.startswith("q.1: ")
            check_problem(await client.get("/quantile"), 422, "invalid")
            check_problem(await client.get("/quantile" + "?q=1" + "&q=1" * 100), 422, "invalid")

    one_worker(rng, story)


def test_flush_tells_the_coordinator_of_one_stream_or_of_all(rng: np.random.Generator) -> None:
    async def story(cluster: Cluster, node: Node) -> None:
        for stream in ("default", "other"):
            await cluster.post(node, rng.normal(size=5_000), stream)
            await cluster.post(node, rng.normal(size=7), stream)
        told = await node.client.post("/flush", params={"stream": "other"})
        assert told.json() == {"streams": {"other": 5_007}}
        assert (await cluster.median("other"))["count"] == 5_007
        told = await node.client.post("/flush")
        assert told.json() == {"streams": {"default": 5_007, "other": 5_007}}
        assert (await cluster.median())["count"] == 5_007

    one_worker(rng, story, linger_s=60.0)


def test_what_is_no_route_is_refused_in_the_same_shape(rng: np.random.Generator) -> None:
    async def story(cluster: Cluster, node: Node) -> None:
        for client in (node.client, cluster.coordinator.client):
            check_problem(await client.get("/nowhere"), 404, "not_found")
            response = await client.delete("/median")
            check_problem(response, 405, "method_not_allowed")
            assert response.headers["allow"] == "GET"
        check_problem(await node.client.get("/values"), 405, "method_not_allowed")

    one_worker(rng, story)


def test_a_bug_is_told_in_the_same_shape(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(_: Cluster, node: Node) -> None:
        monkeypatch.setattr(node.worker, "why_not_ready", lambda: 1 / 0)
        transport = httpx.ASGITransport(node.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
            check_problem(await client.get("/ready"), 500, "internal")

    one_worker(rng, story)


def test_health_says_where_values_are_kept(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        assert await node.json("/health") == {
            "status": "ok",
            "worker": "w1",
            "storage": "memory",
            "closed": [],
        }
        assert await node.json("/ready") == {"ready": True}

    one_worker(rng, story)


def test_the_documentation_knows_every_route(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        paths = (await node.json("/openapi.json"))["paths"]
        assert {f"{method} {path}" for path, methods in paths.items() for method in methods} == {
            "post /values", "post /flush", "get /median", "get /quantile", "get /digest",
            "get /health", "get /ready", "get /metrics",
        }  # fmt: skip

    one_worker(rng, story)


# Metrics and logs


def test_metrics_name_what_happened(rng: np.random.Generator) -> None:
    async def story(cluster: Cluster, node: Node) -> None:
        await cluster.post(node, rng.normal(size=1_000))
        await cluster.post(node, [1.0] * 10, 'a "b" \\c')
        await cluster.flush()
        for path in ("/median", "/quantile?q=1", "/digest", "/median"):
            await node.client.get(path)
        node.way_out.weather = CUT
        waiting = asyncio.create_task(cluster.post(node, [1e6] * 1_000))
        await until(lambda: has(node, "median_worker_retries_total"), "a push failed")
        node.way_out.weather = Weather()
        await waiting
        response = await node.client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        samples = parsed(response.text)

        def sample(name: str, **labels: str) -> float:
            return samples[f"median_worker_{name}{json.dumps(labels, sort_keys=True)}"]

        assert sample("values_total", stream="default") == 2_000
        assert sample("values_total", stream='a "b" \\c') == 10
        assert sample("taken_bytes_total", stream="default") == 8 * 2_000
        assert sample("deltas_total", cause="patience", form="whole", signed="true") >= 2
        assert sample("queries_total", endpoint="median") == 2
        assert sample("queries_total", endpoint="quantile") == 1
        assert sample("queries_total", endpoint="digest") == 1
        assert sample("retries_total") > 0
        assert sample("sent_bytes_total") > 0
        assert sample("received_bytes_total") > 0
        assert sample("push_seconds_count") >= 2
        for gauge in ("rank_shift_ranks", "allowance_ranks", "patience_values", "pending_values"):
            assert sample(gauge, stream="default") >= 0
        assert sample("allowance_ranks", stream="default") > 0

    one_worker(rng, story)


async def has(node: Node, name: str) -> bool:
    return await node.metric(name) > 0


def test_metrics_count_each_value_once(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        for _repeat in range(3):
            await keyed(node, "k")
        assert await node.metric("median_worker_values_total") == 2

    one_worker(rng, story)


def test_there_is_one_line_for_each_delta_and_none_for_values(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def story(cluster: Cluster, node: Node) -> None:
        for _ in range(50):
            await cluster.post(node, rng.normal(size=100))
        await cluster.flush()
        deltas = await node.metric("median_worker_deltas_total")
        signed = [one for one in lines(caplog, "worker.courier") if one == "delta signed"]
        assert len(signed) == deltas
        node.way_out.weather = CUT
        waiting = asyncio.create_task(cluster.post(node, [1e6] * 100))
        await until(lambda: retried(node, 5), "pushes failed")
        node.way_out.weather = Weather()
        await waiting

    one_worker(rng, story, heartbeat_s=30.0)
    ours = lines(caplog, "worker", "worker.courier")
    others = [one for one in ours if one != "delta signed"]
    assert others == ["coordinator met", "coordinator not reached", "coordinator reached"]
    (record,) = [one for one in caplog.records if one.message == "coordinator not reached"]
    assert record.levelno == logging.WARNING
    why = {"url": "http://coordinator", "why": "lost on its way"}
    assert record.__dict__["facts"] == why
    record = next(one for one in caplog.records if one.message == "delta signed")
    facts = record.__dict__["facts"]
    assert (facts["stream"], facts["form"], facts["since"]) == ("default", "whole", 0)
    assert facts["cause"] == "patience"


async def retried(node: Node, times: int) -> bool:
    return await node.metric("median_worker_retries_total") >= times


def lines(caplog: pytest.LogCaptureFixture, *names: str) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name in names]
