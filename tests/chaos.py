"""Chaos: the services as real processes, killed again and again, on ways that fail.

    python -m tests.chaos --seconds 60 --seed 7

A coordinator and some workers run as their users run them, each with a data directory of its own.
Somebody kills them, one or all at once, and starts them again where they were: same port, same
directory; often they are killed again before they are up. Every other time they are killed in the
moment in which they say something, a `202` or a receipt, before anybody has heard it: what they did
not write down by then is lost, and missed. Others are told to stop, and perhaps killed while they
do, or stand still for a while.

Each worker reaches the coordinator, and each client its worker, by a way of its own (`proxy.py`),
on which the weather changes. Clients send one batch after the other, each with a key of its own,
and the same request again until it has its 202.

So at the end each batch was acknowledged once, and each of its values must be counted once. And
meanwhile, at every answer:

* A *complete* answer is held against all that was acknowledged when it was asked for. What was in
  flight until it came may count or not, each batch as a whole (`loadgen/truth.py`).
* An *incomplete* answer says something of the values that its rows cover, and of no others. Which
  these are is known only where one client alone sends to a source: then it has numbered the values
  as they were sent, and `GET /explain` tells the rows with the answer. So that is checked in full,
  and each row's picture too, for the stream of those clients; of the stream where several share a
  source, no more than that an incomplete answer counts nothing that was not sent.
* A stream of which something was acknowledged is known, at once, after any start.
* A `202` tells the count of its source: for who sends alone that is all that he had acknowledged.
* A source keeps its number for ever, and is the only one of its worker in its stream.

What runs in real processes depends on how quick they are. The seed repeats the schedule: who is
struck, how and in which order, the weather, and what is sent.
"""

import argparse
import asyncio
import itertools
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from loadgen.auditor import Books
from loadgen.scenarios import SCENARIOS, Floats, Places
from loadgen.truth import ROUNDING, States, Values
from tests.exact import TALLY
from tests.processes import OCTETS, SOON_S, Service, free_port, until
from tests.proxy import (
    CALM,
    ONLY_REQUESTS_PASS,
    ONLY_RESPONSES_PASS,
    PARTITION,
    REQUESTS,
    RESPONSES,
    Proxy,
    Weather,
)
from tests.sources import OTHERS_MAX

EPSILON, HEARTBEAT_S = 0.02, 0.4
QUICK: dict[str, object] = {
    "linger_s": 0.2,
    "backoff_s_max": 0.2,
    "request_s_max": 1,
    "answer_s_max": 5,
    "goodbye_s_max": 2,
}
WORKERS = ["w1", "w2", "w3"]
ALONE, CROWD = "default", "crowd"
CLIENTS = {ALONE: 1, CROWD: 5}  # so many send to each worker
SIZES = {1: 0.3, 3: 0.2, 20: 0.2, 100: 0.2, 1000: 0.09, 5000: 0.008, 40_000: 0.002}  # how likely
FIRST = (
    60_000  # values of each client's first batch; so that no digest waits long for its checkpoint
)
OF = 100_000  # values that a scenario is drawn for; after that it begins anew
THINKS_S, ASKS_S, TELLS_S = (
    0.05,
    0.05,
    5.0,
)  # between two batches, questions, lines; the first: mean
REST_S, DOWN_S, STILL_S = 0.3, 1.0, 2.0  # the mean between two strikes; the others: at most
SPEAKS_S = 1.0
TIMEOUT_S = 3.0
QUANTILES = [0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 1.0]
AGAIN = {408, 503}  # what says: try again
STATUSES = {0, -signal.SIGTERM, -signal.SIGKILL}  # who ends by himself has another

