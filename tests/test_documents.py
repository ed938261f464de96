"""`/docs`: all that the services say of themselves is on the page, and nothing on it can run."""

import base64
import hashlib
import json
import re
import shlex
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest
from fastapi import FastAPI
from playwright.sync_api import Route

import shared.serving.documents
from shared.serving.described import Description
from shared.serving.documents import page_of
from shared.serving.shapes import Shapes
from tests.browser import a_page, chromium, needs_chromium
from tests.cluster import Cluster, Node, run, until
from tests.test_doors import TOKENS, asked, coordinator, worker

MAKERS = {"coordinator": coordinator, "worker": worker}
APPS = {
    **{name: make(**TOKENS) for name, make in MAKERS.items()},
    **{f"{name}, open": make() for name, make in MAKERS.items()},
}
VOID = {"meta"}
ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "header", "nav", "main", "section",
    "article", "h1", "h2", "h3", "h4", "p", "a", "ul", "li", "pre", "code", "details", "summary",
    "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
ATTRIBUTES = {"lang", "charset", "name", "content", "class", "id", "href", "scope", "tabindex",
              "aria-label"}  # fmt: skip
SAID = {
    "$ref", "anyOf", "oneOf", "type", "title", "description", "properties", "required", "items",
    "additionalProperties", "enum", "format", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "pattern", "default", "examples",
}  # fmt: skip
HOSTILE = "\"'><img src=x onerror=alert(1)>&amp;{0}$(touch run)`touch run`\\"

each_app = pytest.mark.parametrize("app", APPS.values(), ids=APPS)


class Page(HTMLParser):
    """Read strictly: what is opened is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements, self.attributes = set[str](), set[str]()
        self.ids, self.links, self.levels = list[str](), list[str](), list[int]()
        self.text, self.commands = "", list[str]()
        self.routes = defaultdict[str, str](str)  # the text of each, by id
        self.rows = defaultdict[str, list[list[str]]](list)
        self._open, self._route = list[str](), ""
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        given = {name: value or "" for name, value in attrs}
        assert len(given) == len(attrs)
        self.attributes |= set(given)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        if tag not in VOID:
            self._open.append(tag)
        if tag == "section":
            self._route = ""
        if tag == "h3":
            self._route = given["id"]
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "pre":
            self.commands.append("")
        if tag == "tr":
            self.rows[self._route].append([])
        if tag in ("th", "td"):
            self.rows[self._route][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        self.routes[self._route] += data
        if "pre" in self._open:
            self.commands[-1] += data
        if "tr" in self._open:
            self.rows[self._route][-1][-1] += data


def response_of(app: FastAPI) -> httpx.Response:
    response = asked(app, "GET", "/docs", None)
    assert response.status_code == 200
    return response


def page_at(app: FastAPI) -> Page:
    return Page(response_of(app).text)


def routes_in(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            yield method, path, said


def plain(words: str) -> str:
    return words.replace("`", "")


def schemas_in(document: Any, schema: Any) -> Iterator[Any]:
    """It, and all that it leads to."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] | schema
    yield schema
    extra = schema.get("additionalProperties")
    below = [
        *schema.get("properties", {}).values(),
        *schema.get("anyOf", []),
        *schema.get("oneOf", []),
        *([schema["items"]] if "items" in schema else []),
        *([extra] if isinstance(extra, dict) else []),
    ]
    for one in below:
        yield from schemas_in(document, one)


def contents_of(said: Any) -> Iterator[Any]:
    """The schemas of all that is sent and answered."""
    answers = [answer for status, answer in said["responses"].items() if status < "400"]
    for one in [said.get("requestBody", {"content": {}}), *answers]:
        yield from (content["schema"] for content in one["content"].values())


@each_app
def test_every_route_is_there_with_its_words(app: FastAPI) -> None:
    page = page_at(app)
    for method, path, said in routes_in(app.openapi()):
        text = page.routes[said["operationId"]]
        assert text.startswith(f"{method.upper()} {path}")
        assert all(part in text for part in plain(said["description"]).split("\n\n"))
        assert f"#{said['operationId']}" in page.links


