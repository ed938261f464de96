"""Logs: one line for each event, with its facts as fields, as text or as JSON, on standard error.

log.info("delta signed", extra=facts(stream="default", upto=1002))

2026-01-01T00:00:00.123Z info  worker.courier: delta signed stream=default upto=1002
{"time": "2026-01-01T00:00:00.123Z", "level": "info", "source": "worker.courier",
 "event": "delta signed", "stream": "default", "upto": 1002}
"""

import json
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any


def facts(**fields: Any) -> dict[str, Any]:
    return {"facts": fields}


class Lines(logging.Formatter):
    """What text and JSON have in common."""

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = dict(getattr(record, "facts", {}))
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return fields

    def name(self, record: logging.LogRecord) -> str:
        """As `uvicorn.error` is where uvicorn says anything at all."""
        return record.name.removesuffix(".error")

    def time(self, record: logging.LogRecord) -> str:
        return as_of(record.created)


class TextLines(Lines):
    def format(self, record: logging.LogRecord) -> str:
        head = f"{self.time(record)} {record.levelname.lower():<7} {self.name(record)}"
        fields = "".join(f" {name}={_shown(value)}" for name, value in self.fields(record).items())
        return f"{head}: {record.getMessage()}{fields}"


def _shown(value: object) -> str:
    """As it is, unless that could be read as something else."""
    plain = not isinstance(value, str) or (value.isprintable() and not set(value) & set(' ="'))
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


class JsonLines(Lines):
    def format(self, record: logging.LogRecord) -> str:
        head = {
            "time": self.time(record),
            "level": record.levelname.lower(),
            "source": self.name(record),
            "event": record.getMessage(),
        }
        return json.dumps(head | self.fields(record), default=str)


def as_of(seconds: float) -> str:
    """A time of the wall clock, as people and programs read it."""
    time = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return time.replace("+00:00", "Z")


def start_logging(style: str, level: str, strangers: Sequence[str] = ()) -> None:
    """From now on; and say at once which variables are no settings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("httpx").setLevel("WARNING")  # it would log each push a second time
    for name in strangers:
        logging.getLogger("settings").warning("%s is no setting of this service", name)
