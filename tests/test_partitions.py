"""Partition, time, and data directories that are old, lost, copied or shared.

What each of these does to an answer, held against every value that was acknowledged. Values go one
batch after the other, so that at each question it is known which were acknowledged; an answer is
held against all of them where it says that it is complete, and always against what its rows cover.

Most of it is played in one process (`cluster.py`), where a worker that is killed says no goodbye,
and its files stay as they were. Where the system has a part in it, there are real processes: its
locks, its signals, its connections that carry in one direction only, its clocks.
"""

import ast
import asyncio
import re
import shutil
import signal
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.values import Floats
from tests.cluster import CUT, OCTETS, Cluster, Node, Weather, run, until
from tests.exact import TALLY, rank_errors
from tests.processes import Answer, Processes, Service, certified, check
from tests.processes import until as wait_until
from tests.proxy import CALM, ONLY_REQUESTS_PASS, ONLY_RESPONSES_PASS, PARTITION, Proxy
from tests.proxy import Weather as Wire
from tests.test_architecture import modules

FAR = np.full(2_000, 1e6)  # a batch that breaks any promise
KEY = {"idempotency-key": "one and the same"}
BEGINS_ANEW = "; a new source begins"


class Oracle:
    """Every value that was acknowledged, by the number of its source, in order."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.of: defaultdict[int, list[Floats]] = defaultdict(list)
        self.unknown: set[int] = set()  # sources that this coordinator cannot know of

    async def take(self, node: Node, values: Sequence[float] | Floats, **headers: str) -> Any:
        """Until they are acknowledged; then they are this source's."""
        batch = np.asarray(values, dtype="<f8")
        response = await posted(node, batch, **headers)
        assert response.status_code == 202, response.text
        self.of[number_of(node)].append(batch)
        return response.json()

    async def took_nothing(self, node: Node, values: Floats) -> str:
        """Why."""
        response = await posted(node, values)
        assert response.status_code == 503, response.text
        message: str = response.json()["error"]["message"]
        return message

    def lose(self, number: int, *, beyond: int) -> int:
        """What nobody has any more; returns how many values that are."""
        values = self.values(number)
        self.of[number] = [values[:beyond]]
        return len(values) - beyond

    def values(self, *numbers: int) -> Floats:
        numbers = numbers or tuple(self.of.keys() - self.unknown)
        parts = [part for number in numbers for part in self.of[number]]
        return np.concatenate([np.empty(0), *parts])

    async def poll(self) -> Any:
        """One answer, as right as it says."""
        said = await self.cluster.coordinator.json("/explain")
        rows = {int(row["source"], 16): row["count"] for row in said["rows"]}
        covered = [self.values(number)[:count] for number, count in rows.items()]
        assert [len(part) for part in covered] == list(rows.values())
        is_right(said, np.concatenate([np.empty(0), *covered]))
        self.unknown -= rows.keys()
        if said["complete"]:
            is_right(said, self.values())
        return said

    async def poll_until(self, holds: Callable[[Any], bool], what: str) -> Any:
        """All answers are as right as they say, until this comes to hold."""
        said: Any = None

        async def polled() -> bool:
            nonlocal said
            said = await self.poll()
            return holds(said)

        await until(polled, what)
        return said

    async def the_end(self, **workers: int) -> Any:
        """When all is told: each value once, and nothing else."""
        await self.cluster.flush()
        said = await self.poll_until(lambda said: said["complete"], "the answer is complete")
        assert said["count"] == len(self.values())
        if workers:
            assert said["workers"] == workers
        return said


def is_right(said: Any, truth: Floats) -> None:
    count = len(truth)
    if not count:
        assert said["value"] is None
        return
    error = rank_errors(np.array([said["value"]]), np.sort(truth), np.array([count / 2]))
    assert TALLY.all(error <= said["rank_error"] * count), (error, count, said["rank_error"])


async def posted(node: Node, values: Floats, **headers: str) -> Any:
    headers = {"content-type": OCTETS} | headers
    return await node.client.post("/values", content=values.tobytes(), headers=headers)


def number_of(node: Node) -> int:
    line = node.worker.sources.line("default")
    assert line is not None
    return line.outbox.source.number


def complete(said: Any) -> bool:
    return bool(said["complete"])


def not_complete(said: Any) -> bool:
    return not said["complete"]


def states(said: Any) -> dict[int, str]:
    return {int(row["source"], 16): row["state"] for row in said["rows"]}


