"""Both services, held to what their own documentation says, by requests that it inspires.

Schemathesis reads the documents, and asks real processes what they allow and what they do not: each
answer must have a status, a content type and a shape that are documented.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest
import schemathesis
from hypothesis import settings
from hypothesis import strategies as st
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

import coordinator_service.app
import coordinator_service.settings
import worker_service.app
import worker_service.settings
from shared.serving.server import clock
from tests.processes import Processes, Service

EXAMPLES = 25
NO_SCHEMA_SAYS = {"bad_name", "key_reused"}  # what can be printed; which keys were used before

# To a schema these are strings like any other. So that they are taken, here is what is in them.
BATCHES = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5)
MEDIA = {
    "application/msgpack": BATCHES.map(msgpack.packb),
    "application/octet-stream": BATCHES.map(lambda batch: np.array(batch).tobytes()),
    "text/plain": BATCHES.map(lambda batch: "\n".join(map(repr, batch)).encode()),
}
for media_type, strategy in MEDIA.items():
    schemathesis.openapi.media_type(media_type, strategy)

COORDINATOR = schemathesis.openapi.from_dict(
    coordinator_service.app.create_app(
        coordinator_service.settings.Settings(), clock=clock, wall=clock
    ).openapi()
)
ENDS = COORDINATOR.exclude(
    path="/median/events"
)  # whose answer has no end: test_live.py asks there
WORKER = schemathesis.openapi.from_dict(
    worker_service.app.create_app(worker_service.settings.Settings(), clock=clock).openapi()
)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Service]]:
    """A coordinator, and a worker that it knows."""
    with Processes(tmp_path_factory.mktemp("services")) as processes:
        coordinator = processes.cluster("w1", log_level="warning", linger_s=0.05)
        worker = processes.workers["w1"]
        assert worker.post("/flush").status_code == 200
        yield coordinator, worker


def documented(schema: BaseSchema) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in schema.raw_schema["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


@pytest.mark.parametrize("schema", [COORDINATOR, WORKER], ids=["coordinator", "worker"])
def test_every_error_is_documented_in_the_one_shape_of_all_errors(schema: BaseSchema) -> None:
    shapes = {
        (name, status): response["content"]["application/json"]["schema"]["$ref"]
        for name, operation in documented(schema)
        for status, response in operation["responses"].items()
        if status >= "400"
    }
    assert len(shapes) > 10
    assert {name for name, shape in shapes.items() if not shape.endswith("/FaultAnswer")} == set()


@pytest.mark.parametrize("schema", [COORDINATOR, WORKER], ids=["coordinator", "worker"])
def test_every_route_and_parameter_is_documented_in_words(schema: BaseSchema) -> None:
    silent = [
        name
        for name, operation in documented(schema)
        for one in (operation, *operation.get("parameters", ()))
        if len(one.get("description", "")) < 10
    ]
    assert silent == []


def check(case: schemathesis.Case[Any], service: Service, *, excluded: Sequence[Any] = ()) -> None:
    response = case.call(base_url=service.url)
    code = response.json()["error"]["code"] if response.status_code == 422 else None
    if response.status_code == 421:  # another worker was meant, whatever else was said
        excluded = [*excluded, positive_data_acceptance, negative_data_rejection]
    if code in NO_SCHEMA_SAYS:
        excluded = [*excluded, positive_data_acceptance]
    case.validate_response(response, excluded_checks=list(excluded))


@ENDS.parametrize()
@settings(max_examples=EXAMPLES, derandomize=True)
def test_the_coordinator_does_what_it_documents(
    case: schemathesis.Case[Any], services: tuple[Service, Service]
) -> None:
    # To a schema a request of deltas is a string of bytes like any other.
    unknown = [positive_data_acceptance] if case.path == "/deltas" else []
    check(case, services[0], excluded=unknown)


@WORKER.parametrize()
@settings(max_examples=EXAMPLES, derandomize=True)
def test_the_worker_does_what_it_documents(
    case: schemathesis.Case[Any], services: tuple[Service, Service]
) -> None:
    check(case, services[1])


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_the_route_ahead_of_all_others_is_for_get_alone(
    method: str, services: tuple[Service, Service]
) -> None:
    response = httpx.request(method, f"{services[0].url}/median", trust_env=False)
    assert (response.status_code, response.headers["allow"]) == (405, "GET")
    if method != "HEAD":
        assert response.json()["error"]["code"] == "method_not_allowed"


def test_the_route_ahead_of_all_others_answers_as_the_documented_one(
    services: tuple[Service, Service],
) -> None:
    quick, slow = (
        httpx.get(f"{services[0].url}/median{query}", trust_env=False)
        for query in ("", "?stream=default")
    )
    assert quick.headers == slow.headers
    assert set(quick.json()) == set(slow.json())
