"""Room: how much a process has in work at once, so that it says no before it grows.

Who is let in has a *place* until it is answered, and holds bytes there: what its body declares,
before any of it is read; what has come, where it declares nothing; what its values take, once they
are decoded; and nothing any more when these are handed over. At all times

    places <= requests_max   and   bytes <= bytes_max, or one place holds them all,

so that the largest body that may come gets in, if only alone. Not in this account are places that
hold no more than a quarter of an equal share, 16 KiB unless set otherwise: else a few large bodies,
which come slowly or take a second to decode, would keep out everybody who brings a few values. They
add a quarter of `bytes_max` at most. Whoever would break this is told `503`, and when to come
again; nothing of it is taken. Where much of a body is still to come, or nobody knows how much, the
connection is given up.

A place is left by the last who is in it, once. Work under an Idempotency-Key, or that is written
down, is in it beside the request, and goes on when that is given up: so nobody makes room by
hanging up. And who hangs up while nothing is left to be done but to wait makes room at once:
`Watch` sees to that.

Nobody keeps a place by sending a body slowly, or never. When all are taken and one more comes, the
one that has waited longest for the next piece of its body gives way: it is told `408`, nothing of
it is taken, and its place is the other's at once. So a body that comes whole, or steadily, gets in
however many stall. Where none waits for a body, as all are at work, the one that comes is told
`503`. What had come of a body that gives way is let go at its next turn in the event loop: until
then it is in no account, and that is at most one for each connection. For bytes nobody gives way.

Nor is this in the account: what a connection takes that asks nothing, and what decoding takes for a
moment. Whoever decodes large bodies does it one by one, or one huge and one not.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self, cast

from fastapi import Request

from shared.serving.errors import Problem

AGAIN_S = 3  # at most, to come again in; drawn for each, so that not all come back at once


class Room:
    def __init__(self, *, requests_max: int, bytes_max: int) -> None:
        self._requests_max, self._bytes_max = requests_max, bytes_max
        self._little = bytes_max // (4 * max(1, requests_max))
        self.requests = self.bytes = self.large = self.shed = 0
        self.reading = OrderedDict[Place, asyncio.Timeout]()  # who waited longest comes first

    def place(self) -> "Place":
        """A place to enter, if there is one."""
        if self.requests >= self._requests_max:
            if not self.reading:
                raise self.overloaded()
            place, limit = self.reading.popitem(last=False)
            place.give_way(limit)
        return Place(self)

    def fits(self, bytes_: int, *, beside: int) -> bool:
        return not (beside and self.counted(bytes_)) or beside + bytes_ <= self._bytes_max

    def counted(self, bytes_: int) -> int:
        """Of so many bytes in one place."""
        return bytes_ if bytes_ > self._little else 0

    def overloaded(self, *, midway: bool = False) -> Problem:
        self.shed += 1
        headers = _again() | ({"connection": "close"} if midway else {})
        what = "as much is in work here as may be at once: nothing was taken, send it again later"
        return Problem(503, "overloaded", what, headers=headers)

    def waited_longest(self) -> Problem:
        self.shed += 1
        what = "all places are taken, and here a body was waited for longest: send it again later"
        return Problem(408, "too_slow", what, headers=_again() | {"connection": "close"})


def _again() -> dict[str, str]:
    return {"retry-after": str(1 + secrets.randbelow(AGAIN_S))}


class Place:
    """Of one request: entered by it, and by the work that goes on without it."""

    def __init__(self, room: Room) -> None:
        self._room, self._inside, self._bytes = room, 0, 0
        self._gave_way = False

    def __enter__(self) -> Self:
        if not self._inside:
            self._room.requests += 1
        self._inside += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._inside -= 1
        if not self._inside:
            self.hold(0)
            self._room.requests -= not self._gave_way

    @contextmanager
    def reading(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Its body, which is waited for up to this limit, or until it gives way."""
        self._room.reading[self] = limit
        try:
            yield
        finally:
            self._room.reading.pop(self, None)
            if self._gave_way:  # even if the last piece came in that very moment
                raise self._room.waited_longest()

    def came(self) -> None:
        """Another piece of its body."""
        if not self._gave_way:
            self._room.reading.move_to_end(self)

    def give_way(self, limit: asyncio.Timeout) -> None:
        """Be counted no more, and wait no longer: another comes."""
        self._gave_way = True
        self.hold(0)
        self._room.requests -= 1
        if not limit.expired():
            limit.reschedule(0)

    def hold(self, bytes_: int, *, midway: bool = False) -> None:
        """So many bytes from now on, if there is room for them beside what others hold."""
        room = self._room
        others = room.large - room.counted(self._bytes)
        if bytes_ > self._bytes and not room.fits(bytes_, beside=others):
            raise room.overloaded(midway=midway)
        room.large = others + room.counted(bytes_)
        room.bytes += bytes_ - self._bytes
        self._bytes = bytes_


class Watch:
    """Cancels a request whose client went away, from when it only waits; its body must be read."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._waits = cast("asyncio.Task[object]", asyncio.current_task())
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._watching:
            self._watching.cancel()

    def begin(self) -> None:
        self._watching = asyncio.create_task(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self._waits.cancel()
