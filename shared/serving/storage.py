"""Storage: one file, in a directory of the operator's, that outlives the process and the power.

It is an SQLite database in WAL mode, the store that needs no operator. What this file adds to it:

*One owner.* The file is locked as long as the process lives, and by the kernel, so that no crash
leaves it locked. Who finds it locked may look for another, or refuses to start.

*One commit for all who wait.* Writing is done in a thread of its own, off the event loop. What is
asked for while it is busy goes into its next transaction, in the order in which it was asked for,
and resumes in that order once that is committed. So those who are in a hurry share what it costs.

*One sentence for what is wrong.* At the start it ends the process: `Unusable`. Later it is what is
answered to a request that could not be written down: `NotWritten`; then nothing of it was, unless
the disk failed in the very commit: then a restart may find all of it, or nothing. A file may turn
out to be somebody else's, of a version that cannot be read, or corrupt: blobs bear a checksum, of
themselves and of what stands beside them, as SQLite has none.

*A home.* A directory that was copied must be told from the original, as both may be in use. So the
file remembers where it is, by the device, the inode, and the boot of the machine; and wherever it
finds itself elsewhere, it draws another number for its home, and keeps those it had before. The
same number means the same file, under the same lock: whoever had it before is gone. That is all it
proves, and all it is for. A machine that was booted again is another place, too; and where boots
have no id, so is every start.

What a power cut may cost is for the operator to choose. `always`: nothing that was committed, since
each commit waits for the disk. `interval`: what was committed in the last second or so, since the
file is brought to the disk once in a second; it is never torn. A process that is killed loses
nothing in either case: the system still has what it wrote.
"""

import asyncio
import logging
import math
import os
import random
import secrets
import sqlite3
import time
import zlib
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from shared.protocol import FORMER_MAX, HOME_MAX
from shared.serving.logs import facts
from shared.serving.tasks import vital

Fsync = Literal["always", "interval"]
Work = Callable[[sqlite3.Connection], Any]
Told = TypeVar("Told")

VERSION = 2  # 1: a coordinator's rows did not tell the causes of their deltas
OLDEST = 1  # that can still be read
PAGE = 8192
WAL_BYTES = 4 * 2**20  # of the log before its pages are brought home
SPARE_BYTES = 8 * 2**20  # of pages that are free, in the file, and kept for what comes
INTERVAL_S = 1.0
SLOW_S = 3.0  # a commit that takes longer is told of
PROBE_BYTES = 2**16
LOCK_TRIES, LOCK_S = 3, 0.01
BOOT = Path("/proc/sys/kernel/random/boot_id")

HOMES = "CREATE TABLE homes (id INTEGER PRIMARY KEY, number INTEGER, place TEXT)"

log = logging.getLogger("storage")


class Unusable(Exception):
    """What is wrong with a directory or a file, and what to do."""


class InUse(Unusable):
    """Another process has it."""


class Unsure(sqlite3.OperationalError):
    """It failed in the very commit: a restart may find all that was written, or nothing."""


class NotWritten(Exception):
    """Not written down: `full` if for want of room; `unsure` if a restart may find it yet."""

    def __init__(self, error: Exception) -> None:
        self.full, self.unsure = name_of(error) == "SQLITE_FULL", isinstance(error, Unsure)
        why = "the disk of the data directory is full" if self.full else str(error)
        super().__init__(f"nothing can be written down now: {why}")


def name_of(error: Exception) -> str:
    """As `SQLITE_FULL`, without what SQLite adds to tell one cause from another."""
    name: str = getattr(error, "sqlite_errorname", "")
    return "_".join(name.split("_")[:2])


