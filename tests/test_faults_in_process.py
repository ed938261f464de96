"""What may befall a cluster: lost messages, rubbish, restarts, deaths, and workers cut off.

Whatever it was, at the end each value that was acknowledged is counted, exactly once.
"""

import asyncio
import gc
import logging
from collections import Counter
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import pytest

from tests.cluster import (
    COORDINATOR,
    CUT,
    HARMLESS,
    Address,
    Cluster,
    Node,
    Weather,
    run,
    said,
    until,
)

REFUSING: dict[str, Any] = {"when_cut_off": "refuse", "answer_s_max": 0.1}
KEY = {"idempotency-key": "one and the same"}
NO_COORDINATOR = "what listens there is no coordinator"
FAR = np.full(1_000, 1e6)  # a batch that breaks any promise


def error_of(response: httpx.Response) -> str:
    code: str = response.json()["error"]["code"]
    return code


async def is_done(task: "asyncio.Task[Any]") -> bool:
    return task.done()


async def is_ready(node: Node) -> bool:
    return await node.status("/ready") == 200


async def is_unready(node: Node) -> bool:
    return not await is_ready(node)


async def why_not_ready(node: Node) -> str:
    response = await node.client.get("/ready")
    assert (response.status_code, error_of(response)) == (503, "not_ready")
    sentence: str = response.json()["error"]["message"]
    return sentence


async def posting(cluster: Cluster, node: Node, batches: int, size: int = 20) -> None:
    for _ in range(batches):
        await cluster.insist(node, cluster.rng.normal(size=size))
        await asyncio.sleep(0)


async def all_posting(cluster: Cluster, batches: int) -> None:
    """All workers take values, and somebody asks all the while."""
    posters = asyncio.gather(*(posting(cluster, node, batches) for node in cluster.nodes))
    while not posters.done():
        await cluster.check()
        await asyncio.sleep(0.01)
    await posters


async def all_is_counted(cluster: Cluster) -> None:
    await cluster.flush()
    await cluster.check_each_value()
    await cluster.check_the_end()


# The network


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_whatever_is_lost_or_repeated_each_value_is_counted_once(
    share: float, rng: np.random.Generator
) -> None:
    bad = Weather(lost=share / 3, unanswered=share / 3, abandoned=share / 3, delay_s=0.01)
    part = share / 4
    worse = Weather(part, part, part, part, kinds=HARMLESS, delay_s=0.01)

    async def story() -> None:
        async with Cluster(rng, workers=4) as cluster:
            seen = Counter[str]()
            for node in cluster.nodes:
                node.way_in.weather, node.way_out.weather = bad, worse
            await all_posting(cluster, 15)
            for node in cluster.nodes:
                node.way_in.weather = node.way_out.weather = Weather()
                seen += node.way_in.seen + node.way_out.seen
                assert await node.metric("median_worker_retries_total") > 0
            for what in ("lost", "unanswered", "abandoned", "rubbish", "delivered"):
                assert seen[what] > 0
            await all_is_counted(cluster)

    run(story())


@pytest.mark.parametrize("kind", HARMLESS)
def test_rubbish_from_the_coordinator_does_no_harm(kind: str, rng: np.random.Generator) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=1) as cluster:
            (node,) = cluster.nodes
            await cluster.insist(node, [1.0, 2.0])
            node.way_out.weather = Weather(rubbish=1.0, kinds=(kind,))
            waiting = asyncio.create_task(cluster.insist(node, FAR[:200]))
            await until(lambda: seen_at_least(node, kind, 3), "rubbish came back")
            node.way_out.weather = Weather()
            assert await waiting == 1
            assert node.failed == []
            unsigned = await node.metric("median_worker_deltas_total", signed="false")
            assert (unsigned > 0) == (kind == "strange")
            await all_is_counted(cluster)

    run(story())


