"""A running system on a terminal: its median, how sure that is, and who is behind it.

    a coordinator  <--- Coordinator asks ---  follow  --- Watched --->  page, or a line

Every so often the coordinator is asked what it knows, and the answer goes into a `Watched`: a value
that never changes, with all that was seen so far. What is drawn is a pure function of it, of the
room there is, and of the time. So nothing here decides and draws at once.

Where no terminal is, the same goes out as one line for each answer, in columns with a head, and
what goes wrong as lines that begin with `#`.

A coordinator that does not answer is away, which is no reason to stop: the last numbers stay,
dimmed, and it is asked again. Only what was never a coordinator ends this, with a sentence.

Bytes are those of bodies, as the coordinator counts them: what its workers sent, beside what they
received. Columns are told apart by place and by words, never by colour alone. Colours are the ones
that the terminal's own theme gives their names to, to be legible on dark and on light.
"""

import asyncio
import math
import os
import signal
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from loadgen.view import percent

CONNECT_S_MAX, READ_S_MAX = 2.0, 5.0
LOOK_S_MAX = 15.0  # for all that is asked at once
EVERY_S_MIN, EVERY_S_MAX = 0.1, 3600.0
FRAMES_A_SECOND = 4
CURVE_S = 180.0  # the last minutes
MOMENTS = 400  # are kept, or more where these are fewer than fill that
RATE_S = 10.0
BAR, BAR_MIN = 24, 8  # cells
NAME_CELLS = 24
STOPS = (signal.SIGINT, signal.SIGTERM)
DEFAULT_STREAM = "default"

T = TypeVar("T")


class Away(RuntimeError):
    """Nobody answers now, but may again; the message says what happened instead."""


class Stranger(RuntimeError):
    """Somebody answers, and is no coordinator, or does not like the question."""


# What a coordinator says


@dataclass(frozen=True)
class Answer:
    """What `GET /median` says."""

    median: float | None
    low: float | None
    high: float | None
    rank_error: float
    epsilon: float
    count: int
    exact: bool
    complete: bool
    live: int
    silent: int

    @classmethod
    def of(cls, reply: Any) -> "Answer":
        return cls(
            median=_finite_or_none(reply["median"]),
            low=_finite_or_none(reply["low"]),
            high=_finite_or_none(reply["high"]),
            rank_error=_finite(reply["rank_error"]),
            epsilon=_finite(reply["epsilon"]),
            count=_whole(reply["count"]),
            exact=bool(reply["exact"]),
            complete=bool(reply["complete"]),
            live=_whole(reply["workers"]["live"]),
            silent=_whole(reply["workers"]["silent"]),
        )


@dataclass(frozen=True)
class Source:
    """What `GET /workers` says of a stream on a worker."""

    worker: str
    stream: str
    state: str
    count: int
    allowance: float
    patience: int
    deltas: int
    bytes: int
    raw_bytes: int
    last_heard_s: float | None

    @classmethod
    def of(cls, row: Any) -> "Source":
        return cls(
            worker=legible(str(row["worker"])),
            stream=str(row["stream"]),
            state=legible(str(row["state"])),
            count=_whole(row["count"]),
            allowance=_finite(row["allowance"]),
            patience=_whole(row["patience"]),
            deltas=_whole(row["deltas"]),
            bytes=_whole(row["bytes"]),
            raw_bytes=_whole(row["raw_bytes"]),
            last_heard_s=_finite_or_none(row["last_heard_s"]),
        )


@dataclass(frozen=True)
class Look:
    """All that was asked at once; no answer where the stream is not there yet."""

    answer: Answer | None
    sources: tuple[Source, ...] = ()
    others: tuple[str, ...] = ()
    """Streams that there are, where the one that is wanted is not."""
    not_ready: str = ""
    """Why the coordinator cannot be complete yet, in its own words."""


def _finite(given: Any) -> float:
    value = float(given)
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return value


def _whole(given: Any) -> int:
    if type(given) is not int or not 0 <= given < 2**64:
        raise ValueError("no count")
    return given


def _finite_or_none(given: Any) -> float | None:
    return None if given is None else _finite(given)


def legible(text: str, most: int = 300) -> str:
    """Of what somebody else said, only what cannot move a cursor or begin a line."""
    shown = "".join(one if one.isprintable() else " " for one in text)
    return shown if len(shown) <= most else f"{shown[: most - 4]} ..."


