"""The page in a browser, before real services: what a person sees, live, whatever befalls.

Nothing is imagined here: values go to workers, the coordinator answers, Chromium draws. A page
holds what these tests look for by the ids of `index.html`; what they mean is in `main.js`. Wherever
the page shows a number, the coordinator's own answer is asked for it.

Any warning on the console, and any request that failed, is a failure (`browser.py`), but for those
that must fail while there is no coordinator.
"""

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import ArrayLike
from playwright.sync_api import Browser, Locator, Page, Route, expect

from shared.digest import Digest
from shared.outbox import Outbox
from shared.protocol import (
    NAME_MAX,
    Receipt,
    Source,
    digest_error_for,
    pack_request,
    unpack_response,
)
from tests.browser import a_page, chromium, needs_chromium
from tests.processes import SOON_S, Answer, Processes, Service, until

pytestmark = needs_chromium

EPSILON = 0.01
PHONE = {"width": 320, "height": 640}
MSGPACK = {"content-type": "application/msgpack"}
HOSTILE = "<img src=x onerror=alert(1)>"
# What Chromium says of a connection that there is not, or that ends, wherever in a response.
AWAY = (
    r"net::ERR_(CONNECTION_\w+|SOCKET_NOT_CONNECTED|INCOMPLETE_CHUNKED_ENCODING|EMPTY_RESPONSE"
    r"|CONTENT_LENGTH_MISMATCH)\b"
)
SOURCES = 300

# Each text that is seen and has too little contrast with its ground, by WCAG 2.2, 1.4.3 (AA).
TOO_FAINT = """
() => {
  const parts = (words) => {
    const found = words.match(/[-+.e\\d]+/g).map(Number);
    const of = words.startsWith("color(srgb") ? 255 : 1;
    if (!/^(rgb|color\\(srgb)/.test(words)) throw new Error(`a colour of another kind: ${words}`);
    if (of === 255) found.shift();
    return [...found.slice(-4).slice(0, 3).map((x) => x * of), found.length > 3 ? found.at(-1) : 1];
  };
  const over = ([r, g, b, a], ground) => [r, g, b].map((x, i) => x * a + ground[i] * (1 - a));
  const groundOf = (node) => {
    if (!node) return [255, 255, 255];
    const own = parts(getComputedStyle(node).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, groundOf(node.parentElement));
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((x) => x / 255)
      .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const opacityOf = (node) => node
    ? Number(getComputedStyle(node).opacity) * opacityOf(node.parentElement) : 1;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const faint = [];
  let seen = 0;
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    const words = texts.currentNode.textContent.trim();
    if (!words || !node.checkVisibility({ visibilityProperty: true })) continue;
    if (node.closest("script, noscript, style, .unseen")) continue;
    const style = getComputedStyle(node);
    const ground = groundOf(node);
    const [r, g, b, a] = parts(node.closest("svg") ? style.fill : style.color);
    const ink = over([r, g, b, a * opacityOf(node)], ground);
    const [dark, bright] = [light(ink), light(ground)].sort((x, y) => x - y);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const ratio = (bright + 0.05) / (dark + 0.05);
    seen += 1;
    if (ratio < (isLarge ? 3 : 4.5)) faint.push(`${words}: ${ratio.toFixed(2)}`);
  }
  return { seen, faint, ground: light(groundOf(document.body)) };
}
"""
# What can be pressed, typed into, or moved; of radio buttons with one name, one is enough.
CAN_BE_REACHED = """
() => {
  const all = "a[href], button, input, select, summary, textarea, [tabindex='0']";
  const seen = [...document.querySelectorAll(all)].filter((one) => one.checkVisibility());
  const asked = seen.filter((one) => one.type !== "radio" || one.checked);
  asked.forEach((one, i) => { one.dataset.asked = i; });
  return asked.length;
}
"""
FOCUSED = "() => document.activeElement.dataset.asked ?? null"
MUST_BE_NAMED = "button|link|combobox|radio|slider|table|region|meter|figure|img|list"
NAMELESS = re.compile(rf"^ *- '?(?:{MUST_BE_NAMED})\b(?! \").*$", re.MULTILINE)
# Which rows were made anew, and which cells of others were written to, from now on.
WATCH_ROWS = """
() => {
  window.touched = [];
  for (const row of document.querySelectorAll("#rows tr")) row.wasThere = true;
  const note = (records) => {
    for (const { type, target } of records) {
      const node = target.nodeType === Node.TEXT_NODE ? target.parentElement : target;
      const row = node.closest("tr")?.querySelector("th").textContent;
      touched.push([row ?? "", node.closest("td")?.className ?? type]);
    }
  };
  new MutationObserver(note).observe(document.querySelector("#rows"),
    { subtree: true, childList: true, characterData: true, attributes: true });
}
"""


