"""What is read is what was written, bit for bit, however it is cut; and what is no value is named.

The oracle of a file is the list of floats that it was written from.
"""

import csv
import gzip
import io
import math
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from loadgen import inputs
from loadgen.inputs import LINE_MAX, BadInput, Input, Wanted, opened
from loadgen.scenarios import SCENARIOS, Floats, drawn

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
EDGES = [0.0, -0.0, 5e-324, -2.2e-308, 1e308, -1.7976931348623157e308, 0.1, 2.0**53, 1e23, 2.0**64]
WRITTEN = [
    ("1", 1.0),
    ("-0", -0.0),
    (" 2.5\t", 2.5),
    ("+3.", 3.0),
    (".5", 0.5),
    ("1E3", 1000.0),
    ("007", 7.0),
    ("9007199254740992", 2.0**53),
    ("-9007199254740994", -(2.0**53) - 2),
    ("9007199254740993.0", 2.0**53),  # a float, which its sender had rounded
    ("1e-999", 0.0),
    ("1" + "0" * 22, 1e22),
    ("0" * 5000 + "9007199254740994", 2.0**53 + 2),
]
NO_NUMBER = [
    "x",
    "1_000",
    "\uff11\uff12",
    "1\u00a0",
    "1,5",
    "1 2",
    "0x10",
    "true",
    "--1",
    "1e",
    "\x00",
    "�",
]
NOT_FINITE = ["nan", "-inf", "Infinity", "1e999", "-1e999", "1" + "0" * 400]
NOT_EXACT = ["9007199254740993", "-9007199254740993", "18446744073709551615"]
NOT_EXACT += ["0" * 5000 + "9007199254740993"]
TROUBLE = [
    *((cell, "is no number") for cell in NO_NUMBER),
    *((cell, "is not finite, or too large for a float64") for cell in NOT_FINITE),
    *((cell, "is a whole number that no float64 is") for cell in NOT_EXACT),
]
SIZES = [1, 2, 3, 7, 1000]


def read(given: Input, size: int = 3) -> list[float]:
    chunks = list(given.chunks(size))
    assert all(chunk.dtype == np.float64 and len(chunk) <= size for chunk in chunks)
    return [value for chunk in chunks for value in chunk.tolist()]


def values_of(path: Path, size: int = 3, **wanted: Any) -> list[float]:
    return read(opened(str(path), Wanted(**wanted)), size)


def why_not(path: Path, **wanted: Any) -> str:
    with pytest.raises(BadInput) as refused:
        values_of(path, **wanted)
    return str(refused.value)


def bits(values: ArrayLike) -> list[int]:
    """So that -0.0 is not 0.0."""
    floats: Floats = np.array(values, np.float64)
    return [int(one) for one in floats.view(np.uint64)]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def write(name: str, content: str | bytes) -> Path:
        data = content.encode() if isinstance(content, str) else content
        path = tmp_path / name
        path.write_bytes(gzip.compress(data, 1) if name.lower().endswith(".gz") else data)
        return path

    return write


Write = Callable[[str, str | bytes], Path]


# Text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FLOATS | st.sampled_from(EDGES), max_size=30), st.sampled_from(SIZES), st.data())
def test_what_repr_writes_is_read_bit_for_bit(
    write: Write, values: list[float], size: int, data: st.DataObject
) -> None:
    ending = data.draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n", " \n"]))
    start = data.draw(st.sampled_from(["", "\ufeff", "\n", " \r\n"]))
    text = start + ending.join(map(repr, values)) + data.draw(st.sampled_from(["", ending]))
    for name in ("some.txt", "some", "some.txt.gz", "SOME.GZ"):
        assert bits(values_of(write(name, text), size)) == bits(values)


@pytest.mark.parametrize(("cell", "value"), WRITTEN)
def test_a_number_may_be_written_in_many_ways(write: Write, cell: str, value: float) -> None:
    assert bits(values_of(write("some.txt", f"1\n{cell}\n"))) == bits([1.0, value])
    assert bits(values_of(write("some.csv", f"x\n{cell}\n"))) == bits([value])


