"""The scenarios as tests take them: a function of a length and a generator."""

from collections.abc import Callable
from functools import partial

import numpy as np

from loadgen import scenarios
from loadgen.scenarios import Places
from shared.values import Floats

Stream = Callable[[int, np.random.Generator], Floats]

WORKERS = 8


def _whole(scenario: scenarios.Scenario, n: int, rng: np.random.Generator) -> Floats:
    return scenario(Places(np.arange(n, dtype=np.float64), n, WORKERS), rng)


STREAMS: dict[str, Stream] = {
    name: partial(_whole, scenario) for name, scenario in scenarios.SCENARIOS.items()
}
