"""All that was seen, on one page: a function of it, of the room there is, and of the time.

    median                                 http://127.0.0.1:8000
    the median, large, and what encloses it
    values, certificate, complete, sent
    its curve
    the table of sources

What there is no room for is left out: first the curve, then rows of the table, then all from below.
Trouble stands above all but the title, and the last numbers below it are dimmed.

Bytes are those of bodies, as the coordinator counts them: what its workers sent, beside what they
received. Colours are the ones that the terminal's own theme gives their names to, to be legible on
dark and on light.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from loadgen.calls import DEFAULT
from loadgen.view import percent
from loadgen.watching.curve import curve
from loadgen.watching.look import Answer
from loadgen.watching.shapes import BAR, BAR_MIN, bar, large
from loadgen.watching.table import table
from loadgen.watching.watched import Watched
from loadgen.words import ago, number, rate, size


@dataclass(frozen=True)
class Page:
    """As rich draws it: as wide and as tall as the console is just now."""

    watched: Callable[[], Watched]
    clock: Callable[[], float]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.height
        yield from page(self.watched(), options.max_width, height, self.clock())


def page(watched: Watched, width: int, height: int, now: float) -> list[Text]:
    """At most so many lines, none wider than that."""
    inner = width - 4 if width >= 40 else width
    margin = " " * ((width - inner) // 2)
    made = []
    for line in _lines(watched, inner, height, now)[:height]:
        line.truncate(inner, overflow="ellipsis")
        made.append(Text(margin, no_wrap=True, end="\n").append_text(line))
    return made


def _lines(watched: Watched, width: int, height: int, now: float) -> list[Text]:
    head = [_title(watched, width)]
    if height >= 10:
        head.append(Text())
    if watched.trouble:
        head += _trouble(watched, now)
    if watched.answer is None:
        return head if watched.trouble else [*head, Text.styled("Asking.", "dim")]
    body = _median(watched.answer, width, height) + _facts(watched, watched.answer, width)
    body += _below(watched, width, height, height - len(head) - len(body), now)
    if watched.trouble:
        for line in body:
            line.stylize("dim not bold")
    return head + body


def _title(watched: Watched, width: int) -> Text:
    title = Text.styled("median", "bold")
    if watched.stream != DEFAULT:
        title.append(f" of {watched.stream}", "bold")
    room = width - title.cell_len - 2
    url = watched.url if cell_len(watched.url) <= room else ""
    return title.append(" " * (room + 2 - cell_len(url))).append(url, "dim")


def _trouble(watched: Watched, now: float) -> list[Text]:
    old = f" These numbers are {ago(now - watched.at)} old." if watched.answer else ""
    return [
        Text.styled(f"{watched.trouble}.", "bold red"),
        Text(f"Asking again.{old}"),
        Text(),
    ]


def _median(answer: Answer, width: int, height: int) -> list[Text]:
    if answer.median is None:
        return [Text.styled("no values yet", "bold"), Text()]
    shown, within = number(answer.median), "exact"
    if not answer.exact:
        within = f"from {number(answer.low, '-∞')} to {number(answer.high, '∞')}"
    tall = large(shown)
    if height < 20 or len(tall[0]) > width:
        return [Text.styled(shown, "bold").append("  ").append(within, "dim")]
    return [*(Text.styled(row, "bold") for row in tall), Text.styled(within, "dim"), Text()]


def _facts(watched: Watched, answer: Answer, width: int) -> list[Text]:
    complete = ("yes", "green", "dim") if answer.complete else ("no", "bold red", "")
    word, style, beside = complete
    return [
        _fact("values", f"{answer.count:,}", Text.styled(rate(watched.rate), "dim")),
        _fact("certificate", percent(answer.rank_error), _beside_epsilon(answer, width)),
        _fact("complete", word, Text.styled(watched.why, beside), style),
        _sent(watched, width),
    ]


def _beside_epsilon(answer: Answer, width: int) -> Text:
    share = answer.rank_error / answer.epsilon if answer.epsilon > 0 else 0.0
    cells = max(BAR_MIN, min(2 * BAR, width - 40))
    made = bar(share, cells, "green" if share <= 1 else "red")
    return made.append(f" epsilon {percent(answer.epsilon)}", "dim")


def _sent(watched: Watched, width: int) -> Text:
    sent = sum(one.bytes for one in watched.sources)
    received = sum(one.raw_bytes for one in watched.sources)
    more = f"{sum(one.deltas for one in watched.sources):,} deltas"
    if received:
        word = " received" if width >= 70 else ""
        more += f", {percent(sent / received)} of {size(received)}{word}"
    return _fact("sent", size(sent), Text.styled(more, "dim"))


def _fact(name: str, what: str, more: Text, style: str = "") -> Text:
    made = Text.styled(f"{name:<12}", "dim").append(f"{what:>11}", style)
    return made.append("  ").append_text(more)


def _below(watched: Watched, width: int, height: int, left: int, now: float) -> list[Text]:
    """The curve, if the table has room as well, and the table."""
    drawn: list[Text] = []
    if left >= 9:
        drawn = curve(watched, width, 4 if height >= 32 else 2 if height >= 24 else 1, now)
    return [*drawn, Text(), *table(watched, width, left - len(drawn) - 1, now)]
