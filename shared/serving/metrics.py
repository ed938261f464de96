"""What every service tells Prometheus: what it keeps, shows, has in work; whom it turned away."""

from collections.abc import Iterable
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.serving.crowd import Crowd
from shared.serving.doors import Doors
from shared.serving.room import Room
from shared.serving.storage import Storage
from shared.serving.tls import Certificate


class OfRoom(Collector):
    def __init__(self, service: str, room: Room) -> None:
        self._service, self._room = service, room

    def collect(self) -> Iterable[Metric]:
        name, room = f"median_{self._service}", self._room
        shed = "Requests with a body that were turned away, for room"
        return (
            CounterMetricFamily(f"{name}_shed_requests", shed, room.shed),
            GaugeMetricFamily(f"{name}_work_requests", "Such requests in work", room.requests),
            GaugeMetricFamily(f"{name}_work_bytes", "Bytes that these hold", room.bytes),
        )


class OfCrowd(Collector):
    def __init__(self, service: str, crowd: Crowd) -> None:
        self._service, self._crowd = service, crowd

    def collect(self) -> Iterable[Metric]:
        name, crowd = f"median_{self._service}", self._crowd
        given_up = CounterMetricFamily(
            f"{name}_given_up_connections", "Connections that were given up", labels=["why"]
        )
        for why, many in crowd.given_up.items():
            given_up.add_metric([why], many)
        return (
            GaugeMetricFamily(f"{name}_connections", "Open ones", len(crowd.connections)),
            given_up,
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


class OfCertificate(Collector):
    def __init__(self, service: str, certificate: Certificate) -> None:
        self._service, self._certificate = service, certificate

    def collect(self) -> Iterable[Metric]:
        if self._certificate.ends is None:
            return
        name = f"median_{self._service}_certificate_ends_timestamp_seconds"
        yield GaugeMetricFamily(name, "When the one that it shows ends", self._certificate.ends)


TOLD: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/plain": {"schema": {"type": "string"}}},
        "description": "a line for each sample, as Prometheus reads them",
    }
}
"""For the documentation of the route that tells them."""


class OfDoors(Collector):
    def __init__(self, service: str, doors: Doors) -> None:
        self._service, self._doors = service, doors

    def collect(self) -> Iterable[Metric]:
        name, words = f"median_{self._service}_unauthorized", "Requests without the right token"
        turned_away = CounterMetricFamily(name, words, labels=["door"])
        for door in self._doors.values():
            turned_away.add_metric([door.name], door.turned_away)
        return (turned_away,)
