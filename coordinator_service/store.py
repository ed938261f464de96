"""What a coordinator keeps: its rows, each as it is now.

A row is written down before any receipt that tells of it leaves. So whatever a worker believes of
its row is here, and a coordinator that comes back knows what it promised. It does not know who is
there: a row that was restored is silent until its source is heard.

One entry a row, replaced whenever that changes, so the file grows with the number of sources only:
about 200 bytes each, and 24 for each knot of the picture, of which there are tens, mostly. Pages
that are free are used again; SQLite's own log takes 4 MiB more, or as much as all requests in work
at once changed.
"""

import sqlite3
from asyncio import Future
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from coordinator_service.settings import Settings
from shared.picture import Picture
from shared.protocol import Source
from shared.rank_shift import Grant
from shared.rows import NO_CAUSES, Row
from shared.serving.storage import Storage, sealed, unsealed, usable
from shared.values import Floats

FILE = "coordinator.sqlite"
MARK = 0x726D636F  # tells a coordinator's file from any other
TABLES = """
CREATE TABLE rows (stream TEXT, number TEXT, data BLOB, seal INTEGER, PRIMARY KEY (stream, number))
"""


class Store:
    def __init__(self, path: Path, settings: Settings) -> None:
        self.storage = Storage(
            path, owner="coordinator", mark=MARK, tables=TABLES, fsync=settings.fsync
        )
        self._path = path

    def rows(self) -> Iterator[Row]:
        """As they were when they changed last."""
        with usable(self._path):
            found = self.storage.db.execute("SELECT data, seal FROM rows").fetchall()
            for data, seal in found:
                yield unpacked(unsealed(self._path, data, seal))

    def save(self, rows: Collection[Row]) -> Future[None]:
        """Write these down, each in place of what it was."""

        def work(db: sqlite3.Connection) -> None:
            entries = (
                (row.source.stream, f"{row.source.number:016x}", *sealed(packed(row)))
                for row in rows
            )
            db.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", entries)

        return self.storage.write(work)


def packed(row: Row) -> bytes:
    picture = (row.picture.x, row.picture.below, row.picture.upto)
    data: bytes = msgpack.packb([
        *row.source, row.home, row.upto, row.mark, *row.lives_by, *row.granted, row.shift,
        row.ledger, row.final, row.retired, row.causes, row.bytes_, row.raw, row.raw_before,
        *(numbers.astype("<f8", copy=False).tobytes() for numbers in picture),
    ])  # fmt: skip
    return data


def unpacked(data: bytes) -> Row:
    (
        worker, stream, number, home, upto, mark, allowance, patience, more_allowance,
        more_patience, shift, ledger, final, retired, causes, bytes_, raw, *before,
        knots, low, high,
    ) = msgpack.unpackb(data)  # fmt: skip
    return Row(
        source=Source(worker, stream, number),
        home=home,
        picture=Picture(*map(_floats, (knots, low, high))),
        upto=upto,
        mark=mark,
        lives_by=Grant(allowance, patience),
        granted=Grant(more_allowance, more_patience),
        shift=shift,
        ledger=ledger,
        final=final,
        retired=retired,
        causes=tuple(causes) if before else NO_CAUSES,  # version 1 had neither
        bytes_=bytes_,
        raw=raw,
        raw_before=before[0] if before else 0,
    )


def _floats(data: Any) -> Floats:
    return np.frombuffer(data, "<f8").astype(np.float64)


def open_store(settings: Settings) -> Store | None:
    """The store of this coordinator, locked; None if it is to keep nothing."""
    if not settings.data_dir:
        return None
    return Store(Path(settings.data_dir).absolute() / FILE, settings)
