"""A browser that tests can look with: the Chromium of this system, driven by Playwright.

Nothing is downloaded. Where there is no Chromium, what needs one is skipped; one that is there and
cannot start is a failure. Ubuntu's `chromium-browser` only asks for a snap, so it is none.

Every page is watched. A message on its console that warns, an error that nobody caught, a request
that failed or was refused: each is a trouble, and whoever opened the page fails at its end, unless
the trouble was expected. A request that the page itself let go of, as all do when it is left, is
none.

While the browser is there, Playwright's event loop runs in this thread, and so none else can.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.processes import SOON_S

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
LET_GO = "net::ERR_ABORTED"
NOTHING = r"(?!)"

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
expect.set_options(timeout=SOON_S * 1000)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            chromium_sandbox=os.geteuid() != 0,  # Chromium refuses to be root in its sandbox
        )
        yield browser
        browser.close()


@contextmanager
def a_page(browser: Browser, *, troubles: str = NOTHING, **settings: Any) -> Iterator[Page]:
    """A page that shares nothing with others; `troubles`, a pattern, tells which are expected."""
    with browser.new_context(**settings) as context:
        context.set_default_timeout(SOON_S * 1000)
        page = context.new_page()
        seen = watched(page)
        yield page
    unexpected = [trouble for trouble in seen if not re.search(troubles, trouble)]
    assert not unexpected, "\n".join(unexpected)


def watched(page: Page) -> list[str]:
    """All troubles that it will have had."""
    seen = list[str]()

    def console(message: ConsoleMessage) -> None:
        if message.type in ("warning", "error"):
            seen.append(f"console {message.type}: {message.text} ({message.location['url']})")

    def failed(request: Request) -> None:
        if request.failure != LET_GO:
            seen.append(f"{request.method} {request.url}: {request.failure}")

    page.on("console", console)
    page.on("pageerror", lambda error: seen.append(f"not caught: {error}"))
    page.on("requestfailed", failed)
    return seen