@pytest.mark.parametrize(("cell", "trouble"), TROUBLE)
def test_what_is_no_value_is_named_with_its_line(write: Write, cell: str, trouble: str) -> None:
    path = write("some.txt", f"1\n\n2\n{cell}\n3\nx\n")
    name = repr(cell[:40].strip())
    assert (
        why_not(path)
        == f"{path}, line 4: {name} {trouble}. With --skip-bad what is none is left out."
    )
    path = write("some.csv", f'a,b\n1,"p\nq"\n"{cell}",2\n')
    assert f"{path}, line 4: " in why_not(path, column="a")


@pytest.mark.parametrize("size", SIZES)
def test_what_is_no_value_is_left_out_and_counted_where_that_is_wished(
    write: Write, size: int
) -> None:
    cells = [cell for cell, _ in (*TROUBLE, *WRITTEN) if "," not in cell]
    for name, head in (("some.txt", ""), ("some.csv", "x\n"), ("some.tsv.gz", "x\n")):
        given = opened(str(write(name, head + "\n".join(cells))), Wanted(skips=True))
        assert bits(read(given, size)) == bits([value for _, value in WRITTEN])
        assert given.sieve.left_out == len(cells) - len(WRITTEN)


@given(st.integers(-(10**25), 10**25) | st.integers(-(2**60), 2**60))
def test_a_whole_number_is_a_value_exactly_if_a_float64_has_it(number: int) -> None:
    sieve = inputs.Sieve("some", Wanted(skips=True))
    kept = sieve.values([(1, str(number))]).tolist()
    assert kept == ([float(number)] if Decimal(float(number)) == number else [])


@pytest.mark.parametrize("name", ["some.txt", "some.txt.gz", "some.csv", "some.tsv.gz"])
def test_of_an_empty_file_nothing_is_read(write: Write, name: str) -> None:
    for content in ("", "\n", "\ufeff", "\r\n\n"):
        assert values_of(write(name, content)) == []


def test_bytes_that_are_no_utf_8_are_no_number_and_spoil_no_other(write: Write) -> None:
    given = opened(str(write("some.txt", b"1\n\xe9\xff\n2\n")), Wanted(skips=True))
    assert read(given) == [1.0, 2.0]
    assert given.sieve.left_out == 1
    assert values_of(write("some.csv", b"caf\xe9,x\n1,2\n"), column="x") == [2.0]


def test_a_line_may_be_as_long_as_a_cell_and_no_longer(write: Write) -> None:
    for name in ("some.txt", "some.csv"):
        assert values_of(write(name, "0" * (LINE_MAX - 1) + "7")) == [7.0]
        path = write(name, "1\n" + "0" * LINE_MAX + "7")
        assert why_not(path) == f"{path} has a line of more than 131,072 characters."


@pytest.mark.parametrize("name", ["some.txt", "some.csv", "some.txt.gz"])
@pytest.mark.parametrize("size", SIZES)
def test_at_most_as_many_are_read_as_were_wanted(write: Write, name: str, size: int) -> None:
    path = write(name, "1\n2\n3\n4\n5\n6\nx\n")
    for values in (1, 2, 3, 6):
        assert values_of(path, size, values=values) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0][:values]
    assert values_of(path, size, values=8, skips=True) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


# Tables

TABLE = "name,price,size\na,1.5,10\nb,-2,20\n"


@pytest.mark.parametrize(
    ("column", "expected"),
    [("price", [1.5, -2.0]), ("2", [1.5, -2.0]), ("size", [10.0, 20.0]), ("3", [10.0, 20.0])],
)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.tsv.gz", "A.CSV", "a.b.csv"])
def test_a_column_is_chosen_by_its_name_or_its_number(
    write: Write, name: str, column: str, expected: list[float]
) -> None:
    table = TABLE.replace(",", "\t") if "tsv" in name else TABLE
    for text in (table, table.replace("\n", "\r\n"), "\ufeff" + table, "\n\n" + table, table[:-1]):
        assert values_of(write(name, text), column=column) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.text(), FLOATS, st.text()), min_size=1, max_size=10),
    st.sampled_from([",", "\t"]),
    st.booleans(),
    st.sampled_from(SIZES),
)
def test_what_the_csv_module_writes_is_read_whatever_stands_beside(
    write: Write, rows: list[tuple[str, float, str]], delimiter: str, quoted: bool, size: int
) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL if quoted else 0)
    writer.writerow(["before", "value", "after"])
    writer.writerows(rows)
    data = file.getvalue().encode("utf-8", "replace")
    path = write("some.csv" if delimiter == "," else "some.tsv", data)
    assert bits(values_of(path, size, column="value")) == bits([value for _, value, _ in rows])


