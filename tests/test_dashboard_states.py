"""The page in states that are rare, each before a real coordinator: what is shown stays true.

Sources are told without workers: so a test says exactly what each of them holds, and nothing else
is ever heard of them.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import ArrayLike
from playwright.sync_api import Browser, Page, expect

from shared.digest import Digest
from shared.outbox import Outbox
from shared.protocol import Receipt, Source, digest_error_for, pack_request, unpack_response
from tests.browser import a_page, chromium, needs_chromium
from tests.processes import SOON_S, Processes, Service, until
from tests.test_dashboard import AWAY, EPSILON, MSGPACK, numbers, open_at, rows, said

pytestmark = needs_chromium

PHONE = {"width": 320, "height": 640}
OVERFLOWS = "() => document.scrollingElement.scrollWidth > innerWidth"
NORMAL = np.random.default_rng(1).normal(0, 1e-4, 4000)

# Each line and mark of the drawings, and how well it is seen on its ground, by WCAG 2.2, 1.4.11.
DRAWN = """
() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).map((x) => x / 255)
      .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = light(getComputedStyle(document.querySelector("#timeline")).backgroundColor);
  const seen = (selector, name) => {
    const ink = light(getComputedStyle(document.querySelector(selector))[name]);
    return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
  };
  return {
    line: seen("#timeline svg .line", "stroke"), edge: seen("#timeline svg .band", "stroke"),
    dot: seen("#timeline svg .dot", "fill"), hatch: seen(".hatch", "stroke"),
    curve: seen("#distribution svg .line", "stroke"), bars: seen("#distribution .bars", "stroke"),
    leader: seen("#distribution .leader", "stroke"),
    chosen: seen(".chart-ranges input:checked + span", "borderTopColor"),
    picker: seen("#stream", "borderTopColor"),
  };
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Processes(tmp_path_factory.mktemp("states")) as processes:
        coordinator = processes.coordinator(epsilon=EPSILON)
        until(lambda: coordinator.is_up, "the coordinator is up")
        yield coordinator


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with a_page(browser) as page:
        yield page


def give(coordinator: Service, stream: str, **values: ArrayLike) -> dict[str, Outbox]:
    """Workers of these names and what they hold, all of it told."""
    found = dict[str, Outbox]()
    for worker, held in values.items():
        source = Source(worker, stream, 1 + len(found))
        found[worker] = Outbox(source, Digest(digest_error_for(EPSILON)), now=0)
        tell(coordinator, found[worker], held)
    return found


def tell(coordinator: Service, outbox: Outbox, values: ArrayLike) -> None:
    outbox.add(values, now=0)
    outbox.flush()
    settle(coordinator, outbox)


def settle(coordinator: Service, outbox: Outbox) -> None:
    while outbox.due and (delta := outbox.delta(now=0)):
        url, content = f"{coordinator.url}/deltas", pack_request([delta])
        told = httpx.post(url, content=content, headers=MSGPACK, trust_env=False)
        (receipt,) = unpack_response(told.raise_for_status().content)
        assert isinstance(receipt, Receipt)
        outbox.receive(receipt, now=0)


def answer(coordinator: Service, stream: str) -> Any:
    return coordinator.get("/median", stream=stream)


@pytest.mark.parametrize("around", [-1e9, 0.5])
def test_what_is_proven_stays_true_as_it_is_shown(
    page: Page, coordinator: Service, around: float
) -> None:
    stream = f"around {around}"
    give(coordinator, stream, one=around + NORMAL)
    told = answer(coordinator, stream)
    assert told["low"] < told["high"]
    open_at(page, coordinator, stream=stream)
    low, high = numbers(said(page, "between").inner_text())
    assert low <= told["low"] < told["high"] <= high
    assert high - low < 1.5 * (told["high"] - told["low"])
    (error,) = numbers(said(page, "rank-error").inner_text())
    assert 100 * told["rank_error"] <= error
    figure = page.locator("#timeline figcaption")
    expect(figure).to_contain_text(f"certificate {error:.2f} %")


def test_a_certificate_is_never_shown_smaller_than_it_is(page: Page, coordinator: Service) -> None:
    open_at(page, coordinator)
    at_most = "async (share) => (await import('./dashboard/format.js')).atMost(share)"
    for share in (0.006, 0.0057, 0.006001, 0.0100001, 0.12301, 0.000123401, 0.9991, 1e-7):
        (shown,) = numbers(page.evaluate(at_most, share))
        assert 100 * share * (1 - 1e-12) <= shown <= 100 * share * 1.02 + 0.001