@each_app
def test_every_parameter_is_there_with_its_words(app: FastAPI) -> None:
    page = page_at(app)
    for _, _, said in routes_in(app.openapi()):
        for one in said.get("parameters", []):
            rows = [row for row in page.rows[said["operationId"]] if row[1].startswith("in the ")]
            [[kind, words]] = [row[1:] for row in rows if row[0] == one["name"]]
            need = "required" if one["required"] else "optional"
            assert kind.startswith(f"in the {one['in']}, {need}: ")
            assert words == plain(one["description"])
            assert "null" not in kind
            assert one["schema"].get("default") is None or str(one["schema"]["default"]) in kind


@each_app
def test_every_status_is_there_with_its_words(app: FastAPI) -> None:
    page = page_at(app)
    for _, _, said in routes_in(app.openapi()):
        for status, answer in said["responses"].items():
            row = [row for row in page.rows[said["operationId"]] if row[0] == status]
            if status < "400":
                assert f"Answer {status}" in page.routes[said["operationId"]]
                words = plain(answer["description"])
                assert words == "Successful Response" or words in page.routes[said["operationId"]]
                continue
            [[_, shape, words]] = row
            assert words == answer["description"]
            assert shape.startswith("FaultAnswer, ")


@each_app
def test_every_field_is_there_with_its_words(app: FastAPI) -> None:
    page, document = page_at(app), app.openapi()
    for _, _, said in routes_in(document):
        rows = {
            (name.rpartition(".")[2], words) for name, _, words in page.rows[said["operationId"]]
        }
        for schema in contents_of(said):
            for one in schemas_in(document, schema):
                for name, field in one.get("properties", {}).items():
                    words = next(schemas_in(document, field)).get("description", "")
                    assert (name, plain(words)) in rows
                assert plain(one.get("description", "")) in page.routes[said["operationId"]]


@pytest.mark.parametrize(
    ("route", "name"),
    [
        ("get_median", "workers.live"),
        ("get_quantile", "quantiles[].low"),
        ("get_explain", "rows[].picture.below"),
    ],
)
def test_a_field_within_another_is_told_by_the_way_to_it(route: str, name: str) -> None:
    assert name in [row[0] for row in page_at(APPS["coordinator"]).rows[route]]


@each_app
def test_every_body_is_there_with_its_example(app: FastAPI) -> None:
    page = page_at(app)
    for _, _, said in routes_in(app.openapi()):
        for kind, body in said.get("requestBody", {"content": {}})["content"].items():
            example = body.get("example", "")
            shown = example if isinstance(example, str) else json.dumps(example)
            [row] = [row for row in page.rows[said["operationId"]] if row[0] == kind]
            assert row[2] == shown


@each_app
def test_what_errors_look_like_is_told_once(app: FastAPI) -> None:
    page = page_at(app)
    assert [row[:2] for row in page.rows["FaultAnswer"]] == [
        ["field", "kind"],
        ["error", "object"],
        ["error.code", "string"],
        ["error.message", "string"],
        ["error.position", "integer or null, optional"],
    ]
    assert "What every error looks like." in page.routes["FaultAnswer"]


@pytest.mark.parametrize("name", MAKERS)
def test_the_page_says_which_token_is_asked_for(name: str) -> None:
    app = APPS[name]
    page = page_at(app)
    for _, _, said in routes_in(app.openapi()):
        [door] = [name for one in said.get("security", []) for name in one] or ["no"]
        text = page.routes[said["operationId"]]
        assert f"Asks for {'no' if door == 'no' else f'the {door}'} token." in text
    for door, scheme in app.openapi()["components"]["securitySchemes"].items():
        assert [door, f"$MEDIAN_{door.upper()}_TOKEN", scheme["description"]] in page.rows[""]


@pytest.mark.parametrize("name", MAKERS)
def test_where_no_token_is_set_the_page_says_so(name: str) -> None:
    page = page_at(APPS[f"{name}, open"])
    assert "No request asks for a token here: none is set." in page.text
    assert "Asks for" not in page.text
    assert "Authorization" not in page.text


