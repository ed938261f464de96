"""Doors: each kind of request opens to its own token, and to nothing else."""

import asyncio
import logging
import signal
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from starlette.routing import Route

import coordinator_service.__main__
import coordinator_service.app
import coordinator_service.settings
import worker_service.__main__
import worker_service.app
import worker_service.settings
from shared.serving.doors import tell_of_doors
from shared.serving.logs import JsonLines, TextLines
from shared.serving.server import clock
from shared.serving.settings import ServiceSettings
from shared.serving.tokens import Tokens
from tests import cluster
from tests.cluster import Cluster, Node, run
from tests.processes import Processes, until
from tests.test_worker_app import check_problem

Coordinator = coordinator_service.settings.Settings
Worker = worker_service.settings.Settings

TOKENS = {name: f"the-{name}-token-of-2026" for name in ("push", "ingest", "read", "admin")}
# What is behind which door, here and nowhere else in words: a new route is added to this.
COORDINATOR = {
    "POST /deltas": "push",
    "POST /workers/{name:path}/retire": "admin",
    **dict.fromkeys(
        (
            "GET /median", "GET /median/events", "GET /median/history", "GET /quantile",
            "GET /streams", "GET /cdf", "GET /workers", "GET /explain", "GET /metrics",
        ),
        "read",
    ),
    **dict.fromkeys(("GET /health", "GET /ready", "GET /", "GET /dashboard/{name}"), None),
}  # fmt: skip
WORKER = {
    **dict.fromkeys(("POST /values", "POST /flush"), "ingest"),
    **dict.fromkeys(("GET /median", "GET /quantile", "GET /digest", "GET /metrics"), "read"),
    **dict.fromkeys(("GET /health", "GET /ready"), None),
}
ENDLESS = "GET /median/events"
DOCUMENTS = {"GET /openapi.json", "GET /docs"}


def coordinator(**tokens: str) -> coordinator_service.app.App:
    return coordinator_service.app.create_app(
        Coordinator(**named(tokens, Coordinator)), clock=clock, wall=clock
    )


def worker(**tokens: str) -> FastAPI:
    return worker_service.app.create_app(Worker(**named(tokens, Worker)), clock=clock)


def named(tokens: dict[str, str], kind: type[ServiceSettings]) -> dict[str, Any]:
    """Those that this service has a door for, as its settings are called."""
    return {f"{name}_token": token for name, token in tokens.items() if name in kind.doors}


def asked(
    app: FastAPI, method: str, path: str, token: str | bytes | None, *, origin: str = ""
) -> httpx.Response:
    shown = token if isinstance(token, bytes) else f"Bearer {token}".encode()
    headers = {} if token is None else {b"authorization": shown}
    headers |= {b"origin": origin.encode()} if origin else {}

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://s") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(asyncio.wait_for(ask(), 30))


def routes(router: Any) -> Iterator[str]:
    """Of an app; some versions of FastAPI keep the routers that it includes as they are."""
    for route in router.routes:
        if isinstance(route, Route):
            yield from (f"{method} {route.path}" for method in (route.methods or set()) - {"HEAD"})
        else:
            yield from routes(route.original_router)


@pytest.mark.parametrize(
    ("app", "plan"),
    [(coordinator(), COORDINATOR), (worker(), WORKER)],
    ids=["coordinator", "worker"],
)
def test_every_route_has_its_place_in_the_plan(app: FastAPI, plan: dict[str, str | None]) -> None:
    assert set(routes(app)) - DOCUMENTS == set(plan)


PLACES = [
    *((coordinator, route, door) for route, door in COORDINATOR.items() if route != ENDLESS),
    *((worker, route, door) for route, door in WORKER.items()),
]


@pytest.mark.parametrize(("make", "route", "door"), PLACES)
def test_a_door_opens_to_its_own_token_alone(make: Any, route: str, door: str | None) -> None:
    method, path = route.replace("{name:path}", "w").replace("{name}", "main.js").split()
    app = make(**TOKENS)
    wrong = [None, "", "x" * 20, *(token for name, token in TOKENS.items() if name != door)]
    for token in wrong:
        response = asked(app, method, path, token)
        if door is None:
            assert response.status_code != 401
            continue
        message = check_problem(response, 401, "unauthorized")
        assert message.startswith(f"{method} {path} asks for the {door} token; ")
        assert response.headers["www-authenticate"].startswith(f'Bearer realm="{door}"')
        assert response.headers["connection"] == "close"
    assert asked(app, method, path, TOKENS.get(door or "")).status_code != 401
    assert asked(make(), method, path, None).status_code != 401