async def seen_at_least(node: Node, kind: str, times: int) -> bool:
    return node.way_out.seen[kind] >= times


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("status", "it answered with status 500"),
        ("elsewhere", "it answered with status 307"),
        ("nothing", NO_COORDINATOR),
        ("bytes", NO_COORDINATOR),
        ("truncated", NO_COORDINATOR),
        ("too long", "its answer does not end"),
        ("endless", "no answer within 0.5 s"),
    ],
)
def test_who_meets_rubbish_first_is_not_ready_and_says_why(
    kind: str, why: str, rng: np.random.Generator
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=0) as cluster:
            cluster.stop_coordinator()
            node = await cluster.start_worker()
            node.way_out.weather = Weather(rubbish=1.0, kinds=(kind,))
            cluster.put_back_coordinator()
            await until(lambda: seen_at_least(node, kind, 2), "rubbish came back")
            sentence = await why_not_ready(node)
            assert sentence.endswith(f"at {COORDINATOR}: {why}")
            node.way_out.weather = Weather()
            await until(lambda: is_ready(node), "it met the coordinator")
            await cluster.insist(node, [3.0])
            await all_is_counted(cluster)

    run(story())


def test_a_request_holds_no_more_deltas_than_it_may(rng: np.random.Generator) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=0) as cluster:
            cluster.stop_coordinator()
            node = await cluster.start_worker()
            streams = [f"s{at}" for at in range(7)]
            waiting = [asyncio.create_task(cluster.post(node, [1.0], one)) for one in streams]
            await until(lambda: has_retried(node), "it asked in vain")
            with patch("worker_service.courier.DELTAS_MAX", 3):
                cluster.put_back_coordinator()
                await asyncio.gather(*waiting)
            for stream in streams:
                assert (await cluster.median(stream))["count"] == 1
            assert await node.metric("median_worker_push_seconds_count") >= 3

    run(story())


class Says(httpx.AsyncBaseTransport):
    """A coordinator that answers everything with one and the same."""

    def __init__(self, content: bytes) -> None:
        self.content, self.asked = content, 0

    async def handle_async_request(self, _: httpx.Request) -> httpx.Response:
        self.asked += 1
        return said(self.content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"3",
        b"{}",
        b'"epsilon"',
        b'{"epsilon": null}',
        b'{"epsilon": "much"}',
        b"\xff",
        b"9" * 5000,
        pytest.param(b'{"epsilon": 1%b}' % (b"0" * 400), id="a huge epsilon"),
        pytest.param(b"[" * 100_000, id="nested"),
        pytest.param(b'{"epsilon": 1e-9}', id="a tiny epsilon"),
        pytest.param(b'{"epsilon": NaN}', id="NaN"),
    ],
)
def test_no_greeting_whatever_it_says_does_lasting_harm(
    content: bytes, rng: np.random.Generator
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=0) as cluster:
            says = Says(content)
            at, cluster.at = cluster.at, Address()
            with patch.object(cluster.at, "handle_async_request", says.handle_async_request):
                node = await cluster.start_worker()
                await until(lambda: asked_twice_or_met(says, node), "it asked again")
                assert node.failed == []
                cluster.at.app = at.app
            await until(lambda: is_ready(node), "it met the coordinator", within_s=2)

    run(story())


async def asked_twice_or_met(says: Says, node: Node) -> bool:
    return (
        says.asked >= 2
        or bool(node.failed)
        or "what listens there" not in await why_not_ready(node)
    )


# The coordinator


def test_a_coordinator_that_lost_its_memory_says_so_until_all_have_told_it_again(
    rng: np.random.Generator,
) -> None:
    async def story() -> None:
        async with Cluster(rng) as cluster:
            await all_posting(cluster, 3)
            await until(cluster.is_complete, "it has listened")
            await cluster.start_coordinator()
            assert await cluster.coordinator.status("/ready") == 503
            told = await cluster.median()
            assert (told["count"], told["complete"]) == (0, False)
            await all_posting(cluster, 3)
            await all_is_counted(cluster)
            await until(cluster.are_all_live, "nobody is missed")
            assert await cluster.coordinator.status("/ready") == 200

    run(story())


def test_a_coordinator_may_lose_its_memory_while_all_take_values(
    rng: np.random.Generator,
) -> None:
    async def story() -> None:
        async with Cluster(rng) as cluster:
            posters = asyncio.gather(*(posting(cluster, node, 12) for node in cluster.nodes))
            for _ in range(3):
                await asyncio.sleep(0.05)
                await cluster.start_coordinator()
            await posters
            await all_is_counted(cluster)

    run(story())


def test_a_coordinator_that_was_paused_goes_on_where_it_was(rng: np.random.Generator) -> None:
    async def story() -> None:
        async with Cluster(rng, request_s_max=0.1) as cluster:
            await all_posting(cluster, 3)
            cluster.at.pause()
            waiting = [asyncio.create_task(cluster.insist(node, FAR[:5])) for node in cluster.nodes]
            await until(lambda: all_have_retried(cluster), "pushes took too long")
            cluster.at.resume()
            await asyncio.gather(*waiting)
            await all_is_counted(cluster)

    run(story())


