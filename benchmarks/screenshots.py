"""Pictures of the page, for the docs: some minutes of a system that lives, and one that begins.

    python -m benchmarks.screenshots --seconds 240

Five workers, each in a town of its own, take the latencies of what is asked there, in milliseconds.
Some towns are near and some far, most slow down for a while, and what takes too long is cut off: so
the values have several hills, a drift and an atom. Towards the end one worker is killed, and falls
silent. The values are drawn from one seed, but time passes: so no two pictures are the same. They
have two dots a pixel, for screens that have them, and 64 colours, which is enough: so they are
small.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from shared.values import Floats
from tests.browser import CHROMIUM, a_page, chromium
from tests.processes import TOP, Processes, Service, until

IMAGES = TOP / "docs" / "images"
EPSILON, HEARTBEAT_S = 0.01, 2.0
TOWNS = {"berlin": 18.0, "lisbon": 31.0, "oslo": 24.0, "quito": 94.0, "tokyo": 112.0}
KILLED, KILLED_AT = "quito", 0.85  # of all the time
CUT_OFF_MS = 180.0
TICK_S, BATCH = 0.25, 2_000
WIDE = {"width": 1280, "height": 800}
COLOURS = 64
LOW = {"width": 1280, "height": 430}
PHONE = {"width": 390, "height": 844}
QUIET: dict[str, Any] = {
    "timezone_id": "UTC",
    "locale": "en-GB",
    "reduced_motion": "reduce",
    "device_scale_factor": 2,
}


def latencies(rng: np.random.Generator, nearly: float, part: float) -> Floats:
    """Some of one town, when that part of the time is over; in the middle of it all slow down."""
    slower = 1 + 0.5 * np.exp(-(((part - 0.55) / 0.12) ** 2)) + 0.06 * np.sin(40 * part)
    taken: Floats = np.minimum(nearly * slower * rng.lognormal(0, 0.25, BATCH), CUT_OFF_MS)
    return taken


def live(processes: Processes, seconds: float) -> Service:
    """A coordinator with workers that took values for so long; one of them is missing by now."""
    coordinator, workers = started(processes, *TOWNS)
    rng, begun = np.random.default_rng(1), time.monotonic()
    while (part := (time.monotonic() - begun) / seconds) < 1:
        if part > KILLED_AT and KILLED in workers:
            workers.pop(KILLED).tell(signal.SIGKILL)
        for town, worker in workers.items():
            worker.take(latencies(rng, TOWNS[town], part))
        time.sleep(TICK_S)
    until(lambda: coordinator.get("/median")["workers"]["silent"], f"{KILLED} is missed")
    return coordinator


def started(processes: Processes, *names: str) -> tuple[Service, dict[str, Service]]:
    coordinator = processes.coordinator(epsilon=EPSILON, heartbeat_s=HEARTBEAT_S)
    workers = {name: processes.worker(name) for name in names}
    for one in (coordinator, *workers.values()):
        until(partial(is_ready, one), f"{one.url} is ready")
    return coordinator, workers


def is_ready(service: Service) -> bool:
    return service.is_up and service.is_ready


def photograph(
    browser: Browser, coordinator: Service, name: str, *, whole: bool = True, **settings: Any
) -> None:
    """All of the page, however high; or what a screen shows of it."""
    with a_page(browser, **QUIET | settings) as page:
        page.goto(coordinator.url)
        expect(page.locator("#state")).to_have_text("Live")
        if coordinator.get("/median")["count"]:
            is_drawn(page)
        at = IMAGES / f"dashboard-{name}.png"
        taken = Image.open(BytesIO(page.screenshot(full_page=whole)))
        few = taken.convert("RGB").quantize(
            COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=5, dither=Image.Dither.NONE
        )
        few.save(at, optimize=True)
        sys.stdout.write(f"{at.relative_to(TOP)}  {at.stat().st_size / 1000:.0f} kB\n")


def is_drawn(page: Page) -> None:
    for what in ("#rows tr", "#causes li:visible", "#timeline svg .line", "#distribution svg path"):
        expect(page.locator(what).first).to_be_visible()
    page.wait_for_timeout(3000)  # by then all has been asked for twice


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screenshots")
    parser.add_argument("--seconds", type=float, default=240)
    given = parser.parse_args(arguments)
    if CHROMIUM is None:
        sys.exit("There is no Chromium to look with.")
    with tempfile.TemporaryDirectory() as at, chromium() as browser:
        with Processes(Path(at)) as processes:
            coordinator, _ = started(processes, "first")
            photograph(browser, coordinator, "empty", whole=False, viewport=LOW)
        with Processes(Path(at)) as processes:
            coordinator = live(processes, given.seconds)
            photograph(browser, coordinator, "light", viewport=WIDE)
            photograph(browser, coordinator, "dark", viewport=WIDE, color_scheme="dark")
            photograph(browser, coordinator, "phone", whole=False, viewport=PHONE)


if __name__ == "__main__":
    main()
