"""Bodies: whole, and within limits of size and of time, or not at all."""

import asyncio

from fastapi import Request
from starlette.requests import ClientDisconnect

from shared.serving.errors import Problem

LENGTH_DIGITS = 18  # of a length that is worth reading


async def body_of(request: Request, *, bytes_max: int, s_max: float) -> bytes:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        what = f"a body is taken as it is, not as {encoding}"
        raise Problem(415, "unknown_content_encoding", what)
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and (len(declared) > LENGTH_DIGITS or int(declared) > bytes_max):
        raise _too_large(bytes_max)
    try:
        async with asyncio.timeout(s_max):
            return await _read(request, bytes_max)
    except TimeoutError:
        what = f"the body did not arrive within {s_max:g} s"
        raise Problem(408, "too_slow", what, headers={"connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(400, "cut_short", "the body ended too early") from None


async def _read(request: Request, bytes_max: int) -> bytes:
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > bytes_max:
            raise _too_large(bytes_max)
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(bytes_max: int) -> Problem:
    what = f"a body has at most {bytes_max} bytes: send it in parts"
    return Problem(413, "too_large", what, headers={"connection": "close"})
