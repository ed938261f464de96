"""Work that goes on beside the requests, and without which a service is none."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

log = logging.getLogger("service")


@asynccontextmanager
async def vital(
    work: Coroutine[Any, Any, None], *, name: str, fail: Callable[[], None]
) -> AsyncIterator[None]:
    """At work until the end. Should it die before, that is told, instead of going on without it."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.critical("the %s died; so does this service", name, exc_info=error)
            fail()

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(ended)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
