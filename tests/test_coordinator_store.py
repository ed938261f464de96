"""What a coordinator keeps: its rows, to the last bit, before anybody is told of them."""

import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import coordinator_service.store as module
from coordinator_service.settings import Settings
from coordinator_service.store import Store, open_store, packed, unpacked
from shared.outbox import Outbox
from shared.picture import Picture
from shared.protocol import HOME_MAX, NAME_MAX, Cause, Receipt, Source, pack_request
from shared.rank_shift import Grant
from shared.rows import NO_CAUSES, Row
from shared.serving.storage import PAGE, Unusable, sealed
from tests.cluster import Node, run, until
from tests.test_coordinator_app import MSGPACK, an_outbox, cut, sent, told
from tests.test_crashes import Crashing, story_of
from tests.test_storage import TROUBLES, Trouble
from tests.test_worker_app import check_problem

WHOLE = st.integers(0, 2**64 - 1)
COUNT = st.integers(0, 2**53 - 1)
SHIFT = st.floats(0, 2**53)
NAME = st.text(min_size=1, max_size=NAME_MAX).filter(str.isprintable)
GRANT = st.builds(Grant, SHIFT, COUNT)
NUMBERS = st.lists(st.floats(allow_nan=False), max_size=5).map(np.array)


def rows() -> st.SearchStrategy[Row]:
    return st.builds(
        Row,
        source=st.builds(Source, NAME, NAME, WHOLE),
        picture=st.builds(Picture, NUMBERS, NUMBERS, NUMBERS),
        upto=COUNT,
        mark=st.binary(min_size=8, max_size=8),
        lives_by=GRANT,
        granted=GRANT,
        shift=SHIFT,
        ledger=WHOLE,
        final=st.booleans(),
        retired=st.booleans(),
        causes=st.tuples(*[COUNT] * len(Cause)),
        bytes_=COUNT,
        raw=WHOLE,
        home=st.integers(0, HOME_MAX),
    )


@given(rows())
def test_a_row_comes_back_to_the_last_bit(row: Row) -> None:
    again = unpacked(packed(row))
    assert packed(again) == packed(row)
    fields = [name for name in row.__dataclass_fields__ if name != "picture"]
    for name in fields:
        before, after = getattr(row, name), getattr(again, name)
        assert (after, type(after)) == (before, type(before))
    for before, after in zip(
        (row.picture.x, row.picture.below, row.picture.upto),
        (again.picture.x, again.picture.below, again.picture.upto),
        strict=True,
    ):
        assert after.dtype == np.float64
        assert after.tobytes() == before.astype(np.float64).tobytes()


CAUSES_AT, RAW_BEFORE_AT = 14, 17  # in a row that is written down


def test_of_a_row_written_before_there_were_causes_deltas_are_counted_anew() -> None:
    causes = (1, 2, 0, 0, 0, 0, 0, 3)
    row = Row(source=Source("w", "s", 7), upto=5, causes=causes, bytes_=900, raw_before=70)
    fields = msgpack.unpackb(packed(row))
    assert (fields[CAUSES_AT], fields[RAW_BEFORE_AT]) == ([*causes], 70)
    fields[CAUSES_AT] = 6
    del fields[RAW_BEFORE_AT]
    again = unpacked(msgpack.packb(fields))
    assert (again.causes, again.deltas, again.bytes_, again.raw_before) == (NO_CAUSES, 0, 900, 0)
    old = replace(row, causes=NO_CAUSES, raw_before=0)
    assert packed(again) == packed(old), "and all else as it was"


# Stories of a coordinator that is killed


def coordinator(
    rng: np.random.Generator,
    tmp_path: Path,
    story: Callable[[Crashing, Node], Coroutine[Any, Any, None]],
) -> None:
    async def told_(cluster: Crashing) -> None:
        await story(cluster, cluster.coordinator)

    story_of(rng, tmp_path, told_, workers=0)


async def listed(cluster: Crashing) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await cluster.coordinator.json("/workers"))["workers"]
    return rows


def test_without_a_directory_nothing_is_kept() -> None:
    assert open_store(Settings()) is None


