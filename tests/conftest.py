"""Options `--seed`, `--storms`, `--fuzz`, `--grid`; a last line: how often a promise was tested."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from tests.exact import TALLY

LONG = {
    "test_storm.py", "test_chaos.py", "test_partitions.py", "test_crashes.py", "test_processes.py",
    "test_demo.py", "test_docs_live.py", "test_storage_faults.py", "test_dashboard.py",
}  # fmt: skip

settings.register_profile(
    "shared", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared")


def at_least(least: int) -> Callable[[str], int]:
    def number(given: str) -> int:
        if int(given) < least:
            raise ValueError(f"must be at least {least}")
        return int(given)

    return number


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=at_least(0), default=1, help="what the sampled tests draw from")
    parser.addoption("--storms", type=at_least(1), default=100, help="how many storms to simulate")
    parser.addoption("--fuzz", type=at_least(1), default=1, help="how many times as much to fuzz")
    parser.addoption("--grid", action="store_true", help="run every case, not a sample")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_report_header(config: pytest.Config) -> str:
    part = "the full grid" if config.getoption("--grid") else "a sample of the grid"
    return f"running {part}; repeat it with --seed {config.getoption('--seed')}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Of several processes that share the tests, each tells the first how often it compared."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["checks"] = TALLY.checks


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    TALLY.checks += getattr(node, "workeroutput", {}).get("checks", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY.checks:
        terminalreporter.write_line(f"{TALLY.checks:,} comparisons with exact multisets")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Seeded by `--seed` and the test's own name, so that each test draws its own numbers."""
    name = request.node.nodeid.encode()
    return np.random.default_rng([request.config.getoption("--seed"), *name])
