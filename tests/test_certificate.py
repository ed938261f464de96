"""The certificate is never wrong: any stream, sources that come and go, batches, delays."""

from typing import NamedTuple

import numpy as np
import pytest

from tests.sources import Sources
from tests.streams import STREAMS

EPSILONS = (0.1, 0.05, 0.01)
SOURCES = (1, 3, 8, 100)
DELAYS = (0, 1, 7)
BATCHES = {1: 300, 7: 1_400, 1_000: 60_000}  # size: values in all


class Case(NamedTuple):
    stream: str
    epsilon: float
    sources: int
    delay: int
    batch: int


GRID = [
    Case(stream, epsilon, sources, delay, batch)
    for stream in STREAMS
    for epsilon in EPSILONS
    for sources in SOURCES
    for delay in DELAYS
    for batch in BATCHES
]


def sample(seed: int) -> list[Case]:
    """One case a stream, and everything else as often as its alternatives."""
    rng = np.random.default_rng(seed)
    columns = [
        [one for _ in STREAMS for one in rng.permutation(np.array(axis))]
        for axis in (EPSILONS, SOURCES, DELAYS, list(BATCHES))
    ]
    return [
        Case(name, float(e), int(s), int(d), int(b))
        for name, (e, s, d, b) in zip(STREAMS, zip(*columns, strict=False), strict=False)
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        whole, seed = (metafunc.config.getoption(name) for name in ("--grid", "--seed"))
        cases = GRID if whole else sample(seed)
        metafunc.parametrize("case", cases, ids=lambda case: "-".join(map(str, case)))


def test_the_certificate_holds_after_every_batch(case: Case, rng: np.random.Generator) -> None:
    """Mostly to a few sources in turn, then to all, then to one for a while; some come late."""
    values = STREAMS[case.stream](BATCHES[case.batch], rng)
    sources = Sources(case.epsilon, rng, case.delay)
    parts = np.split(values, np.arange(case.batch, len(values), case.batch))
    here = max(1, case.sources // 2)
    for at, part in enumerate(parts):
        here = min(case.sources, here + (at % 5 == 0))
        sources.add(at % min(here, 8) if at % 40 < 20 else at % here if at % 40 < 30 else 0, part)
        sources.check()
        if at % 29 == 20 and len(sources.nodes) > 1:
            sources.leave(list(sources.nodes)[at % len(sources.nodes)])
            sources.check()
        if at % 29 == 28:
            sources.restart(list(sources.nodes)[at % len(sources.nodes)])
            sources.check()
