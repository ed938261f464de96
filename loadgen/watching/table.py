"""The sources of a stream as a table: who is silent first, then by what each has received.

It says as much of each as the width allows: four columns always, others in the order of `WANTED` as
long as a bar still fits beside them. Those for whom the height is too small are counted below it.
Columns are told apart by place and by words, never by colour alone.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from loadgen.watching.look import Source
from loadgen.watching.shapes import BAR, BAR_MIN, bar
from loadgen.watching.watched import Watched
from loadgen.words import ago, size

ALWAYS = {"worker", "state", "share", "heard"}
WANTED = ("sent", "patience", "values", "allowance", "deltas")
WORDS = {"worker", "state"}  # begin together; numbers end together
STYLES = {"silent": "bold red", "live": "", "gone": "dim", "retired": "dim"}
NAME_CELLS = 24
GAP = "  "

Columns = dict[str, list[str]]  # each its head, then its rows


def table(watched: Watched, width: int, room: int, now: float) -> list[Text]:
    """At most so many lines as there is room."""
    rows = sorted(watched.sources, key=lambda one: (one.state != "silent", -one.count, one.worker))
    if not rows or room < 2:
        return []
    shown = rows if len(rows) < room else rows[: room - 2]
    total = sum(one.count for one in rows) or 1
    greatest = max(one.count for one in rows) or 1  # its bar is full
    told = _columns(shown, total, width, max(0.0, now - watched.at))
    columns = _drawn(_fitting(told, width), shown, greatest, width)
    made = [Text(GAP).join(row) for row in zip(*columns, strict=True)]
    return made + _rest(rows[len(shown) :])


def _columns(rows: Sequence[Source], total: int, width: int, age_s: float) -> Columns:
    """All there are. Whoever was heard before the last answer was not heard since."""
    most = max(8, min(NAME_CELLS, width // 4))
    heard = [None if one.last_heard_s is None else one.last_heard_s + age_s for one in rows]
    return {
        "worker": ["worker", *(_cut(one.worker, most) for one in rows)],
        "state": ["state", *(one.state for one in rows)],
        "share": ["share", *(f"{100 * one.count / total:.1f} %" for one in rows)],
        "values": ["values", *(f"{one.count:,}" for one in rows)],
        "patience": ["patience", *(f"{one.patience:,}" for one in rows)],
        "allowance": ["allowance", *(f"{one.allowance:,.0f}" for one in rows)],
        "deltas": ["deltas", *(f"{one.deltas:,}" for one in rows)],
        "sent": ["sent", *(size(one.bytes) for one in rows)],
        "heard": ["heard", *map(ago, heard)],
    }


def _fitting(told: Columns, width: int) -> Columns:
    fitting, left = set(ALWAYS), width - BAR_MIN - sum(_wide(told[name]) for name in ALWAYS)
    for name in WANTED:
        if _wide(told[name]) <= left:
            fitting.add(name)
            left -= _wide(told[name])
    return {name: texts for name, texts in told.items() if name in fitting}


def _drawn(
    told: Columns, rows: Sequence[Source], greatest: int, width: int
) -> Iterator[Sequence[Text]]:
    """Each column, with bars beside the shares if there is room."""
    styles = ["dim", *(STYLES.get(one.state, "") for one in rows)]
    left = width - sum(map(_wide, told.values()))
    cells = min(BAR, left)
    for name, texts in told.items():
        yield list(map(Text, _even(texts, name), styles))
        if name == "share" and cells >= BAR_MIN:
            bars = (bar(one.count / greatest, cells, "blue", " ") for one in rows)
            yield [Text(" " * cells), *bars]


def _rest(rows: Sequence[Source]) -> list[Text]:
    if not rows:
        return []
    states = ", ".join(f"{n:,} {what}" for what, n in Counter(one.state for one in rows).items())
    return [Text.styled(f"... and {len(rows):,} more: {states}", "dim")]


def _wide(texts: Sequence[str]) -> int:
    """With the gap beside it."""
    return max(map(cell_len, texts)) + len(GAP)


def _even(texts: Sequence[str], name: str) -> list[str]:
    """All as wide as the widest."""
    wide = max(map(cell_len, texts))
    rooms = [" " * (wide - cell_len(text)) for text in texts]
    pairs = zip(texts, rooms, strict=True)
    return [text + room if name in WORDS else room + text for text, room in pairs]


def _cut(text: str, most: int) -> str:
    return text if cell_len(text) <= most else f"{set_cell_size(text, most - 1)}…"
