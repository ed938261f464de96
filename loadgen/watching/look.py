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
            median=finite_or_none(reply["median"]),
            low=finite_or_none(reply["low"]),
            high=finite_or_none(reply["high"]),
            rank_error=finite(reply["rank_error"]),
            epsilon=finite(reply["epsilon"]),
            count=whole(reply["count"]),
            exact=bool(reply["exact"]),
            complete=bool(reply["complete"]),
            live=whole(reply["workers"]["live"]),
            silent=whole(reply["workers"]["silent"]),
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
            count=whole(row["count"]),
            allowance=finite(row["allowance"]),
            patience=whole(row["patience"]),
            deltas=whole(row["deltas"]),
            bytes=whole(row["bytes"]),
            raw_bytes=whole(row["raw_bytes"]),
            last_heard_s=finite_or_none(row["last_heard_s"]),
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


def finite(given: Any) -> float:
    value = float(given)
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return value


def finite_or_none(given: Any) -> float | None:
    return None if given is None else finite(given)


def whole(given: Any) -> int:
    if type(given) is not int or not 0 <= given < 2**64:
        raise ValueError("no count")
    return given