class Storage:
    """A file, locked; and the thread that writes to it."""

    def __init__(self, path: Path, *, owner: str, mark: int, tables: str, fsync: Fsync) -> None:
        self.path, self._fsync = path, fsync
        self._trouble: str | None = None
        self._since = math.inf  # when the commit at work began
        self.commits = 0
        self.failures = 0
        self._queue: list[tuple[Work, Future[Any]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._synced = 0
        with usable(path):
            made_durably(path.parent)
            _check_whole(path)
            if path.exists() and not os.access(path, os.W_OK):
                raise unwritable(path, "permission denied")  # to lock it would be an I/O error
            self.db = self._opened()
            try:
                self._prepare(owner, mark, tables)
                self._set()
                self.home, self.former = self._at_home()
            except BaseException:
                self.db.close()
                raise
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="storage")

    def _opened(self) -> sqlite3.Connection:
        """Two that come at once may both find it locked: then one of them comes first next time."""
        for _ in range(LOCK_TRIES - 1):
            try:
                return self._locked()
            except sqlite3.OperationalError as error:
                if name_of(error) != "SQLITE_BUSY":
                    raise
                time.sleep(random.uniform(LOCK_S / 2, LOCK_S))  # noqa: S311  no secret
        return self._locked()

    def _locked(self) -> sqlite3.Connection:
        self.path.touch(mode=0o600)  # it and its log, which gets the same mode, are nobody else's
        db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute(f"PRAGMA page_size = {PAGE}")
            if not _number(db, "schema_version"):
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("BEGIN EXCLUSIVE")
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, owner: str, mark: int, tables: str) -> None:
        """Made as its owner wants it, if it is new; else as its owner made it."""
        found, version = _number(self.db, "application_id"), _number(self.db, "user_version")
        if not _number(self.db, "schema_version"):
            with self.transaction() as db:
                db.execute(f"PRAGMA application_id = {mark}")
                db.execute(f"PRAGMA user_version = {VERSION}")
                db.execute(HOMES)
                db.execute("CREATE TABLE probe (id INTEGER PRIMARY KEY, data BLOB)")
                for table in tables.split(";"):
                    db.execute(table)
        elif found != mark:
            raise Unusable(f"{self.path} is not the file of a {owner}: choose another directory")
        elif not OLDEST <= version <= VERSION:
            age = "a newer" if version > VERSION else "an older"
            what = f"{self.path} is of {age} version of this service, {version} and not {VERSION}"
            raise Unusable(f"{what}: run the service that wrote it, or choose another directory")
        flaw = self.db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if flaw != "ok":
            raise corrupt(self.path, flaw)

    def _set(self) -> None:
        """Only now that it is known whose it is: what is set here is written into the file."""
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA fullfsync = ON")
        self.db.execute(f"PRAGMA synchronous = {'FULL' if self._fsync == 'always' else 'NORMAL'}")
        self.db.execute(f"PRAGMA wal_autocheckpoint = {WAL_BYTES // PAGE}")
        self.db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        if _number(self.db, "user_version") != VERSION:
            self.db.execute(f"PRAGMA user_version = {VERSION}")

    def _at_home(self) -> tuple[int, list[int]]:
        """The number of this home, and of those before it, the latest first."""
        here = place_of(self.path)
        found = self.db.execute("SELECT number, place FROM homes ORDER BY id DESC").fetchall()
        if here is None or not found or found[0][1] != here:
            found.insert(0, (1 + secrets.randbelow(HOME_MAX), here or ""))
            with self.transaction() as db:
                db.execute("INSERT INTO homes (number, place) VALUES (?, ?)", found[0])
                oldest = "SELECT max(id) - ? FROM homes"
                db.execute(f"DELETE FROM homes WHERE id < ({oldest})", (FORMER_MAX,))  # noqa: S608
        home, *former = (number for number, _ in found)
        if not all(0 < number <= HOME_MAX for number in (home, *former)):
            raise corrupt(self.path, "it has a home that is none")
        return home, former

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it, or nothing; or `Unsure`."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self._roll_back()
            raise
        try:
            self.db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise error if name_of(error) == "SQLITE_FULL" else Unsure(str(error)) from error

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):  # what went wrong may have done it
            self.db.execute("ROLLBACK")

    def write(self, work: Work) -> Future[Any]:
        """Ask for something to be written; done once it is committed, or `NotWritten`.

        It goes on though nobody waits. Futures are done in the order they were asked for.
        """
        future: Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((work, future))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all(), name="storage")
        return future

    async def _write_all(self) -> None:
        try:
            while self._queue:
                group, self._queue = self._queue, []
                await self._write_group(group)
        finally:
            self._writing = None

    async def _write_group(self, group: list[tuple[Work, Future[Any]]]) -> None:
        works = [work for work, _ in group]
        self._since = time.monotonic()
        try:
            told = await self._in_thread(self._committed, works)
        except Exception as error:  # whatever it is, nobody is left waiting
            await self._group_failed(group, error)
            return
        finally:
            self._since = math.inf
        self._succeeded()
        for (_, future), one in zip(group, told, strict=True):
            if not future.done():
                future.set_result(one)

    async def _group_failed(self, group: list[tuple[Work, Future[Any]]], error: Exception) -> None:
        """One that does not fit is not the fault of those who came with it."""
        if len(group) > 1 and not isinstance(error, Unsure):
            for one in group:
                await self._write_group([one])
            return
        why = self._failed(error)
        for _, future in group:
            if not future.done():
                future.set_exception(why)
                future.exception()  # who does not wait for it need not know

    def _in_thread(self, work: Callable[..., Told], *given: Any) -> Future[Told]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work, *given)

    def _committed(self, works: list[Work]) -> list[Any]:
        with self.transaction() as db:
            told = [work(db) for work in works]
        with suppress(sqlite3.Error):  # all is committed; what is spare can wait
            self._give_back()
        return told

    def _give_back(self) -> None:
        spare = _number(self.db, "freelist_count") - SPARE_BYTES // PAGE
        if spare > 0:
            self.db.executescript(f"PRAGMA incremental_vacuum({spare})")  # `execute` frees but one

    def _failed(self, error: Exception) -> NotWritten:
        self.failures += 1
        if self._trouble is None:
            log.error("not written", extra=facts(file=str(self.path), why=repr(error)))
        why = NotWritten(error)
        self._trouble = str(why)
        return why

    def _succeeded(self) -> None:
        self.commits += 1
        if self._trouble is not None:
            log.info("written again", extra=facts(file=str(self.path)))
        self._trouble = None

    @property
    def trouble(self) -> str | None:
        """Why what is asked to be written would not be, or not soon."""
        seconds = time.monotonic() - self._since
        if seconds > SLOW_S:
            return f"the disk of the data directory has been at one commit for {seconds:.0f} s"
        return self._trouble

    async def tend(self) -> None:
        """Once in a while: bring it to the disk, and see whether a trouble is over."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            if self._trouble is not None:
                await asyncio.wait([self.write(_probed)])
            if self._fsync == "interval" and self._synced != self.commits:
                await self._sync()

    async def _sync(self) -> None:
        commits = self.commits
        try:
            await self._in_thread(self._to_disk)
        except sqlite3.Error as error:
            self._failed(error)
        else:
            self._synced = commits

    def _to_disk(self) -> None:
        self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    @property
    def bytes(self) -> int:
        """How large the file is, and its log."""
        return _size(self.path) + _size(_log_of(self.path))

    async def close(self) -> None:
        """After all that was asked for."""
        while self._writing is not None:
            await asyncio.wait([self._writing])
        self._thread.shutdown()
        self.db.close()


@asynccontextmanager
async def tended(storage: Storage | None, *, fail: Callable[[], None]) -> AsyncIterator[None]:
    """A storage, if there is one, tended as long as its service runs, and closed at its end."""
    if storage is None:
        yield
        return
    try:
        async with vital(storage.tend(), name="storage", fail=fail):
            yield
    finally:
        await storage.close()


@contextmanager
def or_leave() -> Iterator[None]:
    """What cannot be used ends the process, and the last it says is what to do."""
    try:
        yield
    except Unusable as error:
        log.critical("%s", error)
        raise SystemExit(1) from None


def _log_of(path: Path) -> Path:
    """SQLite's own."""
    return path.with_name(path.name + "-wal")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_whole(path: Path) -> None:
    """SQLite would take what is empty for new, and drop the log."""
    if _size(_log_of(path)) and not _size(path):
        raise corrupt(path, "it is empty, but its log is not")