def test_a_table_of_one_column_needs_no_choice(write: Write) -> None:
    assert values_of(write("some.csv", "price\n1\n2\n")) == [1.0, 2.0]
    assert values_of(write("some.csv", "1\n2\n")) == [1.0, 2.0]
    assert values_of(write("some.csv", "\n\nprice\n1\n\n2\n")) == [1.0, 2.0]
    assert values_of(write("some.csv", '"1"\n"2"')) == [1.0, 2.0]
    assert values_of(write("some.csv", "a, b \n1, 2\n"), column="b") == [2.0]


def test_a_table_of_several_asks_which(write: Write) -> None:
    path = write("some.csv", TABLE)
    start = f"{path} has 3 columns (name, price, size): "
    assert why_not(path) == start + "which of them is --column?"
    assert why_not(path, column="weight") == start + "--column 'weight' means 0 of them."
    assert why_not(path, column="4") == start + "--column '4' means 0 of them."
    assert why_not(path, column="0") == start + "--column '0' means 0 of them."
    path = write("some.csv", ",x,x\n0,1,2\n")
    assert why_not(path) == f"{path} has 3 columns (, x, x): which of them is --column?"
    assert (
        why_not(path, column="x") == f"{path} has 3 columns (, x, x): --column 'x' means 2 of them."
    )
    assert values_of(path, column="3") == [2.0]


def test_the_number_of_a_column_is_not_looked_for_among_the_values(write: Write) -> None:
    path = write("some.csv", "2,1\n4,3\n")
    assert values_of(path, column="1") == [2.0, 4.0]
    assert values_of(path, column="2") == [1.0, 3.0]
    assert values_of(write("some.csv", "2020,2021\n4,3\n"), column="2021") == [3.0]


def test_a_first_row_without_a_number_there_is_the_header_and_no_other_row_is(
    write: Write,
) -> None:
    assert values_of(write("some.csv", "a,1\nb,2\n"), column="2") == [1.0, 2.0]
    assert values_of(write("some.csv", "a,b\n1,2\n"), column="2") == [2.0]
    assert values_of(write("some.csv", "a,b\n"), column="b") == []
    assert "line 2: 'b' is no number" in why_not(write("some.csv", "a\nb\n1\n"))
    assert "line 1: 'NaN' is not finite" in why_not(write("some.csv", "NaN\n1\n"))


def test_what_a_row_lacks_is_an_empty_cell(write: Write) -> None:
    path = write("some.csv", "a,b\n1,2\n3\n5,\n7,8,9\n")
    assert values_of(path, column="a") == [1.0, 3.0, 5.0, 7.0]
    assert "line 3: '' is no number" in why_not(path, column="b")
    assert values_of(path, column="b", skips=True) == [2.0, 8.0]


def test_a_quote_that_never_ends_is_an_error_and_holds_no_memory(write: Write) -> None:
    path = write("some.csv", 'x\n1\n"2\n' + "3\n" * LINE_MAX)
    assert "cannot be read to its end: field larger than field limit" in why_not(path)
    assert "line 4: '2\\n3' is no number" in why_not(write("some.csv", 'x\n1\n"2\n3\n'))


def test_only_tables_have_columns(write: Write) -> None:
    path = write("some.txt", "1\n")
    no_columns = "has no columns: only .csv, .tsv and these as .gz have."
    assert why_not(path, column="1") == f"{path} {no_columns}"
    with pytest.raises(BadInput, match="standard input has no columns"):
        opened("-", Wanted(column="x"))


# Compressed


def test_a_file_cut_short_gives_what_is_there_and_then_says_so(
    write: Write, rng: np.random.Generator
) -> None:
    values = rng.normal(size=100_000)
    path = write("some.txt.gz", "\n".join(map(repr, values.tolist())))
    path.write_bytes(path.read_bytes()[:-1000])
    given, got = opened(str(path), Wanted()), list[float]()
    with pytest.raises(BadInput, match="cannot be read to its end: Compressed file ended before"):
        got.extend(value for chunk in given.chunks(10) for value in chunk.tolist())
    assert len(got) > 90_000
    assert got == values[: len(got)].tolist()


