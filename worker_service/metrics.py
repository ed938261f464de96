"""What a worker tells Prometheus: totals counted as things happen, gauges when it asks."""

from collections.abc import Iterable
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.outbox import Flight
from shared.protocol import CODES
from shared.serving.crowd import Crowd
from shared.serving.doors import Doors
from shared.serving.metrics import OfCertificate, OfCrowd, OfDoors, OfRoom, OfStorage
from shared.serving.room import Room
from shared.serving.tls import Certificate
from worker_service.sources import Sources
from worker_service.store import Store

Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily


class OfSources(Collector):
    """What can be read off each source."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        def family(kind: type[Family], name: str, words: str) -> Family:
            return kind(f"median_worker_{name}", words, labels=["stream"])

        values = family(CounterMetricFamily, "values", "Values taken")
        raw = family(CounterMetricFamily, "taken_bytes", "Bytes of values that users sent")
        shift = family(
            GaugeMetricFamily,
            "rank_shift_ranks",
            "How far the source has moved from what the coordinator holds",
        )
        allowance = family(
            GaugeMetricFamily, "allowance_ranks", "How far it may move before it must speak"
        )
        patience = family(
            GaugeMetricFamily,
            "patience_values",
            "How many values may be pending before it must speak",
        )
        pending = family(
            GaugeMetricFamily, "pending_values", "Not yet in the coordinator's answers"
        )
        for line in self._sources:
            outbox, stream = line.outbox, [line.outbox.source.stream]
            values.add_metric(stream, outbox.count)
            raw.add_metric(stream, outbox.raw)
            shift.add_metric(stream, outbox.shift)
            allowance.add_metric(stream, outbox.grant.allowance)
            patience.add_metric(stream, outbox.grant.patience)
            pending.add_metric(stream, outbox.count - outbox.covered)
        return values, raw, shift, allowance, patience, pending


class Metrics:
    def __init__(  # noqa: PLR0913  whatever it tells of
        self,
        sources: Sources,
        *,
        room: Room,
        doors: Doors,
        crowd: Crowd,
        certificate: Certificate | None,
        store: Store | None,
    ) -> None:
        self.registry = registry = CollectorRegistry()
        registry.register(OfSources(sources))
        registry.register(OfRoom("worker", room))
        registry.register(OfCrowd("worker", crowd))
        registry.register(OfDoors("worker", doors))
        if certificate is not None:
            registry.register(OfCertificate("worker", certificate))
        if store is not None:
            registry.register(OfStorage("worker", store.storage))

        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(f"median_worker_{name}", words, labels, registry=registry)

        self._deltas = counter("deltas", "Deltas that got a receipt", "cause", "form", "signed")
        self._refused = counter("refused_deltas", "Deltas that were refused", "code")
        self._refused_streams = counter(
            "refused_streams", "Batches of streams that would have been too many"
        )
        Gauge(
            "median_worker_streams", "Streams that this worker has", registry=registry
        ).set_function(lambda: len(sources))
        self._sent = counter("sent_bytes", "Bytes of bodies sent to the coordinator")
        self._received = counter("received_bytes", "Bytes of bodies that came back")
        self._retries = counter(
            "retries", "Requests to the coordinator that failed, and were repeated"
        )
        self._queries = counter("queries", "Questions to this worker's own digests", "endpoint")
        self._push = Histogram(
            "median_worker_push_seconds", "How long a push took that got through", registry=registry
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def answered(self, flight: Flight, signed: bool) -> None:
        cause, form = flight.delta.cause.name.lower(), flight.delta.form.name.lower()
        self._deltas.labels(cause, form, str(signed).lower()).inc()

    def refused(self, code: str) -> None:
        """Whatever a coordinator says, there are no more labels than there are codes."""
        self._refused.labels(code if code in CODES else "other").inc()

    def refused_stream(self) -> None:
        self._refused_streams.inc()

    def sent(self, size: int) -> None:
        self._sent.inc(size)

    def received(self, size: int) -> None:
        self._received.inc(size)

    def pushed(self, seconds: float) -> None:
        self._push.observe(seconds)

    def retried(self) -> None:
        self._retries.inc()

    def asked(self, endpoint: str) -> None:
        self._queries.labels(endpoint).inc()