STRIKES = {
    "worker killed": 0.35,
    "coordinator killed": 0.2,
    "both killed": 0.15,
    "all killed": 0.1,
    "worker told to stop": 0.04,
    "coordinator told to stop": 0.02,
    "both told to stop, and killed": 0.04,
    "worker paused": 0.05,
    "coordinator paused": 0.05,
}
WEATHERS = [
    *8 * [CALM],
    Weather(delay_s=0.1),
    Weather(delay_s=2.0, repeated=0.2, repeat_s=1.0),
    Weather(repeated=0.5, repeat_s=4.0),
    Weather(refused=0.2, dropped=0.1, truncated=0.1, repeated=0.1, repeat_s=0.5, delay_s=0.02),
    PARTITION,
    ONLY_REQUESTS_PASS,
    ONLY_RESPONSES_PASS,
    Weather(mute=(REQUESTS, RESPONSES)),
]

Key = tuple[str, str]  # worker and stream
Json = dict[str, Any]
Say = Callable[[str], object]


class Broken(AssertionError):
    """A promise was."""


def promised(holds: bool | np.bool_, what: str) -> None:
    if not TALLY.all(np.array(holds)):
        raise Broken(what)


def first_of(error: Exception) -> Exception:
    return first_of(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


@asynccontextmanager
async def soon(what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(SOON_S):
            yield
    except TimeoutError:
        raise Broken(f"waited {SOON_S} s until {what}") from None


class Place:
    """Where a service runs, time and again: one port, one data directory, one log."""

    def __init__(self, name: str, module: str, at: Path, **settings: object) -> None:
        self.name, self.log = name, at / f"{name}.log"
        self.port = free_port()
        self._another = partial(
            Service, module, port=self.port, log=self.log, trusts=None, **settings
        )
        self._service = self._another()

    @property
    def url(self) -> str:
        return self._service.url

    def begin(self) -> None:
        self._service = self._another()

    def tell(self, what: signal.Signals) -> None:
        self._service.tell(what)

    def ended(self) -> int:
        status = self._service.ended()
        self._service.stop()
        return status

    def is_up(self) -> bool:
        return self._service.is_up

    def stop(self) -> None:
        self._service.stop()


class Sent:
    """All batches of one stream; of each source how much is acknowledged."""

    def __init__(self, stream: str) -> None:
        self.stream, self.books = stream, Books(keeps=True)
        self.batches: defaultdict[str, list[Floats]] = defaultdict(list)  # by worker
        self.acknowledged: Counter[str] = Counter()

    def first(self, worker: str, count: int) -> Floats:
        """Of a source to which one client sends."""
        values = np.concatenate([np.empty(0), *self.batches[worker]])
        promised(count <= len(values), f"{count} of {len(values)} values of {worker} are counted")
        return values[:count]

    @property
    def known(self) -> Values:
        values = self.books.values
        assert values is not None
        return values


class Chaos:
    """One run. It raises `Broken` where a promise is, and another error where something hangs."""

    def __init__(self, seed: int, seconds: float, at: Path, **settings: object) -> None:
        self._seed, self._seconds, self._at = seed, seconds, at
        self._settings = settings
        self.seen: Counter[str] = Counter()
        self._begun = time.monotonic()
        self._stopping = False
        self._numbers = itertools.count()
        self._sent = {stream: Sent(stream) for stream in CLIENTS}
        self._sources: dict[Key, str] = {}
        self._counted: Counter[Key] = Counter()
        self._places: dict[str, Place] = {}
        self._ways_out: dict[str, Proxy] = {}
        self._ways_in: dict[str, Proxy] = {}

    def _dice(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *what])

    async def run(self, say: Say) -> None:
        with ExitStack() as held:
            for one in self._sent.values():
                held.callback(one.known.close)
            self._start(held)
            try:
                await self._play(say)
            except Exception as error:
                say(self._logs())
                raise first_of(error) from None
            finally:
                say(self._table())

    def _start(self, held: ExitStack) -> None:
        dice = self._dice(6)
        self._settings = {"fsync": dice.choice(["always", "interval"])} | self._settings
        data = {name: str(self._at / "data" / name) for name in ["coordinator", *WORKERS]}
        promise = {"epsilon": EPSILON, "heartbeat_s": HEARTBEAT_S, "data_dir": data["coordinator"]}
        coordinator = self._place(held, "coordinator", "coordinator_service", promise)
        for number, name in enumerate(WORKERS):
            out = held.enter_context(Proxy(coordinator.port, seed=100 * self._seed + number))
            mine = {"worker_name": name, "coordinator_url": out.url, "data_dir": data[name]}
            cut_off = {"when_cut_off": dice.choice(["count", "refuse"])}
            worker = self._place(held, name, "worker_service", QUICK | mine | cut_off)
            way_in = held.enter_context(Proxy(worker.port, seed=100 * self._seed + 50 + number))
            self._ways_out[name], self._ways_in[name] = out, way_in

    def _place(self, held: ExitStack, name: str, module: str, settings: Json) -> Place:
        place = self._places[name] = Place(name, module, self._at, **(settings | self._settings))
        held.callback(place.stop)
        return place

    async def _play(self, say: Say) -> None:
        await self._up(*self._places.values())
        async with asyncio.TaskGroup() as tasks:
            clients = [tasks.create_task(client) for client in self._clients()]
            others = [
                tasks.create_task(one) for one in (self._keep_asking(), self._keep_telling(say))
            ]
            weather = tasks.create_task(self._keep_changing())
            await tasks.create_task(self._keep_striking())
            weather.cancel()
            self._calm()
            await self._up(*self._places.values())
            self._stopping = True
            async with soon("what clients sent last is acknowledged"):
                await asyncio.gather(*clients)
            for one in others:
                one.cancel()
        await self._check_the_end()

    async def _up(self, *places: Place) -> None:
        for place in places:
            await asyncio.to_thread(until, place.is_up, f"{place.name} is up")

    # Clients

    def _clients(self) -> Iterator[Coroutine[Any, Any, None]]:
        for stream, clients in CLIENTS.items():
            for worker, _ in itertools.product(WORKERS, range(clients)):
                yield self._client(worker, self._sent[stream], next(self._numbers))

    async def _client(self, worker: str, sent: Sent, number: int) -> None:
        dice = self._dice(1, number)
        url = self._ways_in[worker].url
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
            for at, values in enumerate(self._drawn(sent.stream, number, dice)):
                if self._stopping:
                    return
                key = f"{self._seed}-{number}-{at}"
                await self._insist(client, worker, sent, values, key)
                await asyncio.sleep(dice.exponential(THINKS_S))

    def _drawn(self, stream: str, number: int, dice: np.random.Generator) -> Iterator[Floats]:
        """Batches of a stream's scenario, dealt out among its clients."""
        name = self._dice(2, *stream.encode()).choice(list(SCENARIOS))
        clients = len(WORKERS) * CLIENTS[stream]
        start, size = 0, FIRST
        while True:
            at = np.arange(start, start + size) * clients + number % clients
            yield SCENARIOS[name](Places((at % OF).astype(np.float64), OF, clients), dice)
            start += size
            size = int(dice.choice(list(SIZES), p=list(SIZES.values())))

    async def _insist(
        self, client: httpx.AsyncClient, worker: str, sent: Sent, values: Floats, key: str
    ) -> None:
        """The same request, until it is acknowledged."""
        number = next(self._numbers)
        sent.books.sent(number, values)
        sent.batches[worker].append(values)
        request = client.build_request(
            "POST",
            "/values",
            params={"stream": sent.stream},
            content=values.astype("<f8").tobytes(),
            headers=OCTETS | {"idempotency-key": key},
        )
        while (taken := await self._taken(client, request)) is None:
            await asyncio.sleep(0.05)
        sent.books.acknowledged(number)
        sent.acknowledged[worker] += len(values)
        self.seen["batches"] += 1
        self._check_taken(sent, worker, len(values), taken)

    async def _taken(self, client: httpx.AsyncClient, request: httpx.Request) -> Json | None:
        try:
            response = await client.send(request)
        except httpx.TransportError as error:
            self.seen[f"requests that saw {type(error).__name__}"] += 1
            return None
        self.seen[f"requests answered {response.status_code}"] += 1
        if response.status_code in AGAIN and "storage" not in response.text:
            return None
        promised(response.status_code == 202, f"{response.status_code}: {response.text}")
        told: Json = response.json()
        return told

    def _check_taken(self, sent: Sent, worker: str, size: int, taken: Json) -> None:
        least = sent.acknowledged[worker]
        most = sum(map(len, sent.batches[worker]))
        if sent.stream == ALONE:
            promised(least == most, "there is one client")
        else:
            least = size
        what = f"{worker} says {taken}, of {size}; there must be from {least} to {most}"
        promised(taken["accepted"] == size and least <= taken["count"] <= most, what)

    # Who asks

    async def _keep_asking(self) -> None:
        url = self._places["coordinator"].url
        dice = self._dice(3)
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
            while True:
                for sent in self._sent.values():
                    await self._ask(client, sent, "/median")
                    await self._ask(client, sent, "/quantile", q=QUANTILES)
                q = float(dice.choice(QUANTILES))
                await self._ask(client, self._sent[ALONE], "/explain", q=q)
                await self._look_at_workers(client)
                await asyncio.sleep(ASKS_S)

    async def _ask(self, client: httpx.AsyncClient, sent: Sent, path: str, **params: Any) -> None:
        sent.books.begin()
        acknowledged = sum(sent.acknowledged.values())
        try:
            said = await self._asked(client, path, stream=sent.stream, **params)
            if said is not None:
                promised(said.get("count") or not acknowledged, f"none of {acknowledged}: {said}")
                self._check_answer(sent, said)
        finally:
            sent.books.end()

    async def _asked(self, client: httpx.AsyncClient, path: str, **params: Any) -> Json | None:
        try:
            response = await client.get(path, params=params)
        except httpx.TransportError:
            self.seen["questions without answer"] += 1
            return None
        promised(response.status_code in {200, 404}, f"{response.status_code}: {response.text}")
        self.seen["answers"] += 1
        said: Json = response.json()
        return said

    def _check_answer(self, sent: Sent, said: Json) -> None:
        if not said.get("count"):
            return
        self.seen["answers complete"] += said["complete"]
        median = {"q": 0.5, "value": said.get("median", said.get("value"))}
        for found in said.get("quantiles", [said | median if "median" in said else said]):
            self._check_found(sent, said, found)
        if "rows" in said:
            self._check_rows(sent, said)

    def _check_found(self, sent: Sent, said: Json, found: Json) -> None:
        """Held against what was acknowledged, and any of the batches in flight."""

        def states(value: float | None, without: float) -> States:
            value = without if value is None else value
            return States(value, sent.known, sent.books.unsure, q=found["q"])

        value, what = states(found["value"], np.nan), f"{sent.stream}: {found} of {said}"
        promised(said["count"] <= value.most, f"only {value.most} were sent: {what}")
        if said["complete"]:
            most = EPSILON * (1 if found["q"] == 0.5 else OTHERS_MAX)
            promised(found["rank_error"] <= most, f"beyond {most}: {what}")
            promised(value.allow(found["rank_error"]), f"off by {value.error()}: {what}")
            low, high = states(found["low"], -np.inf), states(found["high"], np.inf)
            promised(low.too_high(0.0) <= ROUNDING, f"low is too high: {what}")
            promised(high.too_low(0.0) <= ROUNDING, f"high is too low: {what}")

    def _check_rows(self, sent: Sent, said: Json) -> None:
        """Of a stream where the order of all values is known: what its rows cover."""
        covered = [sent.first(row["worker"], row["count"]) for row in said["rows"]]
        values = np.concatenate(covered)
        promised(len(values) == said["count"], f"{len(values)} are in the rows of {said}")
        target, error = said["q"] * len(values), said["rank_error"] * len(values) + ROUNDING
        promised((values < said["value"]).sum() - target <= error, f"too high: {said}")
        promised(target - (values <= said["value"]).sum() <= error, f"too low: {said}")
        for row, mine in zip(said["rows"], covered, strict=True):
            promised(off(row["picture"], mine) <= row["rank_shift"] + ROUNDING, f"no prefix: {row}")
        self.seen["answers held against their rows"] += 1

    async def _look_at_workers(self, client: httpx.AsyncClient) -> list[Json]:
        said = await self._asked(client, "/workers")
        found: list[Json] = said["workers"] if said else []
        for one in found:
            key = one["worker"], one["stream"]
            number = self._sources.setdefault(key, one["source"])
            promised(number == one["source"], f"{key} was source {number}, and now is {one}")
            self.seen["counts that went back"] += one["count"] < self._counted[key]
            self._counted[key] = one["count"]
        return found

    # Who strikes

    async def _keep_striking(self) -> None:
        dice, end = self._dice(4), time.monotonic() + self._seconds
        while time.monotonic() < end:
            await asyncio.sleep(dice.exponential(REST_S))
            what = str(dice.choice(list(STRIKES), p=list(STRIKES.values())))
            self.seen[what] += 1
            await self._strike(what, dice)

    async def _strike(self, what: str, dice: np.random.Generator) -> None:
        victims = self._victims(what, dice)
        down_s = float(dice.choice([0, 0, 1]) * dice.uniform(0, DOWN_S))
        before_s, waits = dice.uniform(0, DOWN_S), dice.random() < 0.5
        still_s = dice.uniform(0, STILL_S)
        if what.endswith("paused"):
            await self._pause(victims, still_s)
            return
        how = signal.SIGTERM if "told" in what else signal.SIGKILL
        if dice.random() < 0.5:
            await self._told_when_they_speak(victims, how)
        if what.endswith("stop, and killed"):
            self._tell(victims, how)
            await asyncio.sleep(before_s)
            how = signal.SIGKILL
        await self._end(victims, how)
        await asyncio.sleep(down_s)
        for victim in victims:
            victim.begin()
        await (self._up(*victims) if waits else asyncio.sleep(before_s))

    def _victims(self, what: str, dice: np.random.Generator) -> list[Place]:
        worker, coordinator = self._places[dice.choice(WORKERS)], self._places["coordinator"]
        who = what.partition(" ")[0]
        if who == "all":
            return list(self._places.values())
        return {"worker": [worker], "coordinator": [coordinator]}.get(who, [worker, coordinator])

    async def _told_when_they_speak(self, victims: Sequence[Place], how: signal.Signals) -> None:
        """All, as soon as the first of them answers anybody, if one does soon."""
        told = threading.Event()

        def tell() -> None:
            self._tell(victims, how)
            told.set()

        ways = [way for victim in victims for way in self._ways_to(victim)]
        for way in ways:
            way.at_response = tell
        if await asyncio.to_thread(told.wait, SPEAKS_S):
            self.seen["struck as they spoke"] += 1
        for way in ways:
            way.at_response = None

    def _ways_to(self, place: Place) -> list[Proxy]:
        way_in = self._ways_in.get(place.name)
        return list(self._ways_out.values()) if way_in is None else [way_in]

    async def _end(self, victims: Sequence[Place], how: signal.Signals) -> None:
        self._tell(victims, how)
        for victim in victims:
            status = await asyncio.to_thread(victim.ended)
            promised(status in STATUSES, f"{victim.name} ended with {status}")

    def _tell(self, victims: Sequence[Place], what: signal.Signals) -> None:
        for victim in victims:
            victim.tell(what)

    async def _pause(self, victims: Sequence[Place], still_s: float) -> None:
        self._tell(victims, signal.SIGSTOP)
        await asyncio.sleep(still_s)
        self._tell(victims, signal.SIGCONT)

    async def _keep_changing(self) -> None:
        dice = self._dice(5)
        while True:
            for way in self._ways:
                way.weather = WEATHERS[dice.integers(len(WEATHERS))]
            await asyncio.sleep(dice.uniform(0.2, 2.0))

    def _calm(self) -> None:
        for way in self._ways:
            way.weather = CALM

    @property
    def _ways(self) -> list[Proxy]:
        return [*self._ways_in.values(), *self._ways_out.values()]

    # The end

    async def _check_the_end(self) -> None:
        url = self._places["coordinator"].url
        async with (
            soon("all is counted, and answers are complete"),
            httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client,
        ):
            for name in WORKERS:
                await self._flush(client, self._places[name].url)
            for sent in self._sent.values():
                await self._check_all(client, sent)
            await self._check_sources(client)

    async def _flush(self, client: httpx.AsyncClient, url: str) -> None:
        while (await client.post(f"{url}/flush")).status_code != 200:
            await asyncio.sleep(ASKS_S)

    async def _check_all(self, client: httpx.AsyncClient, sent: Sent) -> None:
        """Nothing is in flight: each value is counted exactly once."""
        said = None
        while not (said and said["complete"]):
            await asyncio.sleep(ASKS_S)
            said = await self._asked(client, "/quantile", stream=sent.stream, q=QUANTILES)
        what = f"{sent.stream}: acknowledged were {sent.known}, in all {len(sent.known)}; {said}"
        promised(said["count"] == len(sent.known) == sum(sent.acknowledged.values()), what)
        self._check_answer(sent, said)

    async def _check_sources(self, client: httpx.AsyncClient) -> None:
        found = await self._look_at_workers(client)
        counted = {(one["worker"], one["stream"]): one["count"] for one in found}
        acknowledged = {
            (worker, sent.stream): count
            for sent in self._sent.values()
            for worker, count in sent.acknowledged.items()
        }
        what = f"acknowledged were {acknowledged}; counted are {found}"
        promised(counted == acknowledged and len(found) == len(counted), what)

    # What there is to say

    async def _keep_telling(self, say: Say) -> None:
        while True:
            await asyncio.sleep(TELLS_S)
            seen, values = self.seen, sum(len(one.known) for one in self._sent.values())
            strikes = sum(seen[what] for what in STRIKES)
            say(
                f"{time.monotonic() - self._begun:6.0f} s  {strikes:5,} strikes  "
                f"{seen['batches']:7,} batches  {values:11,} values  {seen['answers']:7,} answers"
                f"  {seen['answers complete']:7,} complete\n"
            )

    def _table(self) -> str:
        ways = sum((way.seen for way in self._ways), Counter[str]())
        rows = {"seconds": round(time.monotonic() - self._begun)}
        rows |= {f"values acknowledged, {one}": len(self._sent[one].known) for one in self._sent}
        rows |= dict(sorted(self.seen.items()))
        rows |= {f"ways: {what}": times for what, times in sorted(ways.items())}
        return "".join(f"  {what:<44}{times:>12,}\n" for what, times in rows.items())

    def _logs(self) -> str:
        ends = (
            (one.log, one.log.read_text().splitlines(True)[-40:]) for one in self._places.values()
        )
        return "".join(f"--- {log}\n{''.join(end)}" for log, end in ends)


def off(picture: Json, values: Floats) -> float:
    """How far a picture is from the values it is of, at its own knots."""
    x, ordered = np.array(picture["x"]), np.sort(values)
    upto = abs(ordered.searchsorted(x, "right") - picture["upto"])
    below = abs(ordered.searchsorted(x) - picture["below"])
    return float(max(upto.max(), below.max()))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    given = parser.parse_args(arguments)
    say, at = sys.stdout.write, Path(tempfile.mkdtemp(prefix="running-median-chaos-"))
    say(f"seed {given.seed}\n")
    try:
        asyncio.run(Chaos(given.seed, given.seconds, at).run(say))
    except AssertionError as broken:
        sys.exit(f"{broken}\nA promise was broken: seed {given.seed}, files in {at}")
    say("Every promise was kept\n")
    shutil.rmtree(at)


if __name__ == "__main__":
    main()
