"""Markup from text, of which none can become markup by what is in it.

Whatever goes into an element is escaped, unless it was made here; so it is not possible to forget
it, and what comes out is always well formed.
"""

from collections.abc import Iterable, Sequence
from html import escape


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def joined(*parts: str) -> Markup:
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def element(name: str, /, *inside: str, **attributes: str) -> Markup:
    """Of attributes, `class_` is `class` and `aria_label` is `aria-label`."""
    said = "".join(
        f' {key.strip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{said}>{joined(*inside)}</{name}>")


def prose(text: str) -> Markup:
    """One paragraph; what stands between backticks is code."""
    parts = enumerate(text.split("`"))
    return joined(*(element("code", part) if at % 2 else part for at, part in parts))


def code(text: str, **attributes: str) -> Markup:
    return element("code", text, **attributes) if text else joined()


def link(text: str, to: str) -> Markup:
    """To what has this id, on the same page."""
    return element("a", text, href=f"#{to}")


def part(heading: str, *inside: Markup) -> Markup:
    """With its heading, if there is anything in it."""
    return joined(element("h4", heading), *inside) if any(inside) else joined()


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """With the first of each row as its head; nothing, if it has no rows."""
    lines = [
        element("tr", element("th", first, scope="row"), *(element("td", one) for one in others))
        for first, *others in rows
    ]
    head = element("tr", *(element("th", one, scope="col") for one in heads))
    return element("table", element("thead", head), element("tbody", *lines)) if lines else joined()
