"""What is asked of services that lose, delay and refuse, each reply written by the test."""

import asyncio
import json
import socket
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from loadgen import calls
from loadgen.calls import (
    NOTHING_YET,
    Address,
    BadReply,
    Calls,
    NoReply,
    Traffic,
    address_of,
    resolved,
)
from loadgen.truth import Answer
from loadgen.words import legible

WORKER, COORDINATOR = Address("http://w:8001"), Address("http://c:8000")
BATCH = np.array([1.0, -0.0, 2.5])
COUNTED = httpx.Response(202, json={"accepted": 3, "count": 40})
LOST = httpx.ReadTimeout("")
MEDIAN = {
    "median": 2.5, "low": 2.0, "high": 3.0, "count": 7, "epsilon": 0.01, "rank_error": 0.004,
    "complete": True, "exact": False, "stream": "default",
}  # fmt: skip
ROW = {"worker": "a", "stream": "s", "count": 1, "deltas": 2, "bytes": 30, "raw_bytes": 400}
OTHER_KINDS: list[object] = [[], {}, 7, None, "x", {"error": 1}, [1], {"workers": [{}]}]
OTHER_KINDS += [{"accepted": "x", "epsilon": "x"}]

Reply = httpx.Response | Exception


def refusal(status: int, message: str, code: str = "some", **headers: str) -> httpx.Response:
    body = {"error": {"code": code, "message": message}}
    return httpx.Response(status, json=body, headers=headers)


class Service:
    """Replies one after the other; the last one from then on."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)
        self.asked: list[httpx.Request] = []
        self.calls = Calls(httpx.MockTransport(self._reply))

    def _reply(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def when(self, asks: Callable[[Calls], Coroutine[Any, Any, Any]]) -> Any:
        async def alone() -> Any:
            try:
                return await asks(self.calls)
            finally:
                await self.calls.close()

        return asyncio.run(alone())

    def when_posted(self, stream: str = "default") -> Any:
        return self.when(lambda one: one.post(WORKER, stream, BATCH, "a-1"))

    def why_not(self, asks: Callable[[Calls], Coroutine[Any, Any, Any]]) -> str:
        with pytest.raises(BadReply) as refused:
            self.when(asks)
        return str(refused.value)


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time passes only where somebody sleeps: how long each time."""
    naps = list[float]()

    async def sleep(seconds: float) -> None:
        naps.append(seconds)

    clock = SimpleNamespace(monotonic=lambda: 1000.0 + sum(naps))
    monkeypatch.setattr(calls, "time", clock)
    monkeypatch.setattr(calls, "asyncio", SimpleNamespace(sleep=sleep))
    return naps


# Posting


def test_a_batch_is_posted_as_packed_floats_under_its_key() -> None:
    service = Service(COUNTED)
    service.when_posted()
    (asked,) = service.asked
    assert (asked.method, str(asked.url)) == ("POST", "http://w:8001/values")
    assert asked.content == BATCH.astype("<f8").tobytes()
    assert asked.headers["content-type"] == "application/octet-stream"
    assert asked.headers["idempotency-key"] == "a-1"


def test_a_stream_is_named_unless_it_is_the_default() -> None:
    service = Service(COUNTED)
    service.when_posted(stream="a & b")
    assert dict(service.asked[0].url.params) == {"stream": "a & b"}