class Coordinator:
    """Asks a coordinator for one stream."""

    def __init__(
        self, url: str, stream: str, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url, self._stream = shown(url), stream
        timeout = httpx.Timeout(READ_S_MAX, connect=CONNECT_S_MAX)
        self._client = httpx.AsyncClient(
            base_url=url, trust_env=False, timeout=timeout, transport=transport
        )
        self._known = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def look(self) -> Look:
        """Ask; who was a coordinator once is away where it now answers like none."""
        try:
            async with asyncio.timeout(LOOK_S_MAX):
                look = await self._look()
        except TimeoutError:
            raise Away(f"{self.url} takes too long to answer") from None
        except Stranger as error:
            if self._known:
                raise Away(str(error)) from error
            raise
        self._known = True
        return look

    async def _look(self) -> Look:
        if not self._known:
            await self._meet()
        response = await self._ask("/median", stream=self._stream)
        if response.status_code == httpx.codes.NOT_FOUND and _code(response) == "unknown_stream":
            return Look(None, others=await self._streams())
        answer = self._read(response, Answer.of)
        sources = self._read(await self._ask("/workers"), _sources)
        waits = not answer.complete and not answer.silent
        return Look(
            answer,
            tuple(one for one in sources if one.stream == self._stream),
            not_ready=await self._not_ready() if waits else "",
        )

    async def _meet(self) -> None:
        """Whoever it is: a worker has a median, too."""
        response = await self._ask("/health")
        name = self._read(response, lambda reply: reply.get("worker"))
        if name is not None:
            raise Stranger(
                f"{self.url} is the worker {legible(str(name))}, not a coordinator: "
                "give the address that its MEDIAN_COORDINATOR_URL names"
            )
        self._read(response, lambda reply: reply["epsilon"])

    async def _streams(self) -> tuple[str, ...]:
        response = await self._ask("/streams")
        return self._read(
            response, lambda reply: tuple(legible(one["stream"]) for one in reply["streams"])
        )

    async def _not_ready(self) -> str:
        return _message(await self._ask("/ready"))

    async def _ask(self, path: str, **params: str) -> httpx.Response:
        try:
            response = await self._client.get(path, params=params)
        except httpx.TimeoutException:
            raise Away(f"{self.url} does not answer") from None
        except httpx.TransportError as error:
            raise self._trouble(error) from None
        except httpx.HTTPError as error:  # what came cannot be unpacked
            raise Stranger(f"{self.url} answers what cannot be read: {_said(error)}") from None
        again = response.status_code == httpx.codes.TOO_MANY_REQUESTS or (
            response.is_server_error and path != "/ready"
        )
        if again:
            raise Away(f"GET {self.url}{path} got {response.status_code}")
        return response

    def _trouble(self, error: httpx.TransportError) -> Exception:
        if _is_of_tls(error):
            what = f"{self.url} cannot be spoken to over TLS: {_said(error)}"
            return Stranger(f"{what}; if it has none, begin the address with http://")
        # h11 says so of a connection that ends too early, which is what a service that ends does.
        ended = "without" in str(error)
        if isinstance(error, httpx.RemoteProtocolError) and not ended:
            return Stranger(f"{self.url} does not speak HTTP: {_said(error)}")
        return Away(f"{self.url} is away: {_said(error)}")

    def _read(self, response: httpx.Response, of: Callable[[Any], T]) -> T:
        """What it says, if it is a coordinator's."""
        asked = f"GET {shown(str(response.request.url))}"
        if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY and (why := _message(response)):
            raise Stranger(f"{asked} is refused: {why}")
        try:
            return of(response.raise_for_status().json())
        except httpx.HTTPStatusError:
            pass
        except (
            AttributeError,
            LookupError,
            TypeError,
            ArithmeticError,
            ValueError,
            RecursionError,
        ):
            pass  # of JSON, or of what is not in it
        said = f"{response.status_code} {response.headers.get('content-type', '')}".strip()
        raise Stranger(f"{self.url} is no coordinator: {asked} got {legible(said, 80)}")


def _sources(reply: Any) -> list[Source]:
    return [Source.of(row) for row in reply["workers"]]


def _error(response: httpx.Response) -> dict[str, Any]:
    """What every service here says when something is wrong."""
    with suppress(KeyError, TypeError, ValueError, RecursionError):
        error = response.json()["error"]
        if isinstance(error, dict):
            return error
    return {}


def _code(response: httpx.Response) -> str:
    return str(_error(response).get("code", ""))


def _message(response: httpx.Response) -> str:
    return legible(str(_error(response).get("message", "")))


def _said(error: Exception) -> str:
    return legible(str(error)).rstrip(".") or type(error).__name__


def _is_of_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError) or "SSL" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def check_address(given: str) -> None:
    """`Stranger` says what is wrong with it."""
    example = "as http://127.0.0.1:8000"
    if not given.isprintable() or not given.startswith(("http://", "https://")):
        raise Stranger(f"an address begins with http:// or https://, {example}, unlike {given!r}")
    try:
        url = httpx.URL(given)
    except httpx.InvalidURL as error:
        raise Stranger(f"{given!r} is no address: {_said(error)}") from None
    port = 80 if url.port is None else url.port
    if not url.host or url.query or url.fragment or not 0 < port < 2**16:
        raise Stranger(f"an address is a host and perhaps a port, {example}, unlike {given!r}")


