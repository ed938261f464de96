"""What came of a replay: counts, percentiles, and the promises that were found broken.

Latencies go into a histogram whose buckets grow by a hundredth, so a percentile is right to a
hundredth, and hours of them take some kilobytes. They count from when a batch was due; where no
rate was asked for, that is when its worker had room for one more.
"""

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from loadgen.calls import Traffic

LEAST_S, GROWTH, BUCKETS = 1e-6, 1.01, 2_400  # up to six hours; the last has all beyond
BREACHES_MAX = 20  # so many are told; all are counted
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


class Latencies:
    def __init__(self) -> None:
        self._counts = np.zeros(BUCKETS, np.int64)
        self._max = 0.0

    def __len__(self) -> int:
        return int(self._counts.sum())

    def add(self, seconds: float) -> None:
        bucket = math.ceil(math.log(max(seconds, LEAST_S) / LEAST_S, GROWTH))
        self._counts[min(bucket, BUCKETS - 1)] += 1
        self._max = max(self._max, seconds)

    def percentile(self, q: float) -> float:
        """So many of them are at most this; never more than a hundredth too much."""
        enough = math.ceil(q * len(self))
        bucket = int(np.searchsorted(self._counts.cumsum(), enough))
        return min(LEAST_S * GROWTH**bucket, self._max) if bucket < BUCKETS - 1 else self._max

    @property
    def facts(self) -> dict[str, float]:
        if not len(self):
            return {}
        return {name: self.percentile(q) for name, q in PERCENTILES.items()} | {"max": self._max}


@dataclass
class Report:
    """Where a replay stands; at its end, what came of it."""

    input: str
    workers: int
    planned: int | None = None
    """How many values, where that is known."""
    verify: bool = False
    phase: str = ""
    what: str = ""
    seconds: float = 0.0
    """From the first batch to the last 202."""
    share_read: float | None = None
    left_out: int = 0
    processor_s: float = 0.0
    """Of the load generator itself: where that is nearly all, it may be what is slow."""

    requests: int = 0
    repeated: int = 0
    given: int = 0
    """Values that were dealt out to the workers' queues; the next three count values, too."""
    sent: int = 0
    acknowledged: int = 0
    counted: int = 0
    posts: Latencies = field(default_factory=Latencies)
    late_s_max: float = 0.0
    input_late_s: float = 0.0
    """How long the schedule waited for its input, in all."""

    median: float | None = None
    exact: float | None = None
    """When last nothing was in flight; then the answer of that moment, and its error."""
    beside_exact: float | None = None
    beside_error: float = 0.0
    error: float = 0.0
    certificate: float = 0.0
    epsilon: float = 0.0
    asked: Latencies = field(default_factory=Latencies)
    unanswered: int = 0
    incomplete: int = 0
    checked: int = 0
    quiet: int = 0
    """Of those checked, how many while nothing was in flight."""
    error_max: float = 0.0
    certificate_max: float = 0.0
    stale: Latencies = field(default_factory=Latencies)
    missing_share_max: float = 0.0
    """Of the acknowledged values, the largest share that an answer did not cover yet."""
    breaches: list[str] = field(default_factory=list)
    broken: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    settled: bool = False
    """The last answer was complete, and the counts were compared."""
    stopped_early: bool = False
    failed: str = ""
    """Why it could not be done to its end."""

    def start(self) -> None:
        self._began, self._busy = time.monotonic(), time.process_time()

    def look_at_the_clock(self) -> None:
        if self._began and not self._ended:
            self.seconds = time.monotonic() - self._began
            self.processor_s = time.process_time() - self._busy

    def end(self, phase: str) -> None:
        """All is acknowledged; what is left to do takes no time of the services'."""
        self.look_at_the_clock()
        self._ended, self.phase, self.what = True, phase, ""

    def __post_init__(self) -> None:
        self._began = self._busy = 0.0
        self._ended = False

    def breach(self, what: str) -> None:
        self.broken += 1
        if len(self.breaches) < BREACHES_MAX:
            self.breaches.append(what)

    @property
    def label(self) -> str:
        """What is played now, in a word."""
        return self.phase or PurePath(self.input).name

    @property
    def values_a_second(self) -> float:
        return self.acknowledged / self.seconds if self.seconds else 0.0

    @property
    def share_sent(self) -> float:
        """Bytes of the bodies of deltas, beside those of the bodies that the workers were sent."""
        return self.traffic.bytes / max(1, self.traffic.raw_bytes)

    @property
    def share_done(self) -> float | None:
        return self.acknowledged / self.planned if self.planned else self.share_read

    @property
    def facts(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "input": self.input,
            "workers": self.workers,
            "seconds": self.seconds,
            "loadgen_processor_seconds": self.processor_s,
            "values": {
                "sent": self.sent,
                "acknowledged": self.acknowledged,
                "counted": self.counted,
                "left_out": self.left_out,
                "a_second": self.values_a_second,
            },
            "requests": {
                "count": self.requests,
                "repeated": self.repeated,
                "latency_s": self.posts.facts,
                "late_s_max": self.late_s_max,
                "input_late_s": self.input_late_s,
            },
            "answers": {
                "median": self.median,
                "exact_median": self.exact,
                "median_beside_exact": self.beside_exact,
                "count": len(self.asked),
                "unanswered": self.unanswered,
                "incomplete": self.incomplete,
                "latency_s": self.asked.facts,
                "staleness_s": self.stale.facts,
                "missing_share_max": self.missing_share_max,
            },
            "promise": {
                "verified": self.settled,
                "epsilon": self.epsilon,
                "checked": self.checked,
                "checked_with_nothing_in_flight": self.quiet,
                "rank_error_max": self.error_max if self.checked else None,
                "certificate_max": self.certificate_max if self.checked else None,
                "violations": self.broken,
                "examples": self.breaches,
            },
            "traffic": asdict(self.traffic) | {"share": self.share_sent},
            "stopped_early": self.stopped_early,
            "failed": self.failed or None,
        }