class System:
    """A coordinator, two workers, and what they were given."""

    def __init__(self, processes: Processes, rng: np.random.Generator) -> None:
        self.coordinator = processes.cluster("alpha", "beta", epsilon=EPSILON, linger_s=0.1)
        self.alpha, self.beta = processes.workers.values()
        self.give(self.alpha, rng.normal(10, 1, 5000))
        self.give(self.beta, rng.normal(30, 5, 3000))

    def give(self, worker: Service, values: ArrayLike, stream: str = "default") -> None:
        """Until all of it is counted."""
        before = self.count(stream)
        given = np.asarray(values, dtype="<f8")
        query = httpx.QueryParams(stream=stream)
        assert worker.post(f"/values?{query}", given.tobytes()).status_code == 202
        all_ = before + len(given)
        until(lambda: self.count(stream) == all_, f"{stream} has {all_} values")

    def count(self, stream: str) -> int:
        streams = self.coordinator.get("/streams")["streams"]
        return sum(one["count"] for one in streams if one["stream"] == stream)

    def answer(self, stream: str = "default") -> Any:
        return until(lambda: complete(self.coordinator, stream), "the answer is complete")


def complete(coordinator: Service, stream: str = "default") -> Any:
    answer = coordinator.get("/median", stream=stream)
    return answer if answer["complete"] else None


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """For tests that kill nobody, each with a stream of its own."""
    with Processes(tmp_path_factory.mktemp("system")) as processes:
        yield System(processes, np.random.default_rng(1))


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as processes:
        yield processes


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with a_page(browser) as page:
        yield page


def open_at(page: Page, coordinator: Service, *, name: str = "Live", **looked: str) -> None:
    """The page, of a stream, when it is live."""
    query = f"?{httpx.QueryParams(looked)}" if looked else ""
    page.goto(f"{coordinator.url}/{query}")
    expect(page.locator("#state")).to_have_text(name)


def said(page: Page, what: str) -> Locator:
    return page.locator(f"#{what}")


