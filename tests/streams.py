"""The named streams as tests take them: a function of a length and a generator."""

from collections.abc import Callable
from functools import partial

import numpy as np

from loadgen import streams
from loadgen.streams import Places
from shared.values import Floats

Stream = Callable[[int, np.random.Generator], Floats]

WORKERS = 8


def _whole(stream: streams.Stream, n: int, rng: np.random.Generator) -> Floats:
    return stream(Places(np.arange(n, dtype=np.float64), n, WORKERS), rng)


STREAMS: dict[str, Stream] = {
    name: partial(_whole, stream) for name, stream in streams.STREAMS.items()
}
