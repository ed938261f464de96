# ruff: noqa: ARG002  those who lie have the arguments of those who do not
"""Replays: against services that lie, through a network that fails, and as a user starts them."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain

import httpx
import numpy as np
import pytest

from loadgen import auditor, calls, replay
from loadgen.auditor import Books
from loadgen.calls import Address, BadReply, Calls, NoReply, Target, Traffic
from loadgen.inputs import BadInput
from loadgen.pacer import Turn, round_robin, turns
from loadgen.replay import Manner, Replay, ahead
from loadgen.report import Report
from loadgen.scenarios import Floats, drawn
from loadgen.truth import Answer
from tests.cluster import CALM, Cluster, Weather, run

COORDINATOR = Address("http://coordinator")
OFTEN = Manner(quiet_s=0.0)
BATCH = 100
VALUES = 6_000


def addressed(*workers: str) -> list[Address]:
    return [Address(f"http://{name}") for name in workers]


class Honest(Calls):
    """Services that hold every value, and answer exactly; those below each tell one lie."""

    def __init__(self) -> None:
        super().__init__()
        self.held: defaultdict[str, list[Floats]] = defaultdict(list)

    async def name(self, worker: Address) -> str:
        return worker.url.removeprefix("http://")

    async def meet(self, coordinator: Address) -> None:
        pass

    async def ready(self, service: Address) -> None:
        pass

    async def post(self, worker: Address, stream: str, batch: Floats, key: str) -> None:
        await asyncio.sleep(0)
        self.held[await self.name(worker)].append(batch)

    async def flush(self, worker: Address, stream: str) -> None:
        pass

    async def median(self, coordinator: Address, stream: str, *, patience_s: float = 0.0) -> Answer:
        values = np.concatenate([np.empty(0), *chain(*self.held.values())])
        await asyncio.sleep(0)
        median = float(np.median(values)) if len(values) else None
        return Answer(median, median, median, len(values), 0.01, 0.0, complete=True)

    async def traffic(
        self, coordinator: Address, stream: str, *, patience_s: float = 0.0
    ) -> dict[str, Traffic]:
        return {name: Traffic(sum(map(len, held))) for name, held in self.held.items()}


class LosesABatch(Honest):
    async def traffic(
        self, coordinator: Address, stream: str, *, patience_s: float = 0.0
    ) -> dict[str, Traffic]:
        told = await super().traffic(coordinator, stream)
        return {name: Traffic(one.count - BATCH) for name, one in told.items()}


class MixesUpTheWorkers(Honest):
    async def traffic(
        self, coordinator: Address, stream: str, *, patience_s: float = 0.0
    ) -> dict[str, Traffic]:
        told = defaultdict(Traffic, await super().traffic(coordinator, stream))
        more, less = Traffic(told["w1"].count + 1), Traffic(told["w2"].count - 1)
        return {**told, "w1": more, "w2": less}


class Lies(Honest):
    """In its answers, once there is something to lie about."""

    async def median(self, coordinator: Address, stream: str, *, patience_s: float = 0.0) -> Answer:
        told = await super().median(coordinator, stream)
        return self.lie(told) if told.count else told

    def lie(self, told: Answer) -> Answer:
        raise NotImplementedError


class CountsTwice(Lies):
    def lie(self, told: Answer) -> Answer:
        return replace(told, count=2 * told.count)


class CountsTooFew(Lies):
    def lie(self, told: Answer) -> Answer:
        return replace(told, count=told.count - 1)


class AnswersWrongly(Lies):
    def lie(self, told: Answer) -> Answer:
        return replace(told, median=1.0)


class ProvesTooLittle(Lies):
    def lie(self, told: Answer) -> Answer:
        return replace(told, rank_error=0.02)


class IsTooSureBelow(Lies):
    def lie(self, told: Answer) -> Answer:
        return replace(told, low=1.0)


class IsTooSureAbove(Lies):
    def lie(self, told: Answer) -> Answer:
        return replace(told, high=-1.0)


class IsNeverComplete(Lies):
    def lie(self, told: Answer) -> Answer:
        return replace(told, complete=False)


def played(
    services: Calls,
    *,
    workers: Iterable[str] = ("w1", "w2", "w3"),
    manner: Manner = OFTEN,
    verify: bool = True,
    plan: Iterable[Turn] | None = None,
    stream: str = "default",
) -> Report:
    """Some calm values, replayed."""
    target = Target(workers=addressed(*workers), coordinator=COORDINATOR, stream=stream)
    report = Report("calm", len(target.workers), VALUES, verify=verify)

    async def story() -> None:
        made = Replay(services, target, manner, report)
        dealt = calm(len(target.workers)) if plan is None else plan
        await made.play(dealt, show=lambda _: None, stop=asyncio.Event())
        await services.close()

    run(story())
    return report


def calm(workers: int) -> Iterator[Turn]:
    chunks = drawn("calm", VALUES, workers=workers, seed=1, size=workers * BATCH)
    return turns(chunks, round_robin, workers=workers, batch=BATCH)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditor, "ASK_S", 0.001)
    monkeypatch.setattr(calls, "PAUSE_S", 0.001)
    monkeypatch.setattr(calls, "PAUSE_S_MAX", 0.01)


class TestVerifying:
    @pytest.mark.parametrize("rate", [None, 1e6])
    def test_where_all_are_honest_nothing_is_broken(self, rate: float | None) -> None:
        report = played(Honest(), manner=Manner(rate=rate, quiet_s=0.0))
        assert (report.breaches, report.failed, report.settled) == ([], "", True)
        assert report.sent == report.acknowledged == report.counted == VALUES
        assert report.requests == len(report.posts) == VALUES / BATCH
        assert report.checked >= report.quiet >= (1 if rate else VALUES / BATCH / 3 - 1)
        assert report.error_max == 0

    @pytest.mark.parametrize(
        ("lie", "sentence"),
        [
            (LosesABatch, "acknowledged were"),
            (MixesUpTheWorkers, "acknowledged were"),
            (CountsTooFew, "acknowledged were"),
            (CountsTwice, "were sent"),
            (AnswersWrongly, "certificate says"),
            (ProvesTooLittle, "beyond epsilon"),
            (IsTooSureBelow, "is below 1.0"),
            (IsTooSureAbove, "is above -1.0"),
        ],
    )
    @pytest.mark.parametrize("rate", [None, 1e6])
    def test_each_lie_is_found_out(
        self, lie: type[Honest], sentence: str, rate: float | None
    ) -> None:
        report = played(lie(), manner=Manner(rate=rate, quiet_s=0.0))
        assert report.broken
        assert any(sentence in breach for breach in report.breaches)

    def test_where_somebody_is_silent_to_the_end_nothing_is_proven_and_nothing_broken(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(auditor, "COMPLETE_S_MAX", 0.01)
        report = played(IsNeverComplete())
        assert (report.checked, report.broken, report.settled) == (0, 0, False)
        assert report.incomplete > 1
        assert "missing, or not complete" in report.failed

    def test_where_the_last_answer_does_not_come_nothing_is_proven_and_nothing_broken(
        self,
    ) -> None:
        """What was counted before is not what is counted now."""

        class IsAwayAtTheEnd(Honest):
            flushed = False

            async def flush(self, worker: Address, stream: str) -> None:
                self.flushed = True

            async def median(
                self, coordinator: Address, stream: str, *, patience_s: float = 60.0
            ) -> Answer:
                told = await super().median(coordinator, stream)
                if self.flushed and self.settles:
                    raise NoReply("away")
                self.settles = self.flushed
                return replace(told, count=told.count and told.count - 1)

            settles = False

        report = played(IsAwayAtTheEnd())
        assert (report.broken, report.settled) == (0, False)
        assert "missing, or not complete" in report.failed

    def test_where_nothing_was_sent_nothing_is_proven_and_nothing_broken(self) -> None:
        report = played(Honest(), plan=[])
        assert (report.broken, report.settled) == (0, False)
        assert "nothing was sent" in report.failed

    def test_without_it_nothing_is_judged(self) -> None:
        report = played(AnswersWrongly(), verify=False)
        assert (report.broken, report.checked) == (0, 0)
        assert report.median == 1.0

    def test_of_many_breaches_all_are_counted_and_some_told(self) -> None:
        report = played(AnswersWrongly(), workers=["w1"])
        assert report.broken > len(report.breaches) == 20

    def test_a_stream_that_has_values_already_cannot_be_verified(self) -> None:
        services = Honest()
        services.held["w1"].append(np.ones(3))
        with pytest.raises(BadReply, match="already has 3 values"):
            played(services)

    def test_one_worker_by_two_addresses_cannot_be_verified(self) -> None:
        with pytest.raises(BadReply, match="2 addresses lead to a worker that calls itself 'w1'"):
            played(Honest(), workers=["w1", "w2", "w1"])

    def test_but_it_can_be_added_to(self) -> None:
        services = Honest()
        services.held["w1"].append(np.ones(3))
        assert played(services, verify=False).counted == VALUES


class Loud(Honest):
    """Notes how many requests are under way to each worker."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: defaultdict[Address, int] = defaultdict(int)
        self.most = 0

    async def post(self, worker: Address, stream: str, batch: Floats, key: str) -> None:
        self.under_way[worker] += 1
        self.most = max(self.most, *self.under_way.values())
        await asyncio.sleep(0.002)
        self.under_way[worker] -= 1
        await super().post(worker, stream, batch, key)