def test_live_answers_are_behind_the_door_of_readers() -> None:
    app = coordinator(**TOKENS)
    for token in (None, TOKENS["push"]):
        check_problem(asked(app, "GET", "/median/events", token), 401, "unauthorized")
    refused = asked(app, "GET", "/median/events?stream=none", TOKENS["read"])
    check_problem(refused, 404, "unknown_stream")


@pytest.mark.parametrize("path", ["/median", "/median?stream=default"])
@pytest.mark.parametrize(
    ("shown", "status"),
    [
        (f"Bearer {TOKENS['read']}".encode(), 200),
        (f"bearer   {TOKENS['read']} ".encode(), 200),
        (f"Basic {TOKENS['read']}".encode(), 401),
        (TOKENS["read"].encode(), 401),
        (f"Bearer {TOKENS['read']}x".encode(), 401),
        (f"Bearer {TOKENS['read'][:-1]}".encode(), 401),
        (b"Bearer", 401),
        (b"", 401),
        (b"\xff\xfe", 401),
        (b"Bearer \x80" + b"\xff" * 5000, 401),
    ],
)
def test_a_token_is_shown_as_a_bearer_does(path: str, shown: bytes, status: int) -> None:
    assert asked(coordinator(**TOKENS), "GET", path, shown).status_code == status


def test_what_is_meant_for_a_proxy_opens_nothing() -> None:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(coordinator(**TOKENS))
        headers = {"proxy-authorization": f"Bearer {TOKENS['read']}", "x-authorization": "x"}
        async with httpx.AsyncClient(transport=transport, base_url="http://s") as client:
            return await client.get("/median", headers=headers)

    check_problem(asyncio.run(ask()), 401, "unauthorized")


