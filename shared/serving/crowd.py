"""The crowd: all connections that are open, and who makes room when one more comes.

A connection is *in work* while a request of it waits for its answer, and *idle* otherwise: between
two requests, while a head is still arriving, while the last answer is read. There are at most
`connections_max` of them. When one more comes, one that lingers only to be read makes room (see
`parting.py`), and where there is none the one that has idled longest; it is
told nothing, or `503` where something of a head had come. So those who hold connections without
asking anything never keep out who asks, however many they are. Where none idles, whoever comes is
told `503`: all are in work, and work ends. Bodies arrive in `MEDIAN_BODY_S_MAX`, and may wait in at
most `MEDIAN_REQUESTS_MAX` places; at most 500 listen to events; all other answers are quick.

What was told and not read waits in memory: of all connections `UNREAD_BYTES_MAX`, or one has it
all. Beyond, who has left something unread for longest is given up.

Once a second the server looks at all of them, as whoever is late does nothing that would tell. And
it logs how many were given up, and why, at most once a minute: a line for each would let anybody
fill a disk.
"""

import logging
import math
from collections import Counter, OrderedDict
from typing import Protocol, cast

from uvicorn.server import ServerState

from shared.serving.logs import facts

UNREAD_BYTES_MAX = 64 * 2**20
TELL_S = 60.0
BACKLOG = 512  # connections that the system holds until they are accepted
BACKLOGS = 5  # asyncio accepts so many of these before one of them can have made room
FILES_MAX = 128  # descriptors of all else: files, SQLite's, the courier's connections

log = logging.getLogger("connections")


class Guest(Protocol):
    """A connection, as the crowd knows it."""

    def look(self, now: float) -> None: ...
    def make_room(self) -> None: ...
    def give_up(self, why: str) -> None: ...
    def unread(self) -> int: ...


class Crowd(ServerState):
    """What uvicorn's connections share, and in which order they idle and leave things unread."""

    def __init__(self, connections_max: int) -> None:
        super().__init__()
        self.connections_max = connections_max
        self.idle = OrderedDict[Guest, None]()  # who has idled longest comes first
        self.leaving = set[Guest]()  # who makes room, and is not gone yet
        self.unread = dict[Guest, None]()
        self.given_up = Counter[str]()
        self._logged, self._logs_at = Counter[str](), -math.inf

    def has_room(self) -> bool:
        """For the one that came last, which is among the connections, and does not idle yet."""
        while len(self.connections) - len(self.leaving) > self.connections_max:
            if not self.idle:
                return False
            guest, _ = self.idle.popitem(last=False)
            self.leaving.add(guest)
            guest.make_room()
        return True

    def parts(self, guest: Guest) -> None:
        """It lingers, and so makes room first."""
        self.idle[guest] = None
        self.idle.move_to_end(guest, last=False)

    def leave(self, guest: Guest) -> None:
        self.idle.pop(guest, None)
        self.leaving.discard(guest)
        self.unread.pop(guest, None)

    def left_unread(self, guest: Guest) -> None:
        """More than fits into its socket; give up others, if it is too much of all."""
        self.unread.setdefault(guest)
        left = {one: one.unread() for one in self.unread}
        for one in list(left)[:-1]:
            if sum(left.values()) <= UNREAD_BYTES_MAX:
                return
            del left[one], self.unread[one]
            one.give_up("unread")

    def look(self, now: float) -> None:
        """Once a second, at all: somebody may be late; and something may be worth a line."""
        for one in cast("list[Guest]", list(self.connections)):
            one.look(now)
        if self.given_up != self._logged and now >= self._logs_at:
            log.warning("connections given up", extra=facts(**(self.given_up - self._logged)))
            self._logged, self._logs_at = self.given_up.copy(), now + TELL_S


def afforded(connections_max: int) -> tuple[int, int]:
    """How many, and of how many beside these a backlog; as many as there are descriptors for.

    Raises the soft limit of them, where it can. Without any, 400 connections to an asyncio of 200
    wrote 10,000 log lines a second, and took half a core; uvloop closed each that came.
    """
    try:
        import resource  # noqa: PLC0415  not there on Windows
    except ImportError:
        return connections_max, BACKLOG
    which = resource.RLIMIT_NOFILE
    soft, hard = resource.getrlimit(which)
    needed = connections_max + BACKLOGS * BACKLOG + FILES_MAX
    if needed > soft != resource.RLIM_INFINITY:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(which, (soft, hard))
    if needed <= soft or soft == resource.RLIM_INFINITY:
        return connections_max, BACKLOG
    fewer = max(1, min(connections_max, soft // 2))
    what = facts(connections_max=fewer, descriptors=soft)
    log.warning("fewer connections than was set: the limit of descriptors", extra=what)
    return fewer, max(1, min(BACKLOG, (soft - fewer - FILES_MAX) // BACKLOGS))
