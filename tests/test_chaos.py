"""Real processes, killed again and again: a short run; and that a run sees what is lost.

`make chaos` plays longer ones. Those who are killed cannot tell what they covered, so nobody here
does.
"""

import asyncio
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.chaos import STRIKES, Broken, Chaos


@pytest.fixture(autouse=True)
def _uncovered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    given: int = request.config.getoption("--seed")
    return given


def test_killed_at_any_moment_they_count_each_acknowledged_value_once(
    seed: int, tmp_path: Path
) -> None:
    chaos = Chaos(seed, 12, tmp_path)
    asyncio.run(chaos.run(sys.stdout.write))
    assert sum(chaos.seen[what] for what in STRIKES)
    assert chaos.seen["batches"]
    assert chaos.seen["answers complete"]
    assert checkpoints(tmp_path), "some worker came back from more than its log"


def checkpoints(at: Path) -> int:
    """How many digests there are in the files that were left."""
    found = 0
    for file in at.glob("data/w*/worker.sqlite"):
        with closing(sqlite3.connect(file)) as db:
            found += db.execute("SELECT count(*) FROM digests").fetchone()[0]
    return found


def test_values_that_are_lost_are_seen(seed: int, tmp_path: Path) -> None:
    """In memory alone, none survives."""
    with pytest.raises(Broken):
        asyncio.run(Chaos(seed, 30, tmp_path, data_dir="").run(sys.stdout.write))