def test_who_may_not_push_takes_no_turn_of_those_who_may(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, app = [], coordinator(**TOKENS)

    async def turn() -> None:
        turns.append(1)

    monkeypatch.setattr(app.coordinator.turns, "enter", turn)
    assert asked(app, "POST", "/deltas", TOKENS["read"]).status_code == 401
    assert turns == []
    assert asked(app, "POST", "/deltas", TOKENS["push"]).status_code == 415
    assert turns == [1]


def test_any_of_several_tokens_opens() -> None:
    app = coordinator(read=f"{TOKENS['read']} {TOKENS['admin']}")
    for name in ("read", "admin"):
        assert asked(app, "GET", "/median", TOKENS[name]).status_code == 200
    assert asked(app, "GET", "/median", TOKENS["push"]).status_code == 401


@pytest.mark.parametrize(
    ("make", "doors"),
    [(coordinator, ["push", "read", "admin"]), (worker, ["ingest", "read"])],
    ids=["coordinator", "worker"],
)
def test_health_says_what_is_closed_to_who_asks(make: Any, doors: list[str]) -> None:
    def closed(app: FastAPI, token: str | None) -> list[str]:
        told: list[str] = asked(app, "GET", "/health", token).json()["closed"]
        return told

    assert closed(make(), None) == []
    assert closed(make(read=TOKENS["read"]), None) == ["read"]
    assert closed(make(**TOKENS), None) == doors
    for door in doors:
        assert closed(make(**TOKENS), TOKENS[door]) == [one for one in doors if one != door]


@pytest.mark.parametrize("make", [coordinator, worker])
def test_why_it_is_not_ready_is_told_to_readers_alone(make: Any) -> None:
    app = make(**TOKENS)
    reason = check_problem(asked(app, "GET", "/ready", TOKENS["read"]), 503, "not_ready")
    assert reason in asked(make(), "GET", "/ready", None).text or "listens" in reason
    hidden = check_problem(asked(app, "GET", "/ready", TOKENS["push"]), 503, "not_ready")
    assert hidden == "why is told with the read token"


def test_metrics_count_who_was_turned_away_by_door() -> None:
    app = coordinator(**TOKENS)
    for _ in range(3):
        asked(app, "POST", "/deltas", "wrong")
    asked(app, "GET", "/median", None)
    text = asked(app, "GET", "/metrics", TOKENS["read"]).text
    assert 'median_coordinator_unauthorized_total{door="push"} 3.0' in text
    assert 'median_coordinator_unauthorized_total{door="read"} 1.0' in text
    assert 'median_coordinator_unauthorized_total{door="admin"} 0.0' in text


@pytest.mark.parametrize("make", [coordinator, worker])
def test_the_documentation_knows_the_doors_that_have_a_lock(make: Any) -> None:
    assert "securitySchemes" not in make().openapi()["components"]
    document = make(read=TOKENS["read"]).openapi()
    assert set(document["components"]["securitySchemes"]) == {"read"}
    assert document["paths"]["/median"]["get"]["security"] == [{"read": []}]
    assert "401" in document["paths"]["/median"]["get"]["responses"]
    assert "security" not in document["paths"]["/health"]["get"]
    assert TOKENS["read"] not in str(document)


def test_nothing_of_a_body_is_read_before_the_token() -> None:
    """A door is ahead of whatever else may be wrong with a request."""

    async def story() -> None:
        async def receive() -> Any:
            raise AssertionError("the body was asked for")

        async def send(message: Any) -> None:
            sent.append(message)

        for app, path in ((coordinator(**TOKENS), "/deltas"), (worker(**TOKENS), "/values")):
            sent: list[Any] = []
            headers = [(b"content-length", b"99999999999"), (b"content-type", b"none")]
            scope = {
                "type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
                "query_string": b"no=parameter", "headers": headers, "root_path": "",
                "scheme": "http", "server": ("s", 80), "client": ("c", 1), "http_version": "1.1",
            }  # fmt: skip
            await app(scope, receive, send)
            assert sent[0]["status"] == 401

    asyncio.run(asyncio.wait_for(story(), 30))


@pytest.mark.parametrize(
    ("origin", "may"),
    [
        ("http://elsewhere.example", False),
        ("https://s.elsewhere.example", False),
        ("http://s:8000", False),
        ("null", False),
        ("http://[::1", False),
        ("x" * 5000, False),
        ("http://s", True),
        ("https://s", True),
        ("", True),
    ],
)
@pytest.mark.parametrize(
    ("make", "route"),
    [(coordinator, "/deltas"), (coordinator, "/workers/w/retire"), (worker, "/values")],
)
def test_a_page_of_another_origin_changes_nothing_where_no_token_is_asked_for(
    make: Any, route: str, origin: str, may: bool
) -> None:
    response = asked(make(), "POST", route, None, origin=origin)
    assert (response.status_code == 403) == (not may)
    if not may:
        assert len(check_problem(response, 403, "cross_origin")) < 200
    assert asked(make(), "GET", "/median", None, origin=origin).status_code == 200
    assert asked(make(**TOKENS), "POST", route, None, origin=origin).status_code == 401


# A worker and its coordinator


def test_a_worker_shows_its_token(rng: np.random.Generator) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=1, push_token=f"{TOKENS['push']} {'old' * 9}") as all_:
            await all_.start_coordinator(push_token=TOKENS["push"])
            (node,) = all_.nodes
            assert (await node.client.post("/values", json=[1, 2, 3])).status_code == 202
            assert (await all_.coordinator.json("/median"))["median"] == 2

    run(story())


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        ("", "MEDIAN_PUSH_TOKEN is not set, and it asks for one"),
        ("not-the-right-token", "MEDIAN_PUSH_TOKEN is not what it asks for"),
    ],
)
def test_a_worker_without_the_token_is_not_ready_and_says_why(
    rng: np.random.Generator, shown: str, told: str
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=0) as all_:
            await all_.start_coordinator(push_token=TOKENS["push"])
            await all_.start_worker(push_token=shown)
            (node,) = all_.nodes

            async def says_why() -> bool:
                return told in (await node.client.get("/ready")).text

            await cluster.until(says_why, "it said that it has no token")

    run(story())


def test_a_token_that_was_changed_is_missed_at_the_next_push_and_found_again(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with Cluster(rng, workers=1, push_token=TOKENS["push"]) as all_:
            (node,) = all_.nodes
            await cluster.until(lambda: status(node, 200), "it met the coordinator")
            await all_.start_coordinator(push_token=TOKENS["admin"])
            posting = asyncio.create_task(node.client.post("/values", json=[1, 2, 3]))
            await cluster.until(lambda: status(node, 503), "it was turned away")
            assert not posting.done()
            await all_.start_coordinator(push_token=f"{TOKENS['admin']} {TOKENS['push']}")
            assert (await posting).status_code == 202
            await cluster.until(lambda: status(node, 200), "it was let in again")
            assert (await all_.coordinator.json("/median"))["count"] == 3

    run(story())
    assert TOKENS["push"] not in caplog.text


async def status(node: Node, wanted: int) -> bool:
    return await node.status("/ready") == wanted


# At the start


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_nobody_is_warned_on_loopback(host: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "doors")
    tell_of_doors(Coordinator(host=host, read_token=TOKENS["read"]))
    (record,) = caplog.records
    assert (record.message, record.levelname) == ("doors", "INFO")
    assert vars(record)["facts"] == {"locked": "read", "open": "push,admin"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "coordinator"])  # noqa: S104
