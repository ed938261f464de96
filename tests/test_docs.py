"""What the pages say is so: examples run, files exist, commands are there.

Examples that speak to services are in `test_docs_live.py`.
"""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.pages import (
    OUTPUTS,
    PAGES,
    TOP,
    Block,
    anchors_of,
    blocks_of,
    can_be_typed,
    commands_in,
    leads_somewhere,
    links_in,
    name_of,
    printed_by,
)

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
EXAMPLES = [block for block in BLOCKS if block.language == "python" and not block.is_live]

each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@pytest.mark.parametrize("block", EXAMPLES, ids=name_of)
def test_an_example_prints_what_is_shown_below_it(
    block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TOP)
    assert printed_by(block.code, block.page) == block.shown


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_no_block_goes_without_being_run_or_found(block: Block) -> None:
    if block.language in OUTPUTS:
        assert block.shown is not None, "the block below it must show what it prints"
    elif block.language == "console":
        assert block.commands, "nothing says what it is a transcript of"
    else:
        assert block.is_output or block.is_excerpt, "no file has these lines"


@each_page
def test_no_fence_is_of_a_kind_that_is_not_seen(page: Path) -> None:
    fences = re.findall(r"^[ \t>*+\d.)-]*(?:```|~~~)", page.read_text(), re.MULTILINE)
    assert len(fences) == 2 * len([block for block in BLOCKS if block.page == page])


@each_page
def test_every_command_in_the_pages_exists(page: Path) -> None:
    assert [command for command in commands_in(page) if not can_be_typed(command)] == []


@each_page
def test_links_and_images_lead_somewhere(page: Path) -> None:
    assert [link for link in links_in(page) if not leads_somewhere(page, link)] == []


NAMED = re.compile(r"\b(test_\w+)")
LINKED = re.compile(r"\[`(test_\w+)`\]\(\.\./(tests/\w+\.py)\)")
DEFINED = re.compile(r"^ *(?:async )?def (test_\w+)\(", re.MULTILINE)


@cache
def defined_in() -> dict[str, set[str]]:
    paths = sorted((TOP / "tests").rglob("test_*.py"))
    return {
        path.relative_to(TOP).as_posix(): set(DEFINED.findall(path.read_text())) for path in paths
    }


@each_page
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    files = {Path(path).stem for path in defined_in()}
    known = files.union(*defined_in().values())
    assert [name for name in NAMED.findall(page.read_text()) if name not in known] == []


def test_every_test_that_shows_a_fault_is_where_its_link_leads() -> None:
    text = (TOP / "docs" / "faults.md").read_text()
    linked = LINKED.findall(text)
    assert [one for one in linked if one[0] not in defined_in().get(one[1], set())] == []
    assert len(linked) == text.count("`test_"), "each is linked to its file"


PAGE = """
# What `this` is, and *why*

What `make demo` prints:

```console
a line
```

```sh
ls
```

```text
here
```

```text
alone
```

## [Twice](README.md)!
## Twice
"""


class TestHowPagesAreRead:
    """By a page that has what no page of ours must have, or happens not to."""

    @pytest.mark.parametrize(
        "command",
        [
            "make nothing",
            "make test nothing",
            "docker compose upp",
            ".venv/bin/python -m nothing.here",
            ".venv/bin/python -m shared  # a package that does nothing",
            "ls",
        ],
    )
    def test_a_command_that_does_not_exist_is_found(self, command: str) -> None:
        assert not can_be_typed(command)

    @pytest.mark.parametrize(
        "link", ["nothing.md", "#nothing", "CHANGELOG.md#nothing", "Makefile#L1", "../README.md"]
    )
    def test_a_link_that_leads_nowhere_is_found(self, link: str) -> None:
        assert not leads_somewhere(TOP / "README.md", link)

    def test_headings_are_named_as_github_names_them(self, page: Path) -> None:
        assert list(anchors_of(page)) == ["what-this-is-and-why", "twice", "twice-1"]

    def test_a_block_is_known_by_its_neighbours(self, page: Path) -> None:
        transcript, code, output, alone = blocks_of(page)
        assert transcript.commands == ["make demo"]
        assert (code.shown, output.is_output) == ("here\n", True)
        assert not alone.is_output

    def test_a_block_may_quote_a_file(self) -> None:
        lines = "def page(self, tmp_path: Path) -> Path:\n"
        assert Block(Path(), 1, "python", lines).is_excerpt
        assert not Block(Path(), 1, "python", lines[:-2] + "\n").is_excerpt

    @pytest.fixture
    def page(self, tmp_path: Path) -> Path:
        page = tmp_path / "page.md"
        page.write_text(PAGE)
        return page
