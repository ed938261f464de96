"""Clusters that nothing befalls: every answer, while values come in everywhere, is as proven."""

import asyncio
import math
import statistics
from typing import Any

import numpy as np
import pytest

from shared.values import Floats
from tests.cluster import Cluster, run, until
from tests.exact import TALLY
from tests.streams import STREAMS

NAMES = ["default", "ünï çødé 中", "two words", "a&b=c/d?e#f", "+%2B"]


def dealt(values: Floats, workers: int) -> list[Floats]:
    """To each worker its part, so that each of the two islands lies on workers of its own."""
    even = workers + workers % 2
    parts = [values[at::even] for at in range(even)]
    if workers < even:
        parts[1] = np.concatenate((parts[1], parts.pop()))
    return parts


async def posted_while_asked(cluster: Cluster, parts: list[Floats], batches: int) -> int:
    """All workers take values at once, and somebody asks all the while; returns how often."""

    async def post(at: int) -> None:
        for batch in np.array_split(parts[at], batches):
            assert (await cluster.post(cluster.nodes[at], batch)).status_code == 202
            await asyncio.sleep(0)

    posters = asyncio.gather(*map(post, range(len(parts))))
    polls = 0
    while not posters.done():
        await cluster.check()
        await asyncio.sleep(0.03)
        polls += 1
    await posters
    return polls