def numbers(words: str) -> list[float]:
    """All that are shown, in order; a minus is longer than a hyphen."""
    plain = words.replace(",", "").replace("\N{MINUS SIGN}", "-")
    return [float(one) for one in re.findall(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?", plain)]


def rows(page: Page) -> list[str]:
    """Whose they are, from top to bottom."""
    return page.locator("#rows th").all_inner_texts()


def causes(page: Page) -> Locator:
    """Why workers spoke: those causes that occurred."""
    return page.locator("#causes li:visible")


def moments(page: Page) -> Locator:
    return page.get_by_role("slider", name="Moments of the median")


def moment(page: Page, key: str) -> str:
    """What is read off of the history where that key leads."""
    page.keyboard.press(key)
    page.evaluate("() => new Promise(requestAnimationFrame)")
    return moments(page).get_attribute("aria-valuetext") or ""


def outlives(page: Page, act: Callable[[], None]) -> None:
    """The page stays the same one while that happens: it was not loaded again."""
    page.evaluate("() => { window.same = true }")
    act()
    assert page.evaluate("() => window.same === true")


# What is so


def test_the_page_shows_what_the_coordinator_answers(page: Page, system: System) -> None:
    open_at(page, system.coordinator)
    expect(said(page, "count")).to_have_text("8,000")
    until(lambda: is_shown(page, system.answer()), "the page and the coordinator say the same")
    assert numbers(said(page, "epsilon").inner_text()) == [1]
    expect(said(page, "live")).to_have_text("2")
    expect(said(page, "silent")).to_have_text("none silent")
    expect(said(page, "notice")).to_be_hidden()


def is_shown(page: Page, answer: Answer) -> bool:
    """The same numbers; and what is proven stays so as it is shown, as it is rounded outwards."""
    shown = {name: numbers(said(page, name).inner_text()) for name in ("median", "between")}
    (error,) = numbers(said(page, "rank-error").inner_text())
    asked = [answer["median"], answer["low"], answer["high"]]
    if shown["median"] + shown["between"] != pytest.approx(asked, rel=1e-5):
        return False
    low, high = shown["between"]
    up = error - 100 * float(answer["rank_error"])
    return bool(low <= asked[1] <= asked[2] <= high and 0 <= up <= 0.01)


def test_each_worker_has_a_row_with_its_own_numbers(page: Page, system: System) -> None:
    open_at(page, system.coordinator, by="worker")
    told = system.coordinator.get("/workers", stream="default")["workers"]
    expect(page.locator("#rows tr")).to_have_count(2)
    assert rows(page) == ["alpha", "beta"] == [one["worker"] for one in told]
    for row, one in zip(page.locator("#rows tr").all(), told, strict=True):
        expect(row.locator(".of-state")).to_have_text("live")
        assert numbers(row.locator(".of-count").inner_text()) == [one["count"] / 80]
        assert numbers(row.locator(".of-median").inner_text()) == pytest.approx(
            [one["median"]], rel=1e-5
        )


def test_the_traffic_is_told_by_why_workers_spoke(page: Page, system: System) -> None:
    open_at(page, system.coordinator)
    expect(causes(page).first).to_be_visible()
    told = system.coordinator.get("/workers", stream="default")["workers"]
    named = causes(page).locator("strong").all_inner_texts()
    assert set(named) == {cause for one in told for cause in one["causes"]}
    assert numbers(said(page, "sent-share").inner_text())[0] < 100


def test_new_values_change_the_page_without_a_reload(page: Page, system: System) -> None:
    system.give(system.alpha, [1, 2, 3], "grows")
    open_at(page, system.coordinator, stream="grows")
    expect(said(page, "median")).to_have_text("2")

    def more() -> None:
        system.give(system.beta, [70, 80, 90, 100], "grows")
        expect(said(page, "median")).to_have_text("70")
        expect(said(page, "count")).to_have_text("7")
        expect(page.locator("#rows tr")).to_have_count(2)

    outlives(page, more)


def test_nothing_comes_from_elsewhere(page: Page, system: System) -> None:
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url))
    open_at(page, system.coordinator)
    expect(page.locator("#rows tr")).to_have_count(2)
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith(f"{system.coordinator.url}/")] == []


def test_below_a_prefix_all_is_as_above(page: Page, system: System) -> None:
    """As behind a proxy that takes the prefix off."""
    here, asked = system.coordinator.url, list[str]()

    def go_on(route: Route) -> None:
        asked.append(route.request.url)
        route.continue_(url=route.request.url.replace(f"{here}/below/", f"{here}/"))

    page.route("**", go_on)
    page.goto(f"{here}/below/")
    expect(page.locator("#rows tr")).to_have_count(2)
    expect(said(page, "state")).to_have_text("Live")
    assert [url for url in asked if not url.startswith(f"{here}/below/")] == []
    links = page.locator("footer a").all()
    assert all("/below/" in str(link.evaluate("one => one.href")) for link in links)


# What is looked at


def test_a_stream_is_picked_and_the_address_keeps_it(page: Page, system: System) -> None:
    system.give(system.alpha, [4, 5, 6], "picked")
    open_at(page, system.coordinator)
    picker = page.get_by_role("combobox", name="Stream")
    picker.select_option("picked")
    expect(said(page, "median")).to_have_text("5")
    assert page.url.endswith("/?stream=picked")
    page.reload()
    expect(said(page, "median")).to_have_text("5")
    expect(picker).to_have_value("picked")
    page.go_back()
    expect(said(page, "count")).to_have_text("8,000")
    expect(picker).to_have_value("default")


def test_who_picks_a_stream_and_thinks_better_of_it_is_told_of_no_trouble(
    page: Page, system: System
) -> None:
    system.give(system.alpha, [4, 5, 6], "thought better of")
    open_at(page, system.coordinator)
    expect(page.get_by_role("option", name="thought better of")).to_be_attached()
    said(page, "state-words").evaluate(
        """words => {
            window.states = [];
            new MutationObserver(() => states.push(words.textContent))
                .observe(words, { childList: true, characterData: true, subtree: true });
            const picker = document.getElementById("stream");
            for (picker.value of ["thought better of", "default"])
                picker.dispatchEvent(new Event("change"));
        }"""
    )
    until(lambda: page.evaluate("states.length") > 1, "it was something, and is something")
    expect(said(page, "state")).to_have_text("Live")
    assert page.evaluate("states") == ["Connecting", "Live"]