def shown(url: str) -> str:
    """Without the password, if it has one."""
    return str(httpx.URL(url).copy_with(userinfo=b"")).rstrip("/")


# What was seen so far


@dataclass(frozen=True)
class Moment:
    """One answer, as the curve and the rate need it."""

    at: float
    median: float | None
    count: int


@dataclass(frozen=True)
class Watched:
    url: str
    stream: str
    every_s: float
    answer: Answer | None = None
    sources: tuple[Source, ...] = ()
    not_ready: str = ""
    at: float = 0.0
    """When the last answer came."""
    moments: tuple[Moment, ...] = ()
    trouble: str = ""
    """Why there is no newer answer; empty: there is none."""

    def saw(self, look: Look, now: float) -> "Watched":
        if look.answer is None:
            there = f": there are {_some(look.others)}" if look.others else ""
            return self.failed(f"there is no stream {self.stream!r} yet{there}")
        answer = look.answer
        kept = self.moments[-max(MOMENTS, math.ceil(2 * CURVE_S / self.every_s)) :]
        return replace(
            self,
            answer=answer,
            sources=look.sources,
            not_ready=look.not_ready,
            at=now,
            moments=(*kept, Moment(now, answer.median, answer.count)),
            trouble="",
        )

    def failed(self, trouble: str) -> "Watched":
        return replace(self, trouble=trouble)

    @property
    def rate(self) -> float | None:
        """Values a second; None while that is not known, as after a loss of memory."""
        since = self.at - max(RATE_S, 3 * self.every_s)
        last = [one for one in self.moments if one.at >= since]
        falls = [at for at, (one, two) in enumerate(pairwise(last), 1) if two.count < one.count]
        last = last[falls[-1] :] if falls else last
        if len(last) < 2 or last[-1].at <= last[0].at:
            return None
        return (last[-1].count - last[0].count) / (last[-1].at - last[0].at)

    @property
    def state(self) -> str:
        """Complete or not, and why."""
        answer = self.answer
        if answer is None:
            return ""
        if answer.complete:
            return f"yes: {answer.live:,} live, none silent"
        if answer.silent:
            silent = [one.worker for one in self.sources if one.state == "silent"]
            who = f": {_some(silent)}" if silent else ""
            return f"no: {answer.live:,} live, {answer.silent:,} silent{who}"
        return f"no: {self.not_ready or 'it has not listened for long enough'}"


def _some(names: Sequence[str], most: int = 3) -> str:
    more = len(names) - most
    shown = ", ".join(names[:most])
    return f"{shown} and {more:,} more" if more > 0 else shown


# Numbers in words


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
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def rate(values: float | None) -> str:
    if values is None:
        return ""
    return f"{values:,.0f} a second" if values >= 9.95 or not values else f"{values:.1f} a second"


# Shapes

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
BLOCKS = " ▁▂▃▄▅▆▇█"


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


def curve(values: Sequence[float | None], rows: int) -> list[str]:
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


# The page


@dataclass(frozen=True)
class Page:
    """All that was seen, as rich draws it: as wide and as tall as there is room."""

    watched: Callable[[], Watched]
    clock: Callable[[], float]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.height
        yield from page(self.watched(), options.max_width, height, self.clock())


