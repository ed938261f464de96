"""What a worker keeps: batches, digests, keys and names, through restarts and full disks."""

import asyncio
import logging
import shutil
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import pytest

import worker_service.store as module
from shared.digest import Digest
from shared.outbox import NotTaken
from shared.protocol import Source
from shared.serving.storage import PAGE, NotWritten, Unsure, Unusable, sealed
from shared.values import Floats
from tests.cluster import Node, run, until
from tests.exact import check_digest
from tests.test_crashes import Crashing, story_of
from tests.test_storage import TROUBLES, Held, Trouble, failing, well_again
from tests.test_worker_app import check_problem, is_ready
from worker_service.app import UNSURE
from worker_service.settings import Settings
from worker_service.sources import Batch, Sources
from worker_service.store import KeptKey, Key, Store, open_store

A, B = Source("w", "default", 0xA), Source("w", "other", 2**64 - 1)


def settings(tmp_path: Path, **changes: Any) -> Settings:
    return Settings(data_dir=str(tmp_path), **({"worker_name": "w"} | changes))


def opened(tmp_path: Path, **changes: Any) -> Store:
    store = open_store(settings(tmp_path, **changes))
    assert store is not None
    return store


def written(tmp_path: Path, story: Callable[[Store], Coroutine[Any, Any, None]]) -> Store:
    """After the story, and a restart."""

    async def told() -> None:
        store = opened(tmp_path)
        await story(store)
        await store.storage.close()

    run(told())
    return opened(tmp_path)


def kept_keys(store: Store) -> list[KeptKey]:
    return list(store.keys())


def key(name: str, content: bytes = b"content") -> Key:
    return Key(name, content)


# Batches and digests


def test_without_a_directory_nothing_is_kept() -> None:
    assert open_store(Settings()) is None


