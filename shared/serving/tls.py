"""TLS: what a service shows of itself, and whom a worker believes.

A service that has a certificate and its key speaks TLS, 1.2 or newer, and nothing else on its port.
What is said on it is what is said without. A worker believes a coordinator whose certificate is for
the host in `MEDIAN_COORDINATOR_URL`, and was signed by somebody it trusts: those of the `certifi`
package, or those of `MEDIAN_TLS_CA`, and then nobody else. There is no way not to ask: a worker
that believed anybody would show anybody its token, and take its grants from him, and by these a
worker goes silent for as long as one likes. A certificate of one's own costs three commands.

Whatever is wrong with the files is found at the start; an encrypted key is refused, as nobody may
be there to type its password. What the certificate says of itself is read as a client would: by a
handshake in memory, with one who trusts just this certificate, at any time. That takes 2 ms.

Read again, files make a context of their own, and that takes the place of the one before. Were they
read into the old one, half of what is wrong would stay in it: a certificate, say, without its key.

Until its handshake is done a client is nothing but a socket and a few buffers: no limit of ours
knows of it but the time it may take.
"""

import logging
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import certifi
from pydantic import AfterValidator, ValidationInfo

from shared.serving.logs import as_of, facts

HANDSHAKE_S_MAX = 5.0  # asyncio's own is 60
GOODBYE_S_MAX = 2.0  # asyncio's own is 30; so long a connection would be there, and no use
ENDS_SOON_S = 30 * 86_400.0
AT_ANY_TIME = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME, for which Python has no name

log = logging.getLogger("tls")


