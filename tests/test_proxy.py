"""The way that may fail: what passes is right, and each thing that can happen does happen."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import pytest

from tests.processes import SOON_S, free_port, until
from tests.proxy import (
    CALM,
    ONLY_REQUESTS_PASS,
    ONLY_RESPONSES_PASS,
    PARTITION,
    Proxy,
    Requests,
    Weather,
)

BODY = np.random.default_rng(1).bytes(300_000)


class Target:
    """Answers each POST with how many have come, and keeps what they said."""

    def __init__(self, port: int = 0) -> None:
        self.came: list[bytes] = []
        came = self.came

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if len(body) < int(self.headers["content-length"]):
                    self.close_connection = True
                    return
                came.append(body)
                said = str(len(came)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: Any) -> None:
                """Clients go away."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_port

    def __enter__(self) -> "Target":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as target:
        yield target


@pytest.fixture
def proxy(target: Target) -> Iterator[Proxy]:
    with Proxy(target.port, seed=1) as proxy:
        yield proxy


@contextmanager
def client(proxy: Proxy, timeout_s: float = SOON_S) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=proxy.url, timeout=timeout_s, trust_env=False) as one:
        yield one


def post(proxy: Proxy, content: bytes = b"some", timeout_s: float = SOON_S) -> str:
    with client(proxy, timeout_s) as one:
        return one.post("/", content=content).text


def is_over(one: socket.socket) -> bool:
    one.settimeout(SOON_S)
    try:
        return one.recv(100) == b""
    except ConnectionResetError:
        return True


def test_when_it_is_calm_all_passes_as_it_was_sent(target: Target, proxy: Proxy) -> None:
    with client(proxy) as one:
        assert [one.post("/", content=body).text for body in (b"a", BODY, b"")] == ["1", "2", "3"]
    assert target.came == [b"a", BODY, b""]
    assert proxy.seen["connections"] == 1
    assert proxy.seen["requests"] > len(BODY) / 2**16


def test_what_is_late_passes_as_it_was_sent(target: Target, proxy: Proxy) -> None:
    proxy.weather = Weather(delay_s=0.02)
    assert post(proxy, BODY) == "1"
    assert target.came == [BODY]


def test_who_is_refused_reaches_nobody(target: Target, proxy: Proxy) -> None:
    proxy.weather = Weather(refused=1)
    with pytest.raises(httpx.TransportError):
        post(proxy)
    assert (target.came, proxy.seen["refused"]) == ([], 1)


def test_a_partition_ends_also_what_was_connected(target: Target, proxy: Proxy) -> None:
    with client(proxy) as one:
        one.post("/", content=b"before")
        proxy.weather = PARTITION
        for _ in range(2):
            with pytest.raises(httpx.TransportError):
                one.post("/", content=b"during")
        proxy.weather = CALM
        one.post("/", content=b"after")
    assert target.came == [b"before", b"after"]
    assert (proxy.seen["dropped"], proxy.seen["refused"]) == (1, 1)


def test_of_what_is_truncated_a_part_arrives() -> None:
    sent = bytes(range(256))
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Proxy(server.getsockname()[1], seed=1) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port)) as sender,
    ):
        proxy.weather = Weather(truncated=1)
        sender.sendall(sent)
        receiver, _ = server.accept()
        with receiver:
            came = b"".join(iter(lambda: receiver.recv(1024), b""))
        assert proxy.seen["truncated"] == 1
    assert 0 < len(came) < len(sent)
    assert sent.startswith(came)


def test_a_request_may_come_twice_and_its_client_is_answered_once(
    target: Target, proxy: Proxy
) -> None:
    proxy.weather = Weather(repeated=1, repeat_s=0.1)
    assert post(proxy, BODY) == "1"
    until(lambda: proxy.seen["repeated"] == 1, "it was sent again")
    assert target.came == [BODY, BODY]