async def all_have_retried(cluster: Cluster) -> bool:
    return all([await has_retried(node) for node in cluster.nodes])


async def has_retried(node: Node) -> bool:
    return await node.metric("median_worker_retries_total") > 0


def test_a_worker_without_a_coordinator_is_not_ready_and_its_202_waits_for_one(
    rng: np.random.Generator,
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=0) as cluster:
            cluster.stop_coordinator()
            node = await cluster.start_worker()
            assert "it was not asked yet" in await why_not_ready(node)
            waiting = asyncio.create_task(cluster.post(node, [1.0, 2.0]))
            await until(lambda: has_retried(node), "it asked in vain")
            assert "nobody listens here" in await why_not_ready(node)
            assert not waiting.done()
            cluster.put_back_coordinator()
            assert (await waiting).status_code == 202
            assert await is_ready(node)
            assert (await cluster.median())["count"] == 2
            await all_is_counted(cluster)

    run(story())


def test_a_repeat_of_what_was_not_acknowledged_in_time_counts_once(
    rng: np.random.Generator,
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=0, answer_s_max=0.1) as cluster:
            cluster.stop_coordinator()
            node = await cluster.start_worker()
            for _ in range(2):
                late = await node.client.post("/values", json=[1, 2], headers=KEY)
                assert (late.status_code, error_of(late)) == (503, "not_acknowledged")
                assert late.headers["retry-after"] == "1"
            late = await node.client.post("/flush")
            assert (late.status_code, error_of(late)) == (503, "not_acknowledged")
            cluster.put_back_coordinator()
            await until(lambda: is_ready(node), "it met the coordinator")
            await repeated_until_taken(node)
            assert await node.json("/median") == {
                "stream": "default",
                "median": 1.5,
                "count": 2,
                "rank_error": 0.0,
                "exact": True,
            }
            await cluster.check_the_end(values=np.array([1.0, 2.0]))

    run(story())


async def repeated_until_taken(node: Node) -> None:
    response = await node.client.post("/values", json=[1, 2], headers=KEY)
    while response.status_code == 503:
        response = await node.client.post("/values", json=[1, 2], headers=KEY)
    assert (response.status_code, response.json()) == (202, {"accepted": 2, "count": 2})


# Workers cut off


def waiting_futures() -> int:
    gc.collect()
    return sum(type(one) is asyncio.Future for one in gc.get_objects())


def test_a_worker_that_is_cut_off_counts_on_in_constant_memory_and_heals(
    rng: np.random.Generator,
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=2, heartbeat_s=0.1) as cluster:
            node, other = cluster.nodes
            await all_posting(cluster, 5)
            node.way_out.weather = CUT
            assert (await cluster.post(node, FAR)).status_code == 202
            assert await cluster.state(node.name) == "silent", "acknowledged outside the promise"
            assert await cluster.is_incomplete()
            before, sizes = waiting_futures(), []
            for _ in range(200):
                response = await cluster.post(node, rng.normal(size=1_000))
                assert response.status_code == 202
                line = node.worker.sources.line("default")
                assert line is not None
                assert line.outbox.flight is not None
                sizes.append(len(line.outbox.digest.to_bytes()) + len(line.outbox.flight.data))
            assert max(sizes) < 2 * sizes[20]
            assert waiting_futures() <= before + 10
            assert await is_ready(node)
            node.way_out.weather = Weather()
            await posting(cluster, other, 5)
            await cluster.flush()
            await cluster.check_the_end()

    run(story())


def test_who_refuses_when_cut_off_takes_nothing_then_and_heals(rng: np.random.Generator) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=1, heartbeat_s=0.1, **REFUSING) as cluster:
            (node,) = cluster.nodes
            await cluster.insist(node, [1.0, 2.0])
            node.way_out.weather = CUT
            await until(lambda: refuses(node), "it takes nothing any more")
            count = (await node.json("/median"))["count"]
            assert await refuses(node)
            assert (await node.json("/median"))["count"] == count
            node.way_out.weather = Weather()
            await until(lambda: takes(node), "it takes values again")
            await until(cluster.is_complete, "all is told")
            told = await cluster.coordinator.json("/quantile", q=[0, 1])
            assert [one["value"] for one in told["quantiles"]] == [1, 3]
            assert told["count"] == (await node.json("/median"))["count"]

    run(story())