@each_app
def test_no_schema_says_what_the_page_does_not(app: FastAPI) -> None:
    document = app.openapi()
    schemas = [schema for _, _, said in routes_in(document) for schema in contents_of(said)]
    schemas += [
        one["schema"] for _, _, said in routes_in(document) for one in said.get("parameters", [])
    ]
    assert schemas
    found = {key for schema in schemas for one in schemas_in(document, schema) for key in one}
    assert found <= SAID


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "number"}, "number"),
        ({"type": "number", "minimum": 0, "maximum": 1.5}, "number, 0 to 1.5"),
        ({"type": "number", "minimum": 0}, "number, at least 0"),
        ({"type": "number", "maximum": 2**53}, "number, at most 9007199254740992"),
        ({"type": "string", "maxLength": 9}, "string, at most 9 characters"),
        ({"type": "string", "pattern": "^a$"}, "string, matching `^a$`"),
        ({"type": "string", "format": "binary"}, "bytes"),
        ({"type": "string", "default": "x"}, "string, `x` if not given"),
        ({"type": "string", "enum": ["a", "b", "c"]}, "`a`, `b` or `c`"),
        ({"type": "object", "additionalProperties": False}, "object"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "object of integers"),
        ({"$ref": "#/components/schemas/A"}, "object"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "number or null"),
        (
            {"anyOf": [{"type": "number", "minimum": 1}, {"type": "null"}]},
            "number, at least 1; or null",
        ),
        (
            {"type": "array", "items": {"type": "number", "minimum": 0}, "minItems": 2},
            "list of numbers, at least 2 of them, each at least 0",
        ),
        (
            {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "null"}]}},
            "list of numbers or nulls",
        ),
        (
            {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
            "list of lists of strings",
        ),
    ],
)
def test_a_schema_is_told_in_words(schema: Any, words: str) -> None:
    assert Shapes({"A": {"type": "object"}}).kind(schema) == words


@each_app
def test_the_page_is_well_formed_and_has_no_script(app: FastAPI) -> None:
    page = page_at(app)
    assert page.elements <= ELEMENTS
    assert page.attributes <= ATTRIBUTES
    assert len(page.ids) == len(set(page.ids))


@each_app
def test_no_level_of_headings_is_left_out(app: FastAPI) -> None:
    levels = page_at(app).levels
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))


@each_app
def test_links_lead_to_what_is_there(app: FastAPI) -> None:
    page = page_at(app)
    assert {link for link in page.links if not link.startswith("#")} == {"openapi.json"}
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