def test_a_damaged_file_is_an_error_in_a_sentence(write: Write, rng: np.random.Generator) -> None:
    path = write("some.txt.gz", "\n".join(map(repr, rng.normal(size=1000).tolist())))
    whole = path.read_bytes()
    for at in rng.integers(0, len(whole), size=100).tolist():
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            assert len(values_of(path, skips=True)) == 1000, "it was in the header"
        except BadInput as error:
            assert "cannot be read to its end" in str(error)  # noqa: PT017  either is right
    path.write_bytes(b"1\n2\n")
    assert "Not a gzipped file" in why_not(path)


# Arrays

KINDS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]


WIDER = pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="no wider floats")


def saved(path: Path, array: NDArray[np.generic]) -> Path:
    with path.open("wb") as file:
        np.save(file, array)
    return path


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_an_array_of_any_kind_of_numbers_is_read_as_it_is(
    tmp_path: Path, order: str, kind: str, size: int
) -> None:
    dtype = np.dtype(order + kind)
    if dtype.kind == "f":
        floats = np.finfo(dtype)
        edges = [floats.min, floats.max, -0.0, 0.1, floats.smallest_subnormal]
    else:
        whole = np.iinfo(dtype)
        edges = [whole.min, whole.max] if dtype.itemsize < 8 else [2**53, 2**62]
    array = np.array([0, 1, 7, *edges, 100], dtype)
    path = saved(tmp_path / "some.npy", array)
    assert bits(values_of(path, size)) == bits([float(one) for one in array])
    for values in (None, len(array) + 1):
        assert opened(str(path), Wanted(values=values)).count == len(array)
    assert opened(str(path), Wanted(values=2)).count == 2
    assert values_of(path, size, values=2) == [0.0, 1.0]
    assert values_of(saved(tmp_path / "SOME.NPY", array[:0]), size) == []


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("size", SIZES)
def test_beside_what_is_none_the_values_of_an_array_stay_what_they_are(
    tmp_path: Path, kind: str, size: int
) -> None:
    array = np.array([0.1, np.nan, 1 / 3, np.inf, -np.inf, -0.0], kind)
    path = saved(tmp_path / "some.npy", array)
    given = opened(str(path), Wanted(skips=True))
    assert bits(read(given, size)) == bits(array[[0, 2, 5]].astype(np.float64))
    assert given.sieve.left_out == 3
    what = f"{path}, position 4: '-inf' is not finite, or too large for a float64."
    array[[1, 3]] = 0
    saved(path, array)
    assert why_not(path) == f"{what} With --skip-bad what is none is left out."


def test_a_signalling_nan_is_none_without_a_warning(tmp_path: Path) -> None:
    array = np.array([0x3F800000, 0x7FA00000], "u4").view("f4")
    assert values_of(saved(tmp_path / "some.npy", array), skips=True) == [1.0]


@pytest.mark.parametrize("kind", ["i8", "u8", ">i8", ">u8"])
@pytest.mark.parametrize("size", SIZES)
def test_a_whole_number_of_an_array_is_a_value_exactly_if_a_float64_has_it(
    tmp_path: Path, kind: str, size: int, rng: np.random.Generator
) -> None:
    most = int(np.iinfo(kind).max)
    numbers = [most, most - 1023, most - 1024, 2**53, 2**53 + 1, 2**53 + 2, 2**62, 2**62 + 1, 3]
    numbers += rng.integers(2**53, 2**55, size=20).tolist()
    path = saved(tmp_path / "some.npy", np.array(numbers, kind))
    exact = [float(number) for number in numbers if int(float(number)) == number]
    assert values_of(path, size, skips=True) == exact
    assert f"position 0: '{most}' is a whole number that no float64 is" in why_not(path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2)),
        np.array(3.0),
        np.array([True]),
        np.array(["1"]),
        np.array([1j]),
        np.zeros(2, "i4,f4"),
        np.array(["2020-01-01"], "M8[D]"),
        np.array([5], "m8[s]"),
        np.array([5], "c8"),
        pytest.param(np.zeros(2, np.longdouble), marks=WIDER, id="longdouble"),
    ],
    ids=str,
)
def test_an_array_of_anything_else_is_refused(tmp_path: Path, array: NDArray[np.generic]) -> None:
    with pytest.raises(BadInput, match="must hold numbers of at most 64 bits in one dimension"):
        opened(str(saved(tmp_path / "some.npy", array)), Wanted())