@pytest.mark.parametrize("stream", [HOSTILE, "'; rm -rf ~; '", "a&by=worker", "ünï çødé 中"])
def test_any_name_is_a_name(page: Page, system: System, stream: str) -> None:
    system.give(system.alpha, [7, 8, 9], stream)
    open_at(page, system.coordinator, stream=stream)
    expect(said(page, "median")).to_have_text("8")
    expect(said(page, "stream-name")).to_have_text(stream)
    expect(page.get_by_role("combobox", name="Stream")).to_have_value(stream)
    assert page.locator("img[src=x]").count() == 0


def test_the_table_is_sorted_by_keyboard(page: Page, system: System) -> None:
    open_at(page, system.coordinator)
    expect(page.locator("#rows tr")).to_have_count(2)
    heading = page.get_by_role("columnheader", name="Worker")
    heading.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(heading).to_have_attribute("aria-sort", "ascending")
    assert rows(page) == ["alpha", "beta"]
    page.keyboard.press("Space")
    expect(heading).to_have_attribute("aria-sort", "descending")
    assert rows(page) == ["beta", "alpha"]
    expect(page.locator("th[aria-sort]")).to_have_count(1)
    page.reload()
    expect(heading).to_have_attribute("aria-sort", "descending")
    expect(page.locator("#rows th")).to_have_text(["beta", "alpha"])


def test_pointing_at_the_distribution_reads_it_off(page: Page, system: System) -> None:
    open_at(page, system.coordinator)
    plot = page.get_by_role("slider", name="Points of the distribution")
    plot.scroll_into_view_if_needed()
    words = page.locator("#distribution figcaption")
    before = words.inner_text()
    place = plot.bounding_box()
    assert place
    shares = []
    for part in (0.25, 0.9):
        page.mouse.move(place["x"] + part * place["width"], place["y"] + place["height"] / 2)
        expect(words).not_to_have_text(before)
        before = words.inner_text()
        shares.append(numbers(before))
    assert shares[0] != shares[1]


def test_the_history_outlives_a_reload_and_is_read_off_by_keyboard(
    page: Page, system: System
) -> None:
    system.give(system.alpha, [1, 1, 1], "moves")
    open_at(page, system.coordinator, stream="moves")
    expect(said(page, "median")).to_have_text("1")
    page.wait_for_timeout(2100)  # a moment of the history is a second
    system.give(system.alpha, [50, 50, 50, 50, 50], "moves")
    expect(said(page, "median")).to_have_text("50")
    page.reload()
    expect(said(page, "median")).to_have_text("50")
    moments(page).focus()
    until(lambda: "median 1, " in moment(page, "Home"), "the first moment is there again")
    assert "3 values" in moment(page, "Home")
    assert "median 50, " in moment(page, "End")
    expect(page.locator("#timeline figcaption")).to_contain_text("median 50")


def test_before_the_first_value_the_page_says_how_to_send_one(
    processes: Processes, page: Page
) -> None:
    coordinator = processes.cluster("first", linger_s=0.1)
    open_at(page, coordinator)
    expect(page.get_by_role("heading", name="No values yet")).to_be_visible()
    expect(said(page, "answer")).to_be_hidden()
    line = said(page, "command").inner_text()
    assert line.startswith("curl ")

    def run_it() -> None:
        here = f"127.0.0.1:{processes.workers['first'].port}"
        shell = ["bash", "-c", re.sub(r"127\.0\.0\.1:8001\b", here, line)]
        ended = subprocess.run(shell, capture_output=True, timeout=SOON_S, check=True)  # noqa: S603  the line is what is tested
        assert b'"accepted":3' in ended.stdout
        expect(said(page, "median")).to_have_text("2.5")
        expect(said(page, "empty")).to_be_hidden()

    outlives(page, run_it)


def test_a_stream_that_is_not_there_yet_is_waited_for(browser: Browser, system: System) -> None:
    with a_page(browser, troubles="status of 404") as page:
        page.goto(f"{system.coordinator.url}/?stream=later")
        expect(said(page, "empty")).to_be_visible()
        expect(said(page, "notice")).to_be_hidden()
        assert "stream=later" in said(page, "command").inner_text()
        outlives(page, lambda: system.give(system.alpha, [3], "later"))
        expect(said(page, "median")).to_have_text("3")


