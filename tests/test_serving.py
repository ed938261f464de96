"""What both services wait with: settings, logs, errors, bodies, and a server that may fail."""

import asyncio
import json
import logging
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from pydantic import ValidationError

import coordinator_service.settings
import worker_service.settings
from shared.serving.again import Hangups
from shared.serving.bodies import body_of
from shared.serving.crowd import Crowd
from shared.serving.errors import Problem, answer_errors, responses
from shared.serving.logs import JsonLines, TextLines, as_of, facts, start_logging
from shared.serving.queries import Q, Stream, name_of
from shared.serving.room import Place, Room
from shared.serving.server import Server, clock, serve
from shared.serving.settings import PREFIX, ServiceSettings

TOP = Path(__file__).parent.parent
Coordinator = coordinator_service.settings.Settings
Worker = worker_service.settings.Settings
BOTH: list[type[ServiceSettings]] = [Coordinator, Worker]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whoever runs the tests."""
    for one in BOTH:
        for variable, _, _ in one.table():
            monkeypatch.delenv(variable, raising=False)


# Settings


def mistakes(kind: type[ServiceSettings]) -> list[str]:
    with pytest.raises(SystemExit) as left:
        kind.of([], "python -m service")
    assert isinstance(left.value.code, str)
    return left.value.code.splitlines()


def test_settings_come_from_variables_with_the_prefix_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEDIAN_EPSILON", "0.05")
    monkeypatch.setenv("EPSILON", "0.1")
    monkeypatch.setenv("HOST", "10.0.0.1")
    settings = Coordinator.of([], "")
    assert (settings.epsilon, settings.host, settings.port) == (0.05, "127.0.0.1", 8000)


@pytest.mark.parametrize("kind", BOTH)
def test_settings_do_not_change(kind: type[ServiceSettings]) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(kind(), "port", 1)  # noqa: B010  as a property, which mypy would not let us set


BAD = [
    *(
        (Coordinator, "EPSILON", given)
        for given in ("0", "0.0004", "0.5", "-1", "nan", "inf", "1%")
    ),
    *((Coordinator, "HEARTBEAT_S", given) for given in ("0", "0.04", "61", "nan", "inf", "5s")),
    *((Coordinator, "PORT", given) for given in ("-1", "65536", "1.5", "http", "")),
    *((Worker, "PORT", given) for given in ("-1", "65536")),
    *((Worker, "BODY_S_MAX", given) for given in ("0", "3601", "nan", "inf")),
    *((Worker, "BODY_BYTES_MAX", given) for given in ("1023", "1073741825", "1e3.", "inf")),
    *((Worker, "DIGEST_RANK_ERROR", given) for given in ("0.00002", "0.5", "nan", "inf")),
    *((Worker, "LINGER_S", given) for given in ("0", "61", "nan", "inf", "-inf")),
    *((Worker, "REQUEST_S_MAX", given) for given in ("0", "61", "nan")),
    *((Worker, "BACKOFF_S_MAX", given) for given in ("0", "61", "nan")),
    *((Worker, "ANSWER_S_MAX", given) for given in ("0", "3601", "nan")),
    *((Worker, "GOODBYE_S_MAX", given) for given in ("0", "61", "nan")),
    *((Worker, "IDEMPOTENCY_KEYS_MAX", given) for given in ("0", "10000001")),
    *((Worker, "WHEN_CUT_OFF", given) for given in ("", "wait", "COUNT")),
    *((Worker, "LOG_LEVEL", given) for given in ("", "loud")),
    *((Worker, "LOG_FORMAT", given) for given in ("", "xml")),
    *((Worker, "COORDINATOR_URL", given) for given in ("", "coordinator:8000", "ftp://x")),
    *((Worker, "COORDINATOR_URL", given) for given in ("http://", "http://x:99999")),
    *((Worker, "WORKER_NAME", given) for given in ("x" * 101, "a\tb", "a\nb")),
]


@pytest.mark.parametrize(("kind", "name", "given"), BAD)
def test_what_is_no_setting_is_refused_by_its_name_and_value(
    kind: type[ServiceSettings], name: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + name, given)
    (line,) = mistakes(kind)
    shown = given if given.isprintable() else repr(given)
    assert line.startswith(f"MEDIAN_{name}={shown}: ")


GOOD = [
    (Coordinator, "EPSILON", "0.0005", 0.0005),
    (Coordinator, "EPSILON", "0.4999", 0.4999),
    (Coordinator, "HEARTBEAT_S", "60", 60),
    (Coordinator, "PORT", "0", 0),
    (Worker, "PORT", "65535", 65535),
    (Worker, "DIGEST_RANK_ERROR", "0.000025", 0.000025),
    (Worker, "WHEN_CUT_OFF", "refuse", "refuse"),
    (Worker, "COORDINATOR_URL", "https://median.example/", "https://median.example"),
    (Worker, "WORKER_NAME", "ein Wörker", "ein Wörker"),
]


@pytest.mark.parametrize(("kind", "name", "given", "meant"), GOOD)
def test_what_lies_at_the_edge_is_a_setting(
    kind: type[ServiceSettings],
    name: str,
    given: str,
    meant: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PREFIX + name, given)
    assert getattr(kind.of([], ""), name.lower()) == meant


def test_each_mistake_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "LINGER_S", "BODY_S_MAX"):
        monkeypatch.setenv(PREFIX + name, "x")
    assert sorted(line.partition("=")[0] for line in mistakes(Worker)) == [
        "MEDIAN_BODY_S_MAX",
        "MEDIAN_LINGER_S",
        "MEDIAN_PORT",
    ]


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("kind", BOTH)
def test_help_says_of_each_setting_its_default_and_what_it_does(
    kind: type[ServiceSettings], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        kind.of([option], "python -m service")
    assert left.value.code == 0
    head, *said = capsys.readouterr().out.split("\n\n", 1)
    assert head.startswith("python -m service: set by environment variables")
    assert said == [
        "".join(f"  {name} [{default}]\n      {words}\n" for name, default, words in kind.table())
    ]


@pytest.mark.parametrize("kind", BOTH)
def test_arguments_are_refused(kind: type[ServiceSettings]) -> None:
    with pytest.raises(SystemExit, match=r"^python -m service takes no arguments: it is set by"):
        kind.of(["--port", "1"], "python -m service")


@pytest.mark.parametrize("kind", BOTH)
def test_the_table_has_each_setting_with_words_and_a_default_that_is_one(
    kind: type[ServiceSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = kind.table()
    assert [name for name, _, _ in table] == [PREFIX + name.upper() for name in kind.model_fields]
    assert [name for name, _, words in table if len(words) < 10] == []
    for name, default, _ in table:
        monkeypatch.setenv(name, default)
    assert kind() == kind.model_construct()


def test_the_table_names_the_choices_where_there_are_some() -> None:
    said = {name: words for name, _, words in Worker.table()}
    assert said["MEDIAN_LOG_FORMAT"] == "how log lines look (text, json)"
    assert said["MEDIAN_WHEN_CUT_OFF"].endswith("(count, refuse)")


def test_a_worker_without_a_name_is_called_after_its_host_and_port() -> None:
    assert re.fullmatch(r".+-8001", Worker().name)
    assert Worker(worker_name="w1").name == "w1"


# What README says of settings


def tables(page: str) -> Iterator[list[tuple[str, ...]]]:
    for found in re.findall(
        r"\| variable \| default \| what it does \|\n\|[- |]+\n((?:\|.*\n)+)", page
    ):
        rows = (row.strip("|").split(" | ") for row in found.splitlines())
        yield [tuple(cell.strip().strip("`") for cell in row) for row in rows]


def test_every_setting_is_documented() -> None:
    page = (TOP / "README.md").read_text()
    assert list(tables(page)) == [Coordinator.table(), Worker.table()]


# Logs


def a_record(**given: Any) -> logging.LogRecord:
    given = {
        "name": "worker.courier",
        "levelno": logging.INFO,
        "levelname": "INFO",
        "created": 1.5,
    } | given
    return logging.makeLogRecord({"msg": "delta signed", **given})


def failed() -> Any:
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        return type(error), error, error.__traceback__


def test_a_line_of_text_has_time_level_source_event_and_facts() -> None:
    line = TextLines().format(a_record(**facts(stream="default", upto=1002)))
    assert (
        line
        == "1970-01-01T00:00:01.500Z info    worker.courier: delta signed stream=default upto=1002"
    )


def test_a_line_of_json_has_the_same_as_fields() -> None:
    line = JsonLines().format(a_record(**facts(stream="default", upto=1002, path=Path("x"))))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "info",
        "source": "worker.courier",
        "event": "delta signed",
        "stream": "default",
        "upto": 1002,
        "path": "x",
    }


def test_an_exception_is_in_one_line_of_json_with_all_its_own() -> None:
    line = JsonLines().format(a_record(exc_info=failed()))
    assert "\n" not in line
    error = json.loads(line)["error"]
    assert error.startswith("Traceback")
    assert error.endswith("ZeroDivisionError: division by zero")


def test_an_exception_is_in_a_text_log_too() -> None:
    assert "ZeroDivisionError: division by zero" in TextLines().format(a_record(exc_info=failed()))


def test_a_time_has_milliseconds_even_where_they_are_none() -> None:
    assert as_of(0) == "1970-01-01T00:00:00.000Z"


@pytest.fixture
def _old_logging() -> Iterator[None]:
    """As it was before the test."""
    root, httpx_log = logging.getLogger(), logging.getLogger("httpx")
    handlers, level, httpx_level = root.handlers[:], root.level, httpx_log.level
    root.handlers = []
    yield
    root.handlers = handlers
    root.setLevel(level)
    httpx_log.setLevel(httpx_level)


@pytest.mark.usefixtures("_old_logging")
def test_logging_writes_what_is_bad_enough_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_logging("json", "warning")
    logging.getLogger("worker").info("unheard")
    logging.getLogger("worker").warning("heard %s", "once", extra=facts(n=1))
    out, err = capsys.readouterr()
    (line,) = map(json.loads, err.splitlines())
    assert (out, line["level"], line["event"], line["n"]) == ("", "warning", "heard once", 1)


@pytest.mark.usefixtures("_old_logging")
def test_no_push_is_logged_twice(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging("text", "info")
    logging.getLogger("httpx").info("HTTP Request: POST http://coordinator:8000/deltas")
    logging.getLogger("worker").info("heard")
    assert [line.partition("worker: ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "heard"
    ]


# Errors and bodies


def an_app() -> FastAPI:
    app = FastAPI()
    answer_errors(app)

    @app.get("/asked", responses=responses(_422="no", _404="nothing"))
    async def asked(q: Q, stream: Stream = "default") -> str:
        return f"{q} of {name_of(stream)}"

    @app.get("/problem")
    async def problem(position: int | None = None) -> None:
        raise Problem(
            429, "too_often", "come later", position=position, headers={"retry-after": "1"}
        )

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("a secret")

    @app.post("/body")
    async def body(request: Request) -> int:
        return len(await body_of(request, a_place(), bytes_max=10, s_max=0.05))

    return app


def asked(method: str, path: str, **given: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(an_app(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.request(method, path, **given)

    return asyncio.run(ask())


TOO_SHORT = "String should have at least 1 character"


def error_of(response: httpx.Response) -> tuple[int, str, str]:
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"code", "message"}
    return response.status_code, error["code"], error["message"]


def test_a_problem_has_its_status_code_message_and_headers() -> None:
    response = asked("GET", "/problem")
    assert error_of(response) == (429, "too_often", "come later")
    assert response.headers["retry-after"] == "1"


def test_a_problem_says_which_value_is_to_blame_even_the_first() -> None:
    assert asked("GET", "/problem?position=0").json()["error"]["position"] == 0


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/nowhere", (404, "not_found", "GET /nowhere: not found")),
        ("PUT", "/problem", (405, "method_not_allowed", "PUT /problem: method not allowed")),
        ("GET", "/asked", (422, "invalid", "q: Field required")),
        ("GET", "/asked?q=2", (422, "invalid", "q: Input should be less than or equal to 1")),
        ("GET", "/asked?q=nan", (422, "invalid", "q: Input should be less than or equal to 1")),
        ("GET", "/asked?q=1&stream=", (422, "invalid", "stream: " + TOO_SHORT)),
        ("GET", "/bug", (500, "internal", "this is a bug of ours; the log says more")),
        ("POST", "/body", (413, "too_large", "a body has at most 10 bytes: send it in parts")),
    ],
)  # fmt: skip
def test_whatever_goes_wrong_has_one_shape(
    method: str, path: str, error: tuple[int, str, str]
) -> None:
    assert error_of(asked(method, path, content=b"x" * 11 * (method == "POST"))) == error


def test_a_name_has_no_control_characters() -> None:
    assert error_of(asked("GET", "/asked?q=0.5&stream=a%0Ab"))[:2] == (422, "bad_name")
    assert asked("GET", "/asked?q=0.5&stream=Käse").json() == "0.5 of Käse"


def test_the_documentation_of_an_error_is_its_shape() -> None:
    documented = an_app().openapi()["paths"]["/asked"]["get"]["responses"]
    assert {status: one["description"] for status, one in documented.items()} == {
        "200": "Successful Response",
        "404": "nothing",
        "422": "no",
    }
    schema = documented["404"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/FaultAnswer"}


def test_a_body_comes_whole() -> None:
    assert asked("POST", "/body", content=b"").json() == 0
    assert asked("POST", "/body", content=b"x" * 10).json() == 10


def a_place() -> Place:
    return Room(requests_max=1, bytes_max=10).place()


def read(*messages: dict[str, Any], headers: dict[str, str] | None = None) -> bytes | Problem:
    """The body in these messages, of which no more come; or what is wrong with it."""
    pieces = list(messages)

    async def receive() -> dict[str, Any]:
        if not pieces:
            await asyncio.Event().wait()
        return pieces.pop(0)

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    request = Request({"type": "http", "method": "POST", "headers": raw}, receive)
    try:
        return asyncio.run(body_of(request, a_place(), bytes_max=10, s_max=0.05))
    except Problem as problem:
        return problem


def piece(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def code_of(found: bytes | Problem) -> tuple[int, str]:
    assert isinstance(found, Problem)
    return found.status, found.code


def test_a_body_in_pieces_is_put_together() -> None:
    assert read(piece(b"abc"), piece(b""), piece(b"de"), piece(b"", more=False)) == b"abcde"


def test_a_body_that_declares_to_be_too_large_is_not_read() -> None:
    assert code_of(read(headers={"content-length": "11"})) == (413, "too_large")


def test_a_body_that_is_compressed_is_not_taken_for_what_it_is_not() -> None:
    assert code_of(read(piece(b"x", more=False), headers={"content-encoding": "gzip"}))[0] == 415


def test_a_body_that_grows_too_large_is_not_read_to_its_end() -> None:
    found = read(piece(b"x" * 6), piece(b"x" * 6))
    assert code_of(found) == (413, "too_large")
    assert isinstance(found, Problem)
    assert found.headers == {"connection": "close"}


@pytest.mark.parametrize("declared", ["-1", "x", "²"])
def test_what_is_no_length_declares_nothing(declared: str) -> None:
    assert read(piece(b"abc", more=False), headers={"content-length": declared}) == b"abc"


def test_a_body_that_does_not_arrive_is_given_up() -> None:
    assert code_of(read(piece(b"abc"))) == (408, "too_slow")


Receive = Callable[[], Awaitable[dict[str, Any]]]


async def told(room: Room, receive: Receive, *, s_max: float = 60) -> bytes | Problem:
    """The body that is received in a place of its own, or what is wrong with it."""
    with room.place() as place:
        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        try:
            return await body_of(request, place, bytes_max=10, s_max=s_max)
        except Problem as problem:
            return problem


async def reads(room: Room, receive: Receive, *, s_max: float = 60) -> asyncio.Task[Any]:
    """The same as a task, once it waits."""
    task = asyncio.create_task(told(room, receive, s_max=s_max))
    while not room.reading:
        await asyncio.sleep(0)
    return task


def test_who_gives_way_is_told_so_even_if_its_last_piece_comes_in_that_moment() -> None:
    async def story() -> None:
        room, pieces = Room(requests_max=1, bytes_max=10), asyncio.Queue[dict[str, Any]]()
        slow = await reads(room, pieces.get)
        pieces.put_nowait(piece(b"abc", more=False))
        with room.place():
            assert (room.requests, room.bytes) == (1, 0)
            assert code_of(await slow) == (408, "too_slow")
            assert (room.requests, room.bytes, room.shed) == (1, 0, 1)
        assert (room.requests, room.bytes) == (0, 0)

    asyncio.run(story())


def test_pieces_that_come_after_it_gave_way_bring_nobody_back() -> None:
    async def story() -> None:
        room = Room(requests_max=1, bytes_max=10)

        async def comes_late() -> dict[str, Any]:
            if not room.shed and room.reading:
                room.place().__enter__()
            return piece(b"a")

        assert code_of(await told(room, comes_late)) == (408, "too_slow")
        assert (room.requests, room.bytes, len(room.reading)) == (1, 0, 0)

    asyncio.run(story())


def test_who_gives_way_when_its_time_is_up_anyway_is_told_once() -> None:
    async def story() -> None:
        room, loop = Room(requests_max=1, bytes_max=10), asyncio.get_running_loop()
        slow = await reads(room, asyncio.Event().wait, s_max=0.01)  # type: ignore[arg-type]
        loop.call_later(0.02, lambda: room.place().__enter__())
        time.sleep(0.05)  # both are late then, in this order
        assert code_of(await slow) == (408, "too_slow")
        assert (room.requests, len(room.reading)) == (1, 0)

    asyncio.run(story())


def test_a_body_whose_sender_went_away_is_cut_short() -> None:
    assert code_of(read(piece(b"abc"), {"type": "http.disconnect"})) == (400, "cut_short")


# The server


def test_a_server_that_fails_stops_and_says_so() -> None:
    server = Server(uvicorn.Config(FastAPI()), asyncio.Event(), Crowd(1))
    assert not server.failed
    server.fail()
    assert server.failed
    assert server.should_exit


def serve_with(run: Callable[[Server], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the server, once it is made, ran like this."""
    monkeypatch.setattr(sys, "setswitchinterval", lambda _: None)
    monkeypatch.setattr(Server, "run", run)
    app = FastAPI()
    app.state.crowd = Crowd(1)
    serve(lambda _, __: app, ServiceSettings(port=0), Hangups())


