"""What a worker tells Prometheus: totals counted as things happen, gauges when it asks."""

from collections.abc import Iterable
from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.outbox import Flight
from worker_service.sources import Sources


class OfSources(Collector):
    """Gauges of each stream."""

    GAUGES: ClassVar = {
        "rank_shift_ranks": "How far the source has moved from its picture, when last looked at",
        "allowance_ranks": "How far it may move before it must speak",
        "patience_values": "How many values may be pending before it must speak",
        "pending_values": "Values that the coordinator's answers do not cover yet",
    }

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        families = {
            name: GaugeMetricFamily(f"median_worker_{name}", words, labels=["stream"])
            for name, words in self.GAUGES.items()
        }
        for line in self._sources:
            outbox = line.outbox
            facts = {
                "rank_shift_ranks": outbox.shift,
                "allowance_ranks": outbox.grant.allowance,
                "patience_values": outbox.grant.patience,
                "pending_values": outbox.count - outbox.covered,
            }
            for name, value in facts.items():
                families[name].add_metric([outbox.source.stream], value)
        return families.values()


class Metrics:
    def __init__(self, sources: Sources) -> None:
        self.registry = registry = CollectorRegistry()
        registry.register(OfSources(sources))

        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(f"median_worker_{name}", words, labels, registry=registry)

        self._values = counter("values", "Values taken", "stream")
        self._taken = counter("taken_bytes", "Bytes of values that users sent")
        self._deltas = counter("deltas", "Deltas signed or not", "cause", "form", "signed")
        self._refused = counter("refused_deltas", "Deltas that were refused", "code")
        self._sent = counter("sent_bytes", "Bytes of bodies sent to the coordinator")
        self._read = counter("received_bytes", "Bytes of bodies that came back")
        self._retries = counter("retries", "Requests to the coordinator that failed")
        self._queries = counter("queries", "Questions to this worker's own digests", "endpoint")
        self._push = Histogram(
            "median_worker_push_seconds", "How long a push took that got through", registry=registry
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def took(self, stream: str, values: int, raw: int) -> None:
        self._values.labels(stream).inc(values)
        self._taken.inc(raw)

    def answered(self, flight: Flight, signed: bool) -> None:
        form = flight.delta.form.name.lower()
        self._deltas.labels(flight.cause.value, form, str(signed).lower()).inc()

    def refused(self, code: str) -> None:
        self._refused.labels(code).inc()

    def carried(self, sent: int, read: int) -> None:
        self._sent.inc(sent)
        self._read.inc(read)

    def pushed(self, seconds: float) -> None:
        self._push.observe(seconds)

    def retried(self) -> None:
        self._retries.inc()

    def asked(self, endpoint: str) -> None:
        self._queries.labels(endpoint).inc()
