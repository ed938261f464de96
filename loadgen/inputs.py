"""What is replayed: a scenario, or numbers from a file or from standard input.

Everything comes in chunks, so that what is larger than the memory streams through:

    NAME                      a scenario of `loadgen/scenarios.py`
    FILE.npy                  one row of numbers, mapped, never loaded
    FILE.csv, FILE.tsv        a column, by its number from 1 or else by its name; a first row that
                              is no number there is the header
    any other file            one number a line
    FILE.gz                   as without .gz, but no array
    -, or a named pipe        one number a line as they come; - is standard input

What is no value is a `BadInput` that names its line; or it is left out, and counted. Values are
finite float64, and whole numbers only if a float64 has them. A line with nothing on it is no line.
"""

import csv
import gzip
import io
import math
import os
import select
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeAlias, cast

import numpy as np

from loadgen.scenarios import SCENARIOS, Floats, drawn

EXACT_MAX = 2.0**53  # float64 has every whole number up to here
LINE_MAX = 2**17  # characters; and of a cell, as the csv module has it
READ_BYTES = 2**16
STANDARD_INPUT = 0
VALUES = 1_000_000  # of a scenario, unless said

NO_NUMBER = "is no number"
DELIMITERS = {".csv": ",", ".tsv": "\t"}

Cell: TypeAlias = tuple[int, str]
"""With the number of its line; of an array, with its position."""


class BadInput(ValueError):
    """Why this cannot be replayed, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which part of an input, and how it is taken."""

    values: int | None = None
    """At most so many."""
    column: str | None = None
    skips: bool = False
    """Whether what is no value is left out."""
    seed: int = 1
    workers: int = 1


class Sieve:
    """What is written becomes values; what is none is an error, or left out and counted."""

    def __init__(self, name: str, wanted: Wanted, where: str = "line") -> None:
        self._name, self._where, self._skips = name, where, wanted.skips
        self.left_out = 0

    def values(self, cells: list[Cell]) -> Floats:
        text = "".join(cell for _, cell in cells)
        if text.isascii() and "_" not in text:
            with suppress(ValueError):
                values = np.array([float(cell) for _, cell in cells])
                if (np.abs(values) < EXACT_MAX).all():
                    return values
        return np.array([float(cell) for number, cell in cells if self.passes(number, cell)])

    def passes(self, number: int, cell: str) -> bool:
        trouble = _trouble(cell)
        if trouble and not self._skips:
            what = f"{self._name}, {self._where} {number}: {cell.strip()[:40]!r} {trouble}"
            raise BadInput(f"{what}. With --skip-bad what is none is left out.")
        self.left_out += trouble is not None
        return trouble is None


def _trouble(cell: str) -> str | None:
    """Why what is written is no value; None if it is one."""
    try:
        value = float(cell)
    except ValueError:
        return NO_NUMBER
    if "_" in cell or not cell.isascii():  # a number to Python, to few others
        return NO_NUMBER
    if not math.isfinite(value):
        return "is not finite, or too large for a float64"
    digits = cell.strip().lstrip("+-")
    if abs(value) >= EXACT_MAX and digits.isdigit() and Decimal(digits) != abs(value):
        return "is a whole number that no float64 is"
    return None


@dataclass(frozen=True, kw_only=True)
class Input:
    name: str
    chunks: Callable[[int], Iterator[Floats]]
    """Given how many values a chunk may hold."""
    sieve: Sieve
    count: int | None = None
    """How many values there are, where that is known beforehand."""
    share_read: Callable[[], float | None] = lambda: None


def opened(name: str, wanted: Wanted) -> Input:
    if name in SCENARIOS:
        return _scenario(name, wanted)
    if name == "-":
        return _pipe("standard input", partial(os.dup, STANDARD_INPUT), wanted)
    path = Path(name)
    try:
        if path.is_fifo() or path.is_char_device():
            return _pipe(name, partial(os.open, path, os.O_RDONLY), wanted)
        if path.is_file():
            return _array(path, wanted) if path.suffix.lower() == ".npy" else _text(path, wanted)
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror or error}.") from None
    known = ", ".join(sorted(SCENARIOS))
    raise BadInput(f"{name!r} is no file, and no scenario: these are {known}.")


def _scenario(name: str, wanted: Wanted) -> Input:
    count = VALUES if wanted.values is None else wanted.values

    def chunks(size: int) -> Iterator[Floats]:
        return drawn(name, count, workers=wanted.workers, seed=wanted.seed, size=size)

    return Input(name=name, chunks=chunks, count=count, sieve=Sieve(name, wanted))