def test_a_server_that_was_interrupted_leaves_in_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(server: Server) -> None:
        server.started = True
        raise KeyboardInterrupt

    serve_with(run, monkeypatch)


def test_a_server_that_never_started_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="1"):
        serve_with(lambda _: None, monkeypatch)


def test_a_server_has_as_many_connections_as_there_are_descriptors_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.serving.server.afforded", lambda most: (most + 6, 9))

    def run(server: Server) -> None:
        server.started = True
        assert isinstance(server.server_state, Crowd)
        assert (server.server_state.connections_max, server.config.backlog) == (7, 9)

    serve_with(run, monkeypatch)


def test_the_clock_never_goes_back() -> None:
    times = [clock() for _ in range(100)]
    assert times == sorted(times)


def test_where_nothing_counts_time_asleep_the_clock_is_monotonic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("time.CLOCK_BOOTTIME", raising=False)
    monkeypatch.setattr("time.monotonic", lambda: 12.5)
    assert clock() == 12.5


def test_a_variable_that_is_no_setting_is_named_at_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"{PREFIX}EPSLON", "0.1")
    monkeypatch.setenv(f"{PREFIX}EPSILON", "0.1")
    assert Coordinator.strangers() == ["MEDIAN_EPSLON"]
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        start_logging("text", "info", Coordinator.strangers())
    finally:
        root.handlers[:], level = before
        root.setLevel(level)
    assert "settings: MEDIAN_EPSLON is no setting of this service" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["http://u:p@x", "http://x/?y=1", "http://x/#y"])
def test_an_address_with_what_should_not_be_shown_is_refused(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}COORDINATOR_URL", given)
    (line,) = mistakes(Worker)
    assert "has no user" in line


@pytest.mark.parametrize(
    ("value", "shown"),
    [("calm", "calm"), ("a upto=9", '"a upto=9"'), ("a\nb", r'"a\nb"'), ('"', r'"\""'), (9, "9")],
)
def test_no_value_in_a_line_of_text_can_be_read_as_another(value: object, shown: str) -> None:
    record = logging.LogRecord("uvicorn.error", logging.INFO, "", 0, "here", (), None)
    record.__dict__ |= facts(stream=value)
    assert TextLines().format(record).endswith(f" uvicorn: here stream={shown}")
