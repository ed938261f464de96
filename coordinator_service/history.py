"""The history of a stream: its answers as they were, few enough to be kept, and to be drawn.

Time is cut into steps. Of each step in which another answer was made, the last is kept, as a
**moment**. It holds until the next one: between the two nothing changed, but within a step.

    reaches back       5 minutes    an hour     a day
    in steps of        1 s          15 s        6 minutes

Each of these has moments of its own, at most one a step; where there were fewer, it reaches further
back. And only some streams have a history: those that somebody looked at or listened to last, and
others while there is room.

Times are those of the clock that never goes back. What they are on the wall is said when somebody
asks, by the wall clock as it is then.
"""

import math
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, cast

from coordinator_service.answers import Kept, finite

STEPS = {300.0: 1.0, 3600.0: 15.0, 86400.0: 360.0}  # how far it reaches: how long a step is
LAST_S_MAX = max(STEPS)
HISTORIES_MAX = 32  # a stream whose answer changes all the time takes 0.2 MB


@dataclass(frozen=True, slots=True)
class Moment:
    at: float
    median: float
    low: float | None
    high: float | None
    rank_error: float
    count: int
    complete: bool


COLUMNS = [one.name for one in fields(Moment)]


def moment_of(kept: Kept) -> Moment | None:
    """An answer, as far as it is remembered; there is none without values."""
    answer, estimate = kept.answer, kept.answer.estimate
    if estimate is None:
        return None
    return Moment(
        at=kept.made,
        median=estimate.value,
        low=finite(estimate.low),
        high=finite(estimate.high),
        rank_error=estimate.rank_error,
        count=answer.count,
        complete=answer.complete,
    )


class Series:
    """The last moment of each step."""

    def __init__(self, reach_s: float, step_s: float) -> None:
        self.step_s = step_s
        # One more for the step that has begun, and one that holds where it begins.
        self._moments = deque[Moment](maxlen=math.ceil(reach_s / step_s) + 2)

    def add(self, moment: Moment) -> None:
        if self._moments and self._step(self._moments[-1]) == self._step(moment):
            self._moments.pop()
        self._moments.append(moment)

    def _step(self, moment: Moment) -> int:
        return math.floor(moment.at / self.step_s)

    @property
    def has_all(self) -> bool:
        """Whether nothing was dropped yet, however far back that is."""
        return len(self._moments) < cast(int, self._moments.maxlen)

    def since(self, start: float) -> list[Moment]:
        """All from then on, after the one that was holding then."""
        moments = list(self._moments)
        holding = bisect_right(moments, start, key=attrgetter("at")) - 1
        return moments[max(0, holding) :]


class Histories:
    def __init__(self) -> None:
        self._all: OrderedDict[str, dict[float, Series]] = OrderedDict()

    def fill(self, streams: Iterable[str]) -> None:
        """Begin one of each of these, while there is room."""
        for stream in streams:
            if len(self._all) >= HISTORIES_MAX:
                return
            if stream not in self._all:
                self._begin(stream)

    def look(self, stream: str) -> None:
        """Somebody looks at it: so it has one, if another must make room."""
        if stream not in self._all:
            if len(self._all) >= HISTORIES_MAX:
                self._all.popitem(last=False)
            self._begin(stream)
        self._all.move_to_end(stream)

    def listened_to(self, streams: Iterable[str]) -> None:
        """Those of them that have one keep it longest. None makes room: they would in turns."""
        for stream in streams:
            if stream in self._all:
                self._all.move_to_end(stream)

    def _begin(self, stream: str) -> None:
        self._all[stream] = {reach_s: Series(reach_s, step_s) for reach_s, step_s in STEPS.items()}

    @property
    def streams(self) -> list[str]:
        return list(self._all)

    def add(self, kept: Kept) -> None:
        moment = moment_of(kept)
        if moment and kept.answer.stream in self._all:
            for series in self._all[kept.answer.stream].values():
                series.add(moment)

    def told(self, stream: str, last_s: float, *, now: float, wall: float) -> dict[str, Any]:
        """What it was in the last so many seconds, in the finest steps that have it all."""
        all_ = self._all[stream]
        series = next(one for reach, one in all_.items() if last_s <= reach or one.has_all)
        moments = series.since(now - last_s)
        columns = {name: [getattr(one, name) for one in moments] for name in COLUMNS}
        at = [round(wall - (now - one.at), 3) for one in moments]
        return {"stream": stream, "step_s": series.step_s} | columns | {"at": at}