def page(watched: Watched, width: int, height: int, now: float) -> list[Text]:
    """At most so many lines, none wider than that."""
    inner = width - 4 if width >= 40 else width
    lines = _lines(watched, inner, height, now)
    margin = (width - inner) // 2
    made = []
    for line in lines[:height]:
        line.truncate(inner, overflow="ellipsis")
        made.append(Text(" " * margin, no_wrap=True, end="\n").append_text(line))
    return made


def _lines(watched: Watched, width: int, height: int, now: float) -> list[Text]:
    head = [_title(watched, width), Text()] if height >= 10 else [_title(watched, width)]
    if watched.trouble:
        old = f" These numbers are {ago(now - watched.at)} old." if watched.answer else ""
        head += [
            Text.styled(f"{watched.trouble}.", "bold red"),
            Text(f"Asking again.{old}"),
            Text(),
        ]
    if watched.answer is None:
        return head if watched.trouble else [*head, Text.styled("Asking.", "dim")]
    body = _numbers(watched, watched.answer, width, height)
    left = height - len(head) - len(body)
    if left >= 9:
        body += _curve(watched, width, 4 if height >= 32 else 2 if height >= 24 else 1, now)
    body += [Text(), *_table(watched, width, height - len(head) - len(body) - 1, now)]
    if watched.trouble:
        for line in body:
            line.stylize("dim not bold")
    return [*head, *body]


def _title(watched: Watched, width: int) -> Text:
    title = Text.styled("median", "bold")
    if watched.stream != DEFAULT_STREAM:
        title.append(f" of {watched.stream}", "bold")
    room = width - title.cell_len - 2
    url = watched.url if cell_len(watched.url) <= room else ""
    return title.append(" " * (room + 2 - cell_len(url))).append(url, "dim")


def _numbers(watched: Watched, answer: Answer, width: int, height: int) -> list[Text]:
    made = _median(answer, width, height)
    made.append(_fact("values", f"{answer.count:,}", Text.styled(rate(watched.rate), "dim")))
    beside = max(BAR_MIN, min(2 * BAR, width - 40))
    within = answer.rank_error / answer.epsilon if answer.epsilon > 0 else 0.0
    mark = bar(within, beside, "green" if within <= 1 else "red")
    mark.append(f" epsilon {percent(answer.epsilon)}", "dim")
    made.append(_fact("certificate", percent(answer.rank_error), mark))
    word, _, why = watched.state.partition(": ")
    style = "green" if answer.complete else "bold red"
    made.append(_fact("complete", word, Text.styled(why, "dim" if answer.complete else ""), style))
    sent, raw = sum(one.bytes for one in watched.sources), sum(o.raw_bytes for o in watched.sources)
    deltas = f"{sum(one.deltas for one in watched.sources):,} deltas"
    if raw:
        deltas += f", {percent(sent / raw)} of {size(raw)}{' received' if width >= 70 else ''}"
    made.append(_fact("sent", size(sent), Text.styled(deltas, "dim")))
    return made


def _median(answer: Answer, width: int, height: int) -> list[Text]:
    shown = number(answer.median)
    within = Text.styled(f"from {number(answer.low, '-∞')} to {number(answer.high, '∞')}", "dim")
    if answer.median is None:
        return [Text.styled("no values yet", "bold"), Text()]
    if answer.exact:
        within = Text.styled("exact", "dim")
    tall = large(shown)
    if height < 20 or len(tall[0]) > width:
        return [Text.styled(shown, "bold").append("  ").append_text(within)]
    return [*(Text.styled(row, "bold") for row in tall), within, Text()]


def _fact(name: str, what: str, more: Text, style: str = "") -> Text:
    made = Text.styled(f"{name:<12}", "dim").append(f"{what:>11}", style)
    return made.append("  ").append_text(more)


