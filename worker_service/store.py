"""What a worker keeps of its sources, in the order in which it happened.

    sources    one for each stream: its number, and how many values were written down
    digests    what their digests were at the last checkpoint
    batches    the values that came since, each batch as it came; the log
    keys       Idempotency-Keys, each in the transaction of the batch that it came with

A batch is written down before it is given to its outbox. So no delta covers what is not here, and
no 202 is said of it. Source = digest + batches, in this order; what is not on the disk was never a
value of it.

A checkpoint writes the digest and drops the batches in it. It is due when these take more than
CHECKPOINT_BYTES, and CHECKPOINTS times what the digest takes; so checkpoints write an eighth of
what the log does, at most, and a source takes no more than

    digest + max(1 MiB, 8 digests) + its batches in work

where a digest takes 23 bytes a cluster: 75 KB, mostly, at a rank error of 0.0005. Keys take about
150 bytes each. Pages that are free are used again, and given back where they are many; the log of
SQLite itself takes 4 MiB more, or as much as all batches in work at once.

Which directory
---------------
A worker that was given a name has `worker.sqlite` in the directory it was given, or refuses to
start. Workers without a name may share one directory, like replicas that are all told the same:
each takes the slot that its address had last, if nobody has it now, else the first that is free:
`slot-1`, `slot-2` and so on. It is called what the slot was called first. So after a restart each
source goes on, whoever it was that had the slot. An Idempotency-Key is known only where it came to;
so who repeats a request says which worker is meant, by its name.
"""

import asyncio
import itertools
import socket
import sqlite3
from asyncio import Future
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.digest import Digest, MalformedDigest
from shared.protocol import NAME_MAX, Source
from shared.serving.storage import InUse, NotWritten, Storage, corrupt, sealed, unsealed, usable
from shared.values import Floats
from worker_service.settings import Settings, host_name

FILE = "worker.sqlite"
ELSEWHERE = "192.0.2.1"  # which is nobody's, anywhere
LAST = "last"  # beside it in a slot: the address of who had that last
MARK = 0x726D776B  # tells a worker's file from any other
CHECKPOINT_BYTES, CHECKPOINTS = 2**20, 8
ENTRY_BYTES = 64  # what a batch takes beside its values
PART = 2**20  # values in one entry of the log, at most, since SQLite's blobs end at 1 GB
TABLES = """
CREATE TABLE worker (name TEXT);
CREATE TABLE sources (number TEXT PRIMARY KEY, stream TEXT UNIQUE, seal INTEGER, count INTEGER);
CREATE TABLE digests (number TEXT PRIMARY KEY, raw INTEGER, data BLOB, seal INTEGER);
CREATE TABLE batches (id INTEGER PRIMARY KEY, number TEXT, raw INTEGER, data BLOB, seal INTEGER);
CREATE INDEX batches_of ON batches (number);
CREATE TABLE keys (id INTEGER PRIMARY KEY, key TEXT UNIQUE, number TEXT, accepted INTEGER,
    count INTEGER, content BLOB, seal INTEGER)
"""
KEY = "key, number, accepted, count, content, seal"
NEWEST = "SELECT coalesce(max(id), 0) FROM batches"


