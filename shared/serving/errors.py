"""Errors: one JSON shape for whatever goes wrong, FastAPI's own answers included.

    {"error": {"code": "not_finite", "message": "value 3 is NaN", "position": 3}}

The code is for programs, the message for people; a position is there where one value is to blame.
What was asked may be quoted in it: so each says that it is nothing else than what it says it is.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from shared.serving.storage import NotWritten

PLAINLY = {"x-content-type-options": "nosniff"}
RETRY = {"retry-after": "1"}
CODES = {404: "not_found", 405: "method_not_allowed", 400: "malformed"}


class Problem(Exception):
    """What a client is told instead of an answer."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        position: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.position, self.headers = status, code, position, headers


def not_written(error: NotWritten) -> Problem:
    status, code = (507, "storage_full") if error.full else (503, "storage_failed")
    return Problem(status, code, str(error), headers=RETRY)


class Fault(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    code: str
    """For programs."""
    message: str
    """For people."""
    position: int | None = None
    """Where one value is to blame, which one, from 0."""


class FaultAnswer(BaseModel):
    """What every error looks like."""

    error: Fault


def responses(**reasons: str) -> dict[int | str, dict[str, Any]]:
    """For the documentation of a route: statuses as `_413="the body is too large"`."""
    return {
        int(status.removeprefix("_")): {"model": FaultAnswer, "description": reason}
        for status, reason in reasons.items()
    }


def by_name(route: APIRoute) -> str:
    """What clients made from the documentation call it."""
    return route.name


def answer(error: Problem) -> JSONResponse:
    """What a client is told of it."""
    return _answer(error.status, error.code, str(error), error.position, error.headers)


def answer_errors(app: FastAPI) -> None:
    """Let this app say what went wrong in this one shape."""

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> JSONResponse:
        return answer(error)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        code = CODES.get(error.status_code, "refused")
        what = f"{request.method} {request.scope['path']}: {error.detail.lower()}"
        return _answer(error.status_code, code, what, None, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:]))
        return _answer(422, "invalid", f"{where}: {first['msg']}", None, None)

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, __: Exception) -> JSONResponse:
        return _answer(500, "internal", "this is a bug of ours; the log says more", None, None)


def _answer(
    status: int,
    code: str,
    message: str,
    position: int | None,
    headers: Mapping[str, str] | None,
) -> JSONResponse:
    fault: dict[str, str | int] = {"code": code, "message": message}
    if position is not None:
        fault |= {"position": position}
    return JSONResponse({"error": fault}, status, {**PLAINLY, **(headers or {})})