def test_open_doors_are_told_once_where_others_may_come(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    tell_of_doors(Coordinator(host=host, port=8000))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"whoever reaches {host}, port 8000, may push deltas, read answers and metrics and retire "
        "workers: to ask for tokens, set MEDIAN_PUSH_TOKEN, MEDIAN_READ_TOKEN and "
        "MEDIAN_ADMIN_TOKEN"
    )


@pytest.mark.parametrize("service", [coordinator_service.__main__, worker_service.__main__])
def test_each_service_says_so_before_it_listens(
    service: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told_before = []
    monkeypatch.setenv("MEDIAN_HOST", "0.0.0.0")  # noqa: S104  it never gets so far
    monkeypatch.setattr(sys, "argv", ["service"])
    monkeypatch.setattr(service, "start_logging", lambda *_: None)
    monkeypatch.setattr(service, "serve", lambda *_: told_before.extend(caplog.messages))
    service.main()
    assert [one for one in told_before if "to ask for tokens, set MEDIAN_" in one] == told_before
    assert len(told_before) == 1


def test_only_doors_without_a_lock_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """And that tokens can be overheard, where nothing says that they cannot."""
    here = "0.0.0.0"  # noqa: S104
    tell_of_doors(Worker(host=here, **named({"ingest": TOKENS["ingest"]}, Worker)))
    tell_of_doors(Worker(host=here, **named(TOKENS, Worker)))
    unlocked, *overheard = caplog.messages
    assert "may read answers and metrics: to ask for tokens, set MEDIAN_READ_TOKEN" in unlocked
    assert len(overheard) == 2
    assert all(one.startswith("tokens come unencrypted: ") for one in overheard)
    encrypted = Worker.model_construct(host=here, tls_cert="cert.pem", **named(TOKENS, Worker))
    tell_of_doors(encrypted)
    assert len(caplog.messages) == 3


@pytest.mark.parametrize(
    ("url", "warns"),
    [
        ("http://10.0.0.1:8000", True),
        ("http://coordinator", True),
        ("https://coordinator", False),
        ("http://127.0.0.1:8000", False),
        ("http://localhost", False),
        ("http://[::1]:8000", False),
    ],
)
def test_a_worker_warns_where_its_token_can_be_overheard(
    url: str, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for token in (TOKENS["push"], ""):
        worker_service.app.create_app(Worker(coordinator_url=url, push_token=token), clock=clock)
    told = [one for one in caplog.messages if one.startswith("the push token goes unencrypted")]
    assert len(told) == warns


# In the logs


def test_no_token_is_logged_whatever_is_logged(tmp_path: Path) -> None:
    """Two services that log all they can, asked with right tokens and wrong ones."""
    tokens = {f"{name}_token": token for name, token in TOKENS.items()}
    wrong = "a-wrong-token-of-somebody"
    with Processes(tmp_path) as processes:
        settings = {
            "log_level": "debug",
            "push_token": TOKENS["push"],
            "read_token": TOKENS["read"],
        }
        coordinator = processes.coordinator(admin_token=TOKENS["admin"], **settings)
        worker = processes.worker("w", ingest_token=TOKENS["ingest"], **settings)
        until(lambda: coordinator.is_up and worker.is_up, "both are up")
        places = [
            *((coordinator, path) for path in ("/workers", "/deltas", "/workers/w/retire")),
            *((worker, path) for path in ("/median", "/values", "/health")),
        ]
        with httpx.Client(trust_env=False) as client:
            for (service, path), token in product(places, (*TOKENS.values(), wrong)):
                shown = {"authorization": f"Bearer {token}", "content-type": "application/json"}
                for method in ("GET", "POST"):
                    client.request(method, service.url + path, headers=shown, content=b"[1]")
        stranger = processes.worker("stranger", push_token=wrong, log_level="debug")
        until(lambda: "is not what it asks for" in stranger.said, "it was turned away")
        until(lambda: "delta signed" in worker.said, "a delta was signed")
        for process in (coordinator, worker, stranger):
            process.tell(signal.SIGTERM)
            process.ended()
            assert [one for one in (*tokens.values(), wrong) if one in process.said] == []
            assert "Traceback" not in process.said


@pytest.mark.parametrize("lines", [TextLines(), JsonLines()])
def test_a_traceback_has_no_token(lines: logging.Formatter) -> None:
    def fails(token: str) -> None:
        raise RuntimeError(f"no luck with {Tokens(token)}")

    try:
        fails(TOKENS["read"])
    except RuntimeError:
        record = logging.LogRecord("s", logging.ERROR, "", 0, "it died", None, sys.exc_info())
    told = lines.format(record)
    assert "no luck with <1 tokens>" in told
    assert TOKENS["read"] not in told