@dataclass(frozen=True)
class Key:
    """An Idempotency-Key, and a hash of the request that bore it."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Kept:
    """A source as it was."""

    stream: str
    number: int
    digest: Digest
    raw: int
    logged: int  # bytes of the log that its digest does not cover


@dataclass(frozen=True)
class KeptKey:
    key: Key
    number: int  # of the source
    accepted: int
    count: int


class Store:
    def __init__(self, path: Path, settings: Settings, *, name: str) -> None:
        self.storage = Storage(path, owner="worker", mark=MARK, tables=TABLES, fsync=settings.fsync)
        self.home, self.former = self.storage.home, self.storage.former
        self._path, self._db, self._keys_max = path, self.storage.db, settings.idempotency_keys_max
        with usable(path):
            self.name = settings.worker_name or self._named(name)
            self._last = int(self._db.execute(NEWEST).fetchone()[0])

    def _named(self, name: str) -> str:
        """What it was called first."""
        for (known,) in self._db.execute("SELECT name FROM worker"):
            return str(known)
        with self.storage.transaction() as db:
            db.execute("INSERT INTO worker VALUES (?)", (name,))
        return name

    def sources(self, digest_rank_error: float) -> Iterator[Kept]:
        """Each as it was when the last batch was written down."""
        with usable(self._path):
            found = self._db.execute("SELECT number, stream, seal, count FROM sources").fetchall()
            for number, stream, seal, count in found:
                unsealed(self._path, stream.encode(), seal, number)
                kept = self._kept(number, stream, digest_rank_error)
                if kept.digest.count != count:
                    raise corrupt(self._path, f"stream {stream} has not the values it had")
                yield kept

    def _kept(self, number: str, stream: str, digest_rank_error: float) -> Kept:
        digest, raw, logged = Digest(digest_rank_error), 0, 0
        of = (number,)
        for raw_, data, seal in self._db.execute(
            "SELECT raw, data, seal FROM digests WHERE number = ?", of
        ):
            digest, raw = self._digest(unsealed(self._path, data, seal, number, raw_)), raw_
        for raw_, data, seal in self._db.execute(
            "SELECT raw, data, seal FROM batches WHERE number = ? ORDER BY id", of
        ):
            digest.add(np.frombuffer(unsealed(self._path, data, seal, number, raw_), "<f8"))
            raw, logged = raw + raw_, logged + ENTRY_BYTES + len(data)
        return Kept(stream, int(number, 16), digest, raw, logged)

    def _digest(self, data: bytes) -> Digest:
        try:
            return Digest.from_bytes(data)
        except MalformedDigest as error:
            raise corrupt(self._path, str(error)) from None

    def keys(self) -> list[KeptKey]:
        """The last of them, in their order."""
        with usable(self._path):
            found = self._db.execute(f"SELECT {KEY} FROM keys ORDER BY id").fetchall()  # noqa: S608
            return [self._key(entry) for entry in found[-self._keys_max :]]

    def _key(self, entry: tuple[str, str, int, int, bytes, int]) -> KeptKey:
        key, number, accepted, count, content, seal = entry
        unsealed(self._path, content, seal, key, number, accepted, count)
        return KeptKey(Key(key, content), int(number, 16), accepted, count)

    def append(self, source: Source, values: Floats, raw: int, key: Key | None) -> Future[None]:
        """Write a batch down, with its key."""
        number, first = f"{source.number:016x}", self._last + 1
        parts = [values[at : at + PART] for at in range(0, len(values), PART)]
        self._last += len(parts)

        def work(db: sqlite3.Connection) -> None:
            count = _counted(db, number, source.stream, len(values))
            for at, part in enumerate(parts):
                sent, data = 0 if at else raw, part.astype("<f8", copy=False).data
                entry = (first + at, number, sent, *sealed(data, number, sent))
                db.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?)", entry)
            if key is not None:
                self._remember(db, key, number, len(values), count)

        return self.storage.write(work)

    @property
    def last(self) -> int:
        """The entry of the batch that was appended last."""
        return self._last

    def _remember(
        self, db: sqlite3.Connection, key: Key, number: str, accepted: int, count: int
    ) -> None:
        about = (key.name, number, accepted, count)
        entry = (*about, *sealed(key.content, *about))
        db.execute(f"INSERT OR REPLACE INTO keys ({KEY}) VALUES (?, ?, ?, ?, ?, ?)", entry)  # noqa: S608
        oldest = "SELECT max(id) - ? FROM keys"
        db.execute(f"DELETE FROM keys WHERE id <= ({oldest})", (self._keys_max,))  # noqa: S608

    def checkpoint(self, source: Source, digest: bytes, raw: int, last: int) -> Future[None]:
        """Write down a digest that covers the batches up to this entry, and drop those."""
        number = f"{source.number:016x}"
        entry = (number, raw, *sealed(digest, number, raw))

        def work(db: sqlite3.Connection) -> None:
            if db.execute("SELECT 1 FROM sources WHERE number = ?", (number,)).fetchone():
                db.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", entry)
                db.execute("DELETE FROM batches WHERE number = ? AND id <= ?", (number, last))

        return self.storage.write(work)

    def forget(self, source: Source, *, received: int) -> Future[None]:
        """Drop a source that gave way, and the keys of what it had not received by then."""
        number = f"{source.number:016x}"

        def work(db: sqlite3.Connection) -> None:
            for table in ("sources", "digests", "batches"):
                db.execute(f"DELETE FROM {table} WHERE number = ?", (number,))  # noqa: S608
            db.execute("DELETE FROM keys WHERE number = ? AND count > ?", (number, received))

        return self.storage.write(work)

    async def settled(self) -> None:
        """Until all that was asked for before is written down, or is not."""
        await asyncio.wait([self.storage.write(lambda _: None)])


def _counted(db: sqlite3.Connection, number: str, stream: str, more: int) -> int:
    found = db.execute("SELECT count FROM sources WHERE number = ?", (number,)).fetchone()
    if found is None:
        _, seal = sealed(stream.encode(), number)
        db.execute("INSERT INTO sources VALUES (?, ?, ?, ?)", (number, stream, seal, more))
        return more
    db.execute("UPDATE sources SET count = count + ? WHERE number = ?", (more, number))
    return int(found[0]) + more


class Log:
    """What is written down of one source since its digest was."""

    def __init__(self, store: Store, source: Source, *, bytes_: int = 0) -> None:
        self._store, self._source = store, source
        self._bytes, self._digest_bytes = bytes_, 0

    def append(self, values: Floats, raw: int, key: Key | None) -> tuple[Future[None], int]:
        """Written down, when that is done; and its entry. Entries only grow."""
        written = self._store.append(self._source, values, raw, key)
        self._bytes += 8 * len(values) + ENTRY_BYTES
        return written, self._store.last

    @property
    def is_long(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self._bytes >= max(CHECKPOINT_BYTES, CHECKPOINTS * self._digest_bytes)

    async def shorten(self, digest: bytes, raw: int, entry: int) -> None:
        """A digest instead of all batches that it covers, up to this entry."""
        before, self._bytes, self._digest_bytes = self._bytes, 0, len(digest)
        try:
            await self._store.checkpoint(self._source, digest, raw, entry)
        except NotWritten:
            self._bytes += before  # so that the next batch tries again

    async def forget(self, received: int) -> None:
        await self._store.forget(self._source, received=received)


def open_store(settings: Settings) -> Store | None:
    """The store of this worker, locked; None if it is to keep nothing. `Unusable` says why not."""
    if not settings.data_dir:
        return None
    directory = Path(settings.data_dir).absolute()
    if settings.worker_name:
        return Store(directory / FILE, settings, name=settings.worker_name)
    return _in_a_slot(directory, settings)


def _in_a_slot(directory: Path, settings: Settings) -> Store:
    host = host_name()
    address = f"{host} {own_ip()}:{settings.port}"
    slots = _slots(directory, address)
    while True:
        slot = next(slots)
        with suppress(InUse):
            name = f"{host[: NAME_MAX - 10]}{slot.name.removeprefix('slot')}"
            store = Store(slot / FILE, settings, name=name)
            with suppress(OSError):  # it is a hint
                (slot / LAST).write_text(address)
            return store


def own_ip() -> str:
    """What others reach this machine by, most likely: replicas have it, where they share a name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, suppress(OSError):
        one.connect((ELSEWHERE, 9))  # sends nothing: it only finds the way
        return str(one.getsockname()[0])
    return ""


def _slots(directory: Path, address: str) -> Iterator[Path]:
    """What it had last comes first, if it is known; then all there are, and then new ones."""
    for last in sorted(directory.glob(f"slot-*/{LAST}")):
        with suppress(OSError):
            if last.read_text(errors="replace") == address:
                yield last.parent
    yield from (directory / f"slot-{number}" for number in itertools.count(1))
