"""Settings: environment variables that begin with `MEDIAN_`, read once, at the start.

What is in the files that some of them name may be read again.

They are built in `__main__` and handed down; no module asks the environment. What is wrong stops
the start, with one line for each mistake.
"""

import difflib
import os
import re
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Self, get_args, get_origin

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.serving.storage import Fsync
from shared.serving.tls import Certificate, CertificateFile, KeyFile
from shared.serving.tokens import OfFile, OfSetting, Tokens

PREFIX = "MEDIAN_"
PATH_MAX = 4096
PASSWORD = re.compile(r"//[^/@]*@")
MIB = 2**20
LOCKS = {
    *(f"{PREFIX}{name}_TOKEN" for name in ("PUSH", "INGEST", "READ", "ADMIN")),
    *(f"{PREFIX}{name}_TOKEN_FILE" for name in ("PUSH", "INGEST", "READ", "ADMIN")),
    *(f"{PREFIX}TLS_{name}" for name in ("CERT", "KEY", "CA")),
}  # of all services, so that one set of variables serves them all
FILES = {name.removeprefix(PREFIX).lower() for name in LOCKS if not name.endswith("_TOKEN")}


class ServiceSettings(BaseSettings):
    """What every service lets its operator choose."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)
    doors: ClassVar[tuple[str, ...]] = ("read",)

    host: str = Field(
        "127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0: all there are"
    )
    port: int = Field(0, ge=0, le=65535, description="port to listen on")
    log_format: Literal["text", "json"] = Field("text", description="how log lines look")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="what is logged: this and worse"
    )
    body_s_max: float = Field(
        10.0, gt=0, le=3600, description="seconds that a request's body may take to arrive"
    )
    data_dir: str = Field(
        "", description="directory that keeps everything through a restart; unless set, memory only"
    )
    fsync: Fsync = Field(
        "always",
        description="when what is kept there is brought to the disk: before it is acknowledged, "
        "or once in a second",
    )
    work_bytes_max: int = Field(
        64 * MIB,
        ge=0,
        description="bytes of bodies and their values in work at once; any one gets in alone",
    )
    requests_max: int = Field(
        1024, ge=1, description="requests with a body that are in work at once; more are told 503"
    )
    # One takes 6 KiB, 9 once it was answered, 37 with the largest head: 150 MiB, if all send that.
    connections_max: int = Field(
        4096,
        ge=1,
        description="connections at once; for one more, the one that has idled longest makes room",
    )
    tls_cert: CertificateFile = Field(
        "", description="file with its certificate and the chain, PEM; unless set, it speaks no TLS"
    )
    tls_key: KeyFile = Field(
        "", validate_default=True, description="file with the key of that, PEM, not encrypted"
    )
    read_token: OfSetting = Field(
        Tokens(), description="whoever asks for what is known must show it; unless set, nobody must"
    )
    read_token_file: OfFile = Field(Tokens(), description="a file with it, instead")

    @field_validator("*")
    @classmethod
    def _is_set_once(cls, given: object, info: ValidationInfo) -> object:
        other = (info.field_name or "").removesuffix("_file")
        if (
            isinstance(given, Tokens)
            and other != info.field_name
            and given
            and info.data.get(other)
        ):
            raise ValueError(f"{PREFIX}{other.upper()} is set, too: set one of the two")
        return given

    def tokens(self, name: str) -> Tokens:
        """Of a door, wherever they were named."""
        found: Tokens = getattr(self, f"{name}_token") or getattr(self, f"{name}_token_file")
        return found

    @cached_property
    def certificate(self) -> Certificate | None:
        """What it shows of itself, if it speaks TLS."""
        return Certificate(self.tls_cert, self.tls_key) if self.tls_cert else None

    def files(self) -> list[dict[str, Callable[[], None]]]:
        """By setting how each is read again; together what is of use only together."""
        named = ((name, getattr(self, name)) for name in type(self).model_fields)
        files = [{name: one.again} for name, one in named if isinstance(one, Tokens) and one.file]
        if self.certificate:
            files.append({"tls_cert": self.certificate.check, "tls_key": self.certificate.again})
        return files

    def mistake(self, name: str, error: Exception) -> str:
        """In a file that was read again, as at the start it would be told."""
        value = getattr(self, name)
        return _mistake(name, value.file if isinstance(value, Tokens) else value, str(error))

    @classmethod
    def of(cls, arguments: list[str], command: str) -> Self:
        """From the environment; leaves with a text for `--help`, or if something is wrong."""
        if "-h" in arguments or "--help" in arguments:
            sys.stdout.write(cls.help(command))
            raise SystemExit(0)
        if arguments:
            raise SystemExit(f"{command} takes no arguments: it is set by {PREFIX}... variables")
        locks = [*map(_no_lock, cls.strangers()), *map(_empty_lock, sorted(LOCKS))]
        if any(locks):
            raise SystemExit("\n".join(filter(None, locks)))
        try:
            return cls()
        except ValidationError as error:
            raise SystemExit("\n".join(_mistakes(error))) from None

    @classmethod
    def strangers(cls) -> list[str]:
        """Variables that look like settings, and are none of this service, nor another's lock."""
        known = {name for name, _, _ in cls.table()} | LOCKS
        return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)

    @classmethod
    def help(cls, command: str) -> str:
        head = f"{command}: set by environment variables, in brackets what they are unless set.\n\n"
        rows = ((name, default, words) for name, default, words in cls.table())
        return head + "".join(
            f"  {name} [{default}]\n      {words}\n" for name, default, words in rows
        )

    @classmethod
    def table(cls) -> list[tuple[str, str, str]]:
        """Of each setting the variable, its default and what it says."""
        return [
            (
                PREFIX + name.upper(),
                _shown(field.get_default(call_default_factory=True)),
                _words(field),
            )
            for name, field in cls.model_fields.items()
        ]