@each_app
def test_nothing_comes_from_elsewhere_and_nothing_runs(app: FastAPI) -> None:
    response = response_of(app)
    assert not re.search(r"https?:|//|url\(|@import", response.text)
    policy = response.headers["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    [style] = re.findall("<style>(.*?)</style>", response.text, re.DOTALL)
    known = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy[1] == f"style-src 'sha256-{known}'"
    assert policy[2:] == ["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["content-type"] == "text/html; charset=utf-8"


@each_app
def test_what_a_browser_knows_already_is_not_sent_again(app: FastAPI) -> None:
    first = response_of(app)
    again = with_headers(app, {"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


def test_the_page_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[str]()

    def counted(description: Description) -> str:
        made.append(description.title)
        return page_of(description)

    monkeypatch.setattr(shared.serving.documents, "page_of", counted)
    app = worker()
    assert made == []
    assert response_of(app).content == response_of(app).content
    assert made == ["running-median worker"]


def test_what_a_request_says_of_itself_is_not_on_the_page() -> None:
    app = APPS["worker"]
    told = with_headers(
        app, {"host": "<script>", "x-forwarded-host": "x", "x-forwarded-prefix": "y"}
    )
    assert told.content == response_of(app).content


def with_headers(app: FastAPI, headers: dict[str, str]) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://s") as client:
            return await client.get("/docs", headers=headers)

    return run(ask())


def worse(said: Any, at: str = "") -> Any:
    """A document whose every word is hostile, but for what OpenAPI itself gives a meaning to."""
    if isinstance(said, dict):
        named = at in {"paths", "content", "properties", "schemas", "securitySchemes", "security"}
        return {
            key + HOSTILE * named: worse(one, "" if named else key) for key, one in said.items()
        }
    if isinstance(said, list):
        return [worse(one, at) for one in said]
    return said + HOSTILE if isinstance(said, str) and at not in {"type", "in"} else said


@pytest.mark.parametrize("name", MAKERS)
def test_no_word_of_a_document_becomes_markup(name: str) -> None:
    document = worse(APPS[name].openapi())
    page = Page(page_of(Description(document)))
    assert page.elements <= ELEMENTS
    assert page.attributes <= ATTRIBUTES
    for _, path, said in routes_in(document):
        assert path in page.routes[said["operationId"]]


@pytest.mark.parametrize("name", MAKERS)
def test_no_word_of_a_document_becomes_a_command(name: str, tmp_path: Path) -> None:
    page = Page(page_of(Description(worse(APPS[name].openapi()))))
    known = "curl() { echo asked; }; URL=u; "
    for command in page.commands:
        ended = subprocess.run(  # noqa: S603  what it runs is what is tried
            ["/bin/sh", "-ec", known + command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert (ended.stdout, ended.stderr) == ("asked\n", "")
    assert list(tmp_path.iterdir()) == []


FILES = {
    "application/msgpack": msgpack.packb([1.0, 2.5]),
    "application/octet-stream": np.array([1.0, 2.5]).tobytes(),
}


async def obeyed(command: str, client: httpx.AsyncClient) -> tuple[int, str]:
    """What curl would do, in one process: the status that it is answered, and where it asked."""
    curl, *parts = shlex.split(command)
    method, headers, content, path = "GET", {}, None, ""
    assert curl == "curl"
    while parts:
        part = parts.pop(0)
        if part == "-X":
            method = parts.pop(0)
        elif part == "-H":
            key, _, value = parts.pop(0).partition(": ")
            headers[key] = value
        elif part == "-d":
            content = parts.pop(0).encode()
        elif part == "--data-binary":
            assert parts.pop(0) == "@FILE"
            content = FILES[headers["Content-Type"]]
        else:
            path = part.removeprefix("$URL")
    response = await client.request(method, path, headers=headers, content=content)
    return response.status_code, response.url.path


async def is_ready(node: Node) -> bool:
    return await node.status("/ready") == 200


REFUSED = {"/deltas": 400, "/workers/NAME/retire": 404}  # two floats; whom nobody knows


def test_each_command_does_what_the_page_says(rng: np.random.Generator) -> None:
    commands = {name: page_at(APPS[f"{name}, open"]).commands for name in MAKERS}

    async def tried(node: Node, commands: list[str]) -> None:
        await until(partial(is_ready, node), "ready")
        for command in commands:
            if "--no-buffer" not in command:  # whose answer has no end
                status, path = await obeyed(command, node.client)
                assert status == REFUSED.get(path, 202 if path == "/values" else 200), command

    async def story() -> None:
        async with Cluster(rng, workers=1) as cluster:
            await tried(cluster.nodes[0], commands["worker"])
            await tried(cluster.coordinator, commands["coordinator"])

    run(story())


@each_app
def test_each_route_has_a_command(app: FastAPI) -> None:
    page = page_at(app)
    for method, path, said in routes_in(app.openapi()):
        asking = f'"$URL{path.replace("{name}", "NAME")}'
        found = [one for one in page.commands if re.search(re.escape(asking) + r'[?"]', one)]
        assert len(found) == len(said.get("requestBody", {"content": [1]})["content"])
        assert all(("-X POST" in one) is (method == "post") for one in found)
        endless = "text/event-stream" in said["responses"].get("200", {"content": ()})["content"]
        assert all(("--no-buffer" in one) is endless for one in found)
        for [door] in said.get("security", []):
            assert all(
                f'-H "Authorization: Bearer $MEDIAN_{door.upper()}_TOKEN"' in one for one in found
            )


@needs_chromium
@pytest.mark.parametrize(
    ("scheme", "ground"), [("light", "rgb(245, 245, 242)"), ("dark", "rgb(16, 19, 23)")]
)
def test_a_browser_shows_it_at_any_width_and_below_any_path(scheme: str, ground: str) -> None:
    answers = {name: response_of(APPS[name]) for name in MAKERS}

    def answer(route: Route) -> None:
        told = answers[route.request.url.split("/")[3]]
        route.fulfill(status=200, headers=dict(told.headers), body=told.content)

    with chromium() as browser, a_page(browser, color_scheme=scheme) as page:
        page.route("**/docs", answer)
        for name in MAKERS:
            page.goto(f"http://service/{name}/docs")
            assert (
                page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
                == ground
            )
            for_programs = page.evaluate("document.querySelector('header a').href")
            assert for_programs == f"http://service/{name}/openapi.json"
            for width in (320, 700, 1280):
                page.set_viewport_size({"width": width, "height": 800})
                assert page.evaluate("document.documentElement.scrollWidth") == width