def test_where_all_that_is_possible_is_one_value_it_is_certain(
    page: Page, coordinator: Service
) -> None:
    give(coordinator, "certain", one=np.repeat([1, 2, 7], 2000))
    told = answer(coordinator, "certain")
    assert told["low"] == told["high"] == 2
    open_at(page, coordinator, stream="certain")
    expect(said(page, "median")).to_have_text("2")
    if not told["exact"]:
        expect(said(page, "between")).to_have_text("Certainly 2")
    expect(said(page, "bracket")).to_be_hidden()


def test_what_is_certain_is_shown_to_the_last_of_its_digits(
    page: Page, coordinator: Service
) -> None:
    give(coordinator, "fine", one=[1_700_000_000.25, 1_700_000_000.5, 1_700_000_001])
    open_at(page, coordinator, stream="fine")
    expect(said(page, "median")).to_have_text("1,700,000,000.5")


def test_who_is_gone_has_no_allowance_to_use_up(page: Page, coordinator: Service) -> None:
    outboxes = give(coordinator, "left", stays=NORMAL, goes=NORMAL)
    outboxes["goes"].goodbye()
    settle(coordinator, outboxes["goes"])
    open_at(page, coordinator, stream="left", by="worker")
    expect(page.locator("#rows .of-state")).to_have_text(["gone", "silent"])
    gone, silent = page.locator("#rows tr").all()
    expect(gone.locator(".of-shift")).to_contain_text(", final")
    expect(gone.locator(".of-shift .bar")).to_be_hidden()
    expect(silent.locator(".of-shift .bar")).to_be_visible()
    expect(said(page, "young")).to_be_hidden()


def test_what_is_proven_now_is_never_cut(page: Page, coordinator: Service) -> None:
    open_at(page, coordinator)
    fit = "async (moments) => (await import('./dashboard/timeline.js')).fit(moments, 0, 300)"
    calm = {"at": 0, "median": 5, "low": 4, "high": 6}
    wide = {"at": 299, "median": 5, "low": 1, "high": 9}
    assert page.evaluate(fit, [calm, wide]) == [1, 9]
    assert page.evaluate(fit, [wide | {"at": 0}, calm | {"at": 1}]) == [4, 6]


def test_a_young_stream_says_that_shipping_all_would_be_cheaper(
    page: Page, coordinator: Service
) -> None:
    give(coordinator, "young", one=[1, 2, 3])
    open_at(page, coordinator, stream="young")
    expect(said(page, "young")).to_be_visible()
    assert numbers(said(page, "sent-share").inner_text())[0] > 100


def test_what_a_coordinator_forgot_is_missed_and_on_neither_side_of_the_traffic(
    tmp_path: Path, browser: Browser
) -> None:
    with Processes(tmp_path) as processes, a_page(browser, troubles=AWAY) as page:
        coordinator = processes.coordinator(epsilon=EPSILON)
        until(lambda: coordinator.is_up, "the coordinator is up")
        outboxes = give(coordinator, "default", gone=NORMAL, stays=NORMAL)
        open_at(page, coordinator)
        expect(said(page, "count")).to_have_text(f"{2 * len(NORMAL):,}")
        coordinator.stop()
        coordinator = processes.coordinator(epsilon=EPSILON)
        until(lambda: coordinator.is_up, "it is back, and knows nothing")
        tell(coordinator, outboxes["stays"], [1])
        tell(coordinator, outboxes["stays"], [2, 3])
        outboxes["stays"].goodbye()
        settle(coordinator, outboxes["stays"])
        expect(said(page, "count")).to_have_text(f"{len(NORMAL) + 3:,}", timeout=1000 * SOON_S)
        expect(said(page, "raw")).to_have_text("16 B")
        expect(said(page, "kept")).to_contain_text(
            "Kept in memory: what workers that are gone told"
        )
        expect(said(page, "notice-title")).to_have_text("Values are missing.")
        expect(said(page, "notice-words")).to_contain_text(
            f"forgotten {len(NORMAL) - 3:,}, and those"
        )


def test_who_is_silent_is_named_and_how_to_retire_him_is_said(
    page: Page, coordinator: Service
) -> None:
    name = "o'hara, rm; -rf"
    give(coordinator, "named", **{name: NORMAL})
    open_at(page, coordinator, stream="named")
    expect(said(page, "notice-words")).to_contain_text(name)
    expect(said(page, "between")).to_contain_text("Of what is counted, certainly between")
    command = said(page, "retire").inner_text()
    subprocess.run(["bash", "-c", command], check=True, capture_output=True, timeout=30)  # noqa: S603, S607  as a reader would
    until(lambda: states(coordinator)[name] == "retired", "it is retired")
    expect(page.locator("#rows tr", has_text=name)).to_contain_text("retired")


