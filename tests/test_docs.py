"""What README and docs say is so: examples run, files exist, commands are there."""

import contextlib
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.processes import Processes, until

TOP = Path(__file__).parent.parent
PAGES = [*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md")]
EXAMPLE = re.compile(r"```python\n(.*?)```\n+```text\n(.*?)```", re.DOTALL)
SHELL = re.compile(r"```sh\n(.*?)```\n+```json\n(.*?)```", re.DOTALL)
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
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_what_is_asked_with_curl_is_answered_as_shown(tmp_path: Path) -> None:
    ((commands, shown),) = SHELL.findall((TOP / "README.md").read_text())
    with Processes(tmp_path) as processes:
        coordinator = processes.cluster("one", epsilon=0.01)
        worker = processes.workers["one"]
        first, then = commands.strip().splitlines()
        answers = [curled(first.replace("localhost:8001", f"127.0.0.1:{worker.port}"))]
        until(lambda: coordinator.get("/median")["complete"], "the answer is complete")
        answers.append(curled(then.replace("localhost:8000", f"127.0.0.1:{coordinator.port}")))
    assert timeless("\n".join(answers)) == timeless(shown.strip())


def curled(command: str) -> str:
    quiet = command.replace("curl", "curl --silent --show-error --noproxy '*'")
    return subprocess.run(  # noqa: S602  our own words, as a reader runs them
        quiet, shell=True, check=True, capture_output=True, text=True
    ).stdout


def timeless(answers: str) -> str:
    return re.sub(r'"as_of":"[^"]*"', '"as_of":"then"', answers)
