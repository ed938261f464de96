"""What a coordinator tells Prometheus. Totals are counted as things happen; gauges when asked."""

from collections.abc import Iterable
from typing import cast

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator_service.answers import STREAMS_MAX, Answers, Rendered
from coordinator_service.live import Live
from coordinator_service.store import Store
from shared.ledger import Ledger
from shared.rank_shift import Estimate
from shared.serving.crowd import Crowd
from shared.serving.doors import Doors
from shared.serving.metrics import OfCertificate, OfCrowd, OfDoors, OfRoom, OfStorage
from shared.serving.room import Room
from shared.serving.tls import Certificate


class OfLedger(Collector):
    """Gauges of each stream: its median, how wrong that can be, and who is there.

    Of the first thousand, by name: to make so many answers anew takes half a second.
    """

    def __init__(self, ledger: Ledger, answers: Answers) -> None:
        self._ledger, self._answers = ledger, answers

    def collect(self) -> Iterable[Metric]:
        def gauge(name: str, words: str, *labels: str) -> GaugeMetricFamily:
            family = GaugeMetricFamily(f"median_{name}", words, labels=["stream", *labels])
            families.append(family)
            return family

        families: list[Metric] = []
        median = gauge("value", "The median of all values")
        error = gauge("rank_error_ratio", "The certificate: its rank is off by at most this share")
        count = gauge("counted_values", "Values that the answer covers")
        complete = gauge(
            "complete", "1 if nobody is silent, and it has listened for three heartbeats"
        )
        sources = gauge("sources", "Sources of the stream", "state")
        for stream in self._ledger.streams[:STREAMS_MAX]:
            answer = self._answers.median_at_once(stream).answer
            estimate = cast(Estimate, answer.estimate)  # as it has values
            median.add_metric([stream], estimate.value)
            error.add_metric([stream], estimate.rank_error)
            count.add_metric([stream], answer.count)
            complete.add_metric([stream], answer.complete)
            sources.add_metric([stream, "live"], answer.live)
            sources.add_metric([stream, "silent"], answer.silent)
        return families


class Metrics:
    def __init__(  # noqa: PLR0913  whatever it tells of
        self,
        ledger: Ledger,
        answers: Answers,
        live: Live,
        *,
        room: Room,
        doors: Doors,
        crowd: Crowd,
        certificate: Certificate | None,
        store: Store | None,
    ) -> None:
        self.registry = registry = CollectorRegistry()
        registry.register(OfLedger(ledger, answers))
        registry.register(OfRoom("coordinator", room))
        registry.register(OfDoors("coordinator", doors))
        registry.register(OfCrowd("coordinator", crowd))
        if certificate is not None:
            registry.register(OfCertificate("coordinator", certificate))
        if store is not None:
            registry.register(OfStorage("coordinator", store.storage))

        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(f"median_coordinator_{name}", words, labels, registry=registry)

        self._deltas = counter(
            "deltas", "Deltas, by form and what became of them", "form", "result"
        )
        self._refused = counter("refused_deltas", "Deltas that were refused", "code")
        self._received = counter("received_bytes", "Bytes of bodies that workers sent")
        self._sent = counter("sent_bytes", "Bytes of bodies that went back to workers")
        Gauge(
            "median_coordinator_listeners", "Streams of events that are open", registry=registry
        ).set_function(lambda: live.listeners)
        Gauge(
            "median_coordinator_rows_bytes", "Bytes of memory that rows take", registry=registry
        ).set_function(lambda: ledger.memory.taken)
        Gauge(
            "median_coordinator_streams", "Streams that have values", registry=registry
        ).set_function(lambda: len(ledger.streams))
        self._queries = counter("queries", "Questions that were answered", "endpoint")
        self.median_asked = self._queries.labels("median").inc  # on the hot path

    def written(self) -> Rendered:
        """What there is to tell, on the event loop, which all of it belongs to."""
        text = generate_latest(self.registry)
        return lambda: text

    def judged(self, form: str, result: str) -> None:
        self._deltas.labels(form, result).inc()

    def refused(self, code: str) -> None:
        self._refused.labels(code).inc()

    def carried(self, received: int, sent: int) -> None:
        self._received.inc(received)
        self._sent.inc(sent)

    def asked(self, endpoint: str) -> None:
        self._queries.labels(endpoint).inc()
