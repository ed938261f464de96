"""One request, and its whole reply: in time, and within limits, whoever it is that listens.

It speaks through httpx's transport. A client of httpx would unpack what is compressed, a thousand
times as much as came; it knows cookies, and where redirects lead: nothing of that means anything
here, and what is wrong with it would be trouble of ours. So what is asked for is the plain bytes,
and what comes packed all the same is no JSON.
"""

import asyncio
import json
from collections.abc import AsyncIterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import httpx

from loadgen.access import Access

REPLY_BYTES_MAX = 2**24  # ten thousand rows with the longest names, `GET /workers`, are 12 MB
TEXT_BYTES_MAX = 2000  # of what is no JSON; more is never shown
PLAIN = {"accept": "application/json", "accept-encoding": "identity"}


class Endless(Exception):
    """More came than any service says; the rest is not read."""

    def __init__(self) -> None:
        super().__init__(f"a reply of more than {REPLY_BYTES_MAX:,} bytes")


@dataclass(frozen=True)
class Reply:
    asked: httpx.URL
    status: int
    headers: httpx.Headers
    content: bytes

    def json(self) -> Any:
        """`ValueError` says that it is none, or nests deeper than can be read."""
        try:
            return json.loads(self.content)
        except RecursionError:
            raise ValueError("it nests too deep") from None

    @property
    def text(self) -> str:
        """How it begins."""
        return self.content[:TEXT_BYTES_MAX].decode(errors="replace")

    @property
    def error(self) -> tuple[str, str]:
        """Code and message of what every service here says when something is wrong."""
        with suppress(ValueError):
            match self.json():
                case {"error": {"code": str(code), "message": str(message)}}:
                    return code, message
        return "", ""


class Way:
    """To all services: connections that stay open."""

    def __init__(
        self,
        access: Access,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        s_max: float,
        timeout: httpx.Timeout | None = None,
    ) -> None:
        self._s_max, self._timeout = s_max, timeout or httpx.Timeout(s_max)
        self._transport = transport or httpx.AsyncHTTPTransport(
            trust_env=False,
            verify=access.context,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )

    async def close(self) -> None:
        await self._transport.aclose()

    async def ask(self, request: httpx.Request) -> Reply:
        """`httpx.TransportError` where none came in time; `Endless` where it is too long."""
        request.headers.update(PLAIN)
        request.extensions = {**request.extensions, "timeout": self._timeout.as_dict()}
        if request.url.userinfo:
            basic = httpx.BasicAuth(request.url.username, request.url.password)
            request = next(basic.auth_flow(request))
        try:
            async with asyncio.timeout(self._s_max):
                return await self._replied(request)
        except TimeoutError:
            raise httpx.ReadTimeout(f"none that is whole within {self._s_max:g} s") from None

    async def _replied(self, request: httpx.Request) -> Reply:
        response = await self._transport.handle_async_request(request)
        try:
            content = bytearray()
            async for piece in cast(AsyncIterable[bytes], response.stream):
                content += piece
                if len(content) > REPLY_BYTES_MAX:
                    raise Endless
        finally:
            await response.aclose()
        return Reply(request.url, response.status_code, response.headers, bytes(content))
