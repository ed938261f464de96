"""The median of the last minutes, as a curve of blocks.

Time is cut into steps that are counted from zero, and each step is a column: the last median that
came in it. So a median stays in its column while the curve moves to the left, one column a step. A
step is as long as two looks are apart, or twice that, or four times: as short as the room allows.
"""

import math
from collections.abc import Sequence

from rich.text import Text

from loadgen.watching.watched import CURVE_S, Moment, Watched
from loadgen.words import ago, number

BLOCKS = " ▁▂▃▄▅▆▇█"


def curve(watched: Watched, width: int, rows: int, now: float) -> list[Text]:
    """So many rows, with the least and the greatest that they show beside them, and a caption."""
    cells = max(1, width - (_beside(watched) if rows > 1 else 0))
    step_s = _step_s(watched, cells, now)
    values = columns(watched.moments, cells, step_s, now)
    there = [value for value in values if value is not None]
    if not there:
        return []
    least, most = number(min(there)), number(max(there))
    made = [Text.styled(row, "blue") for row in blocks(values, rows)]
    caption = f"the last {ago(cells * step_s)}"
    if rows > 1:
        made[0].append(f" {most}", "dim")
        made[-1].append(f" {least}", "dim")
    else:
        caption += f", from {least} to {most}"
    return [Text(), *made, Text.styled(caption, "dim")]


def _beside(watched: Watched) -> int:
    """Cells for a number and a gap: for any that was seen, before it is known which are shown."""
    return 1 + max(len(number(one.median)) for one in watched.moments)


def _step_s(watched: Watched, cells: int, now: float) -> float:
    step_s, age_s = watched.every_s, min(CURVE_S, now - watched.moments[0].at)
    while step_s * cells < age_s:
        step_s *= 2  # seldom, because then all columns change
    return step_s


def columns(moments: Sequence[Moment], cells: int, step_s: float, now: float) -> list[float | None]:
    """The last value of each step of time; the last step is now.

    Steps are counted from zero, so that no value changes its column but with all others.
    """
    last = math.floor(now / step_s)
    found: dict[int, float | None] = {math.floor(one.at / step_s): one.median for one in moments}
    made = [found.get(last - cells + 1 + at) for at in range(cells)]
    for at in range(1, cells - 1):  # one step without an answer is no gap
        if made[at] is None and made[at + 1] is not None:
            made[at] = made[at - 1]
    if cells > 1 and made[-1] is None:
        made[-1] = made[-2]
    return made


def blocks(values: Sequence[float | None], rows: int) -> list[str]:
    """A column for each value, from the least to the greatest; none where there is no value."""
    there = [value for value in values if value is not None]
    if not there:
        return [" " * len(values)] * rows
    steps = 8 * rows
    heights = [_height(value, min(there), max(there), steps) for value in values]
    return [
        "".join(BLOCKS[min(8, max(0, height - 8 * (rows - 1 - row)))] for height in heights)
        for row in range(rows)
    ]


def _height(value: float | None, least: float, most: float, steps: int) -> int:
    if value is None:
        return 0
    if least == most:
        return steps // 2
    if math.isinf(most - least):
        return _height(value / 2, least / 2, most / 2, steps)
    return 1 + round((value - least) / (most - least) * (steps - 1))
