"""Doors: who may do what. Behind each is one kind of request, and a token opens it.

    push     a worker tells the coordinator what it counted    POST /deltas
    ingest   somebody gives a worker values                    POST /values, POST /flush
    read     somebody asks for what is known                   GET of answers, and of metrics
    admin    an operator gives a worker up                     POST /workers/NAME/retire

A token opens the door that it is set for, and no other; one that is set for all opens all. A door
for which none is set stands open. What tells nothing of any value has no door: whether a service
runs, and is ready, its documentation, and the page without its numbers.

An open door is not open to all the same: a page of anybody's, in the browser of somebody who
reaches the service, can post to it what a form can, and so could send values to a worker that asks
nobody. Browsers name the origin of who posts; where it is another than the service itself, the
request is refused. With a token there is no need to ask: no such page can show one.

Who has no right token is told so before anything else of his request is looked at, and nothing of
its body is read.
"""

import logging
from ipaddress import ip_address
from typing import Any

from fastapi import Depends, Request
from fastapi.params import Depends as Dependency
from fastapi.security import HTTPBearer
from starlette.types import Scope

from shared.serving.errors import Problem, responses
from shared.serving.logs import facts
from shared.serving.settings import PREFIX, ServiceSettings
from shared.serving.tokens import Tokens

LETS = {
    "push": "push deltas",
    "ingest": "send values",
    "read": "read answers and metrics",
    "admin": "retire workers",
}

READ = "read"  # changes nothing
ORIGIN_SHOWN = 100

log = logging.getLogger("doors")


class Door(HTTPBearer):
    """To be a dependency of what lies behind it."""

    def __init__(self, name: str, tokens: Tokens) -> None:
        words = f"the {name} token: who has it may {LETS[name]}"
        super().__init__(scheme_name=name, description=words, auto_error=False)
        self.name, self.turned_away = name, 0
        self._tokens = tokens

    @property
    def has_lock(self) -> bool:
        return bool(self._tokens)

    def opens_to(self, scope: Scope) -> bool:
        """Whether this request shows a token that fits, or needs none."""
        return not self._tokens or self._tokens.has(_shown(scope))

    def tells(self, request: Request, reason: str) -> str:
        """Why something is not as it should be; which is told behind this door only."""
        return reason if self.opens_to(request.scope) else f"why is told with the {self.name} token"

    async def __call__(self, request: Request) -> None:  # type: ignore[override]  # and tells none
        if not self.opens_to(request.scope):
            self.turned_away += 1
            raise self._problem(request)

    def _problem(self, request: Request) -> Problem:
        shown = bool(_shown(request.scope))
        what = f"{request.method} {request.scope['path']} asks for the {self.name} token"
        how = "this is another" if shown else "send it as Authorization: Bearer TOKEN"
        asks = f'Bearer realm="{self.name}"' + (', error="invalid_token"' if shown else "")
        headers = {"www-authenticate": asks, "connection": "close"}
        return Problem(401, "unauthorized", f"{what}; {how}", headers=headers)

    @property
    def locks(self) -> list[Dependency]:
        """For the dependencies of what lies behind this door; and this for its responses."""
        if self.has_lock:
            return [Depends(self)]
        return [] if self.name == READ else [Depends(refuse_pages_of_others)]

    @property
    def refusals(self) -> dict[int | str, dict[str, Any]]:
        if self.has_lock:
            return responses(_401=f"not the {self.name} token")
        return {} if self.name == READ else responses(_403="from a page of another origin")


async def refuse_pages_of_others(request: Request) -> None:
    """They may read, as their browsers keep the answers from them; but not change anything."""
    origin = request.headers.get("origin", "")
    if origin and origin.partition("://")[2] != request.headers.get("host"):
        what = f"this comes from a page of {origin[:ORIGIN_SHOWN]!r}, and such may not"
        raise Problem(403, "cross_origin", what, headers={"connection": "close"})


class Doors(dict[str, Door]):
    """Of one service, by name."""

    def __init__(self, settings: ServiceSettings) -> None:
        super().__init__({name: Door(name, settings.tokens(name)) for name in settings.doors})

    def closed_to(self, request: Request) -> list[str]:
        return [name for name, door in self.items() if not door.opens_to(request.scope)]


def tell_of_doors(settings: ServiceSettings) -> None:
    """Which are locked; and what others than this machine may do unasked, or may overhear."""
    locked = [name for name in settings.doors if settings.tokens(name)]
    unlocked = [name for name in settings.doors if name not in locked]
    log.info("doors", extra=facts(locked=",".join(locked), open=",".join(unlocked)))
    if is_loopback(settings.host):
        return
    if unlocked:
        may = _joined([LETS[name] for name in unlocked])
        which = _joined([f"{PREFIX}{name.upper()}_TOKEN" for name in unlocked])
        what = "whoever reaches %s, port %s, may %s: to ask for tokens, set %s"
        log.warning(what, settings.host, settings.port, may, which)
    if locked and not settings.tls_cert:
        what = (
            "tokens come unencrypted: set MEDIAN_TLS_CERT and MEDIAN_TLS_KEY, or have a proxy do it"
        )
        log.warning(what)


def _shown(scope: Scope) -> bytes:
    """The token that a request shows."""
    given = (value for name, value in scope["headers"] if name == b"authorization")
    scheme, _, token = next(given, b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _joined(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last