# What befalls


def test_a_worker_that_was_killed_stands_out_and_the_answer_says_what_it_lacks(
    processes: Processes, page: Page
) -> None:
    system = System(processes, np.random.default_rng(2))
    open_at(page, system.coordinator)
    expect(page.locator("#rows th")).to_have_text(["alpha", "beta"])
    expect(said(page, "notice")).to_be_hidden()
    system.beta.tell(signal.SIGKILL)
    expect(said(page, "silent")).to_have_text("1 silent")
    expect(said(page, "notice")).to_be_visible()
    expect(said(page, "notice")).to_contain_text("Not complete")
    expect(said(page, "notice")).to_contain_text("silent")
    expect(said(page, "answer")).to_have_attribute("data-complete", "false")
    expect(page.locator("#rows th")).to_have_text(["beta", "alpha"])  # the first to be seen
    silent, live = page.locator("#rows .of-state").all()
    expect(silent).to_have_text("silent")
    colour = "one => getComputedStyle(one.querySelector('span:last-child')).color"
    assert silent.evaluate(colour) != live.evaluate(colour)
    assert page.evaluate(TOO_FAINT)["faint"] == []
    assert system.coordinator.post("/workers/beta/retire").status_code == 200
    expect(said(page, "notice")).to_be_hidden()


def test_a_coordinator_that_comes_back_is_live_again_by_itself(
    browser: Browser, processes: Processes
) -> None:
    system = System(processes, np.random.default_rng(3))
    with a_page(browser, troubles=AWAY) as page:
        open_at(page, system.coordinator)
        expect(said(page, "count")).to_have_text("8,000")

        def begin_again() -> None:
            system.coordinator.tell(signal.SIGKILL)
            assert system.coordinator.ended() == -signal.SIGKILL
            expect(said(page, "state")).to_contain_text("Not live")
            expect(said(page, "notice")).to_contain_text("the last that were heard")
            assert page.evaluate(TOO_FAINT)["faint"] == []
            expect(said(page, "count")).to_have_text("8,000")
            system.coordinator = processes.coordinator(epsilon=EPSILON)
            until(lambda: system.coordinator.is_up, "the coordinator is back")
            system.give(system.alpha, [1], "wakes")
            until(lambda: system.count("default") == 8000, "all is told again")
            system.give(system.alpha, np.full(10_000, 20.0))
            expect(said(page, "count")).to_have_text("18,000")
            expect(said(page, "state")).to_have_text("Live")
            expect(said(page, "notice")).to_be_hidden()
            expect(page.locator("#rows .of-state")).to_have_text(["live", "live"])

        outlives(page, begin_again)


def test_a_coordinator_that_stands_still_is_noticed(processes: Processes, page: Page) -> None:
    coordinator = processes.cluster()
    open_at(page, coordinator)
    coordinator.tell(signal.SIGSTOP)
    expect(said(page, "state")).to_contain_text("Not live")
    expect(said(page, "notice")).to_contain_text("Nothing was heard for 2 s")
    coordinator.tell(signal.SIGCONT)
    expect(said(page, "state")).to_have_text("Live")
    expect(said(page, "notice")).to_be_hidden()


def test_a_coordinator_told_to_stop_ends_although_somebody_looks(
    browser: Browser, processes: Processes
) -> None:
    coordinator = processes.cluster()
    with a_page(browser, troubles=AWAY) as page:
        open_at(page, coordinator)
        coordinator.tell(signal.SIGTERM)
        assert coordinator.ended() in {0, -signal.SIGTERM}
        assert "graceful shutdown exceeded" not in coordinator.said
        expect(said(page, "state")).to_contain_text("Not live")


