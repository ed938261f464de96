"""What every service tells Prometheus of what it keeps."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.serving.storage import Storage


class OfStorage(Collector):
    def __init__(self, service: str, storage: Storage) -> None:
        self._service, self._storage = service, storage

    def collect(self) -> Iterable[Metric]:
        name, storage = f"median_{self._service}_storage", self._storage
        return (
            GaugeMetricFamily(f"{name}_bytes", "Size of the file, with its log", storage.bytes),
            CounterMetricFamily(f"{name}_commits", "Commits of it", storage.commits),
            CounterMetricFamily(f"{name}_failures", "Commits that failed", storage.failures),
        )