async def refuses(node: Node) -> bool:
    response = await node.client.post("/values", json=[3])
    assert response.status_code in (202, 503)
    return response.status_code == 503 and error_of(response) == "not_taken"


async def takes(node: Node) -> bool:
    return (await node.client.post("/values", json=[3])).status_code == 202


def test_who_refuses_when_cut_off_is_not_ready(rng: np.random.Generator) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=1, heartbeat_s=0.1, **REFUSING) as cluster:
            (node,) = cluster.nodes
            await cluster.insist(node, [1.0, 2.0])
            node.way_out.weather = CUT
            await until(lambda: refuses(node), "it takes nothing any more")
            assert "cut off" in await why_not_ready(node)

    run(story())


def test_who_waited_in_vain_is_forgotten(rng: np.random.Generator) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=0, answer_s_max=0.001) as cluster:
            cluster.stop_coordinator()
            node = await cluster.start_worker()
            before = waiting_futures()
            for _ in range(200):
                response = await cluster.post(node, [1.0])
                assert (response.status_code, error_of(response)) == (503, "not_acknowledged")
            cluster.put_back_coordinator()
            assert waiting_futures() < before + 50

    run(story())


def test_a_large_batch_whose_sender_waited_in_vain_is_told_all_the_same(
    rng: np.random.Generator,
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=1, answer_s_max=0.01) as cluster:
            (node,) = cluster.nodes
            await until(lambda: is_ready(node), "it met the coordinator")
            response = await cluster.post(node, rng.normal(size=1_000_000))
            assert (response.status_code, error_of(response)) == (503, "not_acknowledged")
            assert (await node.json("/median"))["count"] == 1_000_000

            async def is_told() -> bool:
                return bool((await cluster.median())["count"] == 1_000_000)

            await until(is_told, "it is told after a linger", within_s=3)

    run(story())


# Deaths and goodbyes


def test_a_worker_that_died_is_silent_until_it_is_retired_and_its_values_stay(
    rng: np.random.Generator,
) -> None:
    async def story() -> None:
        async with Cluster(rng, heartbeat_s=0.5) as cluster:
            coordinator = cluster.coordinator
            await all_posting(cluster, 4)
            await cluster.flush()
            await until(cluster.are_all_live, "all are heard")
            victim = cluster.nodes[1]

            async def retire(name: str) -> httpx.Response:
                return await coordinator.client.post(f"/workers/{name}/retire")

            refused = await retire(victim.name)
            assert (refused.status_code, error_of(refused)) == (409, "not_silent")
            refused = await retire("nobody")
            assert (refused.status_code, error_of(refused)) == (404, "unknown_worker")
            await cluster.kill(victim)
            assert await cluster.state(victim.name) == "live"
            await until(lambda: state_is(cluster, victim, "silent"), "it is missed")
            assert await cluster.is_incomplete()
            retired = await retire(victim.name)
            assert retired.json() == {"worker": victim.name, "streams": ["default"]}
            assert await cluster.state(victim.name) == "retired"
            await until(cluster.are_all_live, "the others are live")
            await all_posting(cluster, 4)
            await all_is_counted(cluster)
            refused = await retire(victim.name)
            assert (refused.status_code, error_of(refused)) == (409, "not_silent")

    run(story())


def test_a_worker_with_any_name_can_be_retired(rng: np.random.Generator) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=0, heartbeat_s=0.1) as cluster:
            node = await cluster.start_worker(worker_name="rack 1/host ü")
            await cluster.insist(node, [1.0])
            await cluster.kill(node)

            async def is_silent() -> bool:
                return await cluster.state("rack 1/host ü") == "silent"

            await until(is_silent, "it is missed")
            path = "/workers/rack%201%2Fhost%20%C3%BC/retire"
            response = await cluster.coordinator.client.post(path)
            assert response.json() == {"worker": "rack 1/host ü", "streams": ["default"]}

    run(story())


def test_a_worker_that_says_goodbye_is_gone_and_all_it_had_is_counted(
    rng: np.random.Generator,
) -> None:
    async def story() -> None:
        async with Cluster(rng) as cluster:
            await all_posting(cluster, 5)
            for node in list(cluster.nodes[1:]):
                await cluster.stop(node)
                assert await cluster.state(node.name) == "gone"
            await cluster.stop(cluster.nodes[0])
            told = await cluster.check_the_end()
            assert told["workers"] == {"live": 0, "silent": 0}

    run(story())


