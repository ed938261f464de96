"""What every service tells Prometheus: what it keeps, and how much it has in work."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.serving.room import Room
from shared.serving.storage import Storage


class OfRoom(Collector):
    def __init__(self, service: str, room: Room) -> None:
        self._service, self._room = service, room

    def collect(self) -> Iterable[Metric]:
        name, room = f"median_{self._service}", self._room
        shed = "Requests with a body that were told 503, for room"
        return (
            CounterMetricFamily(f"{name}_shed_requests", shed, room.shed),
            GaugeMetricFamily(f"{name}_work_requests", "Such requests in work", room.requests),
            GaugeMetricFamily(f"{name}_work_bytes", "Bytes that these hold", room.bytes),
        )


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
