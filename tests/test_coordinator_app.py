"""The coordinator over HTTP: each route and each error, what deltas get, metrics and log lines."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable
from itertools import pairwise
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest

from coordinator_service.answers import STREAMS_MAX, Answers
from shared.digest import Digest
from shared.outbox import Outbox
from shared.protocol import (
    REQUEST_BYTES_MAX,
    Receipt,
    Refusal,
    Source,
    pack_request,
    unpack_response,
)
from tests.cluster import Cluster, Node, parsed, run, until
from tests.test_worker_app import check_problem, lines

MSGPACK = {"content-type": "application/msgpack"}


def one_coordinator(
    rng: np.random.Generator, story: Callable[[Cluster, Node], Any], **how: Any
) -> None:
    async def told() -> None:
        async with Cluster(rng, **({"workers": 0} | how)) as cluster:
            await story(cluster, cluster.coordinator)

    run(told())


def an_outbox(
    number: int = 1, *, worker: str = "w", stream: str = "default", error: float = 0.001
) -> Outbox:
    return Outbox(Source(worker, stream, number), Digest(error), now=0.0)


def cut(outbox: Outbox, *values: float) -> bytes:
    """A delta that covers these values too."""
    if values:
        outbox.add(values, now=0.0)
        outbox.flush()
    data = outbox.delta(now=0.0)
    assert data is not None
    return data


async def sent(node: Node, *deltas: bytes) -> list[Receipt | Refusal]:
    response = await node.client.post("/deltas", content=pack_request(deltas), headers=MSGPACK)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/msgpack"
    return unpack_response(response.content)


async def told(node: Node, outbox: Outbox, *values: float) -> None:
    (receipt,) = await sent(node, cut(outbox, *values))
    assert isinstance(receipt, Receipt)
    outbox.receive(receipt, now=0.0)
    assert outbox.acknowledged == outbox.count


# Before the first value


def test_before_the_first_value_there_is_no_median(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        for path in ("/median", "/median?stream=default"):
            said = await node.json(path)
            as_of = said.pop("as_of")
            assert said == {
                "stream": "default",
                "median": None,
                "low": None,
                "high": None,
                "rank_error": 0.0,
                "count": 0,
                "epsilon": 0.05,
                "exact": False,
                "complete": False,
                "workers": {"live": 0, "silent": 0},
            }
            assert len(as_of) == len("2026-01-01T00:00:00.123Z")
            assert as_of.endswith("Z")
        said = await node.json("/quantile", q=[0, 1])
        nothing = {"value": None, "low": None, "high": None, "rank_error": 0.0}
        assert said["quantiles"] == [{"q": 0.0} | nothing, {"q": 1.0} | nothing]
        said = await node.json("/explain")
        assert (said["q"], said["value"], said["rows"]) == (0.5, None, [])
        assert await node.json("/streams") == {"streams": []}
        assert await node.json("/workers") == {"workers": []}

    one_coordinator(rng, story)


def test_it_is_not_ready_before_it_has_listened_and_says_so(rng: np.random.Generator) -> None:
    async def story(cluster: Cluster, node: Node) -> None:
        message = check_problem(await node.client.get("/ready"), 503, "not_ready")
        assert message.startswith("it listens for three heartbeats after its start, ")

        async def is_ready() -> bool:
            return await node.status("/ready") == 200

        await until(is_ready, "it has listened")
        assert await node.json("/ready") == {"ready": True}
        assert await cluster.is_complete()
        health = await node.json("/health")
        assert health.pop("started") < (await node.json("/median"))["as_of"]
        assert health == {
            "status": "ok",
            "epsilon": 0.05,
            "heartbeat_s": 0.2,
            "storage": "memory",
            "closed": [],
        }

    one_coordinator(rng, story)


def test_a_stream_without_values_is_unknown(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        for path in (
            "/median?stream=x", "/quantile?q=0.5&stream=x", "/explain?stream=x", "/cdf?stream=x",
            "/workers?stream=x",
        ):  # fmt: skip
            check_problem(await node.client.get(path), 404, "unknown_stream")
            check_problem(await node.client.get(f"{path}%0A"), 422, "bad_name")
        check_problem(await node.client.get("/median?stream="), 422, "invalid")
        check_problem(await node.client.get("/explain?q=2"), 422, "invalid")
        check_problem(await node.client.post("/workers/x/retire"), 404, "unknown_worker")
        check_problem(await node.client.get("/workers/x/retire"), 405, "method_not_allowed")

    one_coordinator(rng, story)


# Deltas


def test_deltas_get_receipts_in_their_order_and_each_is_judged_alone(
    rng: np.random.Generator,
) -> None:
    async def story(_: Cluster, node: Node) -> None:
        good, coarse, other = an_outbox(1), an_outbox(2, error=0.4), an_outbox(3, stream="other")
        deltas = [cut(good, 1.0, 2.0), b"rubbish", cut(coarse, 3.0), cut(other, 5.0)]
        first, rubbish, refused, second = await sent(node, *deltas)
        assert isinstance(first, Receipt)
        assert isinstance(second, Receipt)
        assert (first.upto, first.epsilon, first.heartbeat_s) == (2, 0.05, 0.2)
        assert (second.upto, second.ledger) == (1, first.ledger)
        assert isinstance(rubbish, Refusal)
        assert isinstance(refused, Refusal)
        assert (rubbish.code, refused.code) == ("malformed", "too_coarse")
        again = await sent(node, *deltas)
        assert again == [first, rubbish, refused, second]
        said = await node.json("/median")
        assert (said["median"], said["count"], said["workers"]["silent"]) == (1.5, 2, 2)

    one_coordinator(rng, story)


REFUSED: list[tuple[bytes, dict[str, str], int, str]] = [
    (b"", MSGPACK, 400, "malformed"),
    (b"\x90", MSGPACK, 400, "malformed"),
    (b"\x91\x01", MSGPACK, 400, "malformed"),
    (b"\xdd\xff\xff\xff\xff", MSGPACK, 400, "malformed"),
    (b"\xc1", MSGPACK, 400, "malformed"),
    (b"\x91" * 100_000, MSGPACK, 400, "malformed"),
    (bytes(msgpack.packb([b""] * 1025)), MSGPACK, 400, "malformed"),
    (b"\x91\xc0", {"content-type": "application/json"}, 415, "unknown_content_type"),
    (b"\x91\xc0", {}, 415, "unknown_content_type"),
    (bytes(REQUEST_BYTES_MAX + 1), MSGPACK, 413, "too_large"),
]


def test_what_is_no_request_of_deltas_is_refused_in_one_shape_and_changes_nothing(
    rng: np.random.Generator,
) -> None:
    async def story(_: Cluster, node: Node) -> None:
        for body, headers, status, code in REFUSED:
            response = await node.client.post("/deltas", content=body, headers=headers)
            check_problem(response, status, code)

        async def pieces(size: int, pause: float) -> AsyncGenerator[bytes, None]:
            for _ in range(size):
                yield bytes(2**20)
                await asyncio.sleep(pause)

        response = await node.client.post("/deltas", content=pieces(9, 0), headers=MSGPACK)
        check_problem(response, 413, "too_large")
        slow = pieces(9, 0.2)
        response = await node.client.post("/deltas", content=slow, headers=MSGPACK)
        check_problem(response, 408, "too_slow")
        await slow.aclose()
        assert await node.json("/workers") == {"workers": []}

    async def told() -> None:
        async with Cluster(rng, workers=0) as cluster:
            node = await cluster.start_coordinator(body_s_max=0.3)
            await story(cluster, node)

    run(told())


def test_the_content_type_may_have_parameters(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        headers = {"content-type": "Application/MsgPack; charset=x"}
        content = pack_request([cut(an_outbox(), 1.0)])
        response = await node.client.post("/deltas", content=content, headers=headers)
        assert response.status_code == 200

    one_coordinator(rng, story)


# What it shows


def test_workers_are_shown_source_by_source(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        one, other = an_outbox(1, worker="b"), an_outbox(2, worker="a", stream="s")
        await told(node, one, 1.0, 2.0)
        await told(node, other, 3.0)
        await told(node, one, 4.0)
        first, second = (await node.json("/workers"))["workers"]
        assert 0 <= first.pop("last_heard_s") < 60
        assert first.pop("bytes") > 20
        assert first == {
            "worker": "a",
            "stream": "s",
            "source": "0000000000000002",
            "state": "silent",
            "count": 1,
            "median": 3.0,
            "allowance": 0.0,
            "patience": 0,
            "rank_shift": 0.0,
            "deltas": 1,
            "causes": {"patience": 1},
            "raw_bytes": 8,
        }
        assert (second["worker"], second["state"], second["count"]) == ("b", "live", 3)
        assert (second["deltas"], second["raw_bytes"], second["median"]) == (2, 24, 2.0)
        assert second["causes"] == {"patience": 2}
        streams = [{"stream": name, "count": n, "sources": 1} for name, n in COUNTS]
        assert await node.json("/streams") == {"streams": streams}

    one_coordinator(rng, story)


def test_bytes_that_were_shipped_while_others_counted_are_not_beside_the_deltas_of_this_start(
    rng: np.random.Generator,
) -> None:
    """A coordinator that has forgotten knows neither those deltas nor what they stood for."""

    async def story(cluster: Cluster, node: Node) -> None:
        outbox = an_outbox()
        await told(node, outbox, *range(100))
        node = await cluster.start_coordinator()
        (receipt,) = await sent(node, cut(outbox, 1.0))
        assert isinstance(receipt, Receipt)
        outbox.receive(receipt, now=0.0)
        (source,) = (await node.json("/workers"))["workers"]
        assert (source["count"], source["deltas"]) == (0, 0)
        await told(node, outbox)
        await told(node, outbox, 2.0, 3.0)
        (source,) = (await node.json("/workers"))["workers"]
        assert (source["count"], source["deltas"], source["raw_bytes"]) == (103, 2, 16)

    one_coordinator(rng, story)


def test_workers_are_shown_with_the_causes_of_their_deltas(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        outbox = an_outbox()
        await told(node, outbox, 1.0, 2.0)
        await told(node, outbox, 3.0)
        outbox.goodbye()
        data = cut(outbox)
        await sent(node, data, data)
        (row,) = (await node.json("/workers"))["workers"]
        assert list(row["causes"].items()) == [("patience", 2), ("goodbye", 1)]
        assert row["deltas"] == 3, "one was repeated"

    one_coordinator(rng, story)


COUNTS = [("default", 3), ("s", 1)]


def test_who_was_only_refused_is_shown_as_never_heard(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        await sent(node, cut(an_outbox(error=0.4), 1.0))
        (shown,) = (await node.json("/workers"))["workers"]
        assert (shown["state"], shown["count"], shown["last_heard_s"]) == ("silent", 0, None)
        assert shown["median"] is None
        said = await node.json("/median")
        assert (said["median"], said["workers"]) == (None, {"live": 0, "silent": 1})
        assert (await node.json("/explain"))["rows"] == []

    one_coordinator(rng, story)


def test_medians_of_many_streams_are_kept_and_more_are_made_again(
    rng: np.random.Generator,
) -> None:
    async def story(_: Cluster, node: Node) -> None:
        names = [f"s{at}" for at in range(STREAMS_MAX + 5)]
        for start in range(0, len(names), 500):
            part = range(start, min(start + 500, len(names)))
            await sent(node, *(cut(an_outbox(at, stream=names[at]), at) for at in part))
        answers = Answers(node.coordinator.ledger, clock=time.monotonic, wall=time.time)
        first = [await answers.median(name) for name in names]
        again = [await answers.median(name) for name in reversed(names)]
        medians = [json.loads(kept.body)["median"] for kept in first]
        assert medians == list(range(len(names)))
        same = sum(one is other for one, other in zip(first, reversed(again), strict=True))
        assert same == STREAMS_MAX

    one_coordinator(rng, story, heartbeat_s=60.0)


def test_the_documentation_knows_every_route(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        paths = (await node.json("/openapi.json"))["paths"]
        assert {f"{method} {path}" for path, methods in paths.items() for method in methods} >= {
            "get /median", "get /quantile", "get /streams", "get /workers", "get /explain",
            "get /cdf", "post /deltas", "get /health", "get /ready", "get /metrics",
        }  # fmt: skip

    one_coordinator(rng, story)


@pytest.mark.parametrize("path", ["/median", "/median?stream=default", "/explain"])
def test_a_bug_is_told_in_the_same_shape_on_each_path(
    path: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(_: Cluster, node: Node) -> None:
        monkeypatch.setattr(node.coordinator.ledger, "answers", lambda *_, **__: 1 / 0)
        transport = httpx.ASGITransport(node.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://c") as client:
            check_problem(await client.get(path), 500, "internal")

    one_coordinator(rng, story)


# Metrics and logs


def test_metrics_name_what_happened(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        await told(node, outbox := an_outbox(stream='a "b"'), *range(100))
        await told(node, outbox, 3.0)
        delta = cut(outbox, 4.0)
        await sent(node, delta)
        await sent(node, delta, b"rubbish", cut(an_outbox(5, error=0.4), 1.0))
        stranger = an_outbox(stream='a "b"')
        await sent(node, cut(stranger, 1.0))
        for path in (
            "/median",
            "/median?stream=default",
            "/quantile?q=1",
            "/explain",
            "/workers",
            "/cdf",
        ):
            await node.client.get(path)
        await node.client.get("/streams")
        response = await node.client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        samples = parsed(response.text)

        def sample(name: str, **labels: str) -> float:
            return samples[f"median_{name}{json.dumps(labels, sort_keys=True)}"]

        deltas = "coordinator_deltas_total"
        assert sample(deltas, form="whole", result="accepted") == 1
        assert sample(deltas, form="whole", result="refused") == 1
        assert sample(deltas, form="whole", result="strange") == 1
        assert sample(deltas, form="none", result="refused") == 1
        forms = [
            sample(deltas, form=form, result="repeated")
            for form in ("more", "same")
            if f'median_{deltas}{{"form": "{form}", "result": "repeated"}}' in samples
        ]
        assert sum(forms) == 1
        assert sample("coordinator_queries_total", endpoint="median") == 2
        for endpoint in ("quantile", "explain", "workers", "streams", "cdf"):
            assert sample("coordinator_queries_total", endpoint=endpoint) == 1
        assert sample("coordinator_received_bytes_total") > 300
        assert sample("coordinator_sent_bytes_total") > 50
        about = {"stream": 'a "b"'}
        said = await node.json("/median", stream='a "b"')
        assert sample("value", **about) == said["median"]
        assert sample("rank_error_ratio", **about) == said["rank_error"]
        assert sample("counted_values", **about) == said["count"] == 102
        assert sample("complete", **about) == said["complete"] == 0
        assert sample("sources", **about, state="live") == said["workers"]["live"] == 1
        assert sample("sources", **about, state="silent") == said["workers"]["silent"] == 0

    one_coordinator(rng, story, heartbeat_s=60.0)


def test_there_is_one_line_for_each_delta_and_each_change_of_state(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def story(cluster: Cluster, node: Node) -> None:
        worker = cluster.nodes[0]
        for _ in range(50):
            await cluster.post(worker, rng.normal(size=100))
        await cluster.flush()
        await until(cluster.are_all_live, "it is live")
        for _ in range(20):
            await cluster.median()
        await sent(node, b"rubbish")
        await cluster.kill(worker)

        async def is_logged() -> bool:
            return lines(caplog, "coordinator")[-1] == "source silent"

        await until(is_logged, "its silence is noticed though nobody asks")
        await node.client.post("/workers/w1/retire")
        accepted = lines(caplog, "coordinator").count("delta accepted")
        assert await node.metric("median_coordinator_deltas_total", result="accepted") == accepted

    one_coordinator(rng, story, workers=1, heartbeat_s=0.2)
    said = [one for one in lines(caplog, "coordinator") if not one.startswith("delta accepted")]
    assert said[-3:] == ["delta refused", "source silent", "source retired"]
    states = [one for one in said if one.startswith("source")]
    assert all(one != other for one, other in pairwise(states))
    record = next(one for one in caplog.records if one.message == "source retired")
    assert record.__dict__["facts"] == {"worker": "w1", "stream": "default", "before": "silent"}
    levels = {one.message: one.levelname for one in caplog.records}
    assert (levels["source silent"], levels["source live"]) == ("WARNING", "INFO")
    assert (levels["delta refused"], levels["delta accepted"]) == ("WARNING", "INFO")
