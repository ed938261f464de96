"""Names of streams and workers: one rule, which every way in holds, every way out copes with."""

import json
import logging
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

import worker_service.settings
import worker_service.store
from shared.protocol import Receipt, Refusal, Source, is_name
from shared.serving.logs import JsonLines, TextLines
from tests.cluster import Cluster, parsed, run, until
from tests.test_caps import said
from tests.test_coordinator_app import sent
from tests.test_worker_app import is_ready

NAMES = [
    "plain", " ", "two words", 'quo"te', "it's", "back\\slash", "a=b", "{a,b}", "a\\nb", "../..",
    "..", ".", "/", "a/retire", "%00", "%2e%2e", "?", "#a&b=c", "<b>&amp;", "e\u0301", "\u00e9",
    "\u05d0\u0628", "\U0001f600", "\ufffc", "default", "__proto__", "x" * 100,
    "\U0001f600" * 100,
]  # fmt: skip
LINES = TextLines, JsonLines
NO_NAMES = [
    "", "\0", "\n", "a\rb", "\t", "\x7f", "\x85", "\u00a0", "\u2028", "\u202e", "\u200f", "\u200d",
    "\ufeff", "\ue000", "\ufffd", "a\ufffdb", "x" * 101,
]  # fmt: skip
UNREADABLE = ["%ed%a0%80", "%ff", "a%80", "%c0%af", "%f5"]


def test_any_name_comes_in_and_goes_out_as_it_is(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    """Of streams on a worker, and of workers: each name is one of either."""
    caplog.set_level(logging.INFO)

    async def story() -> None:
        async with Cluster(rng, workers=1, epsilon=0.05) as cluster:
            node, (worker,) = cluster.coordinator, cluster.nodes
            await until(lambda: is_ready(worker), "it met the coordinator")
            response = [
                await worker.client.post("/values", params={"stream": name}, json=[1.0])
                for name in NAMES
            ]
            assert {one.status_code for one in response} == {202}
            assert sorted((await worker.client.post("/flush")).json()["streams"]) == sorted(NAMES)
            told = await node.json("/streams")
            assert [one["stream"] for one in told["streams"]] == sorted(NAMES)
            for one, gauge in ((node, "median_value"), (worker, "median_worker_values_total")):
                page = parsed((await one.client.get("/metrics")).text)
                labels = [json.dumps({"stream": name}) for name in NAMES]
                assert {page[f"{gauge}{label}"] for label in labels} == {1.0}
            for name in NAMES:
                for one, path in ((node, "/median"), (node, "/explain"), (worker, "/median")):
                    assert (await one.json(path, stream=name))["stream"] == name
                strange = said(
                    1, source=Source(name, "of workers", NAMES.index(name)), base=b"12345678"
                )
                assert isinstance((await sent(node, strange))[0], Receipt)
                path = quote(name, safe="").replace(".", "%2E")  # else clients would make it short
                retired = await node.client.post(f"/workers/{path}/retire")
                assert retired.json() == {"worker": name, "streams": ["of workers"]}
                body = (await node.coordinator.answers.median(name)).body
                assert body.isascii() == name.isascii()
                assert b"\n" not in body, "an event has one line of data"

    run(story())
    told = {style: [style().format(one) for one in caplog.records] for style in LINES}
    assert all(line.isprintable() for lines in told.values() for line in lines)
    assert set(NAMES) <= {json.loads(line).get("stream") for line in told[JsonLines]}


def test_what_is_no_name_comes_in_nowhere(rng: np.random.Generator) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=1) as cluster:
            node, (worker,) = cluster.coordinator, cluster.nodes
            for name in NO_NAMES:
                params = {"stream": name}
                asked = [
                    await one.client.get(path, params=params | more)
                    for one, path, more in [
                        (node, "/median", {}), (node, "/workers", {}), (node, "/cdf", {}),
                        (node, "/explain", {}), (node, "/median/events", {}),
                        (node, "/median/history", {}), (node, "/quantile", {"q": "0.5"}),
                        (worker, "/median", {}), (worker, "/digest", {}),
                    ]
                ]  # fmt: skip
                asked.append(await worker.client.post("/values", params=params, json=[1.0]))
                asked.append(await worker.client.post("/flush", params=params))
                if name:
                    retired = await node.client.post(f"/workers/{quote(name)}/retire")
                    assert retired.status_code == (404 if "\n" in name else 422)
                assert [one.text for one in asked if one.status_code != 422] == [], name
                for source in (Source(name, "default", 1), Source("w", name, 1)):
                    (answer,) = await sent(node, said(1, source=source))
                    assert isinstance(answer, Refusal)
                    assert answer.code == "malformed"
                if name:
                    with pytest.raises(ValueError, match="worker_name"):
                        worker_service.settings.Settings(worker_name=name)
            for raw in UNREADABLE:
                asked = [
                    await node.client.get(f"/median?stream={raw}"),
                    await node.client.post(f"/workers/{raw}/retire"),
                    await worker.client.post(f"/values?stream={raw}", json=[1.0]),
                ]
                assert {one.status_code for one in asked} == {422}, raw
            assert (await node.json("/streams"))["streams"] == []
            assert (await worker.client.post("/flush")).json()["streams"] == {}

    run(story())


@pytest.mark.parametrize("host", ["a\nb", "\udcff", "a\ufffdb", "h" * 300, "two words"])
def test_whatever_the_host_is_called_the_worker_has_a_name(
    host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    settings = worker_service.settings.Settings(data_dir=str(tmp_path), port=8001)
    assert is_name(settings.name)
    assert settings.name.endswith("-8001")
    store = worker_service.store.open_store(settings)
    assert store is not None
    assert is_name(store.name)
    store.storage.db.close()


def test_what_an_older_version_kept_under_a_name_that_is_none_now_comes_back(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=1, data_dir=tmp_path) as cluster:
            (worker,) = cluster.nodes
            with monkeypatch.context() as older:
                older.setattr("shared.protocol.UNREAD", "\0")
                await until(lambda: is_ready(worker), "it met the coordinator")
                response = await worker.client.post("/values?stream=%ff", json=[1.0])
                assert response.status_code == 202
                await worker.client.post("/flush")
            cluster.stop_coordinator()
            await cluster.start_coordinator()
            told = await cluster.coordinator.json("/streams")
            assert [(one["stream"], one["count"]) for one in told["streams"]] == [("\ufffd", 1)]

    run(story())