def test_a_source_is_its_digest_and_the_batches_since(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    values = rng.normal(size=7000)
    digest = Digest(0.005)
    digest.add(values[:4000])

    async def story(store: Store) -> None:
        for part in np.split(values[:4000], 4):
            await store.append(A, part, 10, None)
        await store.append(B, np.array([1.5]), 8, None)
        last = store.last
        await store.append(A, values[4000:5000], 10, None)
        await store.checkpoint(A, digest.to_bytes(), 40, last)
        await store.append(A, values[5000:], 10, None)

    store = written(tmp_path, story)
    kept = {one.number: one for one in store.sources(0.005)}
    check_digest(kept[A.number].digest, values)
    check_digest(kept[B.number].digest, np.array([1.5]))
    assert [(one.stream, one.raw, one.logged) for one in kept.values()] == [
        ("default", 60, 8 * 3000 + 2 * module.ENTRY_BYTES),
        ("other", 8, 8 + module.ENTRY_BYTES),
    ]
    store.storage.db.close()


def test_a_batch_larger_than_an_entry_may_be_is_kept_in_parts_in_their_order(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    values = rng.normal(size=2500)

    async def story(store: Store) -> None:
        await store.append(A, values, 7, key("one"))
        assert store.last == 3

    with patch.object(module, "PART", 1000):
        store = written(tmp_path, story)
    found = store.storage.db.execute("SELECT id, raw, length(data) FROM batches").fetchall()
    assert found == [(1, 7, 8000), (2, 0, 8000), (3, 0, 4000)]
    (kept,) = store.sources(0.0005)
    assert kept.digest.count == 2500
    check_digest(kept.digest, values)
    assert [(one.accepted, one.count) for one in kept_keys(store)] == [(2500, 2500)]
    store.storage.db.close()


def test_what_gave_way_is_forgotten_and_the_keys_of_what_it_had_not_received(
    tmp_path: Path,
) -> None:
    async def story(store: Store) -> None:
        await store.append(A, np.arange(3.0), 1, key("received"))
        await store.checkpoint(A, b"", 1, store.last)
        await store.append(A, np.arange(2.0), 1, key("not received"))
        await store.append(B, np.arange(9.0), 1, key("of another"))
        await store.forget(A, received=3)
        await store.append(Source("w", "default", 5), np.arange(1.0), 1, None)

    store = written(tmp_path, story)
    assert {one.number for one in store.sources(0.0005)} == {B.number, 5}
    assert [one.key.name for one in kept_keys(store)] == ["received", "of another"]
    for table, rows in {"digests": 0, "batches": 2}.items():
        count = store.storage.db.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
        assert count == (rows,)
    store.storage.db.close()


def test_a_source_takes_no_more_of_the_disk_than_is_said(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Bytes are counted, of two million values and of a thousand single ones."""

    async def story(cluster: Crashing) -> None:
        (node,) = cluster.nodes
        store = node.worker.store
        assert store is not None
        for size, times in ((20_000, 100), (1, 1_000)):
            for _ in range(times):
                response = await cluster.post(node, rng.normal(size=size))
                assert response.status_code == 202
                line = node.worker.sources.line("default")
                assert line is not None
                digest = 23 * await line.asked(lambda digest: len(digest.clusters)) + 1000
                most = digest + max(2**20, 8 * digest) + 8 * 20_000
                log = store.storage.db.execute("SELECT sum(length(data) + 64) FROM batches")
                assert (log.fetchone()[0] or 0) + digest <= most
                assert store.storage.bytes <= 2 * most + 8 * 2**20 + 5 * 2**20
        await cluster.flush()
        await cluster.check_the_end()

    async def told() -> None:
        async with Crashing(rng, data_dir=tmp_path, workers=1, fsync="interval") as cluster:
            await story(cluster)

    run(told(), within_s=120)


# Keys


def test_as_many_keys_are_kept_as_are_remembered(tmp_path: Path) -> None:
    async def story() -> None:
        store = opened(tmp_path, idempotency_keys_max=3)
        for at in range(10):
            await store.append(A, np.arange(1.0), 8, key(f"k{at}"))
        assert [one.key.name for one in kept_keys(store)] == ["k7", "k8", "k9"]
        held = store.storage.db.execute("SELECT count(*) FROM keys").fetchone()
        assert held == (3,)
        await store.storage.close()
        fewer = opened(tmp_path, idempotency_keys_max=2)
        assert [one.key.name for one in kept_keys(fewer)] == ["k8", "k9"]
        await fewer.storage.close()

    run(story())


def test_after_a_restart_a_repeat_is_answered_the_same_and_other_content_is_refused(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    async def story(cluster: Crashing) -> None:
        (node,) = cluster.nodes
        first = await cluster.post(node, [1, 2, 3], **{"idempotency-key": "one"})
        await cluster.post(node, [9])
        node = await cluster.restart_worker("w1")
        again = await cluster.once(node, "one", 1, 2, 3)
        assert (
            (again.status_code, again.text)
            == (first.status_code, first.text)
            == (
                202,
                '{"accepted":3,"count":3}',
            )
        )
        other = await cluster.once(node, "one", 1, 2, 4)
        check_problem(other, 422, "key_reused")
        await cluster.flush()
        await cluster.check_the_end()

    story_of(rng, tmp_path, story, workers=1)


def test_what_was_written_down_and_not_answered_counts_once_though_it_is_sent_again(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    """It was killed between the commit and the 202."""

    async def story(cluster: Crashing) -> None:
        (node,) = cluster.nodes
        cluster.stop_coordinator()
        asking = asyncio.create_task(cluster.once(node, "one", 0, 1, 2))
        store = node.worker.store
        assert store is not None
        await until(lambda: has(lambda: store.storage.commits > 0), "it is written down")
        assert not asking.done()
        node = await cluster.restart_worker("w1")
        with pytest.raises(httpx.ReadError):
            await asking
        asking = asyncio.create_task(cluster.once(node, "one", 0, 1, 2))
        await asyncio.sleep(0.05)
        assert not asking.done()  # it is known, and not yet received
        cluster.put_back_coordinator()
        assert (await asking).json() == {"accepted": 3, "count": 3}
        await cluster.flush()
        await cluster.check_the_end(values=np.arange(3.0))

    story_of(rng, tmp_path, story, workers=1)


async def has(holds: Callable[[], bool]) -> bool:
    return holds()


async def back(cluster: Crashing, **changes: Any) -> Node:
    """The worker, killed and started again, when it takes values again."""
    node = await cluster.restart_worker("w1", **changes)
    await until(lambda: is_ready(node), "it goes on")
    return node


# When nothing can be written


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=list(TROUBLES))
def test_a_batch_that_cannot_be_written_is_not_taken_and_may_be_sent_again(
    rng: np.random.Generator, tmp_path: Path, trouble: Trouble
) -> None:
    async def story(cluster: Crashing) -> None:
        (node,) = cluster.nodes
        await cluster.post(node, [1.0])
        store = node.worker.store
        assert store is not None
        trouble.begins(store.storage)
        values = np.arange(5000.0)
        for _ in range(2):
            response = await cluster.once(node, "one", *values)
            assert "nothing can be written down now: " in check_problem(response, *trouble.answer)
            assert response.headers["retry-after"] == "1"
        ready = await node.client.get("/ready")
        assert "nothing can be written down now: " in check_problem(ready, 503, "not_ready")
        assert await node.metric("median_worker_storage_failures_total") >= 2
        told = await node.json("/median")
        assert told["count"] == 1
        trouble.ends(store.storage)
        await until(lambda: is_ready(node), "it is over")
        assert (await cluster.once(node, "one", *values)).status_code == 202
        await cluster.flush()
        await cluster.check_the_end(values=np.concatenate([[1.0], values]))
        assert await node.metric("median_worker_storage_bytes") > 8 * PAGE
        assert await node.metric("median_worker_storage_commits_total") > 0
        assert (await node.json("/health"))["storage"] == "disk"

    story_of(rng, tmp_path, story, workers=1)


def test_a_checkpoint_that_cannot_be_written_is_tried_again_with_the_next_batch(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    async def story(cluster: Crashing) -> None:
        (node,) = cluster.nodes
        store = node.worker.store
        assert store is not None
        refused = asyncio.get_running_loop().create_future()
        refused.set_exception(NotWritten(sqlite3.OperationalError("for a test")))
        with patch.object(store, "checkpoint", return_value=refused) as checkpoint:
            assert (await cluster.post(node, rng.normal(size=3000))).status_code == 202
            await until(lambda: has(lambda: checkpoint.called), "it was tried")
        assert digests(store) == 0
        assert (await cluster.post(node, [1.0])).status_code == 202
        await until(lambda: has(lambda: digests(store) == 1), "it is written down")
        await cluster.restart_worker("w1")
        await cluster.flush()
        await cluster.check_the_end()

    story_of(rng, tmp_path, story, workers=1)


def digests(store: Store) -> int:
    return int(store.storage.db.execute("SELECT count(*) FROM digests").fetchone()[0])


# Who gives way


def test_a_copy_of_a_directory_gives_way_and_each_value_is_counted_once(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    async def story(cluster: Crashing) -> None:
        (node,) = cluster.nodes
        await cluster.post(node, [1.0, 2.0, 3.0], **{"idempotency-key": "one"})
        await cluster.kill(node)
        shutil.copytree(tmp_path / "w1", tmp_path / "copy")
        node = await cluster.start_worker(worker_name="w1")
        await until(lambda: is_ready(node), "the original goes on")
        copy = await cluster.start_worker(worker_name="copy")
        await until(lambda: has_given_way(copy), "the copy begins anew")
        assert (await cluster.once(copy, "one", 1, 2, 3)).json() == {"accepted": 3, "count": 3}
        assert (await cluster.post(copy, [4.0])).json() == {"accepted": 1, "count": 1}
        assert (await cluster.post(node, [5.0])).json() == {"accepted": 1, "count": 4}
        await cluster.flush()
        await cluster.check_the_end()
        assert len(await cluster.sources()) == 2

    story_of(rng, tmp_path, story, workers=1)


async def has_given_way(node: Node) -> bool:
    line = node.worker.sources.line("default")
    return line is not None and not line.outbox.count


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_being_written_when_its_source_gave_way_is_not_taken_and_never_comes_back(
    rng: np.random.Generator, tmp_path: Path, fails: bool
) -> None:
    """Nor is that said before it is certain, which it is not while nothing can be written."""

    async def story(cluster: Crashing) -> None:
        (node,) = cluster.nodes
        await cluster.post(node, [1.0])
        await cluster.flush()
        storage, line = kept_by(node).storage, node.worker.sources.line("default")
        assert line is not None
        held = Held()
        await held.hold(storage)
        asking = asyncio.create_task(cluster.once(node, "two", 2))
        await until(lambda: has(lambda: kept_by(node).last == 2), "it is asked for")
        await line.give_way()
        await held.release()
        if fails:
            await until(lambda: has(lambda: rows_of(node, "batches") == 2), "it is written")
            failing(storage)
        node.worker.sources.news.set()  # the courier looks, and finds that it gave way
        if fails:
            await until(lambda: has(lambda: storage.failures > 1), "it cannot be forgotten")
            assert not asking.done()
            well_again(storage)
        check_problem(await asking, 503, "not_taken")
        assert rows_of(node, "batches") == rows_of(node, "keys") == 0
        assert (await cluster.once(node, "two", 2)).json() == {"accepted": 1, "count": 1}
        await back(cluster)
        assert [one.digest.count for one in kept_by(cluster.nodes[0]).sources(0.01)] == [1]

    story_of(rng, tmp_path, story, workers=1)


def kept_by(node: Node) -> Store:
    store = node.worker.store
    assert store is not None
    return store


def rows_of(node: Node, table: str) -> int:
    found = kept_by(node).storage.db.execute(f"SELECT count(*) FROM {table}")  # noqa: S608  a table of ours
    return int(found.fetchone()[0])


def test_what_is_kept_and_was_not_told_in_time_is_told_after_the_next_start(
    rng: np.random.Generator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(cluster: Crashing) -> None:
        (node,) = cluster.nodes
        await cluster.post(node, rng.normal(size=5000))
        await cluster.flush()
        cluster.stop_coordinator()
        await cluster.post(node, [1.0])
        await cluster.stop(node)
        cluster.put_back_coordinator()
        await cluster.start_worker(worker_name="w1")
        await cluster.flush()  # until then it is live still, and what it has not told is pending
        await cluster.check_the_end()

    story_of(rng, tmp_path, story, workers=1, goodbye_s_max=0.05, linger_s=60)
    assert "the last values will be told after the next start" in caplog.messages


# Names


def test_a_worker_without_a_name_takes_the_first_slot_that_is_free_and_its_name(
    tmp_path: Path,
) -> None:
    nameless = {"worker_name": ""}
    with patch("socket.gethostname", return_value="host"):
        stores = [opened(tmp_path, **nameless) for _ in range(3)]
    assert [store.name for store in stores] == ["host-1", "host-2", "host-3"]
    stores[1].storage.db.close()
    with patch("socket.gethostname", return_value="elsewhere"):
        again, more = (opened(tmp_path, **nameless) for _ in range(2))
    assert (again.name, more.name) == ("host-2", "elsewhere-4")
    assert again.home == stores[1].home
    for store in (stores[0], stores[2], again, more):
        store.storage.db.close()


def test_a_named_worker_may_be_called_another_and_goes_on(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    async def story(cluster: Crashing) -> None:
        (node,) = cluster.nodes
        await cluster.post(node, [1.0, 2.0])
        before = await cluster.sources()
        await cluster.kill(node)
        node = await cluster.start_worker(worker_name="renamed", data_dir=str(tmp_path / "w1"))
        await until(lambda: is_ready(node), "it may go on")
        response = await cluster.post(node, [3.0])
        assert response.json() == {"accepted": 1, "count": 3}
        after = await cluster.sources()
        assert [worker for worker, _, _ in after] == ["renamed"]
        assert {source for _, _, source in after} == {source for _, _, source in before}
        await cluster.flush()
        await cluster.check_the_end()

    story_of(rng, tmp_path, story, workers=1)


def test_a_digest_keeps_the_rank_error_that_it_began_with_and_says_so(
    rng: np.random.Generator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(cluster: Crashing) -> None:
        (node,) = cluster.nodes
        for error in (0.0025, 0.0005, 0.002):
            await cluster.post(node, rng.normal(size=3000))
            node = await back(cluster, digest_rank_error=error)
            await cluster.post(node, rng.normal(size=3000))
            await cluster.flush()
        await cluster.check_the_end()
        line = node.worker.sources.line("default")
        assert line is not None
        assert line.outbox.digest.rank_error_max == 0.0025

    story_of(rng, tmp_path, story, workers=1)
    said = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert "a digest stays as coarse as it was when its source began" in said


# What is corrupt


def spoil(tmp_path: Path, statement: str) -> None:
    store = opened(tmp_path)
    store.storage.db.execute(statement)
    store.storage.db.close()


NOT_A_NUMBER = sealed(b"default", "none")[1]
NOT_A_DIGEST = sealed(b"", f"{A.number:016x}", 1)[1]
SPOILT = {
    "UPDATE batches SET data = zeroblob(length(data))": "a checksum does not match",
    "UPDATE digests SET data = zeroblob(length(data))": "a checksum does not match",
    "UPDATE sources SET count = count + 1": "stream default has not the values it had",
    "DELETE FROM batches": "stream default has not the values it had",
    "UPDATE sources SET number = 'not a number'": "a checksum does not match",
    "UPDATE sources SET stream = 'another'": "a checksum does not match",
    "UPDATE batches SET raw = raw + 1": "a checksum does not match",
    "UPDATE digests SET raw = raw + 1": "a checksum does not match",
    f"UPDATE sources SET number = 'none', seal = {NOT_A_NUMBER}": "invalid literal",  # noqa: S608
    f"UPDATE digests SET data = x'', seal = {NOT_A_DIGEST}": "are not a digest",  # noqa: S608
    "UPDATE keys SET key = 'another'": "a checksum does not match",
    "UPDATE keys SET count = count + 1": "a checksum does not match",
}


@pytest.mark.parametrize(("statement", "flaw"), SPOILT.items())
def test_what_is_not_what_was_written_is_corrupt(tmp_path: Path, statement: str, flaw: str) -> None:
    async def story(store: Store) -> None:
        digest = Digest(0.0005)
        digest.add(np.arange(5.0))
        await store.append(A, np.arange(5.0), 1, Key("key", b"content"))
        await store.checkpoint(A, digest.to_bytes(), 1, store.last)
        await store.append(A, np.arange(5.0), 1, None)

    written(tmp_path, story).storage.db.close()
    spoil(tmp_path, statement)
    store = opened(tmp_path)
    with pytest.raises(Unusable, match=rf"worker.sqlite is corrupt \(.*({flaw})"):
        list(store.sources(0.0005)), store.keys()
    store.storage.db.close()


def test_a_digest_that_contradicts_itself_is_corrupt(tmp_path: Path) -> None:
    digest = Digest(0.0005)
    digest.add(np.arange(5.0))
    data = digest.to_bytes()
    wrong = data.replace(np.float64(3.0).tobytes(), np.float64(30.0).tobytes())
    assert wrong != data

    async def story(store: Store) -> None:
        await store.append(A, np.arange(5.0), 1, None)
        await store.checkpoint(A, wrong, 1, store.last)

    store = written(tmp_path, story)
    with pytest.raises(Unusable, match="this digest contradicts itself"):
        list(store.sources(0.0005))
    store.storage.db.close()


def test_a_key_of_no_source_is_corrupt(tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        await store.append(A, np.arange(5.0), 1, key("one"))

    written(tmp_path, story).storage.db.close()
    spoil(tmp_path, "UPDATE keys SET number = 'x'")
    store = opened(tmp_path)
    with pytest.raises(Unusable, match="is corrupt"):
        store.keys()
    store.storage.db.close()


def test_a_checkpoint_of_a_source_that_was_forgotten_meanwhile_leaves_nothing(
    tmp_path: Path,
) -> None:
    async def story(store: Store) -> None:
        await store.append(A, np.arange(5.0), 1, None)
        await store.forget(A, received=5)
        await store.checkpoint(A, Digest(0.0005).to_bytes(), 1, store.last)

    store = written(tmp_path, story)
    for table in ("sources", "digests", "batches"):
        found = store.storage.db.execute(f"SELECT count(*) FROM {table}")  # noqa: S608
        assert found.fetchone() == (0,)
    store.storage.db.close()


# When what is written down and what is here part


def test_a_batch_that_fails_after_it_was_written_ends_the_process_and_a_restart_has_it(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    async def story(cluster: Crashing) -> None:
        (node,) = cluster.nodes
        await cluster.post(node, [1.0])
        line = node.worker.sources.line("default")
        assert line is not None
        add = line.outbox.add

        def failing(values: Floats, **how: Any) -> int:
            if len(values) == 7:
                raise MemoryError
            return add(values, **how)

        with patch.object(line.outbox, "add", failing):
            large = asyncio.create_task(cluster.post(node, rng.normal(size=5000)))
            some = rng.normal(size=7)
            with pytest.raises(MemoryError):
                await cluster.post(node, some, "default", **{"idempotency-key": "k"})
            await until(lambda: has(lambda: node.failed == ["courier"]), "it ends")
            await large
        assert digests(kept_by(node)) == 0  # no digest of less than what was written down
        node = await back(cluster)
        again = await cluster.once(node, "k", *some)
        assert again.json()["accepted"] == 7
        cluster.truth.acknowledged[node.name, "default"] += 7
        await cluster.flush()
        await cluster.check_the_end()

    story_of(rng, tmp_path, story, workers=1)


def test_who_gives_way_while_a_checkpoint_begins_leaves_neither_a_digest_nor_who_waits(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        store = opened(tmp_path)
        sources = Sources("w", settings(tmp_path), clock=lambda: 0.0, store=store)
        adding = asyncio.Event()

        async def in_thread(work: Any, *given: Any) -> Any:
            adding.set()
            await asyncio.sleep(0.05)  # as a large batch takes
            return work(*given)

        with patch("worker_service.sources.in_thread", in_thread):
            taking = asyncio.create_task(sources.take("s", Batch(np.arange(200_000.0), 1)))
            await adding.wait()
            line = sources.line("s")
            assert line is not None
            await line.give_way()
            await sources.replace(line)
            with pytest.raises(NotTaken, match="gave way"):
                await taking
            with pytest.raises(NotTaken, match="gave way"):
                await line.acknowledged(200_000)
        await store.settled()
        assert digests(store) == 0
        await store.storage.close()

    run(story())


def test_a_repeat_of_what_was_taken_is_never_told_that_it_was_not(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    """Its `202` was lost. If it were told so, its client would send it to another worker."""

    async def story(cluster: Crashing) -> None:
        (node,) = cluster.nodes
        first = await cluster.once(node, "k", 1)
        assert first.status_code == 202
        await cluster.start_coordinator(epsilon=0.02)  # digests are too coarse for that

        async def is_refused() -> bool:
            return await node.metric("median_worker_refused_deltas_total") > 0

        await until(is_refused, "it is refused")
        assert (await cluster.once(node, "k", 1)).json() == first.json()
        check_problem(await cluster.once(node, "another", 1), 503, "not_taken")
        check_problem(await cluster.post(node, [1.0]), 503, "not_taken")

    story_of(rng, tmp_path, story, workers=1)


def test_whether_a_batch_that_failed_in_its_commit_counts_is_left_open(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    async def story(cluster: Crashing) -> None:
        (node,) = cluster.nodes
        unsure = asyncio.get_running_loop().create_future()
        unsure.set_exception(NotWritten(Unsure("disk I/O error")))
        with patch.object(kept_by(node), "append", return_value=unsure):
            refused = await cluster.post(node, [1.0])
        sentence = check_problem(refused, 503, "not_acknowledged")
        assert sentence.endswith("disk I/O error: " + UNSURE.format("w1"))

    story_of(rng, tmp_path, story, workers=1)


def test_who_is_not_meant_takes_nothing(rng: np.random.Generator, tmp_path: Path) -> None:
    async def story(cluster: Crashing) -> None:
        (node,) = cluster.nodes
        for meant in ("w2", "w1%20", "", "%77"):
            named = {"median-worker": meant}
            refused = await node.client.post("/values", json=[1.0], headers=named)
            sentence = check_problem(refused, 421, "another_worker")
            assert sentence.startswith("this is worker 'w1', and ")
        assert list(node.worker.sources) == []
        for meant in ("w1", "%771"):
            assert (await cluster.post(node, [1.0], **{"median-worker": meant})).is_success

    story_of(rng, tmp_path, story, workers=1)


def test_a_checkpoint_that_fails_of_a_bug_ends_the_process_and_its_batch_counts(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    async def story(cluster: Crashing) -> None:
        (node,) = cluster.nodes
        await cluster.post(node, [1.0])
        line = node.worker.sources.line("default")
        assert line is not None
        with patch.object(line.outbox.digest, "to_bytes", side_effect=MemoryError):
            assert (await cluster.post(node, rng.normal(size=5000))).status_code == 202
            await until(lambda: has(lambda: node.failed == ["courier"]), "it ends")
        await back(cluster)
        await cluster.flush()
        await cluster.check_the_end()

    story_of(rng, tmp_path, story, workers=1)


def a_long_line(tmp_path: Path) -> tuple[Store, Sources, Batch]:
    """Whose first batch makes a checkpoint due."""
    store = opened(tmp_path)
    sources = Sources("w", settings(tmp_path), clock=lambda: 0.0, store=store)
    return store, sources, Batch(np.arange(200_000.0), 1)


def test_a_goodbye_waits_for_a_checkpoint_that_was_begun(tmp_path: Path) -> None:
    async def story() -> None:
        store, sources, batch = a_long_line(tmp_path)
        taking = asyncio.create_task(sources.take("s", batch))
        await until(lambda: has(lambda: sources.line("s") is not None), "it is let in")
        line = sources.line("s")
        assert line is not None
        await until(lambda: has(lambda: line.outbox.count > 0), "it is added")
        await line.goodbye()
        assert digests(store) == 1
        taking.cancel()
        await store.storage.close()

    run(story())


def test_what_takes_the_place_of_a_source_at_the_end_is_at_its_end(tmp_path: Path) -> None:
    async def story() -> None:
        store, sources, batch = a_long_line(tmp_path)
        taking = asyncio.create_task(sources.take("s", batch))
        await until(lambda: has(lambda: sources.line("s") is not None), "it is let in")
        line = sources.line("s")
        assert line is not None
        await sources.goodbye()
        assert not sources.closed
        await line.give_way()
        await sources.replace(line)
        assert sources.closed
        with pytest.raises(NotTaken, match="gave way"):
            await taking
        await store.storage.close()

    run(story())
