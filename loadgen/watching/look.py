"""What a coordinator says of a stream, as values that never change.

Whoever answers may be anybody. So each number is looked at before it is kept: a count is a whole
one that 64 bits can hold, everything else is finite. What has another shape raises one of `ODD`,
and is no answer. What may be missing, such as the median of nothing, is None.
"""

import math
from dataclasses import dataclass
from typing import Any

from loadgen.words import legible

ODD = (KeyError, TypeError, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Answer:
    """What `GET /median` says."""

    median: float | None
    low: float | None
    high: float | None
    rank_error: float
    epsilon: float
    count: int
    exact: bool
    complete: bool
    live: int
    silent: int

    @classmethod
    def of(cls, reply: Any) -> "Answer":
        return cls(
            median=_finite_or_none(reply["median"]),
            low=_finite_or_none(reply["low"]),
            high=_finite_or_none(reply["high"]),
            rank_error=_finite(reply["rank_error"]),
            epsilon=_finite(reply["epsilon"]),
            count=_whole(reply["count"]),
            exact=bool(reply["exact"]),
            complete=bool(reply["complete"]),
            live=_whole(reply["workers"]["live"]),
            silent=_whole(reply["workers"]["silent"]),
        )


@dataclass(frozen=True)
class Source:
    """What `GET /workers` says of a stream on a worker."""

    worker: str
    stream: str
    state: str
    count: int
    allowance: float
    patience: int
    deltas: int
    bytes: int
    raw_bytes: int
    last_heard_s: float | None

    @classmethod
    def of(cls, row: Any) -> "Source":
        return cls(
            worker=legible(str(row["worker"])),
            stream=str(row["stream"]),
            state=legible(str(row["state"])),
            count=_whole(row["count"]),
            allowance=_finite(row["allowance"]),
            patience=_whole(row["patience"]),
            deltas=_whole(row["deltas"]),
            bytes=_whole(row["bytes"]),
            raw_bytes=_whole(row["raw_bytes"]),
            last_heard_s=_finite_or_none(row["last_heard_s"]),
        )


@dataclass(frozen=True)
class Look:
    """All that was asked at once; no answer where the stream is not there yet."""

    answer: Answer | None
    sources: tuple[Source, ...] = ()
    others: tuple[str, ...] = ()
    """Streams that there are, where the one that is wanted is not."""
    not_ready: str = ""
    """Why the coordinator cannot be complete yet, in its own words."""


def sources_of(reply: Any) -> list[Source]:
    return [Source.of(row) for row in reply["workers"]]


def streams_of(reply: Any) -> tuple[str, ...]:
    return tuple(legible(str(one["stream"])) for one in reply["streams"])


def worker_of(health: Any) -> str | None:
    """The name of a worker, which has a median, too; None is a coordinator."""
    match health:
        case {"worker": name}:
            return legible(str(name))
        case {"epsilon": _}:
            return None
    raise ValueError("neither of the two says that")


def _finite(given: Any) -> float:
    value = float(given)
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return value


def _finite_or_none(given: Any) -> float | None:
    return None if given is None else _finite(given)


def _whole(given: Any) -> int:
    if type(given) is not int or not 0 <= given < 2**64:
        raise ValueError("no count")
    return given
