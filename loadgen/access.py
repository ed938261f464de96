"""Access: the tokens that are shown to services, and whom one believes over TLS.

All of it comes from the environment, as whoever lists processes sees their command lines, and under
the names that the services have for it: one set of variables serves all. What is wrong is told in a
sentence that quotes no token, nor what is none: it may be half of one.
"""

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import certifi

INGEST_DOOR = "ingest"  # as `GET /health` of a worker calls it
INGEST, READ, CA = "MEDIAN_INGEST_TOKEN", "MEDIAN_READ_TOKEN", "MEDIAN_TLS_CA"
TOKEN = re.compile(r"(?=.{16,256}$)[A-Za-z0-9._~+/-]+=*")  # as the services have it
FILE_BYTES_MAX = 2**14
REMEDIES = {  # by the numbers that OpenSSL gives to what is wrong with a certificate
    9: "is a clock wrong, here or there?",
    10: "give it a new one, and restart it",
    **dict.fromkeys((18, 19, 20, 21), f"name in {CA} whom to trust"),
    **dict.fromkeys((62, 64), "give the address by which its certificate calls it"),
}
NO_TLS = {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}
IF_TLS = "if it speaks TLS, begin its address with https://"


class NoAccess(RuntimeError):
    """A variable that is to let one in is of no use; the message says which, and why."""


@dataclass(frozen=True)
class Access:
    """To services that ask for nothing, unless it is told more."""

    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca: str = ""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        tokens = {name: _token(name, environment) for name in (INGEST, READ)}
        access = cls(tokens, environment.get(CA, ""))
        _ = access.context
        return access

    def headers(self, method: str) -> dict[str, str]:
        """What shows the token for such a request, where there is one."""
        token = self.tokens.get(_asked_by(method))
        return {"authorization": f"Bearer {token}"} if token else {}

    @cached_property
    def context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca or certifi.where())
        except ssl.SSLError:
            raise NoAccess(f"{CA}={self.ca}: has no certificate, or a broken one") from None
        except OSError as error:
            raise NoAccess(f"{CA}={self.ca}: cannot be read: {error.strerror or error}") from None

    def remedy(self, method: str) -> str:
        """What to do about a 401."""
        name = _asked_by(method)
        if self.tokens.get(name):
            return f"the token of {name} is another than it asks for"
        return f"it asks for a token: set {name}, or {name}_FILE to a file that has it"


def _asked_by(method: str) -> str:
    return READ if method == "GET" else INGEST


def _token(name: str, environment: Mapping[str, str]) -> str:
    """The first of those that are named, as any of them opens; empty where none is."""
    path, given = environment.get(f"{name}_FILE", ""), environment.get(name, "")
    if path and given.split():
        raise NoAccess(f"{name}_FILE and {name} are both set: set one of the two")
    tokens = (_read(name, path) if path else given).split()
    if not all(map(TOKEN.fullmatch, tokens)) or (path and not tokens):
        what = "a token has 16 to 256 letters, digits and -._~+/, and = at its end"
        raise NoAccess(f"{name}{'_FILE' if path else ''} has no token, or what is none: {what}")
    return tokens[0] if tokens else ""


def _read(name: str, path: str) -> str:
    """Who puts the token in place of its file's name does not see it again."""
    try:
        with Path(path).open("rb") as file:
            return file.read(FILE_BYTES_MAX).decode("ascii", errors="replace")
    except OSError as error:
        what = f"{name}_FILE names a file that cannot be read: {error.strerror or error}"
        raise NoAccess(what) from None


def distrust(error: BaseException) -> str | None:
    """A sentence, with what to do, where no second try is of use, as TLS came to nothing."""
    for one in _causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return _not_believed(one)
        if isinstance(one, ssl.SSLError) and one.reason in NO_TLS:
            return "it speaks no TLS: begin its address with http://"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _not_believed(error: ssl.SSLCertVerificationError) -> str:
    said = f"its certificate is not accepted, {error.verify_message.rstrip('.')}"
    remedy = REMEDIES.get(error.verify_code)
    return f"{said}: {remedy}" if remedy else said
