"""Workers without a name that share a directory: which slot each of them takes."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from worker_service.settings import Settings
from worker_service.store import LAST, Store, open_store, own_ip

FIRST, SECOND, THIRD = 8101, 8102, 8103


class Shared:
    """One directory, and whoever has a slot in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._open: list[Store] = []

    def start(self, port: int) -> str:
        store = open_store(Settings(data_dir=str(self.directory), port=port))
        assert store is not None
        self._open.append(store)
        return store.storage.path.parent.name

    def stop(self) -> None:
        async def closed() -> None:
            for store in self._open:
                await store.storage.close()

        asyncio.run(closed())
        self._open = []


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    shared = Shared(tmp_path)
    yield shared
    shared.stop()


def test_each_takes_the_first_that_is_free(shared: Shared) -> None:
    assert [shared.start(port) for port in (FIRST, SECOND, FIRST)] == ["slot-1", "slot-2", "slot-3"]


def test_a_slot_has_the_file_and_who_had_it_last(shared: Shared) -> None:
    slot = shared.directory / shared.start(FIRST)
    shared.stop()
    assert sorted(path.name for path in slot.iterdir()) == ["last", "worker.sqlite"]


def test_in_another_order_each_takes_what_it_had(shared: Shared) -> None:
    had = [shared.start(port) for port in (FIRST, SECOND)]
    shared.stop()
    assert [shared.start(port) for port in (SECOND, FIRST)] == had[::-1]


def test_who_is_new_takes_what_somebody_left(shared: Shared) -> None:
    shared.start(FIRST)
    shared.stop()
    assert [shared.start(port) for port in (THIRD, FIRST)] == ["slot-1", "slot-2"]


def test_where_no_slot_tells_who_had_it_the_first_will_do(shared: Shared) -> None:
    for port in (FIRST, SECOND):
        shared.start(port)
    shared.stop()
    for number in (1, 2):
        last = shared.directory / f"slot-{number}" / LAST
        last.unlink()
        last.mkdir()  # it can be neither read nor written
    assert shared.start(SECOND) == "slot-1"


def test_replicas_that_share_a_name_and_a_port_are_told_by_their_addresses(shared: Shared) -> None:
    def start(ip: str) -> str:
        with patch("worker_service.store.own_ip", return_value=ip):
            return shared.start(FIRST)

    had = {ip: start(ip) for ip in ("172.19.0.4", "172.19.0.5", "172.19.0.3")}
    shared.stop()
    assert {ip: start(ip) for ip in reversed(had)} == had


def test_who_has_no_way_to_anywhere_has_no_address() -> None:
    with patch("worker_service.store.ELSEWHERE", "no address"):
        assert own_ip() == ""