async def takes_again(oracle: Oracle, node: Node) -> None:
    """Until a worker that was restored takes values; all answers meanwhile are right."""

    async def ready() -> bool:
        await oracle.poll()
        return await node.status("/ready") == 200

    await until(ready, "it takes values again")


def beginnings(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    """Why new sources begin, as workers say it, and with which facts."""
    return [
        (one.getMessage().removesuffix(BEGINS_ANEW), one.__dict__["facts"])
        for one in caplog.records
        if one.getMessage().endswith(BEGINS_ANEW)
    ]


class Kept:
    """A cluster whose services keep what they know, each in a directory of its own name."""

    def __init__(self, cluster: Cluster, at: Path) -> None:
        self.cluster, self.at = cluster, at
        self.oracle = Oracle(cluster)

    async def worker(self, name: str, *, at: str = "") -> Node:
        directory = str(self.at / (at or name))
        return await self.cluster.start_worker(worker_name=name, data_dir=directory)

    def copy(self, name: str, *, to: str) -> Path:
        """As a backup does, or a snapshot: the file first, then its log."""
        copy = self.at / to
        copy.mkdir()
        for file in sorted((self.at / name).iterdir(), key=lambda file: len(file.name)):
            shutil.copy(file, copy)
        return copy

    def put_back(self, copy: str, *, to: str) -> None:
        shutil.rmtree(self.at / to)
        shutil.copytree(self.at / copy, self.at / to)


Story = Callable[[Kept], Coroutine[Any, Any, None]]


def played(rng: np.random.Generator, at: Path, story: Story, *, heartbeat_s: float = 0.2) -> None:
    async def whole() -> None:
        async with Cluster(rng, workers=0, heartbeat_s=heartbeat_s, data_dir=at) as cluster:
            await story(Kept(cluster, at))

    run(whole(), within_s=60)


# A coordinator that is not what it was


def test_a_coordinator_from_an_old_copy_is_told_what_it_lacks(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    """But for sources that came and went since, or went: those must be started once more."""

    async def story(kept: Kept) -> None:
        oracle, cluster = kept.oracle, kept.cluster
        stays, leaves = await kept.worker("stays"), await kept.worker("leaves")
        for node in (stays, leaves):
            await oracle.take(node, rng.normal(size=3_000))
        await oracle.the_end(live=2, silent=0)
        kept.copy("coordinator", to="copy")
        born, passes = await kept.worker("born"), await kept.worker("passes")
        numbers = {}
        for node in (stays, leaves, born, passes):
            await oracle.take(node, rng.normal(3, size=3_000))
            numbers[node.name] = number_of(node)
        for node in (leaves, passes):
            await cluster.stop(node)
        await oracle.the_end(live=2, silent=0)

        await cluster.kill_coordinator()
        kept.put_back("copy", to="coordinator")
        await cluster.start_coordinator()
        said = await oracle.poll()
        assert (said["complete"], numbers["passes"] in states(said)) == (False, False)
        alive = {numbers["stays"]: "live", numbers["born"]: "live", numbers["leaves"]: "silent"}
        said = await oracle.poll_until(lambda said: states(said) == alive, "both are heard")
        assert not said["complete"]

        oracle.unknown = {numbers["passes"]}
        await kept.worker("leaves")
        said = await oracle.the_end(live=3, silent=0)
        assert said["count"] == 15_000, "nobody can know of who passed"
        await kept.worker("passes")
        await oracle.poll_until(lambda said: said["count"] == 18_000, "who passed is back")
        assert states(await oracle.the_end(live=4, silent=0)).keys() == set(numbers.values())

    played(rng, tmp_path, story)


def test_a_coordinator_whose_directory_was_lost_is_told_all_by_those_who_run(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    async def story(kept: Kept) -> None:
        oracle, cluster = kept.oracle, kept.cluster
        stays, leaves = await kept.worker("stays"), await kept.worker("leaves")
        for node in (stays, leaves):
            await oracle.take(node, rng.normal(size=3_000))
        numbers = {number_of(stays), number_of(leaves)}
        await cluster.stop(leaves)
        await oracle.the_end(live=1, silent=0)

        await cluster.kill_coordinator()
        shutil.rmtree(tmp_path / "coordinator")
        await cluster.start_coordinator()
        assert not (await oracle.poll())["complete"]
        oracle.unknown = {number_of(leaves)}
        assert (await oracle.the_end(live=1, silent=0))["count"] == 3_000
        await kept.worker("leaves")
        await oracle.poll_until(lambda said: said["count"] == 6_000, "it is started once more")
        assert states(await oracle.the_end(live=2, silent=0)).keys() == numbers

    played(rng, tmp_path, story)


# A worker that is not what it was


def test_a_worker_from_an_old_copy_begins_anew_and_what_it_had_told_stays_counted(
    rng: np.random.Generator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(kept: Kept) -> None:
        oracle, cluster = kept.oracle, kept.cluster
        node = await kept.worker("a")
        await oracle.take(node, rng.normal(size=2_000))
        await oracle.the_end(live=1, silent=0)
        kept.copy("a", to="copy")
        await oracle.take(node, rng.normal(5, size=3_000))
        await oracle.the_end(live=1, silent=0)
        old = number_of(node)
        await cluster.kill(node)
        kept.put_back("copy", to="a")

        node = await kept.worker("a")
        assert number_of(node) == old
        assert "restored, and waiting" in await oracle.took_nothing(node, FAR)
        await takes_again(oracle, node)
        assert number_of(node) != old
        await oracle.take(node, rng.normal(size=1_000))
        said = await oracle.poll_until(
            lambda said: sorted(states(said).values()) == ["live", "silent"],
            "the old one is missed",
        )
        assert {row["count"] for row in said["rows"]} == {5_000, 1_000}
        assert not said["complete"]
        await cluster.coordinator.client.post("/workers/a/retire")
        assert states(await oracle.the_end(live=1, silent=0))[old] == "retired"
        assert (await cluster.median())["count"] == 6_000

    played(rng, tmp_path, story)
    ((why, facts),) = beginnings(caplog)
    assert why == "the coordinator knows more than is here"
    assert (facts["count"], facts["lost_at_most"]) == (2_000, 0)


def test_a_worker_whose_directory_was_lost_begins_anew_and_what_it_had_told_stays_counted(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    async def story(kept: Kept) -> None:
        oracle = kept.oracle
        node = await kept.worker("a")
        await oracle.take(node, rng.normal(size=2_000))
        await oracle.the_end(live=1, silent=0)
        old = number_of(node)
        await kept.cluster.kill(node)
        shutil.rmtree(tmp_path / "a")
        node = await kept.worker("a")
        await oracle.take(node, rng.normal(size=1_000))
        said = await oracle.poll_until(
            lambda said: states(said) == {old: "silent", number_of(node): "live"}, "it is missed"
        )
        assert (said["count"], said["complete"]) == (3_000, False)

    played(rng, tmp_path, story)


def test_of_an_old_copy_that_has_all_that_was_told_nobody_can_know(
    rng: np.random.Generator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was acknowledged since, and not told, is lost: no more than was pending."""

    async def story(kept: Kept) -> None:
        oracle, cluster = kept.oracle, kept.cluster
        node = await kept.worker("a")
        await oracle.take(node, rng.normal(size=10_000))
        await oracle.the_end(live=1, silent=0)
        kept.copy("a", to="copy")
        node.way_out.weather = CUT
        await oracle.take(node, rng.normal(size=50))
        number = number_of(node)
        await cluster.kill(node)
        kept.put_back("copy", to="a")

        assert oracle.lose(number, beyond=10_000) == 50
        node = await kept.worker("a")
        await takes_again(oracle, node)
        assert number_of(node) == number
        await oracle.take(node, rng.normal(size=70))
        assert (await oracle.the_end(live=1, silent=0))["count"] == 10_070

    played(rng, tmp_path, story)
    assert beginnings(caplog) == []


def test_two_workers_of_one_name_with_directories_of_their_own_are_two_sources(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    async def story(kept: Kept) -> None:
        nodes = [await kept.worker("twin", at=at) for at in ("here", "there")]
        for batch in range(5):
            for node in nodes:
                await kept.oracle.take(node, rng.normal(batch, size=500))
                await kept.oracle.poll()
        said = await kept.oracle.the_end(live=2, silent=0)
        assert [row["worker"] for row in said["rows"]] == 2 * ["twin"]
        assert states(said).keys() == {number_of(node) for node in nodes}

    played(rng, tmp_path, story)


# A worker whose directory was copied while it ran


async def copied_while_it_ran(kept: Kept) -> tuple[Node, Node]:
    """The original, and who was started from the copy."""
    oracle = kept.oracle
    original = await kept.worker("a")
    await oracle.take(original, kept.cluster.rng.normal(size=2_000), **KEY)
    await oracle.the_end(live=1, silent=0)
    kept.copy("a", to="copy")
    copy = await kept.worker("a", at="copy")
    assert number_of(copy) == number_of(original)
    return original, copy


def test_a_copy_that_runs_beside_its_original_is_refused_and_begins_anew(
    rng: np.random.Generator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(kept: Kept) -> None:
        oracle = kept.oracle
        original, copy = await copied_while_it_ran(kept)
        (keyed,) = oracle.of[number_of(original)]
        number = number_of(original)
        while number_of(copy) == number:
            await oracle.take(original, rng.normal(size=300))
            await original.client.post("/flush")
            await oracle.poll()
            await asyncio.sleep(0.01)
        assert number_of(original) == number, "the original does not notice"
        await takes_again(oracle, copy)
        for node in (original, copy):
            again = await posted(node, keyed, **KEY)
            assert (again.status_code, again.json()) == (202, {"accepted": 2_000, "count": 2_000})
            await oracle.take(node, rng.normal(4, size=1_000))
        said = await oracle.the_end(live=2, silent=0)
        assert states(said) == {number: "live", number_of(copy): "live"}
        assert await copy.metric("median_worker_refused_deltas_total", code="in_use") > 0
        assert await copy.metric("median_worker_refused_deltas_total", code="conflict") == 1
        assert await original.metric("median_worker_refused_deltas_total") == 0
        begun = number_of(copy)
        await kept.cluster.kill(copy)
        copy = await kept.worker("a", at="copy")
        assert number_of(copy) == begun, "that is what is kept from now on"
        await oracle.the_end(live=2, silent=0)

    played(rng, tmp_path, story, heartbeat_s=1.0)
    ((why, facts),) = beginnings(caplog)
    assert (why, facts["lost_at_most"]) == ("another process runs this source", 0)


def test_a_copy_of_a_worker_that_died_takes_its_place(
    rng: np.random.Generator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(kept: Kept) -> None:
        oracle = kept.oracle
        original, copy = await copied_while_it_ran(kept)
        number = number_of(original)
        await kept.cluster.kill(original)
        await takes_again(oracle, copy)
        await oracle.take(copy, rng.normal(size=1_000))
        said = await oracle.the_end(live=1, silent=0)
        assert states(said) == {number: "live"}
        assert said["count"] == 3_000

    played(rng, tmp_path, story)
    assert beginnings(caplog) == []


def test_who_is_cut_off_while_a_copy_takes_its_place_says_what_is_lost(
    rng: np.random.Generator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No promise covers this: meanwhile a complete answer lacks what only the original has."""

    async def story(kept: Kept) -> None:
        oracle = kept.oracle
        original, copy = await copied_while_it_ran(kept)
        number = number_of(original)
        original.way_out.weather = CUT
        assert (await posted(original, FAR)).status_code == 202, "it counts on, cut off"
        await takes_again(oracle, copy)
        assert number_of(copy) == number
        original.way_out.weather = Weather()
        while number_of(original) == number:
            await oracle.take(copy, rng.normal(size=300))
            await copy.client.post("/flush")
            await oracle.poll()
            await asyncio.sleep(0.01)
        await takes_again(oracle, original)
        await oracle.take(original, rng.normal(size=700))
        said = await oracle.the_end(live=2, silent=0)
        assert states(said) == {number: "live", number_of(original): "live"}

    played(rng, tmp_path, story, heartbeat_s=0.5)
    ((why, facts),) = beginnings(caplog)
    assert (why, facts["lost_at_most"]) == ("another process runs this source", len(FAR))


# Cut off


@pytest.mark.parametrize(
    "weather", [CUT, Weather(unanswered=1.0)], ids=["requests lost", "receipts lost"]
)
def test_who_was_cut_off_for_long_has_the_same_memory_and_is_right_after_two_deltas(
    weather: Weather, rng: np.random.Generator, tmp_path: Path
) -> None:
    """What was in flight, and one that covers all the rest."""

    async def story(kept: Kept) -> None:
        oracle, coordinator = kept.oracle, kept.cluster.coordinator
        node, other = await kept.worker("cut off"), await kept.worker("other")
        for one in (node, other):
            await oracle.take(one, rng.normal(size=1_000))
        await oracle.the_end(live=2, silent=0)
        node.way_out.weather = weather
        await oracle.take(node, FAR)
        assert not (await oracle.poll())["complete"], "acknowledged outside the promise"
        sizes = []
        for batch in range(100):
            await oracle.take(node, rng.normal(batch % 7, size=1_000))
            line = node.worker.sources.line("default")
            assert line is not None
            sizes.append(len(line.outbox.digest.to_bytes()))
            if batch % 10 == 0:
                assert not (await oracle.poll())["complete"]
        assert max(sizes) < 2 * sizes[10]
        before = await told_something(coordinator)
        node.way_out.weather = Weather()
        await oracle.the_end(live=2, silent=0)
        assert await told_something(coordinator) - before <= 2

    played(rng, tmp_path, story, heartbeat_s=0.1)


def test_who_is_stopped_while_cut_off_tells_the_rest_after_the_next_start(
    rng: np.random.Generator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(kept: Kept) -> None:
        oracle = kept.oracle
        node = await kept.worker("a")
        await oracle.take(node, rng.normal(size=1_000))
        await oracle.the_end(live=1, silent=0)
        node.way_out.weather = CUT
        await oracle.take(node, FAR)
        number = number_of(node)
        await kept.cluster.stop(node)
        assert not (await oracle.poll())["complete"]
        await kept.worker("a")
        said = await oracle.the_end(live=1, silent=0)
        assert (states(said), said["count"]) == ({number: "live"}, 1_000 + len(FAR))

    played(rng, tmp_path, story, heartbeat_s=0.1)
    told = {one.getMessage(): one.__dict__.get("facts") for one in caplog.records}
    what = "the last values will be told after the next start"
    assert told[what] == {"stream": "default", "values": len(FAR)}


async def told_something(coordinator: Node) -> float:
    """How many deltas were accepted that say more than a number."""
    name = "median_coordinator_deltas_total"
    forms = [
        await coordinator.metric(name, form=form, result="accepted") for form in ("more", "whole")
    ]
    return sum(forms)


# Time

SERVICES = {"shared", "worker_service", "coordinator_service"}
MAY_READ_A_WALL_CLOCK = {
    "coordinator_service.__main__": {"time.time"},  # for `as_of`
    "shared.serving.tls": {"time.time"},  # for how long a certificate is valid
    "shared.serving.logs": {"record.created"},  # for the times of log lines
}
READS_A_WALL_CLOCK = re.compile(
    r"""time\.(time|time_ns|gmtime|localtime|ctime|asctime|strftime)
    |.*\bdate(time)?\.(now|utcnow|today)
    |.*\b(CLOCK_REALTIME|created|st_[amc]time(_ns)?|getmtime|uuid1)""",
    re.VERBOSE,
)
HIDDEN = "CLOCK_REALTIME"  # as what is found where it has another name
SQL_READS_ONE = re.compile(
    r"current_(time|date|timestamp)|julianday|unixepoch|strftime|'now'", re.IGNORECASE
)


def wall_clocks(source: str) -> set[str]:
    """How this source may ask which time it is, as people count it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute():
                found.add(ast.unparse(node))
            case ast.ImportFrom(module=str(module), names=names):
                found |= {f"{module}.{one.name}" for one in names}
            case ast.Import(names=names):
                found |= {HIDDEN for one in names if one.name == "time" and one.asname}
            case ast.Constant(value=str(text)) if SQL_READS_ONE.search(text):
                found.add(HIDDEN)
    return {one for one in found if READS_A_WALL_CLOCK.fullmatch(one)}


def test_nothing_asks_which_time_it_is_but_for_people_to_read() -> None:
    found = {
        name: wall_clocks(path.read_text())
        for name, path in modules()
        if name.partition(".")[0] in SERVICES
    }
    assert {name: clocks for name, clocks in found.items() if clocks} == MAY_READ_A_WALL_CLOCK


@pytest.mark.parametrize(
    "source",
    [
        "time.time()",
        "from time import time",
        "import time as t",
        "datetime.now(UTC)",
        "datetime.datetime.utcnow()",
        "date.today()",
        "time.clock_gettime(time.CLOCK_REALTIME)",
        "path.stat().st_mtime",
        "db.execute('SELECT CURRENT_TIMESTAMP')",
        "db.execute(\"UPDATE a SET b = datetime('now')\")",
    ],
)
def test_who_asks_which_time_it_is_is_seen(source: str) -> None:
    assert wall_clocks(source)


def test_who_asks_how_long_it_took_is_not() -> None:
    assert not wall_clocks("time.monotonic() + time.clock_gettime(time.CLOCK_BOOTTIME) + self.now")


# Real processes


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as processes:
        yield processes


class Shift:
    """Somebody who brings values to workers, batch after batch, and asks meanwhile."""

    def __init__(self, coordinator: Service) -> None:
        self.coordinator = coordinator
        self.taken: list[Floats] = []

    @property
    def values(self) -> Floats:
        return np.concatenate([np.empty(0), *self.taken])

    def take(self, worker: Service, values: Floats) -> None:
        worker.take(values)
        self.taken.append(values)

    def take_while_asking(self, worker: Service, values: Floats) -> None:
        """A batch that waits for its 202: so long it may be counted or not."""
        with ThreadPoolExecutor(1) as threads:
            waits = threads.submit(worker.take, values)
            while not waits.done():
                self.ask(values)
            waits.result()
        self.taken.append(values)

    def ask(self, *unanswered: Floats) -> Answer:
        """One answer; if it says that it is complete, it is as right as it says."""
        answer: Answer = self.coordinator.get("/median")
        if answer["complete"]:
            truths = [self.values, np.concatenate([self.values, *unanswered])]
            assert any(is_certified(answer, truth) for truth in truths), answer
        return answer

    def asked_until_complete(self) -> Answer:
        def answer() -> Answer | None:
            found = self.ask()
            return found if found["complete"] else None

        found: Answer = wait_until(answer, "the answer is complete")
        return found

    def ends(self, *workers: Service) -> Answer:
        """All is told; each value is counted once."""
        for worker in workers:
            worker.flush()
        answer = self.asked_until_complete()
        check(answer, self.values)
        return answer


def is_certified(answer: Answer, truth: Floats) -> bool:
    try:
        certified(answer, truth)
    except AssertionError:
        return False
    return True


def begun(processes: Processes, tmp_path: Path, *workers: Service) -> Service:
    coordinator = processes.coordinator(data_dir=tmp_path / "coordinator")
    wait_until(lambda: coordinator.is_up, "the coordinator is up")
    wait_until(lambda: all(one.is_up and one.is_ready for one in workers), "they have met")
    return coordinator


def sources(coordinator: Service) -> dict[str, str]:
    """Of each its number, and the name of its worker."""
    return {one["source"]: one["worker"] for one in coordinator.get("/workers")["workers"]}


@pytest.mark.parametrize(
    ("weather", "seen"),
    [
        pytest.param(PARTITION, "dropped", id="both ways"),
        pytest.param(ONLY_REQUESTS_PASS, "mute responses", id="no receipt comes back"),
        pytest.param(ONLY_RESPONSES_PASS, "mute requests", id="no request arrives"),
    ],
)
def test_a_worker_behind_a_way_that_is_cut_is_missed_before_it_counts_on_and_heals(
    weather: Wire, seen: str, processes: Processes, tmp_path: Path, rng: np.random.Generator
) -> None:
    with Proxy(processes.port, seed=1) as way:
        cut = processes.worker("cut", coordinator_url=way.url, data_dir=tmp_path / "cut")
        other = processes.worker("other", data_dir=tmp_path / "other")
        shift = Shift(begun(processes, tmp_path, cut, other))
        for worker in (cut, other):
            shift.take(worker, rng.normal(size=3_000))
        shift.ends(cut, other)
        way.weather = weather
        shift.take_while_asking(cut, FAR)
        assert not shift.ask()["complete"], "acknowledged outside the promise"
        for _ in range(10):
            shift.take(cut, rng.normal(7, size=200))
            shift.take(other, rng.normal(-7, size=300))
            assert not shift.ask()["complete"]
        assert way.seen[seen] > 0
        way.weather = CALM
        shift.asked_until_complete()
        assert shift.ends(cut, other)["workers"] == {"live": 2, "silent": 0}


# Before anything else is imported: a wall clock that somebody may set, as root may.
CLOCKS = """
import pathlib, time
_true = time.time
def _set():
    return _true() + float(pathlib.Path({file!r}).read_text())
time.time = _set
time.time_ns = lambda: int(_set() * 1e9)
"""
YEAR_S, DAY_S = 365 * 86_400, 86_400


def is_set(file: Path, seconds: int) -> None:
    """At once: nobody reads half of it."""
    fresh = file.with_suffix(".new")
    fresh.write_text(str(seconds))
    fresh.replace(file)


def test_a_wall_clock_that_jumps_moves_nothing_but_what_it_is_written_on(
    processes: Processes,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "seconds"
    is_set(file, 0)
    (tmp_path / "sitecustomize.py").write_text(CLOCKS.format(file=str(file)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    a, b = (processes.worker(name, data_dir=tmp_path / name) for name in "ab")
    shift = Shift(begun(processes, tmp_path, a, b))
    for seconds in (0, -YEAR_S, DAY_S, -YEAR_S):
        is_set(file, seconds)
        for worker in (a, b):
            shift.take(worker, rng.normal(seconds / YEAR_S, size=2_000))
        written = datetime.fromisoformat(shift.ends(a, b)["as_of"]) - datetime.now(UTC)
        assert abs(written.total_seconds() - seconds) < DAY_S / 2
    b.tell(signal.SIGKILL)
    wait_until(lambda: not shift.ask()["complete"], "its silence is noticed, a year ago")
    is_set(file, DAY_S)
    b = processes.worker("b", data_dir=tmp_path / "b")
    wait_until(lambda: b.is_up and b.is_ready, "it is back, tomorrow")
    shift.take(b, rng.normal(size=500))
    assert shift.ends(a, b)["workers"] == {"live": 2, "silent": 0}


def test_two_workers_do_not_run_on_one_directory(processes: Processes, tmp_path: Path) -> None:
    first = processes.worker("twin", data_dir=tmp_path / "twin")
    wait_until(lambda: first.is_up, "the first is up")
    second = processes.start(
        "-m", "worker_service", port=0, worker_name="twin", data_dir=tmp_path / "twin"
    )
    assert second.ended() == 1
    line = second.said.splitlines()[-1]
    assert f"{tmp_path / 'twin' / 'worker.sqlite'} is in use by another process: stop that" in line
    assert first.is_up


def test_replicas_on_one_volume_go_on_under_their_own_numbers_in_whatever_order(
    processes: Processes, tmp_path: Path, rng: np.random.Generator
) -> None:
    def replica(name: str) -> Service:
        return processes.worker(name, worker_name="", data_dir=tmp_path / "volume")

    replicas = [replica(name) for name in ("one", "two", "three")]
    coordinator = begun(processes, tmp_path, *replicas)
    shift = Shift(coordinator)
    for size, worker in enumerate(replicas, start=1):
        shift.take(worker, rng.normal(size, size=1_000 * size))
    shift.ends(*replicas)
    before = sources(coordinator)
    assert sorted(name[-2:] for name in before.values()) == ["-1", "-2", "-3"]
    for worker in replicas:
        worker.tell(signal.SIGKILL)
        worker.ended()
    replicas = [replica(name) for name in ("three", "one", "two")]
    wait_until(lambda: all(one.is_up and one.is_ready for one in replicas), "all are back")
    for worker in replicas:
        shift.take(worker, rng.normal(size=1_000))
    assert shift.ends(*replicas)["workers"] == {"live": 3, "silent": 0}
    assert sources(coordinator) == before


def test_a_worker_killed_while_the_coordinator_was_away_takes_nothing_before_it_met_it(
    processes: Processes, tmp_path: Path, rng: np.random.Generator
) -> None:
    worker = processes.worker("a", data_dir=tmp_path / "a")
    coordinator = begun(processes, tmp_path, worker)
    shift = Shift(coordinator)
    shift.take(worker, rng.normal(size=3_000))
    shift.ends(worker)
    before = sources(coordinator)
    coordinator.tell(signal.SIGKILL)
    coordinator.ended()
    shift.take(worker, FAR)  # once it is cut off
    worker.tell(signal.SIGKILL)
    worker.ended()
    worker = processes.worker("a", data_dir=tmp_path / "a")
    wait_until(lambda: worker.is_up, "it is back, alone")
    assert not worker.is_ready
    refused = worker.post("/values", FAR.tobytes())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_taken")
    assert "restored, and waiting for the coordinator to sign" in refused.text
    coordinator = shift.coordinator = begun(processes, tmp_path, worker)
    assert shift.ends(worker)["count"] == 5_000
    shift.take(worker, rng.normal(size=100))
    shift.ends(worker)
    assert sources(coordinator) == before