@pytest.mark.parametrize("workers", [3, 50])
@pytest.mark.parametrize("name", ["calm", "two_islands", "drift", "sorted", "five_values"])
def test_every_answer_is_within_its_certificate_and_that_within_epsilon(
    name: str, workers: int, rng: np.random.Generator
) -> None:
    async def story() -> None:
        values = STREAMS[name](20_000, rng)
        async with Cluster(rng, workers=workers, heartbeat_s=0.5) as cluster:
            polls = await posted_while_asked(cluster, dealt(values, workers), 200 // workers + 2)
            assert polls > 5
            await cluster.flush()
            assert (await cluster.check())["count"] == cluster.truth.count() == len(values)
            await cluster.check_the_end(values=values)

    run(story())


def test_streams_are_kept_apart_whatever_their_names(rng: np.random.Generator) -> None:
    async def story() -> None:
        async with Cluster(rng) as cluster:

            async def post(number: int, name: str) -> None:
                for _ in range(4):
                    for node in cluster.nodes:
                        values = rng.normal(1000.0 * number, size=50)
                        assert (await cluster.post(node, values, name)).status_code == 202
                        said = await cluster.check(name)
                        assert TALLY.all(np.array(abs(said["value"] - 1000 * number) < 5))

            await asyncio.gather(*(post(*one) for one in enumerate(NAMES)))
            await cluster.flush()
            for name in NAMES:
                assert (await cluster.check_the_end(name))["stream"] == name
                await cluster.check_each_value(name)
            listed = (await cluster.coordinator.json("/streams"))["streams"]
            assert listed == [
                {"stream": name, "count": 600, "sources": 3} for name in sorted(NAMES)
            ]
            assert await cluster.coordinator.status("/median?stream=ab") == 404

    run(story())


# What /explain shows, computed again with nothing but that


def ranks(row: Any, x: float) -> tuple[float, float]:
    """Of x in the picture of a row, from the left and from the right, as a share of its weight."""
    knots, below, upto = (row["picture"][name] for name in ("x", "below", "upto"))
    start, left = 0.0, -math.inf
    for knot, arriving, leaving in zip(knots, below, upto, strict=True):
        if x == knot:
            return arriving / row["count"], leaving / row["count"]
        if x < knot:
            way = 0.0 if left == -math.inf else (x - left) / (knot - left)
            rank = start + (arriving - start) * way
            return rank / row["count"], rank / row["count"]
        start, left = leaving, knot
    return 1.0, 1.0


def balanced(rows: Any, q: float, *, side: int) -> float:
    """Where the sum of all pictures reaches, or passes, the share q: by halving an interval."""
    knots = [x for row in rows for x in row["picture"]["x"]]
    total = sum(row["count"] for row in rows)

    def is_there(x: float) -> bool:
        rank = sum(row["count"] * ranks(row, x)[side] for row in rows)
        return bool(rank > q * total + 1e-9 if side == 0 else rank >= q * total - 1e-9)

    low, high = math.nextafter(min(knots), -math.inf), max(knots)
    for _ in range(60):
        middle = low / 2 + high / 2
        low, high = (low, middle) if is_there(middle) else (middle, high)
    return float(high)


def proven(said: Any) -> float:
    """The certificate: allowances, what is pending on the worse side, and the residual."""
    rows, m, q = said["rows"], said["value"], said["q"]
    shares = [(row, *ranks(row, m)) for row in rows]
    total = sum(row["count"] for row in rows)
    allowances = sum(row["allowance"] for row in rows)
    over = sum(row["patience"] * max(below - q, 0) for row, below, _ in shares)
    under = sum(row["patience"] * max(q - upto, 0) for row, _, upto in shares)
    least = sum(row["count"] * below for row, below, _ in shares)
    most = sum(row["count"] * upto for row, _, upto in shares)
    residual = max(least - q * total, q * total - most, 0)
    return float((allowances + max(over, under) + residual) / total)


def check_explained(said: Any) -> None:
    first, last = (balanced(said["rows"], said["q"], side=side) for side in (1, 0))
    wide = max(abs(x) for row in said["rows"] for x in row["picture"]["x"])
    assert TALLY.all(np.array(abs(said["value"] - (first + last) / 2) <= 1e-6 * wide))
    assert TALLY.all(np.array(abs(said["rank_error"] - proven(said)) <= 1e-8))
    for row in said["rows"]:
        below, upto = ranks(row, said["value"])
        assert (row["share_below"], row["share_upto"]) == pytest.approx((below, upto), abs=1e-9)


@pytest.mark.parametrize("name", ["calm", "two_islands", "five_values"])
def test_who_reads_what_is_explained_can_compute_answer_and_certificate(
    name: str, rng: np.random.Generator
) -> None:
    async def story() -> None:
        values = STREAMS[name](6_000, rng)
        async with Cluster(rng, workers=5, heartbeat_s=0.5) as cluster:
            parts = dealt(values, 5)
            for done in range(0, len(parts[0]), 100):
                for node, part in zip(cluster.nodes, parts, strict=True):
                    if len(part[done : done + 100]):
                        await cluster.post(node, part[done : done + 100])
                for q in (0.5, 0.1, 0.99) if done % 300 == 0 else (0.5,):
                    check_explained(await cluster.check(q=q))
            await cluster.stop(cluster.nodes[0])
            check_explained(await cluster.check())

    run(story())


def test_the_interval_of_each_quantile_encloses_the_true_one(rng: np.random.Generator) -> None:
    async def story() -> None:
        q = [0.0, 0.001, 0.1, 1 / 3, 0.5, 0.9, 0.999, 1.0]
        async with Cluster(rng) as cluster:
            for round_ in range(10):
                for node in cluster.nodes:
                    await cluster.post(node, rng.lognormal(size=10 * 2**round_))
                said = await cluster.coordinator.json("/quantile", q=q)
                rows = (await cluster.coordinator.json("/workers"))["workers"]
                assert said["count"] == sum(row["count"] for row in rows)
                ordered = cluster.truth.counted("default", cluster.truth.acknowledged, rows)
                assert [found["q"] for found in said["quantiles"]] == q
                for found in said["quantiles"]:
                    low = -math.inf if found["low"] is None else found["low"]
                    high = math.inf if found["high"] is None else found["high"]
                    assert low <= found["value"] <= high
                    target = found["q"] * len(ordered)
                    assert TALLY.all(np.array(ordered.searchsorted(low) <= target))
                    assert TALLY.all(np.array(ordered.searchsorted(high, "right") >= target))

    run(story())


# Never stale


def test_whoever_has_a_202_of_a_batch_that_waited_finds_it_in_the_next_answer(
    rng: np.random.Generator,
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=0, epsilon=0.02) as cluster:
            given: list[float] = []
            for _ in range(12):
                node = await cluster.start_worker()
                batch = rng.integers(0, 1000, size=3).astype(np.float64)
                given += batch.tolist()
                await cluster.post(node, batch)
                said = await cluster.median()
                assert (said["count"], said["median"]) == (len(given), statistics.median(given))
                assert said["rank_error"] == 0

    run(story())


def test_between_two_reads_without_news_not_one_byte_changes(rng: np.random.Generator) -> None:
    async def story() -> None:
        async with Cluster(rng, heartbeat_s=60.0) as cluster:
            for node in cluster.nodes:
                await cluster.post(node, [1.0, 2.0, 4.0])
            await until(cluster.are_all_live, "each was heard twice")
            answers = set()
            for _ in range(5):
                for path in ("/median", "/median?stream=default"):
                    answers.add((await cluster.coordinator.client.get(path)).content)
                    await asyncio.sleep(0.002)
            assert len(answers) == 1
            await cluster.post(cluster.nodes[0], [8.0] * 100)
            assert (await cluster.coordinator.client.get("/median")).content not in answers

    run(story())


def test_a_worker_that_turns_silent_changes_the_answer_without_a_word(
    rng: np.random.Generator,
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=1, heartbeat_s=0.1) as cluster:
            coordinator = cluster.coordinator
            await cluster.post(cluster.nodes[0], [1.0, 2.0])
            await until(cluster.is_complete, "it has listened")
            before = await coordinator.json("/median")
            await cluster.kill(cluster.nodes[0])
            deltas = await coordinator.metric("median_coordinator_deltas_total")
            await until(cluster.is_incomplete, "it is listed as silent")
            assert await coordinator.metric("median_coordinator_deltas_total") == deltas
            said = await coordinator.json("/median")
            assert (before["workers"], said["workers"]) == (
                {"live": 1, "silent": 0},
                {"live": 0, "silent": 1},
            )
            assert (said["median"], said["count"], said["exact"]) == (1.5, 2, False)

    run(story())


@pytest.mark.parametrize("values", [pytest.param(3), 5_000])
def test_a_worker_that_said_goodbye_is_not_listed_as_live_by_the_next_answer(
    values: int, rng: np.random.Generator
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=2, heartbeat_s=60.0) as cluster:
            for node in cluster.nodes:
                await cluster.post(node, rng.normal(size=values))
            await until(cluster.are_all_live, "each was heard twice")
            await cluster.stop(cluster.nodes[0])
            assert (await cluster.median())["workers"] == {"live": 1, "silent": 0}
            assert (await cluster.median())["count"] == 2 * values

    run(story())
