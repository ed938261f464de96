"""More than there is room for: it is told so, nothing of it is taken, and all the rest goes on."""

import asyncio
import json
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import msgpack
import numpy as np
import pytest

from coordinator_service.answers import REST_S_MAX, Answers
from shared.ledger import Ledger
from shared.protocol import Receipt
from shared.serving.bodies import DROPPED_MAX
from shared.serving.errors import Problem
from shared.serving.room import AGAIN_S, Place, Room
from tests.cluster import CALM, CUT, OCTETS, Cluster, Node, until
from tests.exact import TALLY
from tests.processes import Processes
from tests.processes import until as wait_until
from tests.test_coordinator_app import an_outbox, cut, one_coordinator
from tests.test_worker_app import check_problem, keyed, one_worker
from worker_service import app
from worker_service.sources import Line

MANY = 10
PLAIN = {"content-type": "text/plain"}
SMALL: dict[str, Any] = {"requests_max": 3, "work_bytes_max": 1000}


# Room


def shed(do: Callable[[], Any]) -> Problem:
    with pytest.raises(Problem) as told:
        do()
    assert (told.value.status, told.value.code) == (503, "overloaded")
    return told.value


def test_there_is_never_more_in_work_than_may_be(rng: np.random.Generator) -> None:
    """Or one has it all, but for a little each. A dumb twin keeps the account by adding up."""
    room, inside, refused = Room(requests_max=4, bytes_max=100), dict[Place, int](), 0
    for _ in range(3000):
        try:
            match rng.integers(4):
                case 0:
                    inside[room.place().__enter__()] = 0
                case 1 if inside:
                    one = list(inside)[rng.integers(len(inside))]
                    del inside[one]
                    one.__exit__(None, None, None)
                case _ if inside:
                    one, size = list(inside)[rng.integers(len(inside))], int(rng.integers(130))
                    one.hold(size)
                    inside[one] = size
        except Problem:
            refused += 1
        assert (room.requests, room.bytes) == (len(inside), sum(inside.values()))
        assert room.requests <= 4
        large = [size for size in inside.values() if size > 100 // 16]
        assert room.large == sum(large)
        assert room.large <= 100 or len(large) == 1
    assert TALLY.all(np.array(room.shed == refused > 100))


def test_the_largest_gets_in_alone_and_nobody_beside_it() -> None:
    room = Room(requests_max=3, bytes_max=10)
    with room.place() as one, room.place() as other:
        one.hold(50)
        shed(lambda: other.hold(1))
        one.hold(60)
        one.hold(8)
        other.hold(2)
        shed(lambda: one.hold(9))
    assert (room.requests, room.bytes, room.shed) == (0, 0, 2)


def test_who_brings_little_gets_in_beside_the_largest_and_keeps_nobody_out() -> None:
    room = Room(requests_max=2, bytes_max=80)
    with room.place() as large, room.place() as little:
        large.hold(500)
        shed(lambda: little.hold(11))
        little.hold(10)
        assert (room.bytes, room.large) == (510, 500)
        large.hold(0)
        large.hold(700)
        shed(lambda: little.hold(11))
        assert (room.bytes, room.large) == (710, 700)
    assert (room.bytes, room.large) == (0, 0)


def test_a_place_is_left_once_by_the_last_in_it() -> None:
    room = Room(requests_max=1, bytes_max=10)
    with room.place() as place:
        place.hold(10)
        place.__enter__()
    assert (room.requests, room.bytes) == (1, 10)
    shed(room.place)
    place.__exit__(None, None, None)
    assert (room.requests, room.bytes) == (0, 0)


def test_when_to_come_again_is_drawn() -> None:
    room = Room(requests_max=0, bytes_max=0)
    said = Counter((shed(room.place).headers or {})["retry-after"] for _ in range(300))
    assert set(said) == set(map(str, range(1, AGAIN_S + 1)))


# A worker


def in_work(node: Node) -> tuple[int, int]:
    return node.worker.room.requests, node.worker.room.bytes


async def until_in_work(node: Node, requests: int, bytes_: int = 0) -> None:
    async def holds() -> bool:
        return in_work(node) == (requests, bytes_)

    await until(holds, f"{requests} requests with {bytes_} bytes are in work, not {in_work(node)}")


def check_shed(response: httpx.Response, *, closed: bool = False) -> None:
    assert "nothing was taken" in check_problem(response, 503, "overloaded")
    assert 1 <= int(response.headers["retry-after"]) <= AGAIN_S
    assert ("connection" in response.headers) == closed


def sized(size: int) -> bytes:
    return bytes(8 * size)


async def post(node: Node, size: int, **headers: str) -> httpx.Response:
    headers |= {"content-type": OCTETS}
    return await node.client.post("/values", content=sized(size), headers=headers)


def test_what_is_shed_is_not_taken_and_what_is_acknowledged_is_counted(
    rng: np.random.Generator,
) -> None:
    async def story(cluster: Cluster, node: Node) -> None:
        node.way_out.weather = CUT
        posts = [asyncio.create_task(post(node, 2**at)) for at in range(MANY)]
        await until_in_work(node, 3)  # who waits holds no bytes
        node.way_out.weather = CALM
        taken = 0
        for response in await asyncio.gather(*posts):
            if response.status_code == 202:
                taken += response.json()["accepted"]
            else:
                check_shed(response)
        assert taken.bit_count() == 3
        await cluster.flush()
        assert (await cluster.median())["count"] == taken
        assert in_work(node) == (0, 0)
        assert await node.metric("median_worker_shed_requests_total") == MANY - 3
        assert (await post(node, 1)).status_code == 202

    one_worker(rng, story, **SMALL | {"work_bytes_max": 10**6})


def test_a_full_worker_still_says_how_it_is(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        node.way_out.weather = CUT
        posts = [asyncio.create_task(post(node, 5)) for _ in range(3)]
        await until_in_work(node, 3)
        for path in ("/health", "/ready", "/metrics", "/median", "/quantile?q=0.5", "/digest"):
            assert await node.status(path) == 200, path
        check_shed(await post(node, 1))
        assert await node.metric("median_worker_work_requests") == 3
        check_shed(await node.client.post("/flush"))  # as it would wait, too
        node.way_out.weather = CALM
        assert [(await one).status_code for one in posts] == [202] * 3

    one_worker(rng, story, **SMALL)


class Caller:
    """As a server calls an app, for a client that sends its pieces when it likes, and may go."""

    def __init__(self, node: Node, path: str = "/values", **headers: str) -> None:
        self._incoming, self._sent = asyncio.Queue[dict[str, Any]](), list[dict[str, Any]]()
        headers = {"content-type": OCTETS} | headers
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": [
                (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
            ],
            "client": ("127.0.0.1", 1),
            "server": ("worker", 80),
        }
        self._app = asyncio.create_task(node.app(scope, self._incoming.get, self._keep))

    async def _keep(self, message: Any) -> None:
        self._sent.append(message)

    def send(self, piece: bytes, *, more: bool = True) -> None:
        message = {"type": "http.request", "body": piece, "more_body": more}
        self._incoming.put_nowait(message)

    def hang_up(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def ends(self) -> httpx.Response:
        await self._app
        start, body = self._sent
        return httpx.Response(start["status"], headers=start["headers"], content=body["body"])


def test_what_is_declared_is_held_before_it_comes(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        slow = Caller(node, content_length="800")
        await until_in_work(node, 1, 800)
        check_shed(await Caller(node, content_length="208").ends())
        check_shed(await Caller(node, content_length=str(DROPPED_MAX + 1)).ends(), closed=True)
        assert (await post(node, 25)).status_code == 202
        slow.send(sized(99))
        slow.send(sized(1), more=False)
        assert (await slow.ends()).json() == {"accepted": 100, "count": 125}
        assert in_work(node) == (0, 0)

    one_worker(rng, story, **SMALL)


def test_what_declares_nothing_is_held_as_it_comes(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        first, second = Caller(node), Caller(node)
        first.send(sized(60))
        await until_in_work(node, 2, 480)
        second.send(sized(60))
        await until_in_work(node, 2, 960)
        second.send(sized(6))
        check_shed(await second.ends(), closed=True)
        await until_in_work(node, 1, 480)
        first.send(sized(1), more=False)
        assert (await first.ends()).json() == {"accepted": 61, "count": 61}

    one_worker(rng, story, **SMALL)


def test_values_that_take_more_than_their_body_are_held_too(rng: np.random.Generator) -> None:
    """A hundred and one bytes of JSON are fifty values, which take four hundred."""

    async def story(cluster: Cluster, node: Node) -> None:
        body = json.dumps([7] * 50, separators=(",", ":"))
        slow = Caller(node, content_length="601")
        await until_in_work(node, 1, 601)
        headers = {"content-type": "application/json"}
        check_shed(await node.client.post("/values", content=body, headers=headers))
        assert list(node.worker.sources) == []
        slow.hang_up()
        check_problem(await slow.ends(), 400, "cut_short")
        assert (await node.client.post("/values", content=body, headers=headers)).is_success
        await cluster.flush()
        assert (await cluster.median())["count"] == 50

    one_worker(rng, story, **SMALL)


def test_who_waits_longest_for_its_body_gives_way_and_who_works_does_not(
    rng: np.random.Generator,
) -> None:
    async def story(cluster: Cluster, node: Node) -> None:
        stalled = [Caller(node, content_length="16") for _ in range(3)]
        for one in stalled:
            one.send(b"x")
        await until_in_work(node, 3, 48)
        stalled[0].send(b"y")  # it goes on, if slowly; the others send nothing more
        await asyncio.sleep(0.01)
        node.way_out.weather = CUT
        posts = [asyncio.create_task(post(node, 1)) for _ in range(2)]
        await until_in_work(node, 3, 16)
        for one in stalled[1:]:
            told = await one.ends()
            assert "waited for longest" in check_problem(told, 408, "too_slow")
            assert told.headers["connection"] == "close"
            assert 1 <= int(told.headers["retry-after"]) <= AGAIN_S
        stalled[0].send(bytes(14), more=False)
        await until_in_work(node, 3)
        check_shed(await post(node, 1))  # all three are at work now
        assert await node.metric("median_worker_shed_requests_total") == 3
        node.way_out.weather = CALM
        assert [(await one).status_code for one in posts] == [202] * 2
        assert (await stalled[0].ends()).json()["accepted"] == 2
        await cluster.flush()
        assert (await cluster.median())["count"] == 4
        assert in_work(node) == (0, 0)

    one_worker(rng, story, **SMALL)


def test_however_many_stall_whoever_brings_a_whole_body_is_heard(rng: np.random.Generator) -> None:
    async def story(cluster: Cluster, node: Node) -> None:
        for _ in range(5):
            stalled = [Caller(node, content_length="16") for _ in range(MANY)]
            assert (await post(node, 1)).status_code == 202
            assert node.worker.room.requests <= 3
        await cluster.flush()
        assert (await cluster.median())["count"] == 5
        for one in stalled[-2:]:
            one.hang_up()
            check_problem(await one.ends(), 400, "cut_short")
        assert in_work(node) == (0, 0)

    one_worker(rng, story, **SMALL)


def test_a_flush_takes_no_task_for_each_stream_and_many_share_one(
    rng: np.random.Generator,
) -> None:
    marked, flush = Counter[str](), Line.flush

    async def counted(line: Line) -> int:
        marked[line.outbox.source.stream] += 1
        return await flush(line)

    async def story(cluster: Cluster, node: Node) -> None:
        streams = [f"s{at}" for at in range(20)]
        for stream in streams:
            await cluster.post(node, [1.0], stream)
        node.way_out.weather = CUT
        assert (await node.client.post("/values?stream=s0", content=b"2", headers=PLAIN)).is_success
        before = len(asyncio.all_tasks())
        with patch.object(Line, "flush", counted):
            first = Caller(node, "/flush")
            await until_in_work(node, 1)
            await asyncio.sleep(0.01)
            assert set(marked.values()) == {1}
            assert (
                await node.client.post("/values?stream=s1", content=b"2", headers=PLAIN)
            ).is_success
            more = [Caller(node, "/flush") for _ in range(MANY)]
            await until_in_work(node, 1 + MANY)
            await asyncio.sleep(0.01)
            assert len(asyncio.all_tasks()) < before + 3 * MANY
            assert set(marked.values()) == {1}
            node.way_out.weather = CALM
            told = [(await one.ends()).json()["streams"] for one in (first, *more)]
        assert set(marked.values()) == {2}
        assert told[0] == dict.fromkeys(streams, 1) | {"s0": 2}
        assert told[1:] == [dict.fromkeys(streams, 1) | {"s0": 2, "s1": 2}] * MANY
        assert (await cluster.median("s1"))["count"] == 2

    one_worker(rng, story, linger_s=60.0)


def test_who_hangs_up_on_a_flush_is_no_accident_and_others_go_on(rng: np.random.Generator) -> None:
    async def story(cluster: Cluster, node: Node) -> None:
        await cluster.post(node, [1.0])
        node.way_out.weather = CUT
        assert (await node.client.post("/values", content=b"2", headers=PLAIN)).is_success
        first, second = Caller(node, "/flush"), Caller(node, "/flush")
        await until_in_work(node, 2)
        first.hang_up()
        assert "stops now" in check_problem(await first.ends(), 503, "not_acknowledged")
        await until_in_work(node, 1)
        node.way_out.weather = CALM
        assert (await second.ends()).json() == {"streams": {"default": 2}}

    one_worker(rng, story, linger_s=60.0)


def test_a_body_beyond_all_room_is_taken_alone(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        assert (await post(node, 5_000)).json() == {"accepted": 5_000, "count": 5_000}
        slow = Caller(node, content_length="800")
        await until_in_work(node, 1, 800)
        check_shed(await post(node, 5_000))
        slow.send(sized(100), more=False)
        assert (await slow.ends()).status_code == 202

    one_worker(rng, story, **SMALL)


def test_whatever_goes_wrong_leaves_its_place(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        assert (await keyed(node, "k")).status_code == 202
        wrong = [
            await node.client.post("/values", content=b"[1", headers={"content-type": "text/csv"}),
            await node.client.post("/values", content=b"[1", headers={"content-type": OCTETS}),
            await node.client.post("/values", json=[1, True]),
            await node.client.post("/values", json=[]),
            await node.client.post("/values", json=[1], headers={"content-encoding": "gzip"}),
            await post(node, 200),
            await keyed(node, "k", [3]),
            await keyed(node, "x" * 256),
            await Caller(node, content_length="8").ends(),
        ]
        statuses = [415, 400, 422, 422, 415, 413, 422, 422, 408]
        assert [response.status_code for response in wrong] == statuses
        node.way_out.weather = CUT
        new = [node.client.post("/values?stream=new", json=[1]) for _ in range(3)]
        for response in await asyncio.gather(*new):
            check_problem(response, 503, "not_acknowledged")
        assert in_work(node) == (0, 0)
        assert node.worker.room.shed == 0

    one_worker(rng, story, **SMALL, body_bytes_max=1024, body_s_max=0.05, answer_s_max=0.8)


# Who hangs up


def test_who_hangs_up_while_it_only_waits_makes_room_at_once(rng: np.random.Generator) -> None:
    """Its values are counted, though it will never know."""

    async def story(cluster: Cluster, node: Node) -> None:
        node.way_out.weather = CUT
        callers = [Caller(node, content_length="24") for _ in range(3)]
        for one in callers:
            one.send(sized(3), more=False)
        await until_in_work(node, 3)
        check_shed(await post(node, 1))
        callers[1].send(b"", more=False)
        callers[1].hang_up()
        await until_in_work(node, 2)
        last = asyncio.create_task(post(node, 1))
        await until_in_work(node, 3)
        node.way_out.weather = CALM
        assert (await last).json()["accepted"] == 1
        assert [(await one.ends()).status_code for one in callers] == [202, 503, 202]
        assert in_work(node) == (0, 0)
        await cluster.flush()
        assert (await cluster.median())["count"] == 10

    one_worker(rng, story, **SMALL)


def test_work_under_a_key_keeps_its_place_when_its_client_hangs_up(
    rng: np.random.Generator,
) -> None:
    """Else who hangs up and comes again with new keys could have any number of them wait."""

    async def story(cluster: Cluster, node: Node) -> None:
        node.way_out.weather = CUT
        first = Caller(node, content_length="24", idempotency_key="k")
        first.send(sized(3), more=False)
        await until_in_work(node, 1)
        again = Caller(node, content_length="24", idempotency_key="k")
        again.send(sized(3), more=False)
        await until_in_work(node, 2, 24)
        for one in (first, again):
            one.hang_up()
        await until_in_work(node, 1)
        assert {(await one.ends()).status_code for one in (first, again)} == {503}
        node.way_out.weather = CALM
        await until_in_work(node, 0)
        again = Caller(node, content_length="24", idempotency_key="k")
        again.send(sized(3), more=False)
        assert (await again.ends()).json() == {"accepted": 3, "count": 3}
        await cluster.flush()
        assert (await cluster.median())["count"] == 3

    one_worker(rng, story, **SMALL)


def test_who_hangs_up_before_its_values_are_handed_over_is_not_left_half_done(
    rng: np.random.Generator,
) -> None:
    go, take = asyncio.Event(), Line.take

    async def slow(line: Line, batch: Any) -> int:
        await go.wait()
        return await take(line, batch)

    async def story(cluster: Cluster, node: Node) -> None:
        with patch.object(Line, "take", slow):
            caller = Caller(node, content_length="24")
            caller.send(sized(3), more=False)
            await until_in_work(node, 1, 24)
            caller.hang_up()
            await asyncio.sleep(0.05)
            assert in_work(node) == (1, 24)
            go.set()
            await caller.ends()
        assert in_work(node) == (0, 0)
        await cluster.flush()
        assert (await cluster.median())["count"] == 3

    one_worker(rng, story, **SMALL)


# Keys of large bodies


def test_a_large_body_is_hashed_in_a_thread(rng: np.random.Generator) -> None:
    seen = Counter[tuple[int, bool]]()
    understood = app._understood  # noqa: SLF001  what is looked at here is where it runs

    def noted(content_type: str, body: bytes, said: Any) -> Any:
        seen[len(body), threading.current_thread() is threading.main_thread()] += 1
        return understood(content_type, body, said)

    async def story(_: Cluster, node: Node) -> None:
        with patch.object(app, "_understood", noted):
            for size in (2, 100_000, 100_000):
                assert (await post(node, size, **{"idempotency-key": f"k{size}"})).is_success
        assert seen == {(16, True): 1, (800_000, False): 2}
        assert (await node.json("/median"))["count"] == 100_002
        check_problem(await post(node, 3, **{"idempotency-key": "k2"}), 422, "key_reused")

    one_worker(rng, story)


def test_a_body_does_not_wait_until_a_huge_one_is_decoded(rng: np.random.Generator) -> None:
    go, sizes = threading.Event(), list[int]()
    understood = app._understood  # noqa: SLF001  what is looked at here is when it runs

    def held_up(content_type: str, body: bytes, said: Any) -> Any:
        if len(body) > app.HUGE_BODY:
            go.wait(timeout=60)
        sizes.append(len(body))
        return understood(content_type, body, said)

    async def story(_: Cluster, node: Node) -> None:
        with patch.object(app, "_understood", held_up):
            huge = [asyncio.create_task(post(node, app.HUGE_BODY // 8 + 1)) for _ in range(2)]
            await until_in_work(node, 2, 2 * (app.HUGE_BODY + 8))
            for size in (3, app.HUGE_BODY // 8):
                assert (await post(node, size)).is_success
            assert sizes == [24, app.HUGE_BODY]
            go.set()
            assert [(await one).status_code for one in huge] == [202, 202]

    one_worker(rng, story)


# A coordinator


def test_a_coordinator_without_room_is_asked_again(rng: np.random.Generator) -> None:
    async def story(cluster: Cluster, node: Node) -> None:
        await cluster.start_coordinator(requests_max=1)
        room = cluster.coordinator.coordinator.room
        with room.place():
            waiting = asyncio.create_task(post(node, 5))

            async def was_shed() -> bool:
                return (
                    await cluster.coordinator.metric("median_coordinator_shed_requests_total") > 2
                )

            await until(was_shed, "the courier was told so, and tried again")
            assert await cluster.coordinator.status("/median") == 200
            assert await cluster.coordinator.metric("median_coordinator_work_requests") == 1
            headers = {"content-type": "application/msgpack"}
            body = msgpack.packb([b"x"])
            told = await cluster.coordinator.client.post("/deltas", content=body, headers=headers)
            check_shed(told)
        assert (await waiting).json() == {"accepted": 5, "count": 5}
        assert (room.requests, room.bytes) == (0, 0)

    one_worker(rng, story)


class Time:
    """It passes when somebody says so; who sleeps is woken by `go`, when he wanted to be."""

    def __init__(self) -> None:
        self.now, self.go = 0.0, asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        await self.go.wait()
        self.now = max(self.now, until)


def test_an_answer_rests_as_long_as_it_took_and_covers_all_that_came_before_its_question() -> None:
    """However many ask meanwhile, it is made once; what came while it was made is for the next."""
    time, outbox, making = Time(), an_outbox(), list[float]()
    ledger = Ledger(0.05, number=1, now=0.0, heartbeat_s=60.0)
    answers = Answers(ledger, clock=lambda: time.now, wall=lambda: 0.0)
    made, late = ledger.answer, list[float]()

    def heard(data: bytes) -> None:
        receipt = ledger.judge(data, now=time.now).answer
        assert isinstance(receipt, Receipt)
        outbox.receive(receipt, now=0.0)

    def slow(*given: Any, **by_name: Any) -> Any:
        answer = made(*given, **by_name)
        making.append(time.now)
        time.now += 1.0
        for value in late:
            heard(cut(outbox, value))
        return answer

    async def count() -> int:
        return int(json.loads((await answers.median("default")).body)["count"])

    async def story() -> None:
        heard(cut(outbox, 1))
        assert await count() == 1
        time.now = 1.5
        heard(cut(outbox, 2))
        asking = [asyncio.create_task(count()) for _ in range(5)]
        await asyncio.sleep(0)
        heard(cut(outbox, 3))
        late.append(4)
        time.go.set()
        assert await asyncio.gather(*asking) == [3] * 5
        late.clear()
        assert [await count(), await count()] == [4, 4]
        assert making == [0.0, 2.0, 4.0]

    with (
        patch.object(ledger, "answer", slow),
        patch("coordinator_service.answers.sleep", time.sleep),
        patch("coordinator_service.answers.REST_S_MAX", 1.0),
    ):
        asyncio.run(story())


def test_a_coordinator_that_stood_still_while_it_made_an_answer_answers_soon_after() -> None:
    """Stopped, frozen, or asleep for an hour, in the middle of making one."""
    time, outbox = Time(), an_outbox()
    ledger = Ledger(0.05, number=1, now=0.0, heartbeat_s=60.0)
    answers = Answers(ledger, clock=lambda: time.now, wall=lambda: 0.0)
    made = ledger.answer

    def slept(*given: Any, **by_name: Any) -> Any:
        time.now += 3600.0
        return made(*given, **by_name)

    async def story() -> None:
        with patch.object(ledger, "answer", slept):
            await answers.median("default")
        ledger.judge(cut(outbox, 1), now=time.now)
        since = time.now
        time.go.set()
        await answers.median("default")
        assert time.now - since <= REST_S_MAX

    with patch("coordinator_service.answers.sleep", time.sleep):
        asyncio.run(story())


def test_between_two_requests_of_deltas_everybody_else_has_a_turn(rng: np.random.Generator) -> None:
    async def story(_: Cluster, node: Node) -> None:
        heard, rounds = 0, list[int]()

        async def speak() -> None:
            nonlocal heard
            await node.coordinator.turns.enter()
            heard += 1

        speaking = [asyncio.create_task(speak()) for _ in range(MANY)]
        while heard < MANY:
            rounds.append(heard)
            await asyncio.sleep(0)
        await asyncio.gather(*speaking)
        assert max(after - before for before, after in pairwise(rounds)) == 1

    one_coordinator(rng, story)


# As processes


def test_a_worker_whose_coordinator_stands_still_sheds_and_then_counts_what_it_took(
    tmp_path: Path,
) -> None:
    with Processes(tmp_path) as processes:
        coordinator = processes.cluster("w1", requests_max=4)
        worker = processes.workers["w1"]

        def in_work() -> int:
            return int(metric(worker.url, "median_worker_work_requests"))

        coordinator.tell(signal.SIGSTOP)
        answers: dict[int, httpx.Response] = {}

        def client(size: int) -> None:
            answers[size] = httpx.post(
                f"{worker.url}/values",
                content=sized(size),
                headers={"content-type": OCTETS},
                timeout=60,
                trust_env=False,
            )

        with socket.create_connection(("127.0.0.1", worker.port)) as gone:
            head = f"POST /values HTTP/1.1\r\nhost: x\r\ncontent-type: {OCTETS}\r\n"
            gone.sendall(f"{head}content-length: 8\r\n\r\n".encode() + sized(1))
            wait_until(lambda: in_work() == 1, "it waits")
        wait_until(lambda: in_work() == 0, "who hung up has left")
        threads = [
            threading.Thread(target=client, args=(2**at,), daemon=True) for at in range(1, MANY)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answers) == MANY - 5, "all but four are told")
        assert in_work() == 4
        for told in answers.values():
            check_shed(told)
        assert worker.is_ready
        coordinator.tell(signal.SIGCONT)
        for thread in threads:
            thread.join(60)
        taken = sum(size for size, told in answers.items() if told.status_code == 202)
        assert taken.bit_count() == 4
        worker.flush()
        assert coordinator.get("/median")["count"] == taken + 1


def metric(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics", trust_env=False, timeout=60).text
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])
