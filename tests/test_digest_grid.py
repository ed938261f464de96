"""The bound is never wrong: every named stream, rank error and batch size, after every batch."""

import numpy as np
import pytest

from shared.digest import Digest
from tests.exact import check_digest
from tests.streams import STREAMS

# Sampled at length, for what is computed: of the code it reaches nothing that other tests do not.
pytestmark = pytest.mark.no_cover

RANK_ERRORS = (0.05, 0.01, 0.001)
BATCHES = {1: 3_000, 7: 14_000, 1_000: 150_000, 20_000: 1_000_000}  # size: values in all

Case = tuple[str, float, int]
GRID: list[Case] = [
    (name, rank_error, batch) for name in STREAMS for rank_error in RANK_ERRORS for batch in BATCHES
]


def sample(seed: int) -> list[Case]:
    """One case a stream, each rank error and batch size as often as the others."""
    rng = np.random.default_rng(seed)
    pairs = [(rank_error, batch) for rank_error in RANK_ERRORS for batch in BATCHES]
    drawn = [pairs[one] for _ in range(len(STREAMS)) for one in rng.permutation(len(pairs))]
    return [(name, *pair) for name, pair in zip(STREAMS, drawn, strict=False)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        whole, seed = (metafunc.config.getoption(name) for name in ("--grid", "--seed"))
        cases = GRID if whole else sample(seed)
        metafunc.parametrize("case", cases, ids=lambda case: "-".join(map(str, case)))


def test_the_bound_holds_after_every_batch(case: Case, rng: np.random.Generator) -> None:
    name, rank_error, batch = case
    values = STREAMS[name](BATCHES[batch], rng)
    digest = Digest(rank_error)
    for end in range(batch, len(values) + 1, batch):
        digest.add(values[end - batch : end])
        check_digest(digest, values[:end])


@pytest.mark.parametrize("name", STREAMS)
def test_the_bound_holds_of_what_was_buffered(name: str, rng: np.random.Generator) -> None:
    values = STREAMS[name](100_000, rng)
    digest = Digest(0.002)
    cuts = np.sort(rng.integers(0, len(values), size=40))
    for piece in np.split(values, cuts):
        digest.add(piece)
    check_digest(digest, values)