class TestSending:
    def test_no_worker_has_more_under_way_than_it_may(self) -> None:
        services = Loud()
        played(services, manner=Manner(in_flight=2), verify=False)
        assert services.most == 2

    def test_who_is_slow_holds_up_nobody_else(self) -> None:
        """One worker takes 0.1 s for what comes each 2 ms; the other's batches leave in time."""

        class OneIsSlow(Honest):
            async def post(self, worker: Address, stream: str, batch: Floats, key: str) -> None:
                if worker.url == "http://w1":
                    await asyncio.sleep(0.1)
                elif len(self.held["w2"]) == VALUES / BATCH / 2 - 1:
                    assert sum(map(len, self.held["w1"])) <= VALUES / 4
                await super().post(worker, stream, batch, key)

        manner = Manner(rate=BATCH / 1e-3, in_flight=1)
        report = played(OneIsSlow(), workers=["w1", "w2"], manner=manner, verify=False)
        assert report.acknowledged == VALUES

    def test_a_schedule_waits_for_its_input_and_blames_nobody(self) -> None:
        def late() -> Iterator[Turn]:
            for _ in range(3):
                time.sleep(0.15)
                yield Turn([(0, np.ones(10))])

        report = played(Honest(), workers=["w1"], plan=late(), manner=Manner(rate=1e5))
        assert report.input_late_s > 0.3
        assert report.posts.percentile(1.0) < report.input_late_s / 2

    def test_a_schedule_is_kept_however_slow_the_answers_are(self) -> None:
        """Each batch is due 0.1 ms after the one before; one at a time, each takes 2 ms."""
        report = played(
            Loud(), workers=["w1"], manner=Manner(rate=BATCH / 1e-4, in_flight=1), verify=False
        )
        needed = VALUES / BATCH * 0.002
        assert report.posts.percentile(1.0) > 0.9 * needed
        assert report.late_s_max > 0.8 * needed

    def test_values_do_not_leave_before_they_are_due(self) -> None:
        report = played(Honest(), manner=Manner(rate=VALUES / 0.2), verify=False)
        assert report.seconds >= 0.2 * (1 - 3 * BATCH / VALUES)

    def test_what_is_behind_is_told(self) -> None:
        class Behind(Honest):
            """Covers only what the first worker has."""

            async def median(
                self, coordinator: Address, stream: str, *, patience_s: float = 0.0
            ) -> Answer:
                await asyncio.sleep(0.002)
                told = await super().median(coordinator, stream)
                return replace(told, count=sum(map(len, self.held["w1"])))

        report = played(Behind(), verify=False)
        assert report.missing_share_max > 0.5
        assert report.stale.percentile(1.0) > 0

    def test_an_answer_that_does_not_come_is_counted_and_nothing_else_happens(self) -> None:
        class Away(Honest):
            asked = 0

            async def median(
                self, coordinator: Address, stream: str, *, patience_s: float = 0.0
            ) -> Answer:
                self.asked += 1
                if 5 <= self.asked < 8:
                    raise NoReply("away")
                return await super().median(coordinator, stream)

        report = played(Away())
        assert (report.unanswered, report.breaches) == (3, [])

    def test_what_goes_wrong_while_reading_is_raised(self) -> None:
        def broken() -> Iterator[Turn]:
            yield Turn([(0, np.ones(3))])
            raise BadInput("line 4")

        with pytest.raises(BadInput, match="line 4"):
            played(Honest(), plan=broken())

    def test_what_goes_wrong_while_posting_is_raised(self) -> None:
        class Refuses(Honest):
            async def post(self, worker: Address, stream: str, batch: Floats, key: str) -> None:
                raise BadReply("no room")

        with pytest.raises(BadReply, match="no room"):
            played(Refuses())

    def test_no_more_is_read_than_a_little_ahead(self) -> None:
        read = []

        def endless() -> Iterator[Turn]:
            for at in range(10_000):
                read.append(at)
                yield Turn([])

        async def story() -> None:
            taken = 0
            async for _ in ahead(endless()):
                taken += 1
                await asyncio.sleep(0.001)
                assert len(read) <= taken + replay.AHEAD + 1
                if taken == 50:
                    return

        run(story())


