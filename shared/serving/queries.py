"""What queries are made of, with the same words in every service's documentation."""

from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.params import Depends as Dependency

from shared.protocol import A_NAME, NAME_MAX, is_name
from shared.serving.errors import Problem

# `shared.protocol.is_name` has the rule. No regular expression says it: `name_of` looks.
NAME = Query(
    min_length=1,
    max_length=NAME_MAX,
    description=f"a stream: {A_NAME}",
    examples=["default"],
)
Stream = Annotated[str, NAME]
StreamOrAll = Annotated[str | None, NAME]
QS_MAX = 20  # at once: with a thousand rows each takes some milliseconds
RANGE = "from 0, the least value, to 1, the greatest"
Q = Annotated[float, Query(ge=0, le=1, description=RANGE)]
Qs = Annotated[
    list[Annotated[float, Query(ge=0, le=1)]],
    Query(min_length=1, max_length=QS_MAX, description=RANGE, examples=[[0.5, 0.99]]),
]

UNKNOWN = "there is no such stream"
NO_NAME = "not a name"
NO_Q = "not a number from 0 to 1, or not a name"


def name_of(given: str) -> str:
    """A stream or a worker, by a name that it can have."""
    if not is_name(given):
        raise Problem(422, "bad_name", f"a name has {A_NAME}")
    return given


def only(*names: str) -> Dependency:
    """Refuse a query of other parameters, as a misspelt one would do something else in silence."""

    async def check(request: Request) -> None:  # awaits nothing; a plain one would cost a thread
        given = [name for name, _ in request.query_params.multi_items()]
        for name in given:
            if name not in names:
                what = f"there is no parameter {name!r} here: known are {', '.join(names)}"
                raise Problem(422, "unknown_parameter", what)
            if name != "q" and given.count(name) > 1:
                raise Problem(422, "repeated_parameter", f"{name} is given more than once")

    dependency: Dependency = Depends(check)
    return dependency
