"""A route, and how it is asked: a line for a shell, with what must be given.

A page that shows it is the same for all who ask, wherever they found the service. So the address is
no part of it, nor is anything that a request says of itself: `$URL` stands for the one, and for a
token `$MEDIAN_READ_TOKEN`, or how else its setting is called.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

EVENTS = "text/event-stream"
PREFIX = "MEDIAN_"


class Route(NamedTuple):
    path: str
    method: str
    said: Mapping[str, Any]

    @property
    def tokens(self) -> list[str]:
        return [name for one in self.said.get("security", []) for name in one]

    def commands(self) -> Iterator[str]:
        """One for each kind of body."""
        parts = ["curl"]
        if any(EVENTS in said["content"] for said in self.said["responses"].values()):
            parts.append("--no-buffer")
        if self.method != "get":
            parts.append(f"-X {self.method.upper()}")
        parts.append(f'"$URL{self._address()}"')
        parts += [f'-H "Authorization: Bearer ${variable(name)}"' for name in self.tokens]
        for kind, body in self.bodies.items():
            yield " ".join([*parts, f"-H {shlex.quote(f'Content-Type: {kind}')}", _data(body)])
        if not self.bodies:
            yield " ".join(parts)

    @property
    def bodies(self) -> Mapping[str, Any]:
        bodies: Mapping[str, Any] = self.said.get("requestBody", {}).get("content", {})
        return bodies

    def answers(self, *, errors: bool) -> dict[str, Mapping[str, Any]]:
        """By status: those that are errors, or those that are none."""
        told = self.said["responses"]
        return {status: told[status] for status in sorted(told) if (status >= "400") is errors}

    def _address(self) -> str:
        path, query = self.path, dict[str, Any]()
        for one in self.said.get("parameters", []):
            name, example = one["name"], one["schema"].get("examples", [one["name"].upper()])[0]
            if one["in"] == "path":
                path = path.replace(f"{{{name}}}", str(example))
            elif one["required"]:
                query[name] = example
        return quote(path) + (f"?{urlencode(query, doseq=True)}" if query else "")


def variable(token: str) -> str:
    return PREFIX + re.sub(r"\W", "_", token, flags=re.ASCII).upper() + "_TOKEN"


def example_of(body: Mapping[str, Any]) -> str:
    """As it is sent; empty if there is none that can be written here."""
    example = body.get("example", "")
    return example if isinstance(example, str) else json.dumps(example)


def _data(body: Mapping[str, Any]) -> str:
    example = example_of(body)
    return f"-d {shlex.quote(example)}" if example else "--data-binary @FILE"
