"""Idempotency keys: a request that a client repeats, because it saw no answer, counts once.

The last so many keys are remembered, each with a hash of what was sent, and what came of it or is
still to come. A repeat gets the same answer; the same key with another content is refused. A
request that was not taken is forgotten, so that it may be tried again; one that still waits is not.
Where there is a store, a key is written down with its batch, in one transaction; so after a restart
a repeat is known for what it is, or nothing of the first is there.
"""

import asyncio
from asyncio import Task
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple, TypeAlias

from worker_service.sources import Taken
from worker_service.store import KeptKey, Key

Work: TypeAlias = Callable[[], Coroutine[Any, Any, Taken]]

KEY_MAX = 255  # characters


def checked(key: str) -> str:
    if not 1 <= len(key) <= KEY_MAX or not (key.isascii() and key.isprintable()):
        what = f"an Idempotency-Key is 1 to {KEY_MAX} printable ASCII characters"
        raise BadKey("bad_key", what)
    return key


class BadKey(ValueError):
    """The code is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Known(NamedTuple):
    content: bytes
    outcome: Taken | Task[Taken]


class Keys:
    def __init__(self, most: int, kept: Iterable[KeptKey] = ()) -> None:
        self._most = most
        self._known = {
            one.key.name: Known(one.key.content, Taken(one.accepted, one.count, one.number))
            for one in kept
        }

    def __len__(self) -> int:
        return len(self._known)

    async def once(self, key: Key, work: Work) -> Taken:
        """What comes of the work, which goes on to its end though nobody may wait for it."""
        known = self._known.get(key.name) or self._begun(key, work)
        if known.content != key.content:
            what = "this Idempotency-Key was used for other values; draw a new one for each request"
            raise BadKey("key_reused", what)
        if isinstance(known.outcome, Taken):
            return known.outcome
        return await asyncio.shield(known.outcome)

    def _begun(self, key: Key, work: Work) -> Known:
        task = asyncio.create_task(work())
        task.add_done_callback(lambda task: self._ended(key.name, task))
        known = self._known[key.name] = Known(key.content, task)
        return known

    def _ended(self, key: str, task: Task[Taken]) -> None:
        if task.cancelled() or task.exception() is not None:
            del self._known[key]
            return
        self._known[key] = Known(self._known[key].content, task.result())
        if len(self._known) > self._most:
            ended = (one for one, known in self._known.items() if isinstance(known.outcome, Taken))
            del self._known[next(ended)]