def _curve(watched: Watched, width: int, rows: int, now: float) -> list[Text]:
    """The median of the last minutes, with its least and its greatest beside it."""
    there = [one.median for one in watched.moments if one.median is not None]
    if not there:
        return []
    labels = [number(max(there)), number(min(there))] if rows > 1 else [""]
    beside = max(map(len, labels)) + 1 if rows > 1 else 0
    cells = max(1, width - beside)
    step_s, age_s = watched.every_s, min(CURVE_S, now - watched.moments[0].at)
    while step_s * cells < age_s:
        step_s *= 2  # seldom, because then all columns change
    drawn = curve(columns(watched.moments, cells, step_s, now), rows)
    made = [Text.styled(row, "blue") for row in drawn]
    if rows > 1:
        for line, label in ((made[0], labels[0]), (made[-1], labels[1])):
            line.append(f" {label}", "dim")
    caption = f"the last {ago(cells * step_s)}"
    if rows == 1:
        caption += f", from {number(min(there))} to {number(max(there))}"
    return [Text(), *made, Text.styled(caption, "dim")]


# The table of sources

FIRST = {"silent": 0}
STYLES = {"silent": "bold red", "live": "", "gone": "dim", "retired": "dim"}
LEFT = {"worker", "state"}
ORDER = (
    "worker", "state", "share", "values", "patience", "allowance", "deltas", "sent", "heard",
)  # fmt: skip
GAP = "  "


def _table(watched: Watched, width: int, room: int, now: float) -> list[Text]:
    """The silent first, then by count; those for whom there is no room are counted."""
    rows = sorted(
        watched.sources, key=lambda one: (FIRST.get(one.state, 1), -one.count, one.worker)
    )
    if not rows or room < 2:
        return []
    shown = rows if len(rows) < room else rows[: room - 2]
    total = sum(one.count for one in rows) or 1
    greatest = max(one.count for one in rows) or 1  # its bar is full
    told = _columns(shown, total, width, max(0.0, now - watched.at))
    left = width - sum(map(_wide, told.values())) - len(GAP) * len(told)
    cells = min(BAR, left) if left >= BAR_MIN else 0
    bars = [Text(" " * cells), *(bar(one.count / greatest, cells, "blue", " ") for one in shown)]
    made = [Text() for _ in bars]
    styles = ["dim", *(STYLES.get(one.state, "") for one in shown)]
    for name, texts in told.items():
        for row, text, style, share in zip(made, _even(texts, name), styles, bars, strict=True):
            row.append(GAP if len(row) else "").append(text, style)
            if name == "share" and cells:
                row.append(GAP).append_text(share)
    if rest := rows[len(shown) :]:
        states = ", ".join(f"{n:,} {what}" for what, n in Counter(o.state for o in rest).items())
        made.append(Text.styled(f"... and {len(rest):,} more: {states}", "dim"))
    return made