def test_rows_outlive_a_crash_and_are_silent_until_heard(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    async def story(cluster: Crashing, node: Node) -> None:
        outbox = an_outbox()
        await told(node, outbox, 1.0, 2.0, 3.0)
        (before,) = await listed(cluster)
        node = await cluster.restart_coordinator()
        assert (await node.json("/health"))["storage"] == "disk"
        (after,) = await listed(cluster)
        assert after == before | {"state": "silent", "last_heard_s": None}
        answer = await cluster.median()
        assert (answer["median"], answer["count"], answer["complete"]) == (2.0, 3, False)
        assert answer["workers"] == {"live": 0, "silent": 1}
        await until(lambda: heard(node, outbox), "it is heard again")
        await until(cluster.is_complete, "it has listened")
        assert (await cluster.median())["count"] == 3

    coordinator(rng, tmp_path, story)


async def heard(node: Node, outbox: Outbox) -> bool:
    """It was never told of the crash, and goes on upon the row that it knows."""
    now = time.monotonic()
    if data := outbox.delta(now=now):
        (receipt,) = await sent(node, data)
        assert isinstance(receipt, Receipt)
        outbox.receive(receipt, now=now)
    return bool((await node.json("/median"))["workers"] == {"live": 1, "silent": 0})


def test_who_was_retired_stays_so(rng: np.random.Generator, tmp_path: Path) -> None:
    async def story(cluster: Crashing, node: Node) -> None:
        await told(node, an_outbox(), 1.0, 2.0, 3.0)
        node = await cluster.restart_coordinator()
        retired = await node.client.post("/workers/w/retire")
        assert retired.json() == {"worker": "w", "streams": ["default"]}
        await cluster.restart_coordinator()
        (row,) = await listed(cluster)
        assert (row["state"], row["count"]) == ("retired", 3)
        await until(cluster.is_complete, "nobody is waited for")

    coordinator(rng, tmp_path, story)


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=list(TROUBLES))
def test_what_cannot_be_written_gets_no_receipt_and_nor_do_its_repeats_until_it_is(
    rng: np.random.Generator, tmp_path: Path, trouble: Trouble
) -> None:
    async def story(cluster: Crashing, node: Node) -> None:
        known, new = an_outbox(1000), [an_outbox(number) for number in range(1, 101)]
        await told(node, known, 1.0)
        storage = storage_of(node)
        trouble.begins(storage)
        data = pack_request([cut(one, *np.arange(30.0)) for one in new])
        for _ in range(3):
            response = await node.client.post("/deltas", content=data, headers=MSGPACK)
            assert "nothing can be written down now: " in check_problem(response, *trouble.answer)
        ready = await node.client.get("/ready")
        assert "nothing can be written down now: " in check_problem(ready, 503, "not_ready")
        assert await node.metric("median_coordinator_storage_failures_total") >= 3
        trouble.ends(storage)
        response = await node.client.post("/deltas", content=data, headers=MSGPACK)
        assert response.status_code == 200
        assert await node.metric("median_coordinator_storage_bytes") > 8 * PAGE
        await cluster.restart_coordinator()
        assert (await cluster.median())["count"] == 3001  # each of them, once

    coordinator(rng, tmp_path, story)


def test_what_was_never_written_is_told_again_to_the_next_start(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    async def story(cluster: Crashing, node: Node) -> None:
        outbox = an_outbox()
        await told(node, outbox, 1.0)
        TROUBLES["failing"].begins(storage_of(node))
        data = cut(outbox, 2.0, 3.0)
        response = await node.client.post("/deltas", content=pack_request([data]), headers=MSGPACK)
        check_problem(response, 503, "storage_failed")
        assert (await cluster.median())["count"] == 3
        node = await cluster.restart_coordinator()
        assert (await cluster.median())["count"] == 1
        await told(node, outbox)
        assert (await cluster.median())["count"] == 3

    coordinator(rng, tmp_path, story)


def test_what_could_not_be_written_is_written_as_soon_as_it_can_be(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    """Though nobody repeats it: a worker is retired once."""

    async def story(cluster: Crashing, node: Node) -> None:
        await told(node, an_outbox(), 1.0)
        node = await cluster.restart_coordinator()
        storage = storage_of(node)
        TROUBLES["failing"].begins(storage)
        retired = await node.client.post("/workers/w/retire")
        check_problem(retired, 503, "storage_failed")
        (row,) = await listed(cluster)
        assert row["state"] == "retired"
        failures = storage.failures
        await until(lambda: more(storage, failures + 1), "it was tried again")
        TROUBLES["failing"].ends(storage)
        await until(lambda: is_kept(node), "it is written down")
        await cluster.restart_coordinator()
        (row,) = await listed(cluster)
        assert row["state"] == "retired"

    coordinator(rng, tmp_path, story)


def storage_of(node: Node) -> Any:
    store = node.coordinator.store
    assert store is not None
    return store.storage


async def more(storage: Any, failures: int) -> bool:
    return bool(storage.failures >= failures)


async def is_kept(node: Node) -> bool:
    data = storage_of(node).db.execute("SELECT data FROM rows").fetchone()[0]
    return unpacked(data).retired


# What is corrupt


@pytest.mark.parametrize(
    ("spoils", "flaw"),
    [
        ("UPDATE rows SET data = zeroblob(length(data))", "a checksum does not match"),
        (
            f"UPDATE rows SET data = x'', seal = {sealed(b'')[1]}",  # noqa: S608
            "needs more data|incomplete input",
        ),
        (f"UPDATE rows SET data = x'90', seal = {sealed(bytes([0x90]))[1]}", "unpack"),  # noqa: S608
        ("UPDATE rows SET data = 'some text'", "bytes-like object"),
    ],
)
def test_a_row_that_is_not_what_was_written_is_corrupt(
    tmp_path: Path, spoils: str, flaw: str
) -> None:
    settings = Settings(data_dir=str(tmp_path))

    async def kept() -> None:
        store = opened(settings)
        await store.save([Row(source=Source("w", "default", 1))])
        await store.storage.close()

    run(kept())
    store = opened(settings)
    assert [row.source.worker for row in store.rows()] == ["w"]
    store.storage.db.execute(spoils)
    with pytest.raises(Unusable, match=rf"{module.FILE} is corrupt \(.*({flaw})"):
        list(store.rows())
    store.storage.db.close()


def opened(settings: Settings) -> Store:
    store = open_store(settings)
    assert store is not None
    return store