@pytest.mark.parametrize(
    "trouble",
    [
        LOST,
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("hung up"),
        *(refusal(status, "later") for status in (408, 429, 502, 503, 504, 507)),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again_with_the_same_key(trouble: Reply, slept: list[float]) -> None:
    service = Service(trouble, trouble, trouble, COUNTED)
    service.when_posted()
    assert service.calls.repeated == 3
    first, *others = service.asked
    assert len(others) == 3
    for one in others:
        assert (one.method, one.url, one.content) == (first.method, first.url, first.content)
        assert one.headers == first.headers
    assert slept == [0.05, 0.1, 0.2]


def test_pauses_grow_up_to_a_bound(slept: list[float]) -> None:
    Service(*[LOST] * 12, COUNTED).when_posted()
    assert slept == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]


def test_who_says_when_to_come_back_is_believed(slept: list[float]) -> None:
    replies = [refusal(503, "later", **{"retry-after": after}) for after in ("7", "0", "soon", "")]
    Service(*replies, COUNTED).when_posted()
    assert slept == [7.0, 0.1, 0.2, 0.4]


def test_patience_ends_with_what_was_said_last(slept: list[float]) -> None:
    service = Service(LOST, refusal(503, "no coordinator"))
    with pytest.raises(NoReply, match="POST http://w:8001/values got 503: no coordinator"):
        service.when_posted()
    assert calls.PATIENCE_S - calls.PAUSE_S_MAX < sum(slept) <= calls.PATIENCE_S
    assert service.calls.repeated == len(service.asked) - 1 == len(slept)


def test_nobody_waits_for_what_comes_after_their_patience(slept: list[float]) -> None:
    with pytest.raises(NoReply):
        Service(refusal(503, "later", **{"retry-after": "3600"})).when_posted()
    assert slept == []


def test_silence_is_said_to_be_silence() -> None:
    for trouble, said in ((LOST, "ReadTimeout"), (httpx.ConnectError("refused"), "refused")):
        service = Service(trouble)
        what = service.why_not(lambda one: one.post(WORKER, "default", BATCH, "a-1"))
        assert what == f"POST http://w:8001/values got no answer: {said}"


@pytest.mark.parametrize("status", [200, 204, 301, 400, 404, 409, 413, 415, 422, 500])
def test_what_will_not_pass_is_not_tried_again(status: int, slept: list[float]) -> None:
    service = Service(refusal(status, "value 3 is NaN", "not_finite"))
    with pytest.raises(BadReply) as refused:
        service.when_posted()
    assert not isinstance(refused.value, NoReply)
    assert str(refused.value) == f"POST http://w:8001/values got {status}: value 3 is NaN"
    assert refused.value.code == "not_finite"
    assert (len(service.asked), service.calls.repeated, slept) == (1, 0, [])


@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff\xfe", b"[]", b'{"error": {}}', b"1"])
def test_a_refusal_in_no_known_form_is_told_as_it_is(content: bytes) -> None:
    response = httpx.Response(500, content=content)
    what = Service(response).why_not(lambda one: one.flush(WORKER, "default"))
    assert what == f"POST http://w:8001/flush got 500: {legible(content.decode(errors='replace'))}"


def test_neither_passwords_nor_what_moves_a_cursor_is_told() -> None:
    worker = address_of("http://me:secret@w:8001")
    service = Service(httpx.Response(500, content=b"\x1b[2Jgone\r\n"))
    what = service.why_not(lambda one: one.flush(worker, "default"))
    assert what == "POST http://w:8001/flush got 500:  [2Jgone  "
    assert service.asked[0].headers["authorization"].startswith("Basic ")


def test_a_worker_that_took_another_number_of_values_is_not_believed() -> None:
    service = Service(httpx.Response(202, json={"accepted": 2, "count": 40}))
    with pytest.raises(BadReply, match="http://w:8001 was given 3 values, and accepted 2"):
        service.when_posted()


@pytest.mark.parametrize("body", OTHER_KINDS, ids=str)
@pytest.mark.parametrize(
    ("asks", "what"),
    [
        (lambda one: one.post(WORKER, "s", BATCH, "a-1"), "w:8001 is no worker: its /values says"),
        (lambda one: one.name(WORKER), "w:8001 is no worker: its /health says"),
        (lambda one: one.meet(COORDINATOR), "c:8000 is no coordinator: its /health says"),
        (lambda one: one.median(COORDINATOR, "s"), "c:8000 is no coordinator: its /median says"),
        (lambda one: one.traffic(COORDINATOR, "s"), "c:8000 is no coordinator: its /workers says"),
    ],
    ids=["post", "name", "meet", "median", "traffic"],
)
def test_a_reply_of_another_kind_is_named(
    asks: Callable[[Calls], Coroutine[Any, Any, Any]], what: str, body: object
) -> None:
    status = 202 if "values" in what else 200
    said = Service(httpx.Response(status, content=json.dumps(body))).why_not(asks)
    assert said == f"http://{what} {body}"
    said = Service(httpx.Response(status, content=b"<html>")).why_not(asks)
    assert said.endswith("got no JSON: '<html>'")


# Asking


def test_a_worker_says_its_name_within_a_moment_or_not_at_all(slept: list[float]) -> None:
    assert (
        Service(httpx.Response(200, json={"worker": "a"})).when(lambda one: one.name(WORKER)) == "a"
    )
    with pytest.raises(NoReply):
        Service(LOST).when(lambda one: one.name(WORKER))
    assert 0 < sum(slept) <= calls.MEET_S


def test_all_that_is_checked_of_an_answer_is_taken_from_it() -> None:
    service = Service(LOST, httpx.Response(200, json=MEDIAN))
    answer = service.when(lambda one: one.median(COORDINATOR, "s"))
    assert answer == Answer(2.5, 2.0, 3.0, 7, 0.01, 0.004, complete=True)
    assert str(service.asked[1].url) == "http://c:8000/median?stream=s"


def test_of_a_stream_that_nobody_knows_there_is_the_empty_answer() -> None:
    service = Service(refusal(404, "no stream 's'", "unknown_stream"))
    assert service.when(lambda one: one.median(COORDINATOR, "s")) is NOTHING_YET
    with pytest.raises(BadReply, match="got 404: no such path"):
        Service(refusal(404, "no such path", "not_found")).when(
            lambda one: one.median(COORDINATOR, "s")
        )


def test_traffic_is_summed_over_the_sources_of_a_worker_and_of_no_other_stream() -> None:
    rows = [ROW, ROW | {"count": 10}, ROW | {"worker": "b"}, ROW | {"stream": "t", "worker": "c"}]
    service = Service(httpx.Response(200, json={"workers": rows}))
    told = service.when(lambda one: one.traffic(COORDINATOR, "s"))
    assert told == {"a": Traffic(11, 4, 60, 800), "b": Traffic(1, 2, 30, 400)}
    assert told["a"] - told["b"] == Traffic(10, 2, 30, 400)


@pytest.mark.parametrize(
    ("host", "name"), [("tasks.worker:8001", "tasks.worker"), ("tasks.worker", "tasks.worker")]
)
def test_who_asks_an_address_still_says_which_name_it_meant(host: str, name: str) -> None:
    service = Service(LOST, COUNTED)
    worker = Address("https://10.0.0.1:8001", host)
    service.when(lambda one: one.post(worker, "default", BATCH, "a-1"))
    for asked in service.asked:
        assert (asked.url.host, asked.headers["host"]) == ("10.0.0.1", host)
        assert asked.extensions["sni_hostname"] == name
        assert asked.headers["idempotency-key"] == "a-1"


# Addresses


@pytest.fixture
def leads_to(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[object, ...]]]:
    """Every name leads to these addresses; returns what was looked up."""

    def leads_to(*addresses: str) -> list[tuple[object, ...]]:
        looked_up = list[tuple[object, ...]]()

        def found(*asked: object, **_: object) -> list[tuple[object, ...]]:
            looked_up.append(asked)
            return [
                (socket.AF_INET6, 1, 6, "", (one, 80, 0, 0))
                if ":" in one
                else (socket.AF_INET, 1, 6, "", (one, 80))
                for one in addresses
            ]

        monkeypatch.setattr(socket, "getaddrinfo", found)
        return looked_up

    return leads_to