def test_what_would_have_to_be_unpickled_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "some.npy", np.array([1.0, None], object))
    assert "is no array of numbers" in why_not(path)


def test_what_is_no_array_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    path = saved(tmp_path / "some.npy", np.arange(10.0))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert "is no array of numbers" in why_not(path)
    np.savez(tmp_path / "several", np.arange(10.0))
    assert "is no array of numbers" in why_not((tmp_path / "several.npz").rename(path))


@pytest.mark.parametrize("shape", [f"({10**30},)", f"({2**61},)", "(-1,)", "(True,)", "(5", "x"])
def test_a_damaged_header_is_an_error_in_a_sentence(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    path = tmp_path / "some.npy"
    path.write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + bytes(80))
    assert "is no array of numbers" in why_not(path)


def test_an_array_is_not_unzipped(write: Write) -> None:
    assert "must be unzipped first" in why_not(write("some.npy.gz", b""))


# Larger than the memory

MANY = 300_000


@pytest.mark.parametrize("name", ["some.txt", "some.csv", "some.txt.gz", "some.npy"])
def test_what_is_larger_than_the_memory_streams_through(tmp_path: Path, name: str) -> None:
    path, values = tmp_path / name, np.arange(MANY) + 0.123456789
    text = "\n".join(map(repr, values.tolist())).encode()
    if name.endswith(".npy"):
        saved(path, values)
    else:
        path.write_bytes(gzip.compress(text, 1) if name.endswith(".gz") else text)
    del text
    tracemalloc.start()
    given, total, shares = opened(str(path), Wanted()), 0.0, list[float | None]()
    for chunk in given.chunks(1000):
        total += float(chunk.sum())
        shares.append(given.share_read())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000 < values.nbytes
    assert math.isclose(total, math.fsum(values))
    if not name.endswith(".npy"):
        known = [share for share in [*shares, given.share_read()] if share is not None]
        assert known == sorted(known)
        assert known[0] < 0.1
        assert 0.9 < known[-2] <= known[-1] == 1.0


def test_bytes_that_unzip_to_one_endless_line_hold_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "some.txt.gz"
    path.write_bytes(gzip.compress(b"0" * 50_000_000, 1))
    tracemalloc.start()
    assert "has a line of more than" in why_not(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


# As they come


@contextmanager
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Callable[..., Input]]]:
    """The end to write to, and what opens standard input, which is the other."""
    out, into = os.pipe()
    monkeypatch.setattr(inputs, "STANDARD_INPUT", out)
    try:
        yield into, lambda **wanted: opened("-", Wanted(**wanted))
    finally:
        os.close(out)


def test_what_was_written_before_a_pause_is_there_in_the_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pipe(monkeypatch) as (into, standard_input):
        chunks = standard_input().chunks(3)
        os.write(into, b"\xef\xbb\xbf1\n2\r\n")
        assert next(chunks).tolist() == [1.0, 2.0]
        os.write(into, b"3\n4")
        assert next(chunks).tolist() == [3.0]
        os.write(into, b"5\n\n6\n7\n8\n9\n")
        assert next(chunks).tolist() == [45.0, 6.0, 7.0]
        assert next(chunks).tolist() == [8.0, 9.0]
        os.write(into, b"10")
        os.close(into)
        assert next(chunks).tolist() == [10.0]
        assert next(chunks, None) is None


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("piece", [1, 5, 100_000])
def test_however_it_is_written_and_cut_the_same_comes_of_it(
    monkeypatch: pytest.MonkeyPatch, size: int, piece: int, rng: np.random.Generator
) -> None:
    values = rng.normal(size=500)
    text = "\n".join(map(repr, values.tolist())).encode()
    with pipe(monkeypatch) as (into, standard_input):

        def writes() -> None:
            for at in range(0, len(text), piece):
                os.write(into, text[at : at + piece])
            os.close(into)

        writer = threading.Thread(target=writes)
        writer.start()
        assert read(standard_input(), size) == values.tolist()
        writer.join()


