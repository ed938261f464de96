"""Shapes of characters: digits three rows tall, and bars to half a cell."""

from rich.text import Text

GLYPHS = {
    "0": ("╭─╮", "│ │", "╰─╯"),
    "1": ("╶╮ ", " │ ", "╶┴╴"),
    "2": ("╶─╮", "╭─╯", "╰─╴"),
    "3": ("╶─╮", "╶─┤", "╶─╯"),
    "4": ("╷ ╷", "╰─┤", "  ╵"),
    "5": ("╭─╴", "╰─╮", "╶─╯"),
    "6": ("╭─╴", "├─╮", "╰─╯"),
    "7": ("╶─╮", "  │", "  ╵"),
    "8": ("╭─╮", "├─┤", "╰─╯"),
    "9": ("╭─╮", "╰─┤", "╶─╯"),
    "-": ("   ", "╶─╴", "   "),
    "+": (" ╷ ", "╶┼╴", " ╵ "),
    "e": ("   ", "├─╯", "╰─╴"),
    ".": (" ", " ", "."),
    ",": (" ", " ", ","),
}
BAR, BAR_MIN = 24, 8  # cells


def large(text: str) -> list[str]:
    """Three rows tall."""
    return ["".join(GLYPHS[one][row] for one in text) for row in range(3)]


def bar(share: float, cells: int, style: str, rest: str = "─") -> Text:
    """Full at one and beyond it, to half a cell; never empty where there is something."""
    halves = round(2 * cells * min(1.0, max(0.0, share)))
    if share > 0:
        halves = max(1, halves)
    full, half = divmod(halves, 2)
    made = Text.styled("━" * full + "╸" * half, style)
    return made.append(rest * (cells - full - half), "dim")