def test_a_goodbye_is_said_again_until_it_is_heard(rng: np.random.Generator) -> None:
    async def story() -> None:
        async with Cluster(rng, request_s_max=0.2) as cluster:
            await all_posting(cluster, 5)
            for node in cluster.nodes:
                node.way_out.weather = Weather(lost=0.3, unanswered=0.3, abandoned=0.2)
            await asyncio.gather(*(cluster.stop(node) for node in list(cluster.nodes)))
            told = await cluster.check_the_end()
            assert told["workers"] == {"live": 0, "silent": 0}

    run(story())


def test_whoever_waits_when_a_worker_stops_gets_his_202_with_the_goodbye(
    rng: np.random.Generator,
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=1) as cluster:
            (node,) = cluster.nodes
            await cluster.insist(node, [1.0, 2.0])
            node.way_out.weather = CUT
            waiting = asyncio.create_task(cluster.insist(node, FAR))
            await until(lambda: has_retried(node), "it is cut off")
            stopping = asyncio.create_task(cluster.stop(node))
            await until(lambda: is_unready(node), "it takes nothing any more")
            assert await refuses(node)
            node.way_out.weather = Weather()
            await stopping
            assert await waiting == 1
            assert await cluster.state(node.name) == "gone"
            await cluster.check_the_end()

    run(story())


