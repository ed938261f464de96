"""What the coordinator tells: the shapes of its answers, with their words.

The words under a field are its description in the documentation, at `/docs`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Told(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Workers(Told):
    live: int
    """Sources of the stream that keep their promise: they were heard of within three heartbeats."""
    silent: int
    """Sources that may have received values which the answer does not cover."""


class Said(Told):
    """What every answer says of itself."""

    stream: str
    count: int
    """How many values the answer covers."""
    epsilon: float
    """What the operator promised: the median's `rank_error` is at most this."""
    exact: bool
    """No acknowledged value could make the answer another."""
    complete: bool
    """Nobody is silent, the coordinator has listened for three heartbeats, and within these no
    source was turned away for want of memory."""
    workers: Workers
    as_of: str
    """When the answer was made; it stays the same until something changes it."""


class Median(Said):
    median: float | None
    low: float | None
    """The true median is certainly no less; null where nothing bounds it."""
    high: float | None
    """The true median is certainly no more; null where nothing bounds it."""
    rank_error: float
    """The certificate: the median's rank is off by at most this share of all ranks."""


class History(Told):
    """Columns, oldest first: what the answer was, until the next one."""

    stream: str
    step_s: float
    """Of each step of so many seconds the last answer is kept."""
    at: list[float]
    """Seconds since 1970; the first may lie before what was asked for, as it held into it."""
    median: list[float]
    low: list[float | None]
    high: list[float | None]
    rank_error: list[float]
    count: list[int]
    complete: list[bool]


class Quantile(Told):
    q: float
    value: float | None
    low: float | None
    """The true quantile is certainly no less; null where nothing bounds it."""
    high: float | None
    """The true quantile is certainly no more; null where nothing bounds it."""
    rank_error: float
    """The certificate: the value's rank is off by at most this share of all ranks."""


class Quantiles(Said):
    quantiles: list[Quantile]


class Points(Told):
    """The distribution, in columns, all empty while there are no values.

    Straight lines lead from `upto` of one place to `below` of the next. Where `below` is less than
    `upto`, there is a jump.
    """

    x: list[float]
    """Places, in order: from where the coordinator's pictures begin to where they end."""
    below: list[float]
    """At each place, the share of all values that are less."""
    upto: list[float]
    """At each place, the share of all values that are no more."""
    rank_error: list[float]
    """The certificate: at this place either share is off by at most so much."""


class Cdf(Said):
    straight: bool
    """The lines between the points are all there is, and as certain: errors lie on lines, too."""
    points: Points


class Source(Told):
    worker: str
    stream: str
    source: str
    """A number drawn when its data began: it tells this source from all others."""
    state: Literal["live", "silent", "gone", "retired"]
    """`gone` has said goodbye."""
    count: int
    """How many of its values are covered."""
    median: float | None
    """Of the coordinator's picture of it; null while there is none."""
    allowance: float
    """How many ranks it may have moved since it last spoke."""
    patience: int
    """How many values it may have received since it last spoke."""
    rank_shift: float
    """How many ranks it was off when it last spoke."""
    deltas: int
    """How many were accepted."""
    causes: dict[str, int]
    """How many of those were said for each cause, of the causes that there were."""
    bytes: int
    """Of the bodies of its deltas."""
    raw_bytes: int
    """Of the bodies that its users sent, since anything of it was counted here."""
    last_heard_s: float | None
    """Seconds ago; null: not since the coordinator started."""


class WorkersList(BaseModel):
    workers: list[Source]


class Picture(Told):
    x: list[float]
    """Knots, in order; straight lines lead from one to the next."""
    below: list[float]
    """How many values lie below each knot."""
    upto: list[float]
    """How many lie up to it; where that is more, the picture jumps."""


class ExplainedRow(Source):
    share_below: float
    """Of its values, the share below the answer."""
    share_upto: float
    """Of its values, the share up to the answer."""
    picture: Picture


class Explanation(Said, Quantile):
    rows: list[ExplainedRow]


class StreamSummary(BaseModel):
    stream: str
    count: int
    sources: int


class Streams(BaseModel):
    streams: list[StreamSummary]


class Retired(BaseModel):
    worker: str
    streams: list[str]


class Health(Told):
    status: str
    epsilon: float
    heartbeat_s: float
    storage: str
    """`disk`, or `memory`: then what was told before it started is not here."""
    started: str
    closed: list[str]
    """The doors that stay closed to whoever asks this: they ask for tokens that he did not show."""


class Ready(BaseModel):
    ready: bool
