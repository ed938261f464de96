"""The page where the coordinator asks for its read token: asked for once, shown to nobody else.

Each coordinator here is a real one. What a page says of a door is held against what the door does.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, Route, expect

from tests.browser import a_page, chromium, needs_chromium
from tests.processes import SOON_S, Processes, Service, until
from tests.test_dashboard import (
    AWAY,
    CAN_BE_REACHED,
    EPSILON,
    NAMELESS,
    TOO_FAINT,
    said,
)
from tests.test_dashboard_states import OVERFLOWS, PHONE, give

pytestmark = needs_chromium

READ, OTHER, ADMIN = "the-read-token-of-these-tests", "quite/another+token==", "who-may-retire-16"
REFUSED = r"status of 401"
# Where its edge is too faint to be seen, by WCAG 2.2, 1.4.11.
EDGE = "one => getComputedStyle(one).borderTopColor"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """It tells who has its token of one worker, which is silent, and of a median of 8.25."""
    with Processes(tmp_path_factory.mktemp("doors")) as processes:
        coordinator = begun(processes, read_token=READ, admin_token=ADMIN)
        give(coordinator, "default", one=[7, 8.25, 9])
        yield coordinator


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with a_page(browser) as page:
        yield page


def begun(processes: Processes, **tokens: str) -> Service:
    coordinator = processes.coordinator(epsilon=EPSILON, **tokens)
    until(lambda: coordinator.is_up, "the coordinator is up")
    return coordinator


def asked_at(page: Page, coordinator: Service, query: str = "") -> None:
    """The page, when it asks for the token."""
    page.goto(f"{coordinator.url}/{query}")
    expect(said(page, "door")).to_be_visible()


def field(page: Page) -> Locator:
    return page.get_by_label("Read token", exact=True)


def enter(page: Page, token: str) -> None:
    field(page).fill(token)
    page.keyboard.press("Enter")


def opened_at(page: Page, coordinator: Service, query: str = "") -> None:
    asked_at(page, coordinator, query)
    enter(page, READ)
    expect(said(page, "state")).to_have_text("Live")


def requests(page: Page) -> list[Request]:
    """All that it will have made."""
    seen = list[Request]()

    def request(one: Request) -> None:
        seen.append(one)

    page.on("request", request)
    return seen


def questions(asked: list[Request]) -> list[str]:
    """By path; without what the page is made of."""
    paths = [urlsplit(one.url).path for one in asked]
    return [path for path in paths if path != "/" and not path.startswith("/dashboard/")]


def test_without_the_token_the_page_asks_for_it_and_for_nothing_else(
    page: Page, coordinator: Service
) -> None:
    asked = requests(page)
    asked_at(page, coordinator)
    expect(field(page)).to_be_focused()
    expect(said(page, "door")).to_contain_text("Whoever set MEDIAN_READ_TOKEN")
    expect(page.locator("main > :visible")).to_have_count(1)
    expect(page.locator("a:visible, select:visible")).to_have_count(1)  # to skip to the form
    expect(page).to_have_title("Running median")
    assert set(questions(asked)) == {"/health"}


def test_whether_the_door_is_open_is_asked_now_and_then_and_all_else_once_it_is(
    page: Page, coordinator: Service
) -> None:
    asked = requests(page)
    page.clock.install(time="2026-01-01T12:00:00Z")
    asked_at(page, coordinator)
    page.clock.pause_at("2026-01-01T13:00:00Z")
    before = len(asked)
    with page.expect_response("**/health"):
        for _ in range(24):
            page.clock.run_for(500)
            page.wait_for_timeout(20)  # for the answer
    assert len(asked) - before <= 5  # in 12 s, one in 3 to 5
    assert set(questions(asked)) == {"/health"}
    with page.expect_request("**/streams"), page.expect_request("**/median/events?*"):
        enter(page, READ)


def test_who_has_the_token_enters_it_once_and_may_forget_it(
    page: Page, coordinator: Service
) -> None:
    told = list[str]()

    def console(message: ConsoleMessage) -> None:
        told.append(message.text)

    page.on("console", console)
    opened_at(page, coordinator)
    expect(said(page, "median")).to_have_text("8.25")
    expect(said(page, "door")).to_be_hidden()
    expect(said(page, "main")).to_be_focused()
    page.reload()
    expect(said(page, "median")).to_have_text("8.25")
    assert not is_shown(page, READ)
    assert READ not in "".join(told)
    assert page.evaluate("Object.values(sessionStorage)") == [READ]
    assert READ not in page.evaluate("JSON.stringify(localStorage) + document.cookie")
    page.get_by_role("button", name="Forget token").click()
    expect(field(page)).to_be_focused()
    expect(field(page)).to_have_value("")
    expect(page.get_by_role("button", name="Forget token")).to_be_hidden()
    assert page.evaluate("sessionStorage.length") == 0
    assert not is_shown(page, "8.25")


def is_shown(page: Page, words: str) -> bool:
    """In the address, the title, or anywhere in the document, seen or not."""
    return words in page.url + page.title() + page.content()


def test_another_tab_and_another_path_ask_for_themselves(page: Page, coordinator: Service) -> None:
    here = coordinator.url
    opened_at(page, coordinator)
    with page.context.new_page() as other:
        asked_at(other, coordinator)
    page.route(
        f"{here}/below/**",
        lambda route: route.continue_(url=route.request.url.replace(f"{here}/below/", f"{here}/")),
    )
    page.goto(f"{here}/below/")
    expect(said(page, "door")).to_be_visible()
    expect(said(page, "door-why")).to_be_hidden()


def test_a_wrong_token_is_told_and_stays_to_be_mended(page: Page, coordinator: Service) -> None:
    asked = requests(page)
    asked_at(page, coordinator)
    for typed in ("", "too-short", "not of Latin-1: 中中中中", "=before-the-end-of-it"):
        is_wrong(page, typed, "This cannot be a token")
    assert {one.headers.get("authorization") for one in asked} == {None}
    is_wrong(page, OTHER, "This is not its read token.")
    assert {one.headers.get("authorization") for one in asked} == {None, f"Bearer {OTHER}"}
    assert page.evaluate("sessionStorage.length") == 0


def is_wrong(page: Page, token: str, words: str) -> None:
    enter(page, token)
    expect(page.get_by_role("alert")).to_contain_text(words)
    expect(field(page)).to_be_focused()
    expect(field(page)).to_have_value(token)
    expect(field(page)).to_have_attribute("aria-invalid", "true")


def test_who_is_away_says_nothing_of_a_token_and_who_asks_no_more_is_live_by_himself(
    browser: Browser, tmp_path: Path
) -> None:
    with Processes(tmp_path) as processes, a_page(browser, troubles=AWAY) as page:
        page.clock.install()
        coordinator = begun(processes, read_token=READ)
        asked_at(page, coordinator)
        coordinator.stop()
        field(page).fill(READ)
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("alert")).to_have_text("The coordinator cannot be reached.")
        expect(field(page)).to_be_focused()
        coordinator = begun(processes)
        give(coordinator, "default", one=[7, 8, 9])
        page.clock.run_for(10_000)
        expect(said(page, "median")).to_have_text("8")
        expect(said(page, "main")).to_be_focused()
        expect(page.get_by_role("link", name="/workers")).to_be_visible()


def test_a_token_that_was_changed_is_asked_for_anew_and_one_that_was_dropped_is_not(
    browser: Browser, tmp_path: Path
) -> None:
    troubles = f"{AWAY}|{REFUSED}|status of 404"
    with Processes(tmp_path) as processes, a_page(browser, troubles=troubles) as page:
        page.clock.install()
        coordinator = begun(processes, read_token=READ)
        give(coordinator, "default", one=[1, 2, 3])
        opened_at(page, coordinator)
        expect(said(page, "median")).to_have_text("2")
        refused = list[int]()
        page.on("response", lambda response: refused.append(response.status))
        coordinator.stop()
        coordinator = begun(processes, read_token=OTHER)
        give(coordinator, "default", one=[4, 5, 6])
        page.clock.run_for(10_000)
        expect(said(page, "door-why")).to_contain_text("it may have been changed")
        expect(field(page)).to_be_focused()
        expect(page).to_have_title("Running median")
        assert refused.count(401) <= 5  # what was under way
        enter(page, OTHER)
        expect(said(page, "median")).to_have_text("5")
        coordinator.stop()
        coordinator = begun(processes)
        give(coordinator, "default", one=[7, 8, 9])
        page.clock.run_for(10_000)
        expect(said(page, "median")).to_have_text("8")
        expect(said(page, "door")).to_be_hidden()


def test_a_refusal_closes_all_at_once_and_what_is_told_of_another_token_nothing(
    browser: Browser, coordinator: Service
) -> None:
    with a_page(browser, troubles=REFUSED) as page:
        page.clock.install()
        opened_at(page, coordinator)
        heard = "async (by) => (await import('./dashboard/doors.js')).heard(['read'], by)"
        page.evaluate(heard, OTHER)
        assert not said(page, "door").is_visible()
        refusal = '{"error": {"code": "unauthorized", "message": "no"}}'
        page.route("**/workers?*", lambda route: route.fulfill(status=401, body=refusal))
        page.clock.run_for(2000)
        expect(said(page, "door")).to_be_visible()
        expect(said(page, "state")).to_have_text("Closed")
        page.unroute("**/workers?*")
        page.clock.run_for(5000)
        expect(said(page, "state")).to_have_text("Live")


class Elsewhere(HTTPServer):
    """Another host, which may be asked by whoever comes; and who did."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked = list[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Elsewhere

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(204)
        self.send_header("access-control-allow-origin", "*")
        self.send_header("access-control-allow-headers", "authorization")
        self.end_headers()

    def do_OPTIONS(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with Elsewhere() as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join(SOON_S)


def test_the_token_is_shown_to_its_coordinator_alone(
    browser: Browser, coordinator: Service, elsewhere: Elsewhere
) -> None:
    def led_away(route: Route) -> None:
        away = {"location": f"{elsewhere.url}/led", "access-control-allow-origin": "*"}
        route.fulfill(status=307, headers=away)

    with a_page(browser, troubles="Content Security Policy|ERR_FAILED|csp") as page:
        asked = requests(page)
        page.clock.install()
        opened_at(page, coordinator)
        expect(page.locator("#rows tr")).to_have_count(1)
        page.route("**/workers?*", led_away)
        with page.expect_console_message(lambda one: "Content Security Policy" in one.text):
            page.clock.run_for(2000)
        page.evaluate("(url) => fetch(url).catch(() => 0)", f"{elsewhere.url}/asked")
    assert elsewhere.asked == []
    shown = [one for one in asked if "authorization" in one.headers]
    assert {one.headers["authorization"] for one in shown} == {f"Bearer {READ}"}
    assert len(shown) >= 5
    for one in shown:
        assert one.url.startswith(f"{coordinator.url}/")
        assert not one.url.startswith(f"{coordinator.url}/dashboard/")
    assert [one.url for one in asked if READ in one.url] == []


def test_commands_show_the_tokens_that_they_need(page: Page, coordinator: Service) -> None:
    name = 'o\'hara, $(rm) "-rf" `x`'
    give(coordinator, "named", **{name: [1, 2, 3]})
    page.clock.install()
    opened_at(page, coordinator, "?stream=named")
    expect(said(page, "notice-words")).to_contain_text(name)
    expect(page.locator("footer a")).to_have_count(3)
    expect(page.locator("footer a:visible")).to_have_count(0)
    command = said(page, "retire").inner_text()
    assert ADMIN not in command
    shell = ["bash", "-c", command]
    environment = os.environ | {"MEDIAN_ADMIN_TOKEN": ADMIN}
    subprocess.run(shell, check=True, capture_output=True, timeout=SOON_S, env=environment)  # noqa: S603  as a reader would
    page.clock.run_for(2000)
    expect(page.locator("#rows tr")).to_contain_text("retired")


def test_an_empty_stream_says_what_to_add_should_workers_ask_for_a_token(
    browser: Browser, coordinator: Service
) -> None:
    with a_page(browser, troubles="status of 404") as page:
        asked_at(page, coordinator, "?stream=later")
        enter(page, READ)
        expect(said(page, "command-token")).to_be_visible()
        expect(said(page, "command-token")).to_have_text(
            re.compile(r'add\s+-H "Authorization: Bearer \$MEDIAN_INGEST_TOKEN"$')
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_form_is_read_reached_and_named_on_a_phone(
    browser: Browser, coordinator: Service, scheme: str
) -> None:
    with a_page(browser, color_scheme=scheme, viewport=PHONE) as page:
        asked_at(page, coordinator)
        enter(page, OTHER)
        expect(page.get_by_role("alert")).to_have_text("This is not its read token.")
        assert page.evaluate(TOO_FAINT)["faint"] == []
        assert not page.evaluate(OVERFLOWS)
        assert NAMELESS.findall(page.locator("body").aria_snapshot()) == []
        assert reached(page) == ["Skip to the median", "theme", "token", "Open"]
        page.emulate_media(forced_colors="active")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert field(page).evaluate(EDGE) != ground


def reached(page: Page) -> list[str]:
    """All that is reached by Tab, in this order, by its words or its id."""
    words = "() => document.activeElement.textContent.trim() || document.activeElement.id"
    asked = page.evaluate(CAN_BE_REACHED)
    page.locator("a").first.focus()
    found = [page.evaluate(words)]
    for _ in range(1, asked):
        page.keyboard.press("Tab")
        found.append(page.evaluate(words))
    return found


def test_a_stream_that_cannot_be_is_told_in_words_and_not_tried_again(
    browser: Browser, coordinator: Service
) -> None:
    with a_page(browser, troubles="status of 422") as page:
        asked = requests(page)
        page.clock.install()
        asked_at(page, coordinator, "?stream=a%07b")
        enter(page, READ)
        expect(said(page, "state")).to_have_text("Not a stream")
        expect(said(page, "notice-words")).to_contain_text("that can be printed")
        expect(said(page, "answer")).to_be_hidden()
        page.clock.run_for(60_000)
        assert questions(asked).count("/median/events") == 1
        page.get_by_role("combobox", name="Stream").select_option("default")
        expect(said(page, "median")).to_have_text("8.25")
        expect(said(page, "notice-title")).to_have_text("Not complete.")
        page.go_back()
        expect(said(page, "state")).to_have_text("Not a stream")
