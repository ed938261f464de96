"""Tokens: who knows one is let in. They are never shown, neither in logs nor in what goes wrong.

A setting may name several: any of them opens, and the first is the one that is sent. So they can be
changed without a pause: first every door is told the new one beside the old, then everybody who
sends it, and then the old one is taken away. Those of a file are as it says when it is read again.

They are compared as hashes, each whole, with all there are. So how long it takes says nothing of
how much of one is right.
"""

import re
from collections.abc import Iterable
from hashlib import blake2b
from hmac import compare_digest
from pathlib import Path
from typing import Annotated, Self

from pydantic import PlainValidator

TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what RFC 6750 lets a bearer send
LENGTH_MIN, LENGTH_MAX = 16, 256
FILE_BYTES_MAX = 2**14
REMEDY = "make one with `openssl rand -hex 32`"


class Tokens:
    """Any of these opens; none opens where there are none."""

    def __init__(self, *tokens: str, file: str = "") -> None:
        self.file = file
        self._know(tokens)

    def _know(self, tokens: Iterable[str]) -> None:
        self._all = tuple(map(_checked, tokens))
        self._hashes = [_hashed(one.encode()) for one in self._all]

    def __bool__(self) -> bool:
        return bool(self._all)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokens) and self._hashes == other._hashes

    __hash__ = None  # type: ignore[assignment]  # as they change

    def __repr__(self) -> str:
        return f"<{len(self._all)} tokens>"

    @classmethod
    def of(cls, text: str | Self) -> Self:
        """Of a setting: separated by blanks, tabs or lines."""
        return text if isinstance(text, cls) else cls(*str(text).split())

    @classmethod
    def in_file(cls, path: str | Self) -> Self:
        """Of a setting that names a file, which has at least one."""
        if isinstance(path, cls) or not path:
            return cls.of(path)
        return cls(*_found_in(Path(str(path))), file=str(path))

    def again(self) -> None:
        """As their file says now. Raises `ValueError` where that is wrong, and stays as it was."""
        if Path(self.file).is_fifo():
            raise ValueError("is a pipe, which is read once only: name a file")
        self._know(_found_in(Path(self.file)))

    def has(self, given: bytes) -> bool:
        hashed = _hashed(given)
        return sum(compare_digest(hashed, one) for one in self._hashes) > 0

    @property
    def header(self) -> dict[str, str]:
        """What shows the first of them; nothing where there is none."""
        return {"authorization": f"Bearer {self._all[0]}"} if self else {}


def _checked(token: str) -> str:
    if not LENGTH_MIN <= len(token) <= LENGTH_MAX:
        raise ValueError(f"a token has {LENGTH_MIN} to {LENGTH_MAX} characters: {REMEDY}")
    if not TOKEN.fullmatch(token):
        raise ValueError(f"a token has letters, digits and -._~+/ only, and = at its end: {REMEDY}")
    return token


def _hashed(token: bytes) -> bytes:
    return blake2b(token).digest()


def _found_in(path: Path) -> list[str]:
    if tokens := _read(path).split():
        return tokens
    raise ValueError(f"there is no token in this file: {REMEDY}")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    if len(content) > FILE_BYTES_MAX or not content.isascii():
        raise ValueError(f"is no file of tokens: {REMEDY}")
    return content.decode()


OfSetting = Annotated[Tokens, PlainValidator(Tokens.of)]
OfFile = Annotated[Tokens, PlainValidator(Tokens.in_file)]
