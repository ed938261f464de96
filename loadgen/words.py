"""Numbers, sizes and times in few words; and the words of others, made fit to be shown."""

from collections.abc import Sequence

UNITS = (("d", 86_400), ("h", 3600), ("min", 60))


def number(value: float | None, unbounded: str = "-") -> str:
    return unbounded if value is None else f"{value:,.7g}"


def size(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    amount, units = float(count), iter("kMGTPEZYRQ")
    unit = ""
    while amount >= 999.5:
        amount, unit = amount / 1000, next(units)
    return f"{amount:.3g} {unit}B"


def ago(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    for unit, length in UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def rate(values: float | None) -> str:
    if values is None:
        return ""
    return f"{values:,.0f} a second" if values >= 9.95 or not values else f"{values:.1f} a second"


def some(names: Sequence[str], most: int = 3) -> str:
    more = len(names) - most
    shown = ", ".join(names[:most])
    return f"{shown} and {more:,} more" if more > 0 else shown


def legible(text: str, most: int = 300) -> str:
    """Of what somebody else said, only what cannot move a cursor or begin a line."""
    shown = "".join(one if one.isprintable() else " " for one in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 4]} ..."
