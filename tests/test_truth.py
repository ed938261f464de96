"""The load generator's own oracle: all values, kept in sorted runs, and how answers are judged."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from loadgen import truth
from loadgen.scenarios import SCENARIOS, Floats, drawn
from loadgen.truth import Answer, Ranks, States, Values, judged


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "RUN", 64)
    monkeypatch.setattr(truth, "STEP", 8)


Holding = Callable[..., Values]


@pytest.fixture
def holding() -> Iterator[Holding]:
    """Makes some that hold these batches; all are closed at the end."""
    with ExitStack() as all_:

        def holding(*batches: Floats) -> Values:
            values = all_.enter_context(closing(Values()))
            for batch in batches:
                values.add(batch)
            return values

        yield holding


@pytest.mark.usefixtures("small_runs")
class TestTheValues:
    @pytest.mark.parametrize("name", SCENARIOS)
    def test_ranks_and_median_are_those_of_a_plain_array_at_every_length(
        self, name: str, holding: Holding
    ) -> None:
        chunks = list(drawn(name, 700, workers=3, seed=1, size=37))
        values = holding()
        for at, chunk in enumerate(chunks, start=1):
            values.add(chunk)
            plain = np.concatenate(chunks[:at])
            assert values.median() == exact_median(plain)
            for x in (*plain[::9], np.inf, -np.inf, float(np.nextafter(plain[0], np.inf))):
                assert values.ranks(x) == Ranks(len(plain), (plain < x).sum(), (plain <= x).sum())

    def test_many_runs_of_few_different_values(
        self, holding: Holding, rng: np.random.Generator
    ) -> None:
        plain = rng.choice([0.0, 1.0, 2.0], size=64 * 40 + 5, p=[0.499, 0.002, 0.499])
        assert holding(plain).median() == exact_median(plain)

    def test_nan_has_no_ranks(self, holding: Holding) -> None:
        assert holding(np.ones(100)).ranks(np.nan) == Ranks(100, 0, 0)

    def test_of_no_values_there_is_no_median(self, holding: Holding) -> None:
        assert holding().median() is None
        assert holding(np.empty(0)).ranks(1.0) == Ranks(0, 0, 0)


def exact_median(plain: Floats) -> float:
    """As it is computed here: halves are added, so that large values do not overflow."""
    low, high = np.sort(plain)[[(len(plain) - 1) // 2, len(plain) // 2]]
    return float(low if low == high else low / 2 + high / 2)


def test_in_runs_of_real_length_it_is_the_same(holding: Holding, rng: np.random.Generator) -> None:
    plain = rng.normal(size=3 * truth.RUN + 1_000)
    values = holding(*np.split(plain, 7 * np.arange(1, 1000, 100)))
    assert values.median() == exact_median(plain)
    assert values.ranks(0.1) == Ranks(len(plain), (plain < 0.1).sum(), (plain <= 0.1).sum())


def answer(
    median: float | None,
    count: int = 1000,
    rank_error: float = 0.01,
    *,
    low: float | None = None,
    high: float | None = None,
    complete: bool = True,
) -> Answer:
    return Answer(median, low, high, count, 0.01, rank_error, complete)


class TestTheJudgement:
    PLAIN = np.random.default_rng(1).permutation(np.arange(1000.0))  # the median is 499 to 500
    TIED = np.repeat([1.0, 2.0, 3.0], [100, 800, 100])

    @pytest.fixture
    def values(self, holding: Holding) -> Iterator[Values]:
        values = holding(self.PLAIN)
        yield values
        values.close()

    @pytest.mark.parametrize(
        ("median", "error"),
        [(499.5, 0), (499, 0), (500, 0), (490, 0.009), (489, 0.010), (510, 0.010)],
    )
    def test_a_median_within_its_certificate_is_good(
        self, median: float, error: float, values: Values
    ) -> None:
        verdict = judged(answer(median), values)
        assert verdict.breach is None
        assert verdict.error == pytest.approx(error, abs=1e-9)

    @pytest.mark.parametrize("median", [488, 511, -1, 1e308, -np.inf, np.inf, np.nan, None])
    def test_one_beyond_it_is_not(self, median: float | None, values: Values) -> None:
        verdict = judged(answer(median), values)
        assert "certificate says" in str(verdict.breach)
        assert verdict.error > 0.01

    def test_a_certificate_must_hold_to_the_last_rank(self, values: Values) -> None:
        assert judged(answer(490, rank_error=0.009), values).breach is None
        assert judged(answer(490, rank_error=0.00899), values).breach

    @pytest.mark.parametrize(("q", "value"), [(0, 0), (0.01, 9.5), (0.25, 250), (1, 999)])
    def test_another_quantile_is_judged_as_the_median_is(
        self, q: float, value: float, values: Values
    ) -> None:
        assert States(value, values, [], q=q).allow(0.0)
        for beside, has in ((value + 20, q < 0.99), (value - 20, q > 0.01)):
            assert States(beside, values, [], q=q).allow(0.021)
            assert not (has and States(beside, values, [], q=q).allow(0.018))
        above = [np.full(1000, 2000.0)]
        assert States(value, values, above, q=q / 2).allow(0.0)

    def test_a_certificate_that_is_no_number_proves_nothing(self, values: Values) -> None:
        assert judged(answer(499.5, rank_error=np.nan), values).breach

    def test_ties_never_count_against_it(self, holding: Holding) -> None:
        assert judged(answer(2.0, rank_error=0.0), holding(self.TIED)).breach is None

    @pytest.mark.parametrize("toward", [-np.inf, np.inf])
    def test_beside_the_ties_it_is_off_by_all_of_them(
        self, holding: Holding, toward: float
    ) -> None:
        verdict = judged(answer(float(np.nextafter(2.0, toward))), holding(self.TIED))
        assert verdict.breach
        assert verdict.error == pytest.approx(0.4)

    def test_a_certificate_beyond_epsilon_breaks_the_promise(self, values: Values) -> None:
        assert "beyond epsilon" in str(judged(answer(499.5, rank_error=0.011), values).breach)

    def test_low_and_high_must_enclose_the_true_median(self, values: Values) -> None:
        for low, high in ((499, 500), (500, 500), (499, 499), (None, None), (-np.inf, np.inf)):
            assert judged(answer(499.5, low=low, high=high), values).breach is None
        assert "below 501" in str(judged(answer(499.5, low=501.0), values).breach)
        assert "above 498.0" in str(judged(answer(499.5, high=498.0), values).breach)

    def test_an_answer_that_is_not_complete_promises_nothing(self, values: Values) -> None:
        wrong = answer(0.0, rank_error=0.5, low=700, high=-1, complete=False)
        assert judged(wrong, values).breach is None
        assert judged(replace(wrong, complete=True), values).breach

    def test_more_counted_than_sent_is_never_right(self, values: Values) -> None:
        for complete in (True, False):
            verdict = judged(answer(499.5, count=1001, complete=complete), values)
            assert "only 1,000 were sent" in str(verdict.breach)

    def test_without_values_there_is_no_median_and_nothing_wrong(self, holding: Holding) -> None:
        assert judged(answer(None, count=0), holding()).breach is None

    def test_what_is_in_flight_may_be_counted_or_not(self, values: Values) -> None:
        above = [np.full(100, 2000.0), np.full(100, 3000.0)]
        for median, count in ((499.5, 1000), (549.5, 1100), (599.5, 1200)):
            kept = answer(median, count, rank_error=0.0)
            assert judged(kept, values, above).breach is None
            assert count == 1000 or judged(kept, values).breach

    def test_a_batch_in_flight_counts_whole_or_not_at_all(self, values: Values) -> None:
        flying = [np.full(100, 2000.0)]
        assert judged(answer(574.5, rank_error=0.01), values, flying).breach
        assert judged(answer(425.5, rank_error=0.01), values, flying).breach
        assert judged(answer(499.5, count=1101), values, flying).breach

    def test_what_it_calls_wrong_is_wrong_in_every_state(
        self, holding: Holding, rng: np.random.Generator
    ) -> None:
        """And where nothing flies, or one batch, what it does not call wrong is right."""
        called = 0
        for _ in range(2_000):
            batches = [rng.choice(np.arange(9.0), rng.integers(1, 9)) for _ in range(4)]
            known, flying = batches[0], batches[1 : rng.integers(1, 5)]
            median, certificate = float(rng.integers(-1, 19)) / 2, float(rng.choice([0, 0.1, 0.2]))
            told = replace(answer(median, count=1, rank_error=certificate), epsilon=1.0)
            verdict = judged(told, holding(known), flying)
            least = min(off(median, np.concatenate([known, *some])) for some in subsets(flying))
            if verdict.breach:
                called += 1
                assert least > certificate
            assert verdict.error <= least + 1e-9
            if not flying:
                assert verdict.error == pytest.approx(least, abs=1e-6)
                assert (verdict.breach is None) == (least <= certificate + 1e-6)
        assert called > 200


def subsets(flying: list[Floats]) -> Iterator[list[Floats]]:
    for kept in product((False, True), repeat=len(flying)):
        yield [batch for batch, is_kept in zip(flying, kept, strict=True) if is_kept]


def off(median: float, values: Floats) -> float:
    half = len(values) / 2
    return float(max((values < median).sum() - half, half - (values <= median).sum(), 0)) / len(
        values
    )