def _shown(default: object) -> str:
    return "" if default is None or isinstance(default, Tokens) else str(default)


def _words(field: FieldInfo) -> str:
    words = field.description or ""
    if get_origin(field.annotation) is not Literal:
        return words
    return f"{words} ({', '.join(get_args(field.annotation))})"


def _no_lock(name: str) -> str:
    """A misspelt setting is warned of; but one of these would leave open what it was to lock."""
    near = difflib.get_close_matches(name, LOCKS, n=1, cutoff=0.85)
    if not (near or "TOKEN" in name or "TLS" in name):
        return ""
    meant = f"; {near[0]} is one" if near else ""
    return f"{name}: there is no such setting, and nothing would be locked by it{meant}"


def _empty_lock(name: str) -> str:
    """As one may be that was to come from a file, or from another variable."""
    if os.environ.get(name, name).strip():
        return ""
    return f"{name}: it is set, but empty, so nothing would be locked by it: set it, or unset it"


def _mistakes(error: ValidationError) -> list[str]:
    return [_mistake(str(one["loc"][0]), one["input"], one["msg"]) for one in error.errors()]


def _mistake(name: str, value: object, said: str) -> str:
    what = f"{PREFIX}{name.upper()}{_given(name, value)}"
    return f"{what}: {said.removeprefix('Value error, ')}"


def _given(name: str, value: object) -> str:
    """What it was set to, unless that may be a secret: one that is wrong, or in the wrong place."""
    text = str(value)
    if name.endswith("_token") or (name in FILES and not _leads_somewhere(text)):
        return ""
    return f"={_printable(PASSWORD.sub('//...@', text) if text is value else value)}"


def _leads_somewhere(path: str) -> bool:
    """Whether it can be the name of a file, and not what should be in one."""
    return len(path) < PATH_MAX and "/" in path and "\n" not in path and Path(path).parent.is_dir()


def _printable(given: object) -> str:
    return str(given) if str(given).isprintable() else repr(given)