def test_who_wants_so_many_waits_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe(monkeypatch) as (into, standard_input):
        os.write(into, b"1\n2\n3\n4\n5\n")
        assert read(standard_input(values=4)) == [1.0, 2.0, 3.0, 4.0]
        os.write(into, b"1\n2\n3\n4\n5\n")
        assert read(standard_input(values=5), 5) == [1.0, 2.0, 3.0, 4.0, 5.0]
        os.close(into)


def test_who_writes_faster_than_is_read_fills_no_memory(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    with write("some", "1.5\n" * MANY).open("rb") as file:
        monkeypatch.setattr(inputs, "STANDARD_INPUT", file.fileno())
        tracemalloc.start()
        chunks = opened("-", Wanted()).chunks(1000)
        assert sum(len(chunk) for chunk in chunks) == MANY
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 10_000_000


def test_a_line_of_standard_input_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe(monkeypatch) as (into, standard_input):
        os.write(into, b"1\n\n2\n")
        chunks = standard_input().chunks(2)
        assert next(chunks).tolist() == [1.0, 2.0]
        os.write(into, b"3\nx\n")
        with pytest.raises(BadInput, match="standard input, line 5: 'x' is no number"):
            list(chunks)
        given = standard_input(skips=True)
        os.write(into, b"y\n4\n\xff\n")
        os.close(into)
        assert read(given) == [4.0]
        assert given.sieve.left_out == 2


def test_a_line_without_end_holds_no_memory() -> None:
    with pytest.raises(BadInput, match="/dev/zero has a line of more than 131,072 characters"):
        values_of(Path("/dev/zero"))


def test_a_closed_standard_input_is_an_error_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pipe(monkeypatch) as (into, _):
        os.close(into)
    with pytest.raises(BadInput, match="standard input cannot be read: Bad file descriptor"):
        read(opened("-", Wanted()))


def test_a_named_pipe_is_read_as_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "some"
    os.mkfifo(path)
    chunks = opened(str(path), Wanted()).chunks(3)
    keeps_open = os.open(path, os.O_RDWR)
    os.write(keeps_open, b"1\n2\n")
    assert next(chunks).tolist() == [1.0, 2.0]
    os.write(keeps_open, b"3")
    os.close(keeps_open)
    assert [chunk.tolist() for chunk in chunks] == [[3.0]]
    assert values_of(Path("/dev/null")) == []


# Names


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_stream_with_a_name_is_what_it_draws(name: str) -> None:
    given = opened(name, Wanted(values=100, seed=7, workers=3))
    expected = list(drawn(name, 100, workers=3, seed=7, size=9))
    assert [chunk.tolist() for chunk in given.chunks(9)] == [one.tolist() for one in expected]
    assert (given.count, given.share_read()) == (100, None)
    assert opened(name, Wanted()).count == inputs.VALUES


def test_a_name_of_a_stream_and_of_a_file_is_the_stream(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("one_value", "7\n")
    monkeypatch.chdir(tmp_path)
    assert read(opened("one_value", Wanted(values=2))) == [0.1, 0.1]
    assert read(opened("./one_value", Wanted(values=2))) == [7.0]


@pytest.mark.parametrize("name", ["nowhere", "", "nowhere/at/all.csv", ".", "/", "a\0b"])
def test_what_is_neither_file_nor_stream_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(BadInput) as refused:
        opened(name, Wanted())
    assert str(refused.value).startswith(f"{name!r} is no file, and no scenario")
    assert ", ".join(sorted(SCENARIOS)) in str(refused.value)


@pytest.mark.parametrize("name", ["some.txt", "some.npy", "some.csv.gz"])
def test_a_file_that_may_not_be_read_is_refused_in_a_sentence(
    write: Write, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(name, "1\n")

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(io, "open", forbidden)
    monkeypatch.setattr("builtins.open", forbidden)
    assert why_not(path) == f"{path} cannot be read: Permission denied."
    assert "cannot be read: File name too long" in why_not(Path("a" * 5000))
