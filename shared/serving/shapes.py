"""What a schema of an OpenAPI document says, in words: `list of numbers, 1 to 20 of them`.

Fields are told with those within them, each by the way to it: `workers.live`, `quantiles[].low`.
What can be said here is what the schemas of our services say, and none of these contains itself:
tests hold them to that.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Said = Mapping[str, Any]

RANGES = {
    ("minimum", "maximum"): "",
    ("minLength", "maxLength"): " characters",
    ("minItems", "maxItems"): " of them",
}
UNSAID = "Successful Response"  # FastAPI's words, where nobody has others
NULL = {"type": "null"}


class Field(NamedTuple):
    name: str
    kind: str
    words: str


class Shapes:
    """All that have a name, and whatever refers to them."""

    def __init__(self, named: Said) -> None:
        self._named = named

    def fields(self, schema: Said, within: str = "") -> Iterator[Field]:
        """Each, and then those within it."""
        whole = self._whole(schema)
        for option in _options(whole):
            yield from self.fields(option, within)
        if "items" in whole:
            yield from self.fields(whole["items"], f"{within}[]")
        for key, one in whole.get("properties", {}).items():
            name = f"{within}.{key}".removeprefix(".")
            need = "" if key in whole.get("required", []) else ", optional"
            yield Field(name, self.kind(one) + need, self.words(one))
            yield from self.fields(one, name)

    def words(self, schema: Said) -> str:
        return str(self._whole(schema).get("description", ""))

    def kind(self, schema: Said) -> str:
        """What it is, and within which limits."""
        whole = self._whole(schema)
        each = (f"each {limit}" for limit in _limits(whole.get("items", {})))
        return ", ".join([self._noun(whole), *_limits(whole), *each])

    def _noun(self, schema: Said, s: str = "") -> str:
        """What it is; with `s`, what many of them are."""
        whole = self._whole(schema)
        if options := _options(whole):
            return self._either(options, s)
        if "enum" in whole:
            return _or([f"`{one}`" for one in whole["enum"]])
        if "items" in whole:
            return f"list{s} of {self._noun(whole['items'], 's')}"
        if isinstance(values := whole.get("additionalProperties"), dict):
            return f"object{s} of {self._noun(values, 's')}"
        return "bytes" if whole.get("format") == "binary" else whole["type"] + s

    def _either(self, options: list[Said], s: str) -> str:
        return _or([self._noun(one, s) if s else self.kind(one) for one in options])

    def _whole(self, schema: Said) -> Said:
        """What it refers to, and what it says itself."""
        if "$ref" not in schema:
            return schema
        return {**self._named[name_of(schema)], **schema}


def name_of(schema: Said) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def given(schema: Said) -> Said:
    """Of a parameter: if it may be null, that only means that it need not be given."""
    if "anyOf" not in schema:
        return schema
    return {**schema, "anyOf": [one for one in schema["anyOf"] if one != NULL]}


def words_of(said: Said) -> str:
    """Of an answer, if anybody wrote any."""
    words = said["description"]
    return "" if words == UNSAID else str(words)


def _options(schema: Said) -> list[Said]:
    return schema.get("anyOf") or schema.get("oneOf") or []


def _or(kinds: list[str]) -> str:
    """With semicolons, where there are commas in one."""
    *others, last = kinds
    between, before = ("; ", "; or ") if any("," in kind for kind in kinds) else (", ", " or ")
    return between.join(others) + before + last if others else last


def _limits(schema: Said) -> Iterator[str]:
    for (least, most), what in RANGES.items():
        low, high = schema.get(least), schema.get(most)
        if low is not None and high is not None:
            yield f"{low:.16g} to {high:.16g}{what}"
        elif low is not None:
            yield f"at least {low:.16g}{what}"
        elif high is not None:
            yield f"at most {high:.16g}{what}"
    if "pattern" in schema:
        yield f"matching `{schema['pattern']}`"
    if "default" in schema:
        yield f"`{schema['default']}` if not given"