def test_a_request_comes_again_though_its_client_and_its_target_are_gone() -> None:
    port, sent = free_port(), [b"a", b"b", b"c", b"d"]
    with Proxy(port, seed=1) as proxy:
        proxy.weather = Weather(repeated=1, repeat_s=6)
        with Target(port) as target:
            for body in sent:
                post(proxy, body)
        with Target(port) as another:
            until(lambda: another.came, "one came late")
    assert set(target.came) == set(sent)
    assert set(another.came) <= set(sent)


def test_requests_may_pass_and_no_response(target: Target, proxy: Proxy) -> None:
    proxy.weather = ONLY_REQUESTS_PASS
    with pytest.raises(httpx.ReadTimeout):
        post(proxy, timeout_s=0.2)
    until(lambda: proxy.seen["mute responses"], "a response was swallowed")
    assert target.came == [b"some"]


def test_responses_may_pass_and_no_request(target: Target, proxy: Proxy) -> None:
    proxy.weather = ONLY_RESPONSES_PASS
    with pytest.raises(httpx.ReadTimeout):
        post(proxy, timeout_s=0.2)
    until(lambda: proxy.seen["mute requests"], "the request was swallowed")
    assert target.came == []


def test_what_was_swallowed_stays_so_when_the_way_is_mended(target: Target, proxy: Proxy) -> None:
    proxy.weather = ONLY_RESPONSES_PASS
    with socket.create_connection(("127.0.0.1", proxy.port)) as one:
        one.sendall(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nlost")
        until(lambda: proxy.seen["mute requests"], "it was swallowed")
        proxy.weather = CALM
        assert is_over(one)
    assert post(proxy, b"new") == "1"
    assert target.came == [b"new"]


def test_what_is_late_arrives_though_its_client_has_gone(target: Target, proxy: Proxy) -> None:
    proxy.weather = Weather(delay_s=3)
    with pytest.raises(httpx.ReadTimeout):
        post(proxy, timeout_s=0.01)
    until(lambda: target.came == [b"some"], "it arrives")


def test_somebody_is_told_of_one_response_before_it_is_heard(target: Target, proxy: Proxy) -> None:
    told: list[tuple[int, int]] = []
    proxy.at_response = lambda: told.append((len(target.came), proxy.seen["responses"]))
    with client(proxy) as one:
        assert [one.post("/", content=b"a").text for _ in range(2)] == ["1", "2"]
    assert told == [(1, 0)]


def test_the_target_may_be_gone_and_come_back() -> None:
    port = free_port()
    with Proxy(port, seed=1) as proxy:
        with pytest.raises(httpx.TransportError):
            post(proxy)
        assert proxy.seen["nobody there"] == 1
        for _ in range(2):
            with Target(port) as target:
                assert post(proxy, b"here") == "1"
            assert target.came == [b"here"]


@pytest.mark.parametrize("size", [1, 2, 7, 50, 10_000])
def test_requests_are_cut_out_however_the_chunks_come(size: int) -> None:
    sent = [
        b"GET /median HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 12\r\n\r\n\r\n\r\nanything",
        b"POST / HTTP/1.1\r\nCONTENT-LENGTH:0\r\nX: y\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 300000\r\n\r\n" + BODY,
    ]
    data = b"".join(sent) + b"GET / HT"
    cut, step = Requests(), size if size > 7 else 4099 * size
    few = data[:400]
    chunks = [few[at : at + size] for at in range(0, 400, size)]
    chunks += [data[at : at + step] for at in range(400, len(data), step)]
    assert [one for chunk in chunks for one in cut.whole(chunk)] == sent


def test_the_same_seed_throws_the_same_dice(target: Target) -> None:
    def fates(seed: int) -> list[bool]:
        with Proxy(target.port, seed=seed) as proxy:
            proxy.weather = Weather(refused=0.5)
            return [passes(proxy) for _ in range(12)]

    def passes(proxy: Proxy) -> bool:
        try:
            return bool(post(proxy))
        except httpx.TransportError:
            return False

    assert fates(7) == fates(7) != fates(8)
    assert len(set(fates(7))) == 2
