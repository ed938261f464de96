"""No trouble of a page goes unseen, and none is made up."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import a_page, chromium, needs_chromium

pytestmark = needs_chromium
NOWHERE = "http://127.0.0.1:1/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_a_page_without_trouble_has_none(browser: Browser) -> None:
    with a_page(browser) as page:
        page.set_content("<script>console.log('all is well')</script><h1>Hello</h1>")
        assert page.inner_text("h1") == "Hello"


def visit(browser: Browser, content: str) -> None:
    """Until the page has had the time for what it does."""
    with a_page(browser) as page:
        page.set_content(content)
        page.wait_for_timeout(200)


@pytest.mark.parametrize(
    ("script", "seen"),
    [
        ("console.error('broken')", "console error: broken"),
        ("console.warn('odd')", "console warning: odd"),
        ("setTimeout(() => { throw Error('thrown') })", "not caught: thrown"),
        ("Promise.reject(Error('left'))", "not caught: left"),
        (f"fetch('{NOWHERE}').catch(() => 0)", f"GET {NOWHERE}: net::ERR"),
    ],
)
def test_a_trouble_is_seen(browser: Browser, script: str, seen: str) -> None:
    with pytest.raises(AssertionError, match=f"^{seen}"):
        visit(browser, f"<script>{script}</script>")


def test_a_trouble_that_is_expected_is_none(browser: Browser) -> None:
    with a_page(browser, troubles="^console error: broken") as page:
        page.set_content("<script>console.error('broken')</script>")


def test_what_a_page_lets_go_of_is_no_trouble(browser: Browser) -> None:
    with a_page(browser) as page:
        page.route(f"{NOWHERE}*", lambda _: None)
        page.set_content(f"<script>fetch('{NOWHERE}').catch(() => 0)</script>")
        page.goto("about:blank")