class TestTheBooks:
    def test_what_lands_while_an_answer_is_under_way_may_be_covered_or_not(self) -> None:
        books = Books(keeps=True)
        assert books.values is not None
        one, two, three = np.ones(1), np.ones(2), np.ones(3)
        books.sent(1, one)
        books.begin()
        books.sent(2, two)
        assert books.acknowledged(1) is one
        assert [len(batch) for batch in books.unsure] == [1, 2]
        assert len(books.values) == 0
        books.end()
        assert (books.unsure, len(books.values)) == ([], 1)
        books.sent(3, three)
        books.acknowledged(3)
        assert len(books.values) == 4
        books.values.close()


class Through(httpx.AsyncBaseTransport):
    """To the apps of a cluster, by their names, each on its flaky way."""

    def __init__(self, cluster: Cluster) -> None:
        nodes = [*cluster.nodes, cluster.coordinator]
        self._ways = {node.name: node.way_in for node in nodes}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._ways[request.url.host].handle_async_request(request)


@pytest.mark.parametrize(
    "weather",
    [CALM, Weather(lost=0.2), Weather(unanswered=0.2), Weather(0.1, 0.1, 0.1, delay_s=0.01)],
    ids=["calm", "lost", "unanswered", "all"],
)
@pytest.mark.parametrize("name", ["calm", "two_islands", "sorted", "five_values"])
def test_whatever_is_lost_on_the_way_each_value_is_counted_once(
    name: str, weather: Weather, rng: np.random.Generator
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=3) as cluster:
            for node in cluster.nodes:
                node.way_in.weather = weather
            target = Target(
                workers=addressed("w1", "w2", "w3"), coordinator=COORDINATOR, stream="s"
            )
            report = Report(name, 3, 20_000, verify=True)
            services = Calls(transport=Through(cluster))
            chunks = drawn(name, 20_000, workers=3, seed=1, size=600)
            plan = turns(chunks, round_robin, workers=3, batch=200)
            made = Replay(services, target, Manner(quiet_s=0.05), report)
            await made.play(plan, show=lambda _: None, stop=asyncio.Event())
            assert report.breaches == []
            assert report.acknowledged == report.counted == 20_000
            assert report.checked > 1
            assert report.error_max <= report.certificate_max <= report.epsilon
            assert (report.repeated > 0) == (weather is not CALM)

    run(story(), within_s=60)
