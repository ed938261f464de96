"""A hundred storms, or more: `make sim N=1000` runs so many, `make sim SEED=7` repeats one."""

from collections import Counter

import pytest

from tests.storm import Storm

# Covered, they take twice as long; what of `shared/` they reach, its own tests reach without them.
pytestmark = pytest.mark.no_cover


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        first, storms = (metafunc.config.getoption(name) for name in ("--seed", "--storms"))
        metafunc.parametrize("seed", range(first, first + storms))


SEEN: Counter[str] = Counter()


def test_a_storm(seed: int) -> None:
    storm = Storm(seed)
    try:
        storm.run()
    except Exception as error:
        error.add_note(f"after {storm.time:.1f} s; repeat it with: make sim SEED={seed}")
        raise
    SEEN.update(storm.seen)


@pytest.mark.parametrize(
    "what",
    [
        "answers complete",
        "answers incomplete",
        "answers that stayed",
        "deltas same",
        "deltas more",
        "deltas whole",
        "messages lost",
        "messages stuck",
        "batches not taken",
        "goodbyes",
        "returns after a goodbye",
        "sources outdated",
        "sources taken over",
        "copies started",
        "directories moved",
        "claims refused: in_use",
        "claims refused: conflict",
        "pauses",
        *(f"workers restarted with memory {memory}" for memory in ("whole", "none", "old")),
        *(f"coordinators restarted with memory {memory}" for memory in ("whole", "none", "old")),
    ],
)
def test_it_happened_in_the_storms(what: str, pytestconfig: pytest.Config) -> None:
    """So that the storms above are storms."""
    if pytestconfig.getoption("--storms") < 50 or not SEEN:
        pytest.skip("too few storms to see everything")
    assert SEEN[what] > 0
