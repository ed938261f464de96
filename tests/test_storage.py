"""A file that outlives the process: one owner, one commit for all who wait, one sentence if not."""

import asyncio
import logging
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest

from shared.serving import storage as module
from shared.serving.storage import (
    PAGE,
    SPARE_BYTES,
    Fsync,
    InUse,
    NotWritten,
    Storage,
    Unusable,
    Work,
    made_durably,
    or_leave,
    sealed,
    tended,
    unsealed,
    usable,
)
from tests.cluster import run, until

MARK = 0x74657374
NOTES = "CREATE TABLE notes (id INTEGER PRIMARY KEY, data BLOB);CREATE TABLE more (text TEXT)"


def opened(path: Path, fsync: Fsync = "always") -> Storage:
    return Storage(path, owner="tester", mark=MARK, tables=NOTES, fsync=fsync)


def note(data: bytes | str) -> Work:
    def work(db: sqlite3.Connection) -> int | None:
        return db.execute("INSERT INTO notes (data) VALUES (?)", (data,)).lastrowid

    return work


def notes(storage: Storage) -> list[Any]:
    return [data for (data,) in storage.db.execute("SELECT data FROM notes ORDER BY id")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "inside" / "notes.sqlite"


@asynccontextmanager
async def at_work(path: Path, fsync: Fsync = "always") -> AsyncIterator[Storage]:
    """Tended quickly, and closed."""
    storage = opened(path, fsync)
    with patch.object(module, "INTERVAL_S", 0.01):
        async with tended(storage, fail=lambda: pytest.fail("nobody tends it")):
            yield storage


class Held:
    """The thread that writes, held up, so that what is asked for meanwhile has to wait."""

    def __init__(self) -> None:
        self._may = threading.Event()

    async def hold(self, storage: Storage) -> None:
        """From now on it is at work on that, and whatever is asked for waits."""
        self._first = storage.write(lambda _: self._may.wait(30))
        await asyncio.sleep(0)

    async def release(self) -> None:
        self._may.set()
        await asyncio.wait([self._first])


def full(storage: Storage) -> None:
    """No page more than there are."""
    storage.db.execute("PRAGMA max_page_count = 1").fetchall()


def roomy(storage: Storage) -> None:
    storage.db.execute("PRAGMA max_page_count = 1000000").fetchall()


def failing(storage: Storage) -> None:
    storage.db.execute("PRAGMA query_only = ON")


def well_again(storage: Storage) -> None:
    storage.db.execute("PRAGMA query_only = OFF")


# What is kept


def test_what_was_written_is_there_after_a_restart(path: Path) -> None:
    async def story() -> None:
        storage = opened(path)
        assert await storage.write(note(b"one")) == 1
        assert await storage.write(note(b"two")) == 2
        await storage.close()
        again = opened(path)
        assert notes(again) == [b"one", b"two"]
        await again.close()

    run(story())


def test_those_who_wait_share_one_commit_and_resume_in_their_order(path: Path) -> None:
    async def story() -> None:
        async with at_work(path) as storage:
            said: list[str] = []
            storage.db.set_trace_callback(said.append)
            held, ended = Held(), list[int]()
            await held.hold(storage)
            futures = [storage.write(note(str(at))) for at in range(50)]
            for at, future in enumerate(futures):
                future.add_done_callback(partial(then, ended.append, at))
            await held.release()
            assert await asyncio.gather(*futures) == list(range(1, 51))
            assert said.count("COMMIT") == storage.commits == 2
            assert ended == list(range(50))
            assert notes(storage) == [str(at) for at in range(50)]

    run(story())


def test_what_nobody_waits_for_any_more_is_written_all_the_same(path: Path) -> None:
    async def story() -> None:
        async with at_work(path) as storage:
            held = Held()
            await held.hold(storage)
            first, second = storage.write(note("one")), storage.write(note("two"))
            first.cancel()
            await held.release()
            assert await second == 2
            assert first.cancelled()
            assert notes(storage) == ["one", "two"]

    run(story())


def test_the_end_comes_after_all_that_was_asked_for(path: Path) -> None:
    async def story() -> None:
        storage = opened(path)
        futures = [storage.write(note(str(at))) for at in range(5)]
        await storage.close()
        assert all(future.done() for future in futures)
        again = opened(path)
        assert notes(again) == [str(at) for at in range(5)]
        await again.close()
        assert again.bytes == path.stat().st_size  # SQLite's own log went with the end

    run(story())


def test_nothing_is_kept_where_there_is_no_storage() -> None:
    async def story() -> None:
        async with tended(None, fail=lambda: None):
            pass

    run(story())


def test_a_service_whose_storage_is_not_tended_any_more_fails(path: Path) -> None:
    async def story() -> None:
        failed = list[bool]()
        storage = opened(path)
        with patch.object(Storage, "tend", side_effect=dies):
            async with tended(storage, fail=lambda: failed.append(True)):
                await asyncio.sleep(0.01)
        assert failed == [True]

    async def dies() -> None:
        raise ZeroDivisionError("for a test")

    run(story())


# When it cannot be written


class Trouble(NamedTuple):
    begins: Callable[[Storage], None]
    ends: Callable[[Storage], None]
    full: bool
    sentence: str

    @property
    def answer(self) -> tuple[int, str]:
        """What a service says then."""
        return (507, "storage_full") if self.full else (503, "storage_failed")


TROUBLES = {
    "full": Trouble(
        full, roomy, True, "nothing can be written down now: the disk of the data directory is full"
    ),
    "failing": Trouble(
        failing,
        well_again,
        False,
        "nothing can be written down now: attempt to write a readonly database",
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=list(TROUBLES))
def test_what_cannot_be_written_takes_nothing_says_so_and_goes_on_by_itself(
    path: Path, trouble: Trouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def story() -> None:
        async with at_work(path) as storage:
            await storage.write(note("before"))
            trouble.begins(storage)
            held = Held()
            await held.hold(storage)
            some, more = (storage.write(note(bytes(pages * PAGE))) for pages in (40, 50))
            nobody = storage.write(note(bytes(60 * PAGE)))
            nobody.cancel()
            await held.release()
            for future in (some, more):
                with pytest.raises(NotWritten, match="nothing can be written down now") as told:
                    await future
                assert (told.value.full, str(told.value)) == (trouble.full, trouble.sentence)
            assert notes(storage) == ["before"]
            assert storage.trouble == trouble.sentence
            failures = storage.failures
            with pytest.raises(NotWritten):
                await storage.write(note(bytes(50 * PAGE)))
            assert storage.failures > failures
            trouble.ends(storage)
            await until(lambda: has(lambda: storage.trouble is None), "it is over")
            assert await storage.write(note("after")) == 2
            assert notes(storage) == ["before", "after"]

    run(story())
    said = [one.message for one in caplog.records if one.name == "storage"]
    assert said == ["not written", "written again"]  # each once, however often it was tried


def then(tell: Callable[[int], None], at: int, _: object) -> None:
    tell(at)


async def has(holds: Callable[[], bool]) -> bool:
    return holds()


def test_a_trouble_that_lasts_is_tried_again_and_again(path: Path) -> None:
    async def story() -> None:
        async with at_work(path) as storage:
            failing(storage)
            with pytest.raises(NotWritten):
                await storage.write(note("never"))
            await until(lambda: has(lambda: storage.failures > 3), "it is tried again")
            assert storage.trouble is not None
            well_again(storage)

    run(story())


def test_spare_pages_are_given_back_but_for_some(path: Path) -> None:
    async def story() -> None:
        async with at_work(path) as storage:
            for _ in range(3):
                await storage.write(note(bytes(SPARE_BYTES)))
            large = storage.bytes
            assert large > 3 * SPARE_BYTES
            await storage.write(lambda db: db.execute("DELETE FROM notes"))
            await storage.write(note("small"))
            storage.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            spare = storage.db.execute("PRAGMA freelist_count").fetchone()[0]
            assert spare * PAGE <= SPARE_BYTES
            assert storage.bytes <= SPARE_BYTES + 20 * PAGE

    run(story())


def test_what_cannot_be_given_back_harms_nobody(path: Path) -> None:
    async def story() -> None:
        async with at_work(path) as storage:
            with patch.object(Storage, "_give_back", side_effect=sqlite3.OperationalError):
                assert await storage.write(note("one")) == 1
            assert (storage.trouble, notes(storage)) == (None, ["one"])

    run(story())


# The disk


@pytest.mark.parametrize(("fsync", "synchronous"), [("always", 2), ("interval", 1)])
def test_whether_a_commit_waits_for_the_disk_is_the_operators_choice(
    path: Path, fsync: Fsync, synchronous: int
) -> None:
    """To SQLite 2 is FULL, which brings its log to the disk at each commit; 1 is NORMAL."""

    async def story() -> None:
        async with at_work(path, fsync) as storage:
            assert storage.db.execute("PRAGMA synchronous").fetchone() == (synchronous,)
            assert storage.db.execute("PRAGMA fullfsync").fetchone() == (1,)
            assert storage.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    run(story())


def test_what_does_not_wait_for_the_disk_is_brought_there_soon_and_once(path: Path) -> None:
    async def story() -> None:
        async with at_work(path, "interval") as storage:
            said: list[str] = []
            storage.db.set_trace_callback(said.append)
            await storage.write(note(b"in the log only"))
            assert b"in the log only" not in path.read_bytes()
            await until(lambda: has(lambda: b"log only" in path.read_bytes()), "it is home")
            await asyncio.sleep(0.1)
            assert [one for one in said if "checkpoint" in one] == [
                "PRAGMA wal_checkpoint(PASSIVE)"
            ]

    run(story())


def test_what_waits_for_the_disk_is_there_already(path: Path) -> None:
    async def story() -> None:
        async with at_work(path) as storage:
            said: list[str] = []
            storage.db.set_trace_callback(said.append)
            await storage.write(note("there"))
            await asyncio.sleep(0.05)
            assert said[-1] == "PRAGMA freelist_count"

    run(story())


# Homes


def home_of(path: Path) -> int:
    storage = opened(path)
    storage.db.close()
    return storage.home


def test_at_the_same_place_it_is_at_home(path: Path) -> None:
    home = home_of(path)
    assert 0 < home < 2**32
    assert home_of(path) == home_of(path) == home


def test_a_copy_has_a_home_of_its_own_also_beside_the_original(path: Path, tmp_path: Path) -> None:
    home = home_of(path)
    shutil.copytree(path.parent, tmp_path / "copy")
    copy = home_of(tmp_path / "copy" / path.name)
    assert copy not in {home, 0}
    assert home_of(tmp_path / "copy" / path.name) == copy
    assert home_of(path) == home


def test_a_directory_that_is_called_another_is_the_same_place(path: Path, tmp_path: Path) -> None:
    home = home_of(path)
    path.parent.rename(tmp_path / "moved")
    assert home_of(tmp_path / "moved" / path.name) == home


def test_after_a_boot_and_where_boots_have_no_id_each_start_has_another_home(
    path: Path, tmp_path: Path
) -> None:
    boot, homes = tmp_path / "boot_id", list[int]()
    with patch.object(module, "BOOT", boot):
        for known in ("one", "one", "two", None, None, "two"):
            boot.unlink(missing_ok=True)
            if known:
                boot.write_text(f"{known}\n")
            homes.append(home_of(path))
    assert homes[0] == homes[1]
    assert len(set(homes)) == 5


# What is wrong at the start


def test_it_has_one_owner_also_within_a_process(path: Path) -> None:
    storage = opened(path)
    with pytest.raises(InUse, match=r"notes.sqlite is in use by another process: stop that, or"):
        opened(path)
    storage.db.close()
    opened(path).db.close()


def test_it_needs_no_memory_that_processes_share(path: Path) -> None:
    """Which a network's file systems often lack; and a second process has no business there."""
    for _ in range(2):
        storage = opened(path)
        names = {one.name for one in path.parent.iterdir()}
        assert names <= {path.name, f"{path.name}-wal"}
        storage.db.close()


def test_of_two_that_come_at_once_one_comes_first_next_time(path: Path) -> None:
    """Each finds it locked by the other, and lets go."""
    first = opened(path)
    with patch("time.sleep", side_effect=lambda _: first.db.close()) as slept:
        opened(path).db.close()
    slept.assert_called_once()


@pytest.mark.parametrize(
    ("version", "words"),
    [(module.VERSION + 1, "of a newer version"), (module.OLDEST - 1, "of an older version")],
)
def test_a_file_of_another_version_is_left_to_the_service_that_wrote_it(
    path: Path, version: int, words: str
) -> None:
    opened(path).db.close()
    changed(path, f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    with pytest.raises(Unusable, match=rf"{words} of this service, {version} and not 2: run the"):
        opened(path)
    assert path.read_bytes() == before


def test_a_file_of_the_version_before_is_read_and_then_is_of_this_one(path: Path) -> None:
    storage = opened(path)
    home = storage.home
    storage.db.close()
    changed(path, "PRAGMA user_version = 1")
    storage = opened(path)
    assert storage.home == home
    assert storage.db.execute("PRAGMA user_version").fetchone() == (module.VERSION,)
    storage.db.close()


def changed(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def test_a_database_of_somebody_else_is_refused_and_left_as_it_is(path: Path) -> None:
    made_durably(path.parent)
    changed(path, "CREATE TABLE theirs (text TEXT)")
    before = path.read_bytes()
    with pytest.raises(Unusable, match="is not the file of a tester: choose another directory"):
        opened(path)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_what_is_no_database_is_refused_and_left_as_it_is(path: Path) -> None:
    made_durably(path.parent)
    path.write_text("Dear diary. " * 1000)
    with pytest.raises(Unusable, match=r"is corrupt \(file is not a database\): bring back a copy"):
        opened(path)
    assert path.read_text() == "Dear diary. " * 1000


def test_a_file_that_was_cut_short_is_corrupt(path: Path) -> None:
    async def story() -> None:
        async with at_work(path) as storage:
            await storage.write(note(bytes(20 * PAGE)))

    run(story())
    data = path.read_bytes()
    for size in (len(data) // 2, PAGE, PAGE // 2):
        path.write_bytes(data[:size])
        with pytest.raises(Unusable, match=r"notes.sqlite is corrupt \("):
            opened(path)


def test_a_page_that_contradicts_itself_is_corrupt(path: Path) -> None:
    async def story() -> None:
        async with at_work(path) as storage:
            await storage.write(note("one"))
            storage.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            root = storage.db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'notes'")
            at.append((root.fetchone()[0] - 1) * PAGE)

    at = list[int]()
    run(story())
    data = bytearray(path.read_bytes())
    data[at[0] + 4] ^= 1  # of the page's header: how many cells there are
    path.write_bytes(data)
    with pytest.raises(
        Unusable, match=r"is corrupt \(.*\): bring back a copy of its directory, or move that away"
    ):
        opened(path)


def test_a_file_in_place_of_the_directory_is_told(path: Path) -> None:
    made_durably(path.parent.parent)
    path.parent.write_text("a file")
    with pytest.raises(Unusable, match=r"deep/inside cannot be used: File exists"):
        opened(path)
    with pytest.raises(Unusable, match=r"deep/inside/deeper cannot be used: File exists"):
        opened(path.parent / "deeper" / path.name)


def test_a_directory_in_place_of_the_file_is_told(path: Path) -> None:
    made_durably(path)
    with pytest.raises(Unusable, match=r"cannot be written: give this process the right to"):
        opened(path)


def test_a_file_that_may_not_be_written_is_told(path: Path) -> None:
    opened(path).db.close()
    with (
        patch("os.access", return_value=False),
        pytest.raises(Unusable, match=r"cannot be written: give this process the right to \(perm"),
    ):
        opened(path)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("SQLITE_FULL", "cannot be written, as its disk is full: free some of it"),
        ("SQLITE_READONLY_DIRECTORY", "cannot be written: give this process the right to"),
        ("SQLITE_CORRUPT_INDEX", "is corrupt (why): bring back a copy"),
        ("SQLITE_ERROR", "is corrupt (why): bring back a copy"),
        ("", "is corrupt (why): bring back a copy"),
        ("SQLITE_BUSY_RECOVERY", "is in use by another process"),
        ("SQLITE_IOERR_READ", "cannot be used: why"),
    ],
)
def test_each_error_of_the_library_becomes_a_sentence(path: Path, name: str, sentence: str) -> None:
    error = sqlite3.OperationalError("why")
    error.sqlite_errorname = name
    with pytest.raises(Unusable) as told, usable(path):
        raise error
    assert sentence in str(told.value)


@pytest.mark.parametrize(
    "error", [ValueError("no number"), TypeError("no text"), AttributeError("no method")]
)
def test_what_no_column_ever_held_is_corrupt(path: Path, error: Exception) -> None:
    with pytest.raises(Unusable, match=r"is corrupt \(no .*\): bring back"), usable(path):
        raise error


def test_what_is_wrong_at_the_start_is_the_last_that_a_process_says(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(SystemExit) as left, or_leave():
        raise Unusable("what to do")
    assert left.value.code == 1
    assert caplog.messages == ["what to do"]
    with or_leave():
        pass


def test_a_blob_is_told_from_another_by_its_checksum(path: Path) -> None:
    data, seal = sealed(b"some bytes")
    assert unsealed(path, bytes(data), seal) == b"some bytes"
    with pytest.raises(Unusable, match="a checksum does not match"):
        unsealed(path, b"some byte!", seal)


def test_a_directory_is_made_with_all_above_it(tmp_path: Path) -> None:
    for _ in range(2):
        made_durably(tmp_path / "a" / "b" / "c")
        assert (tmp_path / "a" / "b" / "c").is_dir()


def test_an_empty_file_beside_a_log_is_corrupt_not_new(tmp_path: Path) -> None:
    path = tmp_path / "some.sqlite"
    path.touch()
    path.with_name("some.sqlite-wal").write_bytes(b"some frames")
    with pytest.raises(Unusable, match="it is empty, but its log is not"):
        opened(path)


def test_what_cannot_be_brought_to_the_disk_is_a_trouble_and_is_tried_again(path: Path) -> None:
    async def story() -> None:
        async with at_work(path, "interval") as storage:
            failing_disk = sqlite3.OperationalError("disk I/O error")
            with patch.object(storage, "_to_disk", side_effect=failing_disk):
                await storage.write(note(b"in the log only"))
                await until(lambda: has(lambda: storage.failures > 2), "it is tried again")
            assert b"in the log only" not in path.read_bytes()
            await until(lambda: has(lambda: b"log only" in path.read_bytes()), "it is home")
            await until(lambda: has(lambda: storage.trouble is None), "all is well")

    run(story())


def test_who_comes_with_what_does_not_fit_is_written_all_the_same(path: Path) -> None:
    async def story() -> None:
        async with at_work(path) as storage:
            full(storage)
            held = Held()
            await held.hold(storage)
            fits, does_not = storage.write(note("fits")), storage.write(note(bytes(50 * PAGE)))
            await held.release()
            with pytest.raises(NotWritten):
                await does_not
            assert await fits == 1
            assert notes(storage) == ["fits"]

    run(story())


def test_what_fails_in_the_commit_itself_is_not_called_refused(path: Path) -> None:
    """Its frames may be in the log, and a restart find them."""

    class Failing:
        def __init__(self, db: sqlite3.Connection) -> None:
            self._db = db

        def execute(self, statement: str, *given: Any) -> sqlite3.Cursor:
            done = self._db.execute(statement if statement != "COMMIT" else "ROLLBACK", *given)
            if statement == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return done

    async def story() -> None:
        async with at_work(path) as storage:
            held = Held()
            await held.hold(storage)
            asked = [storage.write(note("one")), storage.write(note("two"))]
            with patch.object(storage, "db", Failing(storage.db)):
                await held.release()
                for one in asked:
                    with pytest.raises(NotWritten, match="disk I/O error") as told:
                        await one
                    assert told.value.unsure
            assert await storage.write(note("three")) == 1

    run(story())


def test_a_commit_that_does_not_end_is_a_trouble(path: Path) -> None:
    async def story() -> None:
        async with at_work(path) as storage:
            held = Held()
            with patch.object(module, "SLOW_S", 0.01):
                await held.hold(storage)
                await until(lambda: has(lambda: storage.trouble is not None), "it is slow")
                assert "at one commit for" in str(storage.trouble)
                await held.release()
                assert storage.trouble is None

    run(story())


def test_a_home_that_is_none_is_corrupt(path: Path) -> None:
    storage = opened(path)
    storage.db.execute("UPDATE homes SET number = -1")
    storage.db.close()
    with pytest.raises(Unusable, match="it has a home that is none"):
        opened(path)


def test_a_bug_in_what_is_written_leaves_nobody_waiting(path: Path) -> None:
    def bug(_: sqlite3.Connection) -> None:
        raise OverflowError("too large for SQLite")

    async def story() -> None:
        async with at_work(path) as storage:
            before, wrong, after = map(storage.write, (note("before"), bug, note("after")))
            with pytest.raises(NotWritten, match="too large for SQLite"):
                await wrong
            assert [await before, await after] == [1, 2]
            assert notes(storage) == ["before", "after"]

    run(story())
