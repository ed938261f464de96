"""Latencies against numpy's percentiles, and a report that any program can read."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from loadgen.calls import Traffic
from loadgen.report import BREACHES_MAX, PERCENTILES, Latencies, Report
from loadgen.scenarios import Floats

SHAPES: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "a millisecond": lambda rng, n: rng.lognormal(-7, 0.5, n),
    "from microseconds to hours": lambda rng, n: 10 ** rng.uniform(-6, 4.3, n),
    "two kinds": lambda rng, n: rng.choice([0.001, 3.0], n) * rng.uniform(1, 1.001, n),
    "all the same": lambda _rng, n: np.full(n, 0.0123),
}


def latencies_of(seconds: Floats) -> Latencies:
    latencies = Latencies()
    for one in seconds.tolist():
        latencies.add(one)
    return latencies


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [1, 2, 3, 10, 99, 1000, 1001, 20_000])
def test_a_percentile_is_right_to_a_hundredth(shape: str, n: int, rng: np.random.Generator) -> None:
    seconds = np.sort(SHAPES[shape](rng, n))
    latencies = latencies_of(rng.permutation(seconds))
    assert len(latencies) == n
    for q in (0.001, *PERCENTILES.values(), 1.0):
        exact = float(np.quantile(seconds, q, method="inverted_cdf"))
        assert exact * (1 - 1e-9) <= latencies.percentile(q) <= exact * 1.01 * (1 + 1e-9)
    assert latencies.facts["max"] == seconds[-1]
    assert latencies.percentile(1.0) == pytest.approx(seconds[-1], rel=1e-9)
    ordered = [latencies.facts[name] for name in (*PERCENTILES, "max")]
    assert ordered == sorted(ordered)


def test_of_nothing_there_are_no_facts() -> None:
    assert len(Latencies()) == 0
    assert Latencies().facts == {}
    assert Latencies().percentile(0.99) == 0.0


def test_what_took_no_time_took_at_most_a_microsecond() -> None:
    latencies = latencies_of(np.array([0.0, 1e-9, 1.0]))
    assert latencies.percentile(0.5) == 1e-6
    assert latencies_of(np.array([0.0, -1e-9])).facts["p50"] == 0.0


def test_what_took_days_is_at_most_the_longest() -> None:
    latencies = latencies_of(np.array([1.0, 1e5, 2e5]))
    assert latencies.percentile(0.5) == latencies.facts["max"] == 2e5
    assert latencies.percentile(0.3) == pytest.approx(1.0, rel=0.01)


def test_all_breaches_are_counted_and_the_first_are_told() -> None:
    report = Report("calm", 2)
    for number in range(3 * BREACHES_MAX):
        report.breach(f"breach {number}")
    assert report.broken == report.facts["promise"]["violations"] == 3 * BREACHES_MAX
    assert report.breaches == [f"breach {number}" for number in range(BREACHES_MAX)]


def test_a_report_of_nothing_divides_by_nothing() -> None:
    report = Report("calm", 2)
    assert (report.values_a_second, report.share_sent, report.share_done) == (0.0, 0.0, None)
    facts = json.loads(json.dumps(report.facts, allow_nan=False))
    assert facts["values"] == {
        "sent": 0, "acknowledged": 0, "counted": 0, "left_out": 0, "a_second": 0.0,
    }  # fmt: skip
    assert facts["answers"]["latency_s"] == {}


def test_rates_and_shares_are_of_what_was_acknowledged() -> None:
    report = Report("calm", 2, planned=400, seconds=5.0, acknowledged=100, share_read=0.9)
    report.traffic = Traffic(count=100, deltas=3, bytes=80, raw_bytes=800)
    assert (report.values_a_second, report.share_sent, report.share_done) == (20.0, 0.1, 0.25)
    report.planned = None
    assert report.share_done == 0.9
    told = json.loads(json.dumps(report.facts))["traffic"]
    assert told == {"count": 100, "deltas": 3, "bytes": 80, "raw_bytes": 800, "share": 0.1}
