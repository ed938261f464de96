"""The distribution over HTTP, and the sources of one stream."""

from typing import Any

import numpy as np
import pytest

from shared.distribution import Points
from tests.cluster import Cluster, Node, run
from tests.test_coordinator_app import an_outbox, one_coordinator, told
from tests.test_distribution import check_columns, check_truth
from tests.test_worker_app import check_problem

NOTHING: dict[str, list[float]] = {"x": [], "below": [], "upto": [], "rank_error": []}


def points(said: Any) -> Points:
    return Points(**{name: np.array(column) for name, column in said["points"].items()})


def test_before_the_first_value_all_columns_are_empty(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        said, median = await node.json("/cdf"), await node.json("/median")
        assert said.pop("points") == NOTHING
        about = set(median) - {"median", "low", "high", "rank_error"}
        assert said.pop("straight") is True
        assert set(said) == about
        assert (said["stream"], said["count"], said["complete"]) == ("default", 0, False)
        assert await node.json("/workers", stream="default") == {"workers": []}

    one_coordinator(rng, story, heartbeat_s=60.0)


def test_of_few_values_the_distribution_is_told_as_it_is(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        await told(node, an_outbox(1), 1.0, 2.0)
        await told(node, an_outbox(2), 2.0, 1e300)
        await told(node, an_outbox(3, stream="other"), 7.0)
        said = await node.json("/cdf")
        assert (said["count"], said["straight"]) == (4, True)
        assert said["points"] == {
            "x": [1.0, 2.0, 1e300],
            "below": [0.0, 0.25, 0.75],
            "upto": [0.25, 0.75, 1.0],
            "rank_error": [0.0, 0.0, 0.0],
        }
        said = await node.json("/cdf", stream="other", points=2)
        assert (said["stream"], said["count"], said["points"]["x"]) == ("other", 1, [7.0])

    one_coordinator(rng, story)


def test_no_more_points_are_told_than_were_asked_for(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        outbox, values = an_outbox(1), rng.normal(size=300)
        await told(node, outbox, *values.tolist())
        every = points(await node.json("/cdf", points=1000))
        for most in (2, 3, 17, 60, 200):
            said = await node.json("/cdf", points=most)
            found = points(said)
            assert said["straight"] == (len(found.x) == len(every.x))
            check_columns(found, most)
            check_truth(found, np.sort(values))
            assert len(found.x) > min(len(every.x), most) / 2
            assert np.isin(found.x, every.x).all()

    one_coordinator(rng, story)


@pytest.mark.parametrize("query", ["points=1", "points=1001", "points=x", "points=2.5", "points="])
def test_a_number_of_points_out_of_range_is_none(query: str, rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        check_problem(await node.client.get(f"/cdf?{query}"), 422, "invalid")

    one_coordinator(rng, story)


def test_what_nobody_knows_is_refused(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        for path in ("/cdf?q=0.5", "/workers?worker=a"):
            check_problem(await node.client.get(path), 422, "unknown_parameter")
        for path in ("/cdf?stream=x", "/workers?stream=x"):
            check_problem(await node.client.get(path), 404, "unknown_stream")
        check_problem(await node.client.get("/workers?stream="), 422, "invalid")

    one_coordinator(rng, story)


def test_the_sources_of_one_stream_are_shown_with_their_own_medians(
    rng: np.random.Generator,
) -> None:
    async def story(_: Cluster, node: Node) -> None:
        await told(node, an_outbox(1, worker="a"), 1.0, 2.0, 9.0)
        await told(node, an_outbox(2, worker="b"), 1.0, 4.0)
        await told(node, an_outbox(3, worker="a", stream="other"), 7.0)

        async def shown(**query: str) -> list[tuple[str, str, float]]:
            sources = (await node.json("/workers", **query))["workers"]
            return [(one["worker"], one["stream"], one["median"]) for one in sources]

        default, other = [("a", "default", 2.0), ("b", "default", 2.5)], ("a", "other", 7.0)
        assert await shown(stream="default") == default
        assert await shown(stream="other") == [other]
        assert await shown() == [default[0], other, default[1]]

    one_coordinator(rng, story)


def test_shares_of_services_that_run_are_as_close_as_they_say(rng: np.random.Generator) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=3) as cluster:
            values = np.empty(0)
            for at in range(6):
                for node in cluster.nodes:
                    batch = rng.normal(at, size=200)
                    await cluster.post(node, batch)
                    values = np.append(values, batch)
                check_truth(points(await cluster.coordinator.json("/cdf")), np.sort(values))

    run(story())
