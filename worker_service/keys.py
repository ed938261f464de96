"""Idempotency keys: a request that a client repeats, because it saw no answer, counts once.

The last so many keys are remembered, each with a hash of what was sent, and what came of it or is
still to come. A repeat gets the same answer; the same key with another content is refused. A
request that was not taken is forgotten, so that it may be tried again.
"""

import asyncio
from asyncio import Task
from collections.abc import Callable, Coroutine
from hashlib import blake2b
from typing import Any, NamedTuple, TypeAlias

Work: TypeAlias = Callable[[], Coroutine[Any, Any, int]]

KEY_MAX = 255  # characters


class BadKey(ValueError):
    """The code is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Request(NamedTuple):
    content: bytes
    task: Task[int]


class Keys:
    def __init__(self, most: int) -> None:
        self._most = most
        self._requests: dict[str, Request] = {}

    def __len__(self) -> int:
        return len(self._requests)

    async def once(self, key: str, content: bytes, work: Work) -> int:
        """What comes of the work, which goes on to its end though nobody may wait for it."""
        if not 1 <= len(key) <= KEY_MAX or not (key.isascii() and key.isprintable()):
            what = f"an Idempotency-Key is 1 to {KEY_MAX} printable ASCII characters"
            raise BadKey("bad_key", what)
        content = blake2b(content, digest_size=16).digest()
        request = self._requests.get(key)
        if request is None:
            request = self._begun(key, Request(content, asyncio.create_task(work())))
        if request.content != content:
            what = "this Idempotency-Key was used for other values; draw a new one for each request"
            raise BadKey("key_reused", what)
        return await asyncio.shield(request.task)

    def _begun(self, key: str, request: Request) -> Request:
        self._requests[key] = request
        request.task.add_done_callback(lambda task: self._ended(key, task))
        if len(self._requests) > self._most:
            del self._requests[next(iter(self._requests))]
        return request

    def _ended(self, key: str, task: Task[int]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if failed and key in self._requests and self._requests[key].task is task:
            del self._requests[key]
