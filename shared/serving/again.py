"""Reading again: on SIGHUP a service reads what its settings name as files, and goes on all along.

So tokens and certificates change without a restart, which would cost a pause, and cost a
coordinator that keeps nothing whatever workers had told it that are gone by now.

Each file is read by itself, a certificate with its key. What is right takes the place of what was,
at once and as a whole. What is wrong changes nothing, and is told as it would be at the start. What
came from a variable stays.

The signal may come at any time. It is noted before anything was read, and looked for while the
service serves; at its end nobody looks any more.
"""

import logging
import signal
from collections.abc import Callable, Mapping
from typing import Any

from shared.serving.logs import facts
from shared.serving.settings import PREFIX, ServiceSettings

SIGHUP = getattr(signal, "SIGHUP", None)  # some systems have none

log = logging.getLogger("settings")


class Hangups:
    """Notes them, from now on. Until then, one ends the process."""

    def __init__(self) -> None:
        self._came = False
        _heed(self._note)

    def came(self) -> bool:
        """Whether one did since this was asked last; however many, once."""
        if self._came:
            self._came = False  # before anything is read, so that the next is not overlooked
            return True
        return False

    def end(self) -> None:
        """Python would let one end the process again, while it ends by itself."""
        _heed(signal.SIG_IGN)

    def _note(self, *_: object) -> None:
        self._came = True


def _heed(handler: Any) -> None:
    if SIGHUP is not None:
        signal.signal(SIGHUP, handler)


def read_again(settings: ServiceSettings) -> None:
    """All files, and say which were taken."""
    taken = [name for together in settings.files() for name in _taken(settings, together)]
    names = ",".join(PREFIX + name.upper() for name in taken)
    log.info("read again" if taken else "nothing was read again", extra=facts(settings=names))


def _taken(settings: ServiceSettings, together: Mapping[str, Callable[[], None]]) -> list[str]:
    """Their names, or none if one is wrong."""
    for name, read in together.items():
        try:
            read()
        except (ValueError, OSError) as error:  # `OSError` where it changes while it is read
            what = settings.mistake(name, error)
            log.error("%s; what was read before stays", what)  # noqa: TRY400  no fault of ours
            return []
    return list(together)
