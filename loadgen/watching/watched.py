"""What was seen so far: a value that never changes, so that whatever is drawn of it is a function.

    Watched  -- saw(look) or failed(trouble) -->  Watched

A failure takes nothing away: the last answer stays, with the time at which it came. Of all answers
before it only what the curve and the rate need is kept, and of the oldest not even that.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from loadgen.watching.look import Answer, Look, Source
from loadgen.words import some

CURVE_S = 180.0  # the last minutes
MOMENTS = 400  # are kept, or more where these are fewer than fill that
RATE_S = 10.0


@dataclass(frozen=True)
class Moment:
    """One answer, as the curve and the rate need it."""

    at: float
    median: float | None
    count: int


@dataclass(frozen=True)
class Watched:
    url: str
    stream: str
    every_s: float
    answer: Answer | None = None
    sources: tuple[Source, ...] = ()
    not_ready: str = ""
    at: float = 0.0
    """When the last answer came."""
    moments: tuple[Moment, ...] = ()
    trouble: str = ""
    """Why there is no newer answer; empty: there is none."""

    def saw(self, look: Look, now: float) -> "Watched":
        if look.answer is None:
            there = f": there are {some(look.others)}" if look.others else ""
            return self.failed(f"there is no stream {self.stream!r} yet{there}")
        answer = look.answer
        kept = self.moments[-max(MOMENTS, math.ceil(2 * CURVE_S / self.every_s)) :]
        return replace(
            self,
            answer=answer,
            sources=look.sources,
            not_ready=look.not_ready,
            at=now,
            moments=(*kept, Moment(now, answer.median, answer.count)),
            trouble="",
        )

    def failed(self, trouble: str) -> "Watched":
        return replace(self, trouble=trouble)

    @property
    def rate(self) -> float | None:
        """Values a second; None while that is not known, as after a loss of memory."""
        since = self.at - max(RATE_S, 3 * self.every_s)
        last = [one for one in self.moments if one.at >= since]
        falls = [at for at, (one, two) in enumerate(pairwise(last), 1) if two.count < one.count]
        last = last[falls[-1] :] if falls else last
        if len(last) < 2 or last[-1].at <= last[0].at:
            return None
        return (last[-1].count - last[0].count) / (last[-1].at - last[0].at)

    @property
    def why(self) -> str:
        """The answer is complete or is not, because of this."""
        answer = self.answer
        if answer is None:
            return ""
        if answer.complete:
            return f"{answer.live:,} live, none silent"
        if answer.silent:
            silent = [one.worker for one in self.sources if one.state == "silent"]
            who = f": {some(silent)}" if silent else ""
            return f"{answer.live:,} live, {answer.silent:,} silent{who}"
        return (
            self.not_ready or "it has not listened for long enough, or has no memory for a source"
        )