def server_context(cert: str, key: str) -> ssl.SSLContext:
    """Raises `ValueError`, or its kind `ssl.SSLError`, for what cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # for whoever asks, each costs us more than him
    context.load_cert_chain(cert, key, password=_no_password)
    return context


def client_context(url: str, ca: str) -> ssl.SSLContext:
    """Believes whom `ca` names, or certifi; for a plain address nobody, as certifi takes 14 ms."""
    if not url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return ssl.create_default_context(cafile=ca or certifi.where())


def _no_password() -> str:
    raise ValueError("is encrypted, and nobody is here to open it: give one that is not")


class Certificate:
    """What a service shows of itself, as it was read last: handshakes by `context` go by that."""

    def __init__(self, cert: str, key: str, wall: Callable[[], float] = time.time) -> None:
        self._cert, self._key, self._wall = cert, key, wall
        self._newest, self.ends = self._read()
        self.context = self._newest
        self.context.sni_callback = self._show

    def check(self) -> None:
        """That the file of the certificate has one, whatever the key."""
        _certificates(self._cert)

    def again(self) -> None:
        """Raises `ValueError` for what cannot be used, and shows what it did."""
        self._newest, self.ends = self._read()

    def _read(self) -> tuple[ssl.SSLContext, float | None]:
        context = _of_pair(self._cert, self._key)
        return context, tell_of(context, self._cert, self._wall())

    def _show(self, shaking: ssl.SSLObject, *_: object) -> None:
        """Asked in each handshake, whether the client names a host or not."""
        shaking.context = self._newest


class Trust:
    """Whom a worker believes, as it was read last."""

    def __init__(self, url: str, ca: str) -> None:
        self._url, self._ca = url, ca
        self.context = client_context(url, ca)

    def again(self) -> None:
        """Raises `ValueError` where there is nobody to believe, and believes whom it did."""
        _certificates(self._ca)
        self.context = client_context(self._url, self._ca)

    def trouble(self, error: BaseException) -> str | None:
        """A sentence, with what to do, where the coordinator was not reached because of TLS."""
        for one in _causes(error):
            if isinstance(one, ssl.SSLCertVerificationError):
                return _not_believed(one, self._ca)
            if isinstance(one, ssl.SSLError):
                return _not_spoken(one)
        return None


# Settings


def _readable(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {(error.strerror or str(error)).lower()}") from None


def _certificates(path: str) -> str:
    """Empty, or a file that has some."""
    if path:
        _readable(path)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except ssl.SSLError:
            raise ValueError("has no certificate, or a broken one: give them as PEM") from None
    return path


def _key(path: str, info: ValidationInfo) -> str:
    """Empty, or a file with the key of the certificate, which was looked at before."""
    cert = info.data.get("tls_cert")
    if cert is None:
        return path  # that one is wrong itself
    if bool(path) != bool(cert):
        raise ValueError("name both a certificate, with MEDIAN_TLS_CERT, and its key, or neither")
    if path:
        _of_pair(cert, path)
    return path


def _of_pair(cert: str, key: str) -> ssl.SSLContext:
    if b"PRIVATE KEY-----" not in _readable(key):
        raise ValueError("has no private key: give it as PEM")
    try:
        return server_context(cert, key)
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            what = f"is not the key of {cert}: give the one that this was made with"
        else:
            what = f"is of no use with {cert}: {_said(error)}"
        raise ValueError(what) from None


CertificateFile = Annotated[str, AfterValidator(_certificates)]
KeyFile = Annotated[str, AfterValidator(_key)]


# What a certificate says


def tell_of(context: ssl.SSLContext, cert: str, now: float) -> float | None:
    """Log until when it is valid, and for whom; and what clients will not like about it."""
    try:
        said = _as_seen(context, cert)
    except ssl.SSLCertVerificationError as error:
        log.warning("clients will not accept the certificate", extra=_of(cert, error))
        return None
    begins, ends = (ssl.cert_time_to_seconds(said[name]) for name in ("notBefore", "notAfter"))
    names = ",".join(name for _, name in said.get("subjectAltName", ()))
    what = facts(file=cert, names=names, begins=as_of(begins), ends=as_of(ends))
    if not names:
        log.warning("the certificate names no host, so nobody will believe it", extra=what)
    elif now < begins:
        log.warning("the certificate is not valid yet", extra=what)
    elif now > ends:
        log.warning("the certificate has expired", extra=what)
    elif now > ends - ENDS_SOON_S:
        log.warning("the certificate ends within 30 days", extra=what)
    else:
        log.info("certificate read", extra=what)
    return ends


def _of(cert: str, error: ssl.SSLCertVerificationError) -> dict[str, Any]:
    return facts(file=cert, why=error.verify_message)


def _as_seen(context: ssl.SSLContext, cert: str) -> dict[str, Any]:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | AT_ANY_TIME
    client.load_verify_locations(cert)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks, answers = client.wrap_bio(back, there), context.wrap_bio(there, back, server_side=True)
    for end in (asks, answers):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    asks.do_handshake()
    return dict(asks.getpeercert() or {})


# What went wrong for a client

REMEDIES = {  # by the numbers that OpenSSL gives to what is wrong with a certificate
    9: "is a clock wrong, here or there?",
    10: "give the coordinator a new one, and send it SIGHUP",
    **dict.fromkeys((62, 64), "MEDIAN_COORDINATOR_URL must name it as its certificate does"),
}
UNKNOWN = {18, 19, 20, 21}  # who signed it
NO_TLS = {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _not_believed(error: ssl.SSLCertVerificationError, ca: str) -> str:
    said = f"its certificate is not accepted, {error.verify_message.rstrip('.')}"
    if error.verify_code in UNKNOWN:
        missing = f"{ca} has not the authority that signed it: add that to MEDIAN_TLS_CA"
        return f"{said}: {missing if ca else 'name in MEDIAN_TLS_CA whom to trust'}"
    remedy = REMEDIES.get(error.verify_code)
    return f"{said}: {remedy}" if remedy else said


def _not_spoken(error: ssl.SSLError) -> str:
    if error.reason in NO_TLS:
        return "it speaks no TLS: begin MEDIAN_COORDINATOR_URL with http://"
    return f"no TLS came about: {_said(error)}"


def _said(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