def _array(path: Path, wanted: Wanted) -> Input:
    try:
        with np.errstate(over="ignore"):  # of a length that no file has
            array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # whatever numpy makes of a damaged header
        raise BadInput(f"{path} is no array of numbers: {str(error).rstrip('.')}.") from None
    if array.ndim != 1 or array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        what = f"{array.dtype} in {array.ndim} dimensions"
        raise BadInput(f"{path} must hold numbers of at most 64 bits in one dimension, not {what}.")
    count = len(array) if wanted.values is None else min(len(array), wanted.values)
    sieve = Sieve(str(path), wanted, "position")

    def chunks(size: int) -> Iterator[Floats]:
        for start in range(0, count, size):
            given = array[start : min(start + size, count)]
            with np.errstate(invalid="ignore"):  # of a signalling NaN
                values = given.astype(np.float64)
            good = np.isfinite(values) if array.dtype.kind == "f" else np.abs(values) < EXACT_MAX
            unsure = np.flatnonzero(~good).tolist()
            good[unsure] = [sieve.passes(start + at, str(given[at])) for at in unsure]
            yield values[good]

    return Input(name=str(path), chunks=chunks, count=count, sieve=sieve)


def _text(path: Path, wanted: Wanted) -> Input:
    name = path.name.lower()
    kind = Path(name.removesuffix(".gz")).suffix
    if kind == ".npy":
        raise BadInput(f"{path} must be unzipped first: an array is mapped, not read.")
    if kind not in DELIMITERS:
        _refuse_column(str(path), wanted)
    file = path.open("rb")
    bytes_ = os.fstat(file.fileno()).st_size
    unzipped = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if name.endswith(".gz") else file
    text = io.TextIOWrapper(unzipped, "utf-8-sig", "replace", newline="")
    lines = _lines(text, str(path))
    if kind in DELIMITERS:
        cells = _column(csv.reader(lines, delimiter=DELIMITERS[kind]), wanted.column, str(path))
    else:
        cells = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    sieve = Sieve(str(path), wanted)

    def chunks(size: int) -> Iterator[Floats]:
        some = islice(cells, wanted.values)
        try:
            with file, text:
                while chunk := list(islice(some, size)):
                    yield sieve.values(chunk)
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            raise BadInput(f"{path} cannot be read to its end: {error}.") from None

    def share_read() -> float:
        return 1.0 if file.closed else min(1.0, file.tell() / max(1, bytes_))

    return Input(name=str(path), chunks=chunks, sieve=sieve, share_read=share_read)


def _refuse_column(name: str, wanted: Wanted) -> None:
    if wanted.column is not None:
        raise BadInput(f"{name} has no columns: only .csv, .tsv and these as .gz have.")


def _lines(file: TextIO, name: str) -> Iterator[str]:
    while line := file.readline(LINE_MAX + 1):
        if len(line) > LINE_MAX:
            raise BadInput(f"{name} has a line of more than {LINE_MAX:,} characters.")
        yield line


def _column(rows: Any, column: str | None, name: str) -> Iterator[Cell]:
    """The cells of one column, below the header if there is one."""
    numbered = ((rows.line_num, row) for row in rows if row)
    line, first = next(numbered, (0, list[str]()))
    at, is_header = _chosen([cell.strip() for cell in first], column, name)
    if first and not is_header:
        yield line, first[at]
    for line, row in numbered:
        yield line, row[at] if at < len(row) else ""


def _chosen(first: list[str], column: str | None, name: str) -> tuple[int, bool]:
    """Which column is meant, and whether the first row is a header."""
    if column is None:
        at, so = int(len(first) <= 1), "which of them is --column?"
    else:
        at = int(column) if column.isdecimal() else 0
        so = f"--column {column!r} means {first.count(column)} of them."
    if 1 <= at <= max(1, len(first)):
        return at - 1, bool(first) and _trouble(first[at - 1]) == NO_NUMBER
    if column is not None and first.count(column) == 1:
        return first.index(column), True
    raise BadInput(f"{name} has {len(first)} columns ({', '.join(first)[:200]}): {so}")


def _pipe(name: str, open_: Callable[[], int], wanted: Wanted) -> Input:
    """Opened when it is read: that may wait until somebody writes."""
    _refuse_column(name, wanted)
    sieve = Sieve(name, wanted)

    def chunks(size: int) -> Iterator[Floats]:
        left, number = sys.maxsize if wanted.values is None else wanted.values, 1
        try:
            with os.fdopen(open_(), "rb", buffering=0) as file:
                for lines in _as_they_come(file.fileno(), size, name):
                    cells = [(number + at, line) for at, line in enumerate(lines) if line.strip()]
                    number += len(lines)
                    for start in range(0, min(len(cells), left), size):
                        yield sieve.values(cells[start : min(start + size, left)])
                    left -= len(cells)
                    if left <= 0:
                        return
        except OSError as error:
            raise BadInput(f"{name} cannot be read: {error.strerror or error}.") from None

    return Input(name=name, chunks=chunks, sieve=sieve)


def _as_they_come(file: int, enough: int, name: str) -> Iterator[list[str]]:
    """Lines as soon as there are any; more of them at once where more are there."""
    lines, rest = list[bytes](), b""
    while data := os.read(file, READ_BYTES):
        *whole, rest = (rest + data).split(b"\n")
        lines += whole
        if len(rest) > LINE_MAX:
            raise BadInput(f"{name} has a line of more than {LINE_MAX:,} characters.")
        if lines and (len(lines) >= enough or not select.select([file], [], [], 0)[0]):
            yield [line.decode("utf-8-sig", "replace") for line in lines]
            lines = []
    yield [line.decode("utf-8-sig", "replace") for line in [*lines, rest]]