def states(coordinator: Service) -> dict[str, str]:
    found = coordinator.get("/workers", stream="named")["workers"]
    return {one["worker"]: one["state"] for one in found}


def test_where_all_have_said_goodbye_the_page_says_that_nobody_counts(
    page: Page, coordinator: Service
) -> None:
    outboxes = give(coordinator, "over", one=NORMAL)
    until(lambda: coordinator.is_ready, "it has listened")
    outboxes["one"].goodbye()
    settle(coordinator, outboxes["one"])
    open_at(page, coordinator, stream="over")
    expect(said(page, "notice-title")).to_have_text("Nobody is live.")
    expect(said(page, "notice-help")).to_be_hidden()


def test_rows_stay_where_they_are_while_somebody_points_at_them(
    page: Page, coordinator: Service
) -> None:
    outboxes = give(coordinator, "pointed", few=[1], many=[2, 3])
    open_at(page, coordinator, stream="pointed", by="-count")
    expect(page.locator("#rows th")).to_have_text(["many", "few"])
    page.locator("#rows tr").first.hover()
    tell(coordinator, outboxes["few"], [4, 5])
    expect(page.locator("#rows .of-count .number")).to_have_text(["40 %", "60 %"])
    assert rows(page) == ["many", "few"]
    page.mouse.move(0, 0)
    expect(page.locator("#rows th")).to_have_text(["few", "many"])


def test_a_narrow_page_shows_all_of_a_worker(browser: Browser, coordinator: Service) -> None:
    give(coordinator, "narrow", **{"n" * 100: NORMAL})
    with a_page(browser, viewport=PHONE) as page:
        open_at(page, coordinator, stream="narrow")
        expect(page.get_by_role("cell")).to_have_count(6)
        for cell in page.locator("#rows tr > *").all():
            expect(cell).to_be_visible()
            place = cell.bounding_box()
            assert place
            assert 0 <= place["x"] < place["x"] + place["width"] <= PHONE["width"]
        expect(page.get_by_role("columnheader")).to_have_count(7)


def test_an_address_that_means_nothing_does_no_harm(page: Page, coordinator: Service) -> None:
    give(coordinator, "default", one=[1])
    for address in ("last=abc&by=x", "last=1e3&by=-&all=%00", "last=-1&by=--state"):
        page.goto(f"{coordinator.url}/?{address}")
        expect(page.locator("#rows th")).to_have_text(["one"])
        expect(page.get_by_role("radio", name="5 minutes")).to_be_checked()
        heading = page.get_by_role("columnheader", name="State")
        expect(heading).to_have_attribute("aria-sort", "ascending")


def test_going_back_to_another_range_loads_its_history(page: Page, coordinator: Service) -> None:
    give(coordinator, "default", one=[1])
    open_at(page, coordinator, last="3600")
    page.evaluate("() => history.pushState(null, '', '?')")
    page.evaluate("() => dispatchEvent(new Event('popstate'))")
    expect(page.get_by_role("radio", name="5 minutes")).to_be_checked()
    with page.expect_request(re.compile("history.*last_s=3600")):
        page.go_back()
    expect(page.get_by_role("radio", name="1 hour")).to_be_checked()


def test_what_is_drawn_is_seen_on_its_ground(page: Page, coordinator: Service) -> None:
    give(coordinator, "drawn", one=NORMAL)
    open_at(page, coordinator, stream="drawn")
    expect(page.locator("#distribution svg .bars")).to_be_visible()
    page.emulate_media(forced_colors="active")
    assert faint(page) == []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, forced_colors="none")
        expect(page.locator("html")).to_have_attribute("data-theme", scheme)
        assert faint(page) == []


def faint(page: Page) -> list[str]:
    return [what for what, seen in page.evaluate(DRAWN).items() if seen < 3]


def test_words_in_drawings_are_as_large_as_the_reader_wants_them(
    page: Page, coordinator: Service
) -> None:
    give(coordinator, "large", one=NORMAL)
    open_at(page, coordinator, stream="large")
    label = page.locator("#timeline .axis text").first
    expect(label).to_be_visible()
    place = label.bounding_box()
    assert place
    page.evaluate("() => { document.documentElement.style.fontSize = '200%' }")

    def is_twice() -> bool:
        larger = label.bounding_box()
        return larger is not None and larger["height"] > 1.8 * place["height"]

    until(is_twice, "the words are larger")
    assert not page.evaluate(OVERFLOWS)