def test_whoever_waits_when_a_worker_stops_in_vain_gets_no_202(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        settings: dict[str, Any] = {"goodbye_s_max": 0.2, "answer_s_max": 1.0}
        async with Cluster(rng, workers=1, **settings) as cluster:
            (node,) = cluster.nodes
            await cluster.insist(node, [1.0, 2.0])
            node.way_out.weather = CUT
            waiting = asyncio.create_task(cluster.post(node, FAR))
            await until(lambda: has_retried(node), "it is cut off")
            await cluster.stop(node)
            response = await waiting
            assert (response.status_code, error_of(response)) == (503, "not_acknowledged")
            assert (await cluster.median())["count"] == 2

    run(story())
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert record.getMessage() == "the last values were not told in time, and are lost"
    assert record.__dict__["facts"] == {"stream": "default", "values": 1_000}


@pytest.mark.parametrize("when", ["it meets nobody", "it carries a delta"])
def test_a_worker_whose_courier_dies_stops(
    when: str, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    inside = {"it meets nobody": "too_coarse", "it carries a delta": "pack_request"}[when]

    async def story() -> None:
        async with Cluster(rng, workers=0) as cluster:
            with patch(f"worker_service.courier.{inside}", side_effect=RuntimeError("a bug")):
                node = await cluster.start_worker()
                waiting = asyncio.create_task(cluster.post(node, [1.0]))

                async def has_failed() -> bool:
                    return node.failed == ["courier"]

                async def has_taken() -> bool:
                    return bool((await node.json("/median"))["count"])

                await until(has_taken, "the batch is taken")
                await until(has_failed, "it asks to be stopped")
            await cluster.stop(node)
            assert (await waiting).status_code == 202

    run(story())
    (record,) = [one for one in caplog.records if one.levelno == logging.CRITICAL]
    assert record.getMessage() == "the courier died; so does this service"


def test_a_coordinator_whose_watch_dies_stops(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=1, heartbeat_s=0.1) as cluster:
            node = cluster.coordinator
            await cluster.insist(cluster.nodes[0], [1.0])
            with patch.object(node.coordinator.noticed, "state", side_effect=RuntimeError("a bug")):

                async def has_failed() -> bool:
                    return node.failed == ["watch"]

                cluster.stop_coordinator()
                await until(has_failed, "it asks to be stopped")
            cluster.put_back_coordinator()

    run(story())
    (record,) = [one for one in caplog.records if one.levelno == logging.CRITICAL]
    assert record.getMessage() == "the watch died; so does this service"


# What must not be believed


COARSE = "a digest with a rank error of 0.01 is too coarse for an epsilon of 0.1"


def test_a_worker_whose_digest_is_too_coarse_is_not_ready_and_says_why(
    rng: np.random.Generator,
) -> None:
    async def story() -> None:
        settings: dict[str, Any] = {"heartbeat_s": 0.1, "answer_s_max": 0.2}
        async with Cluster(rng, workers=0, epsilon=0.1, **settings) as cluster:
            node = await cluster.start_worker(digest_rank_error=0.01)
            await until(lambda: says(node, COARSE), "it met the coordinator")
            response = await cluster.post(node, [1.0])
            assert (response.status_code, error_of(response)) == (503, "not_taken")
            assert COARSE in response.text
            assert await cluster.state(node.name) == ""
            assert (await cluster.median())["count"] == 0

    run(story())


def test_a_worker_that_is_too_coarse_for_the_next_coordinator_is_listed_there_and_says_why(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=0, epsilon=0.2, heartbeat_s=0.1) as cluster:
            node = await cluster.start_worker()
            await until(lambda: is_ready(node), "it met the coordinator")
            await cluster.start_coordinator(epsilon=0.1)
            waiting = asyncio.create_task(cluster.insist(node, [1.0]))
            await until(lambda: says(node, f"stream default: {COARSE}"), "it is refused")

            async def is_refused_again() -> bool:
                name = "median_worker_refused_deltas_total"
                return await node.metric(name, code="too_coarse") > 1

            await until(is_refused_again, "it tries again")
            told = await cluster.median()
            assert (told["count"], told["workers"]) == (0, {"live": 0, "silent": 1})
            assert await cluster.state(node.name) == "silent"
            refused = {"form": "whole", "result": "refused"}
            deltas = "median_coordinator_deltas_total"
            assert await cluster.coordinator.metric(deltas, **refused) > 0
            waiting.cancel()
            await cluster.kill(node)
            retired = await cluster.coordinator.client.post(f"/workers/{node.name}/retire")
            assert retired.json() == {"worker": node.name, "streams": ["default"]}
            assert (await cluster.coordinator.json("/workers"))["workers"] == []
            await until(cluster.is_complete, "nobody is missed")

    run(story())
    refusals = [one for one in caplog.records if one.getMessage().startswith("delta refused")]
    assert [one.levelno for one in refusals if one.name == "worker.courier"] == [logging.ERROR]


async def says(node: Node, sentence: str) -> bool:
    return sentence in (await node.client.get("/ready")).text


@pytest.mark.parametrize("met", [True, False])
def test_a_worker_that_was_too_coarse_for_one_coordinator_may_serve_the_next(
    met: bool, rng: np.random.Generator
) -> None:
    """The next asks for less; and what waited so long is taken."""

    async def story() -> None:
        async with Cluster(rng, workers=0, epsilon=0.2, heartbeat_s=0.1) as cluster:
            if not met:
                await cluster.start_coordinator(epsilon=0.1)
            node = await cluster.start_worker()
            if met:
                await until(lambda: is_ready(node), "it met the coordinator")
                await cluster.start_coordinator(epsilon=0.1)
            waiting = asyncio.create_task(cluster.insist(node, [1.0]))
            await until(lambda: says(node, COARSE), "it is refused")
            await cluster.start_coordinator()
            await waiting
            await cluster.check_the_end()
            await until(lambda: is_ready(node), "it is ready")

    run(story())


def test_a_source_of_which_the_coordinator_claims_to_know_more_gives_way_to_a_new_one(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=1) as cluster:
            (node,) = cluster.nodes
            await until(lambda: is_ready(node), "it met the coordinator")
            node.way_out.weather = Weather(rubbish=1.0, kinds=("claims",))
            refused = await node.client.post("/values", json=[1, 2], headers=KEY)
            assert (refused.status_code, error_of(refused)) == (503, "not_taken")
            assert "gave way to a new one" in refused.text
            assert (await node.json("/median"))["count"] == 0
            node.way_out.weather = Weather()
            taken = await node.client.post("/values", json=[1, 2], headers=KEY)
            assert (taken.status_code, taken.json()["count"]) == (202, 2)
            sources = (await cluster.coordinator.json("/workers"))["workers"]
            assert [one["count"] for one in sources] == [2, 2]
            assert len({one["source"] for one in sources}) == 2
            await until(lambda: state_is(cluster, node, "live,silent"), "the old one is missed")
            await cluster.coordinator.client.post(f"/workers/{node.name}/retire")
            await until(lambda: state_is(cluster, node, "live,retired"), "and then no more")
            assert await is_ready(node)

    run(story())
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert record.getMessage().startswith("the coordinator knows more than is here")


async def state_is(cluster: Cluster, node: Node, states: str) -> bool:
    return await cluster.state(node.name) == states
