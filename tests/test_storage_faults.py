"""Real processes that keep what they know: what is wrong at the start, and who has which file."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

import coordinator_service.settings
import coordinator_service.store
import worker_service.settings
import worker_service.store
from shared.protocol import Source
from shared.rows import Row
from shared.serving.storage import Storage
from tests.cluster import run
from tests.processes import Process, Processes, Service, free_port, until
from worker_service.store import Key

MODULES = ["coordinator_service", "worker_service"]
NOBODY = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
BARE = [name for name in os.environ if name.startswith("COVERAGE_")]  # it could not write its file
EXEC = f"""
import os, sys
for name in {BARE}:
    os.environ.pop(name, None)
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as processes:
        yield processes


def filled(module: str, directory: Path) -> Path:
    """A file with something in it, as the service leaves it."""
    given: dict[str, Any] = {"data_dir": str(directory)}

    async def worker() -> Storage:
        settings = worker_service.settings.Settings(worker_name="w", **given)
        store = worker_service.store.open_store(settings)
        assert store is not None
        await store.append(Source("w", "default", 1), np.arange(5000.0), 1, Key("k", b"c"))
        await store.storage.close()
        return store.storage

    async def coordinator() -> Storage:
        store = coordinator_service.store.open_store(coordinator_service.settings.Settings(**given))
        assert store is not None
        await store.save([Row(source=Source("w" * 50, "default", 1))])
        await store.storage.close()
        return store.storage

    return run(worker() if module == "worker_service" else coordinator()).path


def no_database(path: Path) -> None:
    path.write_text("Dear diary. " * 1000)


def of_somebody_else(path: Path) -> None:
    statement(path, "PRAGMA application_id = 1")


def newer(path: Path) -> None:
    statement(path, "PRAGMA user_version = 99")


def flipped(path: Path) -> None:
    """One bit, in the midst of a blob."""
    data = bytearray(path.read_bytes())
    what = b"w" * 20 if b"w" * 20 in data else np.arange(700.0, 720).tobytes()
    data[data.index(what) + 3] ^= 4
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20_000])


def statement(path: Path, what: str) -> None:
    db = sqlite3.connect(path)
    db.execute(what)
    db.close()


WRONG: dict[Callable[[Path], None], str] = {
    no_database: "is corrupt (file is not a database): bring back a copy of its directory",
    of_somebody_else: "choose another directory",
    newer: "is of a newer version of this service, 99 and not 2: run the service that wrote it",
    flipped: "is corrupt (a checksum does not match): bring back a copy of its directory",
    cut_short: "is corrupt (database disk image is malformed): bring back a copy of its directory",
}


def begun(processes: Processes, module: str, directory: Path, *through: str) -> Process:
    """A service that is not expected to get far, perhaps by way of another program."""
    way = ["-c", EXEC, *through, sys.executable] if through else []
    name = {"worker_name": "w"} if module == "worker_service" else {}
    return processes.start(*way, "-m", module, port=free_port(), data_dir=directory, **name)


def last_word(process: Process) -> str:
    assert process.ended() == 1
    assert "Traceback" not in process.said
    return process.said.splitlines()[-1]


@pytest.mark.parametrize("module", MODULES)
def test_what_is_wrong_with_a_file_is_the_one_sentence_that_a_service_leaves_with(
    processes: Processes, tmp_path: Path, module: str
) -> None:
    started = {}
    for spoils in WRONG:
        path = filled(module, tmp_path / spoils.__name__)
        spoils(path)
        started[spoils] = path, path.read_bytes(), begun(processes, module, path.parent)
    for spoils, (path, before, process) in started.items():
        said = last_word(process)
        assert str(path) in said
        assert WRONG[spoils] in said
        assert path.read_bytes() == before, spoils


@pytest.mark.parametrize("module", MODULES)
def test_a_file_has_one_process_until_that_is_killed(
    processes: Processes, tmp_path: Path, module: str
) -> None:
    first = begun(processes, module, tmp_path / "data")
    until(lambda: "Uvicorn running" in first.said, "it is up")
    said = last_word(begun(processes, module, tmp_path / "data"))
    assert "is in use by another process: stop that, or choose another directory" in said
    first.tell(signal.SIGKILL)
    first.ended()
    again = begun(processes, module, tmp_path / "data")
    until(lambda: "Uvicorn running" in again.said, "the next one is up")


@pytest.mark.parametrize("module", MODULES)
def test_a_directory_that_cannot_be_made_or_written_is_told(
    processes: Processes, tmp_path: Path, module: str
) -> None:
    (tmp_path / "file").write_text("a file")
    no_directory = begun(processes, module, tmp_path / "file")
    nowhere = begun(processes, module, Path("/proc/nowhere"))
    assert f"{tmp_path / 'file'} cannot be used: File exists" in last_word(no_directory)
    assert "/proc/nowhere cannot be used: No such file or directory" in last_word(nowhere)


@pytest.mark.parametrize("module", MODULES)
def test_a_directory_that_may_not_be_written_is_told(processes: Processes, module: str) -> None:
    """Root may write everywhere, so it is nobody who tries."""
    able = [*NOBODY, sys.executable, "-c", f"import {module}"]
    if NOBODY and (not shutil.which(NOBODY[0]) or subprocess.run(able, check=False).returncode):  # noqa: S603  this Python
        pytest.skip("nobody else may run this Python here")
    with TemporaryDirectory() as directory:  # pytest's own cannot be seen by others
        path = filled(module, Path(directory) / "data")
        Path(directory).chmod(0o755)
        path.chmod(0o444)
        path.parent.chmod(0o555)
        said = last_word(begun(processes, module, path.parent, *(NOBODY or ["env"])))
    assert f"{path} cannot be written: give this process the right to" in said


@pytest.mark.parametrize("module", MODULES)
def test_a_full_disk_at_the_start_is_told(
    processes: Processes, tmp_path: Path, module: str
) -> None:
    """A disk of a few pages, in a room of its own; the kernel may forbid that."""
    disk = f'mount -t tmpfs -o size=16k none "{tmp_path}" && exec "$@"'
    room = ["unshare", "--mount", "sh", "-c", disk, "sh"]
    if not shutil.which(room[0]) or subprocess.run([*room, "true"], check=False).returncode:  # noqa: S603  as said
        pytest.skip("no disk of a few pages can be had here")
    said = last_word(begun(processes, module, tmp_path, *room))
    assert "cannot be written, as its disk is full: free some of it" in said


def test_workers_without_a_name_that_start_at_once_get_a_slot_each_and_get_it_again(
    processes: Processes, tmp_path: Path
) -> None:
    for _ in range(2):
        workers = [
            processes.worker(f"n{at}", worker_name="", data_dir=tmp_path / "data")
            for at in range(3)
        ]
        for one in workers:
            until(partial(getattr, one, "is_up"), "it is up")
        names = {name_of(one) for one in workers}
        assert {name.rpartition("-")[2] for name in names} == {"1", "2", "3"}
        slots = {one.name for one in (tmp_path / "data").iterdir()}
        assert slots == {"slot-1", "slot-2", "slot-3"}
        for one in workers:
            one.tell(signal.SIGKILL)
            one.ended()


def name_of(worker: Service) -> str:
    return str(worker.get("/health")["worker"])
