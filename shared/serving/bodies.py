"""Bodies: whole, and within limits of size, of time and of room, or not at all."""

import asyncio

from fastapi import Request
from starlette.requests import ClientDisconnect

from shared.serving.errors import Problem
from shared.serving.room import Place

LENGTH_DIGITS = 18  # of a length that is worth reading
DROPPED_MAX = 2**16  # bytes that are read for nothing, to keep a connection


async def body_of(request: Request, place: Place, *, bytes_max: int, s_max: float) -> bytes:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        what = f"a body is taken as it is, not as {encoding}"
        raise Problem(415, "unknown_content_encoding", what)
    declared = _declared(request)
    if declared > bytes_max:
        raise _too_large(bytes_max)
    place.hold(declared, midway=declared > DROPPED_MAX)
    try:
        async with asyncio.timeout(s_max) as limit:
            with place.reading(limit):
                return await _read(request, place, declared, bytes_max)
    except TimeoutError:
        what = f"the body did not arrive within {s_max:g} s"
        raise Problem(408, "too_slow", what, headers={"connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(400, "cut_short", "the body ended too early") from None


def _declared(request: Request) -> int:
    """How long it says that it is, as far as one reads; 0 where it says nothing."""
    declared = request.headers.get("content-length", "0")
    return int(declared[:LENGTH_DIGITS]) if declared.isdecimal() else 0


async def _read(request: Request, place: Place, declared: int, bytes_max: int) -> bytes:
    pieces, size = [], 0
    async for piece in request.stream():
        place.came()
        size += len(piece)
        if size > bytes_max:
            raise _too_large(bytes_max)
        if size > declared:
            place.hold(size, midway=True)
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(bytes_max: int) -> Problem:
    what = f"a body has at most {bytes_max} bytes: send it in parts"
    return Problem(413, "too_large", what, headers={"connection": "close"})
