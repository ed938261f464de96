"""Two workers with one name: said once, and never of a restart."""

import logging
from collections.abc import Iterable
from dataclasses import replace

import pytest

from coordinator_service.answers import Answers
from coordinator_service.noticed import Noticed
from shared.ledger import Ledger
from shared.protocol import Source
from shared.rows import NO_CAUSES, Row


@pytest.fixture
def noticed() -> Noticed:
    return Noticed(Answers(Ledger(0.01, number=1, now=0), clock=lambda: 0.0, wall=lambda: 0.0))


def said(deltas: int) -> tuple[int, ...]:
    """So many, for one cause."""
    return deltas, *NO_CAUSES[1:]


def spoken(*rows: Row) -> list[Row]:
    return [replace(row, causes=said(row.deltas + 1)) for row in rows]


FIRST, SECOND = (Row(source=Source("w", "default", number), causes=said(1)) for number in (1, 2))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]


def test_two_that_speak_by_turns_under_one_name_are_told_of_once(
    noticed: Noticed, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [FIRST, SECOND]
    for _ in range(5):
        noticed.names(rows)
        rows = spoken(*rows)
    assert warnings(caplog) == ["two workers bear one name; give each its own"]


def test_a_restart_is_not_two_workers(noticed: Noticed, caplog: pytest.LogCaptureFixture) -> None:
    """Both spoke between two looks; but of two sources that follow each other, only once."""
    old, new = FIRST, SECOND
    noticed.names([old])
    (old,) = spoken(old)
    noticed.names([old])
    (old,) = spoken(old)
    for _ in range(4):
        (new,) = spoken(new)
        noticed.names([old, new])
    assert warnings(caplog) == []


def test_streams_of_one_worker_are_no_two_workers(
    noticed: Noticed, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [FIRST, Row(source=Source("w", "other", 3), causes=said(1))]
    for _ in range(4):
        noticed.names(rows)
        rows = spoken(*rows)
    assert warnings(caplog) == []


def pairs(names: Iterable[str]) -> list[Row]:
    return [
        Row(source=Source(name, "default", 2 * at + one), causes=said(1))
        for at, name in enumerate(names)
        for one in range(2)
    ]


def test_of_many_names_that_two_bear_one_is_told_a_look_and_each_once(
    noticed: Noticed, caplog: pytest.LogCaptureFixture
) -> None:
    rows, told = pairs("abc"), list[int]()
    for _ in range(8):
        noticed.names(rows)
        told.append(len(warnings(caplog)))
        rows = spoken(*rows)
    assert told == [0, 0, 1, 2, 3, 3, 3, 3]
    workers = [one.__dict__["facts"]["worker"] for one in caplog.records]
    assert sorted(workers) == ["a", "b", "c"]


def test_a_name_that_nobody_bears_any_more_is_forgotten(
    noticed: Noticed, caplog: pytest.LogCaptureFixture
) -> None:
    """Else who renames his sources all the time would have the coordinator remember each name."""
    rows = [FIRST, SECOND]
    for name in "abaca":
        for _ in range(3):
            rows = [replace(row, source=row.source._replace(worker=name)) for row in spoken(*rows)]
            noticed.names(rows)
    told = [one.__dict__["facts"]["worker"] for one in caplog.records]
    assert told == list("abaca")
