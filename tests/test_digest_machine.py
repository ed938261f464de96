"""Whatever Hypothesis can think of: values, batches, merges and round trips in any order."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.digest import Digest
from shared.values import BadValue
from tests.exact import check_digest

FINITE = st.floats(allow_nan=False, allow_infinity=False)
FEW = st.sampled_from([-1e308, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1.0, np.nextafter(1.0, 2), 1e308])
WHOLE = st.integers(-50, 50).map(float)
VALUES = st.one_of(FINITE, FEW, WHOLE)
BATCHES = st.one_of(
    st.lists(VALUES, max_size=40),
    st.lists(FEW, max_size=80),
    st.tuples(FINITE, st.integers(1, 60)).map(lambda pair: [pair[0]] * pair[1]),
    st.tuples(WHOLE, st.integers(1, 80)).map(lambda pair: [pair[0] + i for i in range(pair[1])]),
)
NO_VALUES = st.sampled_from([math.nan, math.inf, True, None, "1", 2**53 + 1])


class Digesting(RuleBasedStateMachine):
    """Rank errors so coarse that a handful of values already has to be joined."""

    @initialize(rank_error=st.sampled_from([0.4, 0.3, 0.2, 0.1, 0.05, 0.02]))
    def start(self, rank_error: float) -> None:
        self.rank_error = rank_error
        self.digest = Digest(rank_error)
        self.given: list[float] = []

    @rule(value=VALUES)
    def add_one(self, value: float) -> None:
        self.digest.add(value)
        self.given.append(value)

    @rule(batch=BATCHES)
    def add_a_batch(self, batch: list[float]) -> None:
        self.digest.add(batch)
        self.given += batch

    @rule(batch=BATCHES, bad=NO_VALUES, data=st.data())
    def add_what_is_refused(self, batch: list[float], bad: float, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(batch)))
        with pytest.raises(BadValue) as refused:
            self.digest.add([*batch[:position], bad, *batch[position:]])
        assert refused.value.position == position

    @rule(batches=st.lists(BATCHES, max_size=4), finer=st.sampled_from([1, 2, 10]))
    def merge(self, batches: list[list[float]], finer: int) -> None:
        other = Digest(self.rank_error / finer)
        for batch in batches:
            other.add(batch)
            assert other.count == other.clusters.count
            self.given += batch
        self.digest.merge(other)

    @rule()
    def store_and_load(self) -> None:
        self.digest = Digest.from_bytes(self.digest.to_bytes())

    @precondition(lambda self: self.given)
    @rule(q=st.floats(0, 1))
    def ask(self, q: float) -> None:
        check_digest(self.digest, np.array(self.given), also=np.array([q, 0.5]))
        if len(set(self.given)) <= 2 / self.rank_error:
            assert self.digest.rank_error == 0
            expected = statistics.median(self.given)
            assert self.digest.median() == expected or math.isinf(expected)

    @invariant()
    def every_value_is_counted(self) -> None:
        assert self.digest.count == len(self.given)


TestDigesting = Digesting.TestCase
TestDigesting.settings = settings(max_examples=150, stateful_step_count=25)