Leads = Callable[..., list[tuple[object, ...]]]


def test_a_name_of_several_addresses_means_all_of_them(leads_to: Leads) -> None:
    looked_up = leads_to("10.0.0.2", "fd00::1", "10.0.0.1", "10.0.0.2", "fd00::2")
    assert resolved(["http://worker:8001/base/"]) == [
        Address("http://10.0.0.1:8001/base", "worker:8001"),
        Address("http://10.0.0.2:8001/base", "worker:8001"),
    ]
    assert [address.url for address in resolved(["https://worker"])] == [
        "https://10.0.0.1",
        "https://10.0.0.2",
    ]
    assert looked_up == [("worker", 8001), ("worker", 443)]


def test_where_there_are_only_the_newer_kind_these_are_meant(leads_to: Leads) -> None:
    leads_to("fd00::2", "fd00::1")
    assert resolved(["http://worker:8001"]) == [
        Address("http://[fd00::1]:8001", "worker:8001"),
        Address("http://[fd00::2]:8001", "worker:8001"),
    ]


@pytest.mark.parametrize("addresses", [("127.0.0.1", "::1"), ("::1",), ("127.0.0.1", "127.0.0.1")])
def test_a_name_of_one_server_stays_a_name(leads_to: Leads, addresses: tuple[str, ...]) -> None:
    leads_to(*addresses)
    assert resolved(["http://localhost:8001/"]) == [Address("http://localhost:8001")]