def _columns(rows: Sequence[Source], total: int, width: int, age_s: float) -> dict[str, list[str]]:
    """The columns for which there is room, and for a bar beside them: each its head, then rows."""
    most = max(8, min(NAME_CELLS, width // 4))
    needed = {
        "worker": [_cut(one.worker, most) for one in rows],
        "state": [one.state for one in rows],
        "share": [f"{100 * one.count / total:.1f} %" for one in rows],
        "heard": [ago(_later(one.last_heard_s, age_s)) for one in rows],
    }
    wanted = {
        "sent": [size(one.bytes) for one in rows],
        "patience": [f"{one.patience:,}" for one in rows],
        "values": [f"{one.count:,}" for one in rows],
        "allowance": [f"{one.allowance:,.0f}" for one in rows],
        "deltas": [f"{one.deltas:,}" for one in rows],
    }
    found = {name: [name, *texts] for name, texts in needed.items()}
    left = width - BAR_MIN - sum(_wide(texts) + len(GAP) for texts in found.values())
    for name, texts in wanted.items():
        column = [name, *texts]
        if (wide := _wide(column) + len(GAP)) <= left:
            found[name] = column
            left -= wide
    return {name: found[name] for name in ORDER if name in found}


def _wide(texts: Sequence[str]) -> int:
    return max(map(cell_len, texts))


def _even(texts: Sequence[str], name: str) -> list[str]:
    """All as wide as the widest: words begin together, numbers end together."""
    wide = _wide(texts)
    rooms = [" " * (wide - cell_len(text)) for text in texts]
    return [
        text + room if name in LEFT else room + text
        for text, room in zip(texts, rooms, strict=True)
    ]


def _cut(text: str, most: int) -> str:
    return text if cell_len(text) <= most else f"{set_cell_size(text, most - 1)}…"


def _later(seconds: float | None, by_s: float) -> float | None:
    return None if seconds is None else seconds + by_s


# Lines, where there is no terminal

HEAD = (
    f"{'time':<20} {'median':>15} {'low':>15} {'high':>15} {'count':>13} {'certificate':>11}"
    f" {'live':>5} {'silent':>6} complete"
)


def line(answer: Answer, wall: float) -> str:
    """One answer, under `HEAD`: a dash is nothing, the certificate is a share of all ranks."""
    median, low, high = (
        "-" if one is None else f"{one:.8g}" for one in (answer.median, answer.low, answer.high)
    )
    return (
        f"{_time(wall)} {median:>15} {low:>15} {high:>15} {answer.count:>13}"
        f" {answer.rank_error:>11.7f} {answer.live:>5} {answer.silent:>6}"
        f" {'yes' if answer.complete else 'no'}"
    )


def _time(wall: float) -> str:
    return f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%dT%H:%M:%S}Z"


class Lines:
    """Says each answer, and of what goes wrong what it has not said yet."""

    def __init__(self, say: Callable[[str], None], wall: Callable[[], float]) -> None:
        self._say, self._wall = say, wall
        self._begun, self._trouble = False, ""

    def __call__(self, watched: Watched) -> None:
        if watched.trouble:
            if watched.trouble != self._trouble:
                self._say(f"# {_time(self._wall())} {watched.trouble}; asking again")
        elif watched.answer is not None:
            if not self._begun:
                self._say(HEAD)
                self._begun = True
            self._say(line(watched.answer, self._wall()))
        self._trouble = watched.trouble


# All together


async def follow(
    coordinator: Coordinator,
    watched: Watched,
    show: Callable[[Watched], None],
    clock: Callable[[], float],
) -> None:
    """Look and show, for ever: `Stranger` ends it."""
    while True:
        began = clock()
        try:
            watched = watched.saw(await coordinator.look(), clock())
        except Away as error:
            watched = watched.failed(str(error))
        show(watched)
        await asyncio.sleep(max(0.0, began + watched.every_s - clock()))


def watch(url: str, stream: str, every_s: float) -> int:
    """Until it is stopped, which is its good end; returns the status to exit with."""
    try:
        watched = begun(url, stream, every_s)
        with suppress(KeyboardInterrupt, asyncio.CancelledError), _quiet_when_nobody_reads():
            asyncio.run(_until_stopped(url, watched))
    except Stranger as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def begun(url: str, stream: str, every_s: float) -> Watched:
    """Nothing seen yet; `Stranger` says which of these makes no sense."""
    if not EVERY_S_MIN <= every_s <= EVERY_S_MAX:  # NaN passes the command line
        raise Stranger(f"--every is from {EVERY_S_MIN} to {EVERY_S_MAX:.0f} s, not {every_s}")
    if not stream or not stream.isprintable():
        raise Stranger(f"a stream's name has characters, all to be printed, unlike {stream!r}")
    check_address(url)
    return Watched(shown(url), stream, every_s)


async def _until_stopped(url: str, watched: Watched) -> None:
    task = asyncio.current_task()
    with suppress(NotImplementedError):  # on Windows Ctrl-C is an exception
        for one in STOPS:
            asyncio.get_running_loop().add_signal_handler(one, task.cancel)  # type: ignore[union-attr]  # there is one: this
    console = Console(highlight=False)
    async with Coordinator(url, watched.stream) as coordinator:
        with _shown(console, watched) as show:
            await follow(coordinator, watched, show, time.monotonic)


@contextmanager
def _shown(console: Console, watched: Watched) -> Iterator[Callable[[Watched], None]]:
    """A page where a terminal can show it, and lines elsewhere."""
    terminal = sys.stdout.isatty() and console.is_terminal  # FORCE_COLOR makes one of a pipe
    if not terminal or console.is_dumb_terminal or console.options.ascii_only:
        yield Lines(_say, time.time)
        return
    last = watched

    def show(now: Watched) -> None:
        nonlocal last
        last = now

    drawn = Page(lambda: last, time.monotonic)
    with Live(drawn, console=console, screen=True, refresh_per_second=FRAMES_A_SECOND):
        yield show


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextmanager
def _quiet_when_nobody_reads() -> Iterator[None]:
    """Who reads a pipe may stop before us; then nothing is written at the end either."""
    try:
        yield
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