def _number(db: sqlite3.Connection, pragma: str) -> int:
    return int(db.execute(f"PRAGMA {pragma}").fetchone()[0])


def _probed(db: sqlite3.Connection) -> None:
    """As large as most of what is written."""
    db.execute("INSERT OR REPLACE INTO probe VALUES (1, zeroblob(?))", (PROBE_BYTES,))


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Whatever is wrong with this file, in a sentence."""
    try:
        yield
    except sqlite3.Error as error:
        raise _unusable(path, error) from None
    except (ValueError, TypeError, AttributeError) as error:  # a column holds what none ever held
        raise corrupt(path, str(error)) from None
    except OSError as error:
        raise Unusable(f"{path.parent} cannot be used: {error.strerror}") from None


def _unusable(path: Path, error: sqlite3.Error) -> Unusable:
    match name_of(error):
        case "SQLITE_BUSY":
            return InUse(
                f"{path} is in use by another process: stop that, or choose another directory"
            )
        case "SQLITE_FULL":
            return Unusable(f"{path} cannot be written, as its disk is full: free some of it")
        case "SQLITE_READONLY" | "SQLITE_CANTOPEN" | "SQLITE_PERM":
            return unwritable(path, str(error))
        case "SQLITE_NOTADB" | "SQLITE_CORRUPT" | "SQLITE_ERROR" | "":  # or it is not what we made
            return corrupt(path, str(error))
    return Unusable(f"{path} cannot be used: {error}")


def unwritable(path: Path, why: str) -> Unusable:
    return Unusable(f"{path} cannot be written: give this process the right to ({why})")


def corrupt(path: Path, flaw: str) -> Unusable:
    flaw = " ".join(flaw.split())  # SQLite says it in lines
    what = f"{path} is corrupt ({flaw}): bring back a copy of its directory, or move that away"
    return Unusable(f"{what} to begin anew, without what it holds")


def sealed(data: bytes | memoryview, *about: str | int) -> tuple[bytes | memoryview, int]:
    """A blob with its checksum, which is of what stands beside it, too."""
    return data, zlib.crc32(data, zlib.crc32(repr(about).encode()))


def unsealed(path: Path, data: bytes, seal: int, *about: str | int) -> bytes:
    if sealed(data, *about)[1] != seal:
        raise corrupt(path, "a checksum does not match")
    return data


def place_of(path: Path) -> str | None:
    """Where a file is, told from all other places; None if this machine cannot tell."""
    try:
        boot = BOOT.read_text().strip()
    except OSError:
        return None
    at = path.stat()
    return f"{boot} {at.st_dev} {at.st_ino}"


def made_durably(directory: Path) -> None:
    """With all above it, each known to the disk before anything is in it."""
    if directory.is_dir():
        return
    made_durably(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    above = os.open(directory.parent, os.O_RDONLY)
    try:
        os.fsync(above)
    finally:
        os.close(above)
