"""A system in containers for each test, taken away after it, whatever happened."""

from collections.abc import Generator, Iterator

import pytest

from tests.compose import system as containers

SYSTEM = pytest.StashKey[containers.System]()


@pytest.fixture(scope="session")
def images() -> Iterator[None]:
    """Built once; removed in the end. What an interrupted run left goes first."""
    if reason := containers.missing():
        pytest.skip(reason)
    project = containers.System()
    project.remove()
    project.compose("--profile", "loadgen", "build", within_s=900)
    yield
    project.remove("--rmi", "local")


@pytest.fixture
def system(request: pytest.FixtureRequest, images: None) -> Iterator[containers.System]:  # noqa: ARG001  they have to be there
    running = request.node.stash[SYSTEM] = containers.System()
    containers.say(f"-- {request.node.name}")
    try:
        running.start()
        running.until_complete(live=0, what="complete")  # a worker is known by its values
        yield running
    finally:
        running.remove()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what the containers said, while they are still there."""
    report = yield
    if report.failed and call.when == "call" and SYSTEM in item.stash:
        report.sections.append(("what the containers said", item.stash[SYSTEM].logs()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in containers.SEEN:
        terminalreporter.write_line(line)
