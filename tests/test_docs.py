"""What README and docs say is so: examples run, files exist, commands are there."""

import contextlib
import io
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
PAGES = [*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md")]
EXAMPLE = re.compile(r"```python\n(.*?)```\n+```text\n(.*?)```", re.DOTALL)
EXAMPLES = [(page, *found) for page in PAGES for found in EXAMPLE.findall(page.read_text())]


@pytest.mark.parametrize(("page", "code", "shown"), EXAMPLES, ids=lambda part: str(part)[-20:])
def test_an_example_prints_what_is_shown_below_it(page: Path, code: str, shown: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(page), "exec"), {})  # noqa: S102  our own words, as a reader runs them
    assert printed.getvalue() == shown


def test_no_python_in_the_pages_goes_without_being_run() -> None:
    blocks = sum(page.read_text().count("```python\n") for page in PAGES)
    assert blocks == len(EXAMPLES) > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_command_in_the_pages_exists(page: Path) -> None:
    makefile = (TOP / "Makefile").read_text()
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z]+)", page.read_text(), re.MULTILINE))
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []
