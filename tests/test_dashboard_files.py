"""How the dashboard is served: each file as it lies there, and nothing else."""

import re
from pathlib import Path

import httpx
import numpy as np
import pytest

from coordinator_service.pages import FOLDER, PAGE, files_in
from tests.cluster import Cluster, run
from tests.test_worker_app import check_problem

FILES = sorted(path for path in FOLDER.iterdir() if path.name != PAGE)
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
ADDRESS = re.compile(r"""(?:src|href|from)\s*=?\s*["']([^"']+)["']|url\(["']?([^"')]+)["']?\)""")
SETS_HTML = re.compile(r"\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval)\b")


def asked(
    rng: np.random.Generator, path: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    async def told() -> httpx.Response:
        async with Cluster(rng, workers=0) as cluster:
            return await cluster.coordinator.client.get(path, headers=headers)

    return run(told())


def test_the_page_stands_at_the_root(rng: np.random.Generator) -> None:
    response = asked(rng, "/")
    assert response.status_code == 200
    assert response.content == (FOLDER / PAGE).read_bytes()
    assert response.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_is_served_as_it_lies_there(rng: np.random.Generator, path: Path) -> None:
    response = asked(rng, f"/dashboard/{path.name}")
    assert response.status_code == 200
    assert response.content == path.read_bytes()
    assert response.headers["content-type"] == TYPES[path.suffix]


@pytest.mark.parametrize("path", ["/", "/dashboard/main.js"])
@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}'])
def test_what_a_browser_knows_already_is_not_sent_again(
    rng: np.random.Generator, path: str, form: str
) -> None:
    first = asked(rng, path)
    again = asked(rng, path, {"if-none-match": form.format(first.headers["etag"])})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


def test_what_a_browser_knows_of_an_older_version_is_sent_anew(rng: np.random.Generator) -> None:
    response = asked(rng, "/", {"if-none-match": '"older"'})
    assert response.status_code == 200
    assert response.content


@pytest.mark.parametrize("path", ["/", "/dashboard/main.js"])
def test_a_page_may_run_only_what_lies_here(rng: np.random.Generator, path: str) -> None:
    headers = asked(rng, path).headers
    policy = headers["content-security-policy"].split("; ")
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "name",
    [
        "nothing.js",
        "",
        "index.html",
        "main.js/",
        "MAIN.JS",
        "%2e%2e",
        "%2e%2e/app.py",
        "..%2Fapp.py",
        "%2e%2e%2fapp.py",
        "..%5Capp.py",
        "%00",
        "main.js%00",
        "%2Fetc%2Fpasswd",
        "<script>",
        "n" * 4000,
    ],
)
def test_what_is_not_in_the_folder_is_not_found(rng: np.random.Generator, name: str) -> None:
    check_problem(asked(rng, f"/dashboard/{name}"), 404, "not_found")


def test_what_is_put_into_the_folder_later_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("1")
    (tmp_path / "notes.txt").write_text("of no type that is served")
    files = files_in(tmp_path)
    (tmp_path / "b.js").write_text("2")
    assert list(files) == ["a.js"]


def test_pages_are_in_no_documentation_of_the_interface(rng: np.random.Generator) -> None:
    paths = asked(rng, "/openapi.json").json()["paths"]
    assert [path for path in paths if path == "/" or path.startswith("/dashboard")] == []


@pytest.mark.parametrize("path", [FOLDER / PAGE, *FILES], ids=lambda path: path.name)
def test_nothing_comes_from_elsewhere(path: Path) -> None:
    found = ["".join(pair) for pair in ADDRESS.findall(path.read_text())]
    assert [where for where in found if re.match(r"[a-z]+:|//|/", where)] == []


def test_all_that_the_page_names_is_there() -> None:
    named = re.findall(r'"dashboard/([^"]+)"', (FOLDER / PAGE).read_text())
    imported = [
        name
        for path in FILES
        if path.suffix == ".js"
        for name in re.findall(r'from "\./([^"]+)"', path.read_text())
    ]
    assert {*named, *imported} == {path.name for path in FILES}


@pytest.mark.parametrize("path", [FOLDER / PAGE, *FILES], ids=lambda path: path.name)
def test_what_is_told_is_never_taken_for_elements(path: Path) -> None:
    assert SETS_HTML.findall(path.read_text()) == []


def test_the_page_has_no_script_and_no_style_of_its_own() -> None:
    text = (FOLDER / PAGE).read_text()
    assert re.findall(r"<style|\bstyle=|\bon\w+=|<script>|javascript:", text) == []