def test_of_hundreds_of_rows_only_what_changed_is_written(page: Page, system: System) -> None:
    sources = [Source(f"w{at}", "many", 1 + at) for at in range(SOURCES)]
    outboxes = [Outbox(one, Digest(digest_error_for(EPSILON)), now=0) for one in sources]
    tell(system, outboxes, range(20))
    open_at(page, system.coordinator, stream="many", by="worker")
    expect(page.locator("#rows tr")).to_have_count(100)
    page.get_by_role("button", name=f"Show all {SOURCES}").click()
    expect(page.locator("#rows tr")).to_have_count(SOURCES)
    expect(said(page, "silent")).to_have_text(f"{SOURCES} silent")
    expect(page.locator("#rows .of-state", has_text="silent")).to_have_count(SOURCES)

    expect(page.locator("#rows .spot[data-known=true]")).to_have_count(SOURCES)
    changing = page.locator("#rows tr").nth(7).locator(".of-sent")
    before = changing.inner_text()
    page.evaluate(WATCH_ROWS)
    tell(system, outboxes[7:8], [9, 10])  # which leave all quantiles where they are
    expect(changing).not_to_have_text(before)
    assert page.evaluate("() => [...document.querySelectorAll('#rows tr')].every(r => r.wasThere)")
    touched = {tuple(one) for one in page.evaluate("() => touched")}
    assert ("w7", "of-sent") in touched
    assert {what for who, what in touched if who != "w7"} <= {"of-heard"}


def tell(system: System, outboxes: list[Outbox], values: ArrayLike) -> None:
    """Sources without workers: nothing else is ever heard of them."""
    for outbox in outboxes:
        outbox.add(values, now=0)
        outbox.flush()
    while sending := [one for one in outboxes if one.due]:
        deltas = [delta for one in sending if (delta := one.delta(now=0))]
        url, content = f"{system.coordinator.url}/deltas", pack_request(deltas)
        told = httpx.post(url, content=content, headers=MSGPACK, trust_env=False)
        receipts = unpack_response(told.raise_for_status().content)
        for outbox, receipt in zip(sending, receipts, strict=True):
            assert isinstance(receipt, Receipt)
            outbox.receive(receipt, now=0)


# Who looks, and with what


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_on_its_ground(
    browser: Browser, system: System, scheme: str
) -> None:
    with a_page(browser, color_scheme=scheme) as page:
        open_at(page, system.coordinator)
        expect(page.locator("#rows tr")).to_have_count(2)
        expect(causes(page).first).to_be_visible()
        found = page.evaluate(TOO_FAINT)
        assert found["seen"] > 50
        assert found["faint"] == []
        assert (found["ground"] < 0.05) == (scheme == "dark")


def test_light_and_dark_are_switched_and_kept(browser: Browser, system: System) -> None:
    ground = "() => getComputedStyle(document.documentElement).backgroundColor"
    with a_page(browser, color_scheme="light") as page:
        open_at(page, system.coordinator)
        light = page.evaluate(ground)
        page.get_by_role("button", name="Switch between light and dark").click()
        dark = page.evaluate(ground)
        assert light != dark
        page.reload()
        assert page.evaluate(ground) == dark


@pytest.mark.parametrize("stream", ["default", "n" * NAME_MAX])
def test_a_phone_shows_all_without_scrolling_sideways(
    browser: Browser, system: System, stream: str
) -> None:
    with a_page(browser, viewport=PHONE) as page:
        if stream != "default":
            system.give(system.alpha, [-1.2345678e300, 1e-300], stream)
        open_at(page, system.coordinator, stream=stream)
        expect(page.locator("#rows tr").first).to_be_visible()
        expect(causes(page).first).to_be_visible()
        width = "() => document.scrollingElement.scrollWidth"
        assert page.evaluate(width) <= PHONE["width"]


def test_all_that_can_be_used_is_reached_by_tab_and_has_a_name(page: Page, system: System) -> None:
    open_at(page, system.coordinator)
    expect(page.locator("#rows tr")).to_have_count(2)
    expect(said(page, "distribution")).to_have_attribute("data-blank", "false")
    asked = page.evaluate(CAN_BE_REACHED)
    assert asked > 12
    reached = set()
    for _ in range(asked + 2):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(FOCUSED))
    assert reached - {None} == {str(one) for one in range(asked)}
    assert NAMELESS.findall(page.locator("body").aria_snapshot()) == []


def test_landmarks_and_headings_lead_through_the_page(page: Page, system: System) -> None:
    open_at(page, system.coordinator)
    for landmark in ("header", "main", "footer", "h1"):
        expect(page.locator(f"body {landmark}")).to_have_count(1)
    ranks = [
        int(one.evaluate("one => one.tagName.slice(1)"))
        for one in page.get_by_role("heading").all()
    ]
    assert ranks[0] == 1
    assert all(below <= rank + 1 for rank, below in pairwise(ranks))
