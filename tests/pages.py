"""Pages as a reader sees them: blocks of code, commands, headings, links.

A fenced block is one of four things, told apart by its language and its neighbours:

    python, sh      code; the text or json right below it is its output
    text, json      right below code: that output
    console         a transcript of a command that prints other numbers each time
    anything else   words of a file in this repository, letter by letter
"""

import io
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from textwrap import dedent, indent
from typing import NamedTuple

TOP = Path(__file__).resolve().parent.parent
PAGES = [*sorted(TOP.glob("*.md")), *sorted((TOP / "docs").rglob("*.md"))]

FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$\n?", re.DOTALL | re.MULTILINE)
OUTPUTS = {"python": {"text"}, "sh": {"text", "json"}}
ADDRESS = re.compile(r"\b(?:localhost|127\.0\.0\.1):(800[01])\b")
TESTED_WITH = re.compile(r"<!-- tested with: (.*?) -->\s*$", re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
COMMANDS = ("make ", "docker compose", "curl ", ".venv/bin/python -m", "python -m")
COMPOSE = {
    "build", "config", "down", "exec", "images", "kill", "logs", "pause", "port", "ps", "pull",
    "restart", "rm", "run", "start", "stats", "stop", "top", "unpause", "up", "version", "wait",
}  # fmt: skip
QUOTABLE = (".py", ".toml", ".yml", ".yaml", ".json", "Makefile", "Dockerfile")
LINKS = (
    re.compile(r"\]\(([^)\s]+)[^)]*\)"),
    re.compile(r"^\[[^\]]+\]: +(\S+)", re.MULTILINE),
    re.compile(r"\b(?:src|srcset|href)=\"([^\"]+)\""),
)


class Block(NamedTuple):
    """Fenced code, what is said to be its output, and the prose from the block before it to it."""

    page: Path
    line: int
    language: str
    code: str
    shown: str | None = None
    above: str = ""
    is_output: bool = False

    @property
    def is_live(self) -> bool:
        """Whether it may speak to services, which must be there."""
        said = {"python": self.code, "console": "\n".join(self.commands)}.get(self.language, "")
        return self.language == "sh" or ADDRESS.search(said) is not None

    @property
    def commands(self) -> list[str]:
        """What a transcript is one of: as a comment has it, as it begins, or as named above it."""
        if self.language != "console":
            return []
        if tested := TESTED_WITH.search(self.above):
            return [" ".join(tested[1].split())]
        typed = re.findall(r"^\$ (.*)$", self.code, re.MULTILINE)
        return typed or SPAN.findall(self.above.rstrip().rpartition("\n\n")[2])[-1:]

    @property
    def is_excerpt(self) -> bool:
        """Whether a file has the same lines, perhaps all further to the right."""
        indented = ["\n" + indent(self.code, " " * by) for by in range(0, 17, 2)]
        return any(lines in f"\n{text}" for text in files() for lines in indented)


def name_of(part: object) -> str:
    """For the names of tests."""
    if isinstance(part, Block):
        return f"{name_of(part.page)}:{part.line}"
    return str(part.relative_to(TOP)) if isinstance(part, Path) else ""


def blocks_of(page: Path) -> Iterator[Block]:
    text, end, is_output = page.read_text(), 0, False
    for fence, after in pairwise([*FENCE.finditer(text), None]):
        assert fence
        below = after and not text[fence.end() : after.start()].strip()
        shown = below and after and after[2] in OUTPUTS.get(fence[2], ())
        yield Block(
            page=page,
            line=1 + text[: fence.start()].count("\n"),
            language=fence[2],
            code=dedent(fence[3]),
            shown=dedent(after[3]) if after and shown else None,
            above=text[end : fence.start()],
            is_output=is_output,
        )
        end, is_output = fence.end(), bool(shown)


def printed_by(code: str, page: Path) -> str:
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, str(page), "exec"), {"__name__": "__main__"})  # noqa: S102  our own words
    return printed.getvalue()


def prose_of(page: Path) -> str:
    return FENCE.sub("\n", page.read_text())


def commands_in(page: Path) -> Iterator[str]:
    """In the prose, and in lines that are indented as code; formulas are, too."""
    prose = prose_of(page)
    spans = (" ".join(span.split()) for span in SPAN.findall(prose))
    lines = re.findall(r"^ {4}(.*)$", prose.replace("\\\n", ""), re.MULTILINE)
    yield from (one for one in (*spans, *lines) if one.startswith(COMMANDS))


def can_be_typed(command: str) -> bool:
    """Whether it names a target, a module or a subcommand that is there; comments may follow."""
    words = shlex.split(command, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    match words:
        case ["make", *targets]:
            return all(word in make_targets() for word in targets if "=" not in word)
        case ["docker", "compose", *rest]:
            return not COMPOSE.isdisjoint(rest)
        case [".venv/bin/python" | "python", "-m", module, *_]:
            return can_be_run(module)
        case ["curl", *_] | []:
            return True
    return False


def can_be_run(module: str) -> bool:
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return False
    if spec and spec.submodule_search_locations is not None:
        return find_spec(f"{module}.__main__") is not None
    return spec is not None


@cache
def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), re.MULTILINE))


@cache
def files() -> list[str]:
    """All that can be quoted."""
    tops = [top for top in TOP.iterdir() if top.name[0] != "." or top.name == ".ci"]
    found = [file for top in tops for file in (top, *top.rglob("*"))]
    return [file.read_text() for file in found if file.name.endswith(QUOTABLE) and file.is_file()]


def links_in(page: Path) -> list[str]:
    """All that lead to something of ours."""
    prose = SPAN.sub("", prose_of(page))
    found = [link for pattern in LINKS for link in pattern.findall(prose)]
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(TOP) or not target.exists():
        return False
    return not anchor or (target.suffix == ".md" and anchor in anchors_of(target))


def anchors_of(page: Path) -> Iterator[str]:
    """Headings as GitHub names them: of equal ones, the second ends in -1."""
    seen: Counter[str] = Counter()
    for heading in re.findall(r"^#{1,6} +(.*?)[ #]*$", prose_of(page), re.MULTILINE):
        words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        yield f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor
        seen[anchor] += 1
