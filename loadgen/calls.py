"""What is asked of the services, over HTTP: one function for each path, and errors in sentences."""

from dataclasses import dataclass
from typing import Any

import httpx

from loadgen.streams import Floats
from loadgen.truth import Answer

ACCEPTED, OK = 202, 200
PATIENCE_S = 15.0  # a 202 may wait for a signature, but not for ever
PACKED = {"content-type": "application/octet-stream"}


class BadReply(RuntimeError):
    """A service did not do as it was asked; the message says what it did."""


@dataclass(frozen=True)
class Traffic:
    """What one worker told the coordinator, and what its users told it."""

    count: int = 0
    deltas: int = 0
    bytes: int = 0
    raw_bytes: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.count + other.count,
            self.deltas + other.deltas,
            self.bytes + other.bytes,
            self.raw_bytes + other.raw_bytes,
        )


class Calls:
    """Calls to services by their addresses. Threads may share it."""

    def __init__(self) -> None:
        self._client = httpx.Client(trust_env=False, timeout=PATIENCE_S)

    def close(self) -> None:
        self._client.close()

    def post(self, worker: str, batch: Floats) -> int:
        """Post a batch; returns how many values the worker says it has received in all."""
        data = batch.astype("<f8").tobytes()
        reply = self._ask(ACCEPTED, "POST", f"{worker}/values", content=data, headers=PACKED)
        if reply["accepted"] != len(batch):
            raise BadReply(f"{worker} was given {len(batch)} values, and accepted {reply}")
        return int(reply["count"])

    def flush(self, worker: str) -> None:
        self._ask(OK, "POST", f"{worker}/flush")

    def median(self, coordinator: str) -> Answer:
        reply = self._ask(OK, "GET", f"{coordinator}/median")
        return Answer(**{name: reply[name] for name in Answer.__dataclass_fields__})

    def traffic(self, coordinator: str) -> dict[str, Traffic]:
        """By the names of the workers; one may have several sources."""
        told: dict[str, Traffic] = {}
        for row in self._ask(OK, "GET", f"{coordinator}/workers")["workers"]:
            one = Traffic(**{name: row[name] for name in Traffic.__dataclass_fields__})
            told[row["worker"]] = told.get(row["worker"], Traffic()) + one
        return told

    def _ask(self, expected: int, method: str, url: str, **more: Any) -> Any:
        try:
            response = self._client.request(method, url, **more)
        except httpx.TransportError as error:
            raise BadReply(f"{method} {url} got no answer: {error}") from error
        if response.status_code != expected:
            raise BadReply(f"{method} {url} got {response.status_code}: {response.text[:500]}")
        return response.json()
