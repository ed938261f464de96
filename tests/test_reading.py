"""What the pages say of the code by number and by name is so: lines, files, metrics.

README says how much there is to read, `docs/architecture.md` names each file, and
`docs/operations.md` each metric. Where a page is behind, the failure shows what it should say.
"""

import ast
import re
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

import coordinator_service.app
import coordinator_service.settings
import coordinator_service.store
import worker_service.app
import worker_service.settings
import worker_service.store
from tests.test_tls import Papers

TOP = Path(__file__).parent.parent
PACKAGES = ("shared", "worker_service", "coordinator_service", "loadgen")
PAGE, BROWSERS_READ = "dashboard", (".js", ".css", ".html")
ALL = "all"
LINES_A_MINUTE = 40
NEAR = 0.05  # so far from the truth may a number in README be

NUMBER = r" *([0-9,]+) *\|"
ROW = re.compile(rf"^\| *`?([a-z_]+)/?`? *\|{NUMBER}{NUMBER}{NUMBER}$", re.MULTILINE)
METRIC = re.compile(r"^\| `(median_\w+)` \| (\w+) \|", re.MULTILINE)
NAMED = re.compile(r"\bmedian_\w+")


class Size(NamedTuple):
    """How much there is to read."""

    lines: int
    words: int  # of these lines, theory, docstrings and comments
    minutes: int

    def row(self, name: str) -> str:
        shown = name if name == ALL else f"`{name}/`"
        return f"| {shown} | {self.lines:,} | {self.words:,} | {self.minutes:,} |"

    def is_near(self, truth: "Size") -> bool:
        return all(
            abs(said - true) <= max(1, NEAR * true) for said, true in zip(self, truth, strict=True)
        )


def size_of(sources: list[str]) -> Size:
    lines = sum(len(source.splitlines()) for source in sources)
    return Size(lines, sum(map(lines_of_words, sources)), round(lines / LINES_A_MINUTE))


def size_of_page() -> Size:
    """Of what a browser reads; words there are comments that begin a line."""
    room = TOP / "coordinator_service" / PAGE
    sources = [path.read_text() for path in room.iterdir() if path.suffix in BROWSERS_READ]
    lines = [line.lstrip() for source in sources for line in source.splitlines()]
    words = sum(line.startswith(("//", "/*", "*", "<!--")) for line in lines)
    return Size(len(lines), words, round(len(lines) / LINES_A_MINUTE))


def lines_of_words(source: str) -> int:
    """Lines that are words alone: what stands in docstrings, and comments that begin a line."""
    words = {at for at, line in enumerate(source.splitlines(), 1) if line.lstrip().startswith("#")}
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str()), end_lineno=int(end)):
                words |= set(range(node.lineno, end + 1))
    return len(words)


def files(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (TOP / package).rglob("*.py"))


def sizes() -> dict[str, Size]:
    rooms = {package: (package,) for package in PACKAGES} | {ALL: PACKAGES}
    sizes = {name: size_of([path.read_text() for path in files(*rooms[name])]) for name in rooms}
    page, all_ = size_of_page(), sizes.pop(ALL)
    return sizes | {PAGE: page, ALL: Size(*map(sum, zip(all_, page, strict=True)))}


def section(page: Path, heading: str) -> str:
    """What stands under a heading of the second rank, up to the next."""
    _, *parts = re.split(r"^## (.*)\n", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))[heading]


def test_a_line_of_words_is_a_docstring_or_a_comment() -> None:
    source = (
        '"""One\n\ntwo."""\n\n# three\nx = 1  # four\ny = """\n5\n"""\n\n\ndef f():\n    """6"""\n'
    )
    assert size_of([source, source]) == (26, 10, 1)


def test_readme_says_how_much_there_is_to_read() -> None:
    text = section(TOP / "README.md", "Reading it")
    said = {
        name: Size(*(int(one.replace(",", "")) for one in row)) for name, *row in ROW.findall(text)
    }
    truth = sizes()
    table = "\n".join(size.row(name) for name, size in truth.items())
    assert said.keys() == truth.keys(), f"it should say\n{table}"
    far = [name for name, size in said.items() if not size.is_near(truth[name])]
    assert far == [], f"it should say\n{table}"
    assert f"{LINES_A_MINUTE} lines a minute" in text


def test_each_decision_has_its_four_parts_and_is_in_the_list() -> None:
    room = TOP / "docs" / "decisions"
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (room / "README.md").read_text())
    assert listed == sorted(page.name for page in room.glob("0*.md"))
    for name in listed:
        headings = re.findall(r"^## (.*)$", (room / name).read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "What would change our mind"]


def test_every_file_is_in_the_code_map() -> None:
    page = TOP / "docs" / "architecture.md"
    linked = set(re.findall(r"\]\(\.\./([^)#]+)\)", section(page, "Code map")))
    known = [path.relative_to(TOP).as_posix() for path in files(*PACKAGES)]
    missing = [path for path in known if path not in linked and not path.endswith("__init__.py")]
    assert missing == []


def all_of_it(directory: str) -> dict[str, Any]:
    """Settings of a service that has whatever it tells of."""
    papers = Papers(Path(directory))
    return {"data_dir": directory, "tls_cert": papers.cert, "tls_key": papers.key}


def coordinators(directory: str) -> bytes:
    settings = coordinator_service.settings.Settings.model_construct(**all_of_it(directory))
    store = coordinator_service.store.open_store(settings)
    assert store
    app = coordinator_service.app.create_app(
        settings, clock=lambda: 0.0, wall=lambda: 0.0, store=store
    )
    with closing(store.storage.db):
        return app.coordinator.metrics.written()()


def workers(directory: str) -> bytes:
    settings = worker_service.settings.Settings.model_construct(**all_of_it(directory))
    store = worker_service.store.open_store(settings)
    assert store
    app = worker_service.app.create_app(settings, clock=lambda: 0.0, store=store)
    with closing(store.storage.db):
        text: bytes = app.state.worker.metrics.text()
    return text


@cache
def exported() -> dict[str, str]:
    """Of both services, which keep what they know and show a certificate, each metric and its type.

    What libraries add when one began is not ours.
    """
    with TemporaryDirectory() as directory:
        pages = coordinators(directory) + workers(directory)
    types = re.findall(r"^# TYPE (\w+) (\w+)$", pages.decode(), re.MULTILINE)
    return {name: kind for name, kind in types if not name.endswith("_created")}


def test_every_metric_is_documented_with_its_type() -> None:
    table = dict(METRIC.findall((TOP / "docs" / "operations.md").read_text()))
    assert table == exported()


@pytest.mark.parametrize(
    "page", [*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md")], ids=lambda page: page.name
)
def test_every_metric_that_a_page_names_exists(page: Path) -> None:
    parts = {
        name + part
        for name, kind in exported().items()
        for part in ("", "_bucket", "_count", "_sum")
        if not part or kind == "histogram"
    }
    assert [name for name in NAMED.findall(page.read_text()) if name not in parts] == []
