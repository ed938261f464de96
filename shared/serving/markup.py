"""Markup from text, of which none can become markup by what is in it.

Whatever goes into an element is escaped, unless it was made here; so it is not possible to forget
it, and what comes out is always well formed.
"""

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