def test_who_is_named_twice_is_one_server(leads_to: Leads) -> None:
    leads_to("10.0.0.1", "10.0.0.2")
    several = resolved(["http://worker:1", "http://worker:1/", "http://worker:1"])
    assert [address.url for address in several] == ["http://10.0.0.1:1", "http://10.0.0.2:1"]
    leads_to("10.0.0.1")
    assert resolved(["http://10.0.0.1:80/", "http://10.0.0.1"]) == [Address("http://10.0.0.1")]


def test_a_server_named_and_numbered_is_one_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        hosts = ["10.0.0.1", "10.0.0.2"] if host == "worker" else [host]
        return [(socket.AF_INET, 1, 6, "", (one, 80)) for one in hosts]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    urls = [one.url for one in resolved(["http://worker:1", "http://10.0.0.2:1"])]
    assert urls == ["http://10.0.0.1:1", "http://10.0.0.2:1"]


def test_a_user_and_a_path_stay_part_of_an_address(leads_to: Leads) -> None:
    leads_to("10.0.0.1", "10.0.0.2")
    first, _ = resolved(["http://me:secret@worker:8001/a/b/"])
    assert first == Address("http://me:secret@10.0.0.1:8001/a/b", "worker:8001")
    assert address_of("http://c:80/").url == "http://c"


def test_no_worker_is_no_address() -> None:
    assert resolved([]) == []


@pytest.mark.parametrize(
    "url",
    [
        "", "w", "w:8001", "127.0.0.1:8001", "ftp://w", "http://", "http://:80", "http://w:port",
        "http://[::1", "http://w\n", "http://w:99999", "http://w/?a=1", "http://w/#a",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_in_a_sentence(url: str) -> None:
    for take in (lambda: resolved([url]), lambda: address_of(url)):
        with pytest.raises(BadReply) as refused:
            take()
        assert str(refused.value).startswith(f"{url!r} is no address: ")


def test_a_name_that_leads_nowhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    for host in ("a..b", "a" * 70):
        with pytest.raises(BadReply, match="leads nowhere: encoding with 'idna' codec failed"):
            resolved([f"http://{host}"])
    monkeypatch.setattr(socket, "getaddrinfo", lost)
    with pytest.raises(BadReply, match="'nowhere' leads nowhere: Name or service not known"):
        resolved(["http://nowhere"])


def test_who_is_meant_is_named_with_each_batch() -> None:
    service = Service(LOST, httpx.Response(202, json={"accepted": len(BATCH), "count": 9}))
    service.calls.mean(WORKER, "工作 1")
    service.when_posted()
    assert [one.headers["median-worker"] for one in service.asked] == ["%E5%B7%A5%E4%BD%9C%201"] * 2
