"""The documentation at `/docs`: one page, made of what the service says of itself in OpenAPI.

It comes from here alone, works without any network but the way to the service, and has no script:
where a dashboard keeps a token, no foreign word may run on the same origin. Its policy allows one
style, by the hash of it, and nothing else. All its addresses are relative, so it works below any
path.

It is made once, when it is first asked for, as all routes are there by then.
"""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, FastAPI, Response

from shared.serving.described import Description
from shared.serving.files import File, Known
from shared.serving.markup import element, joined

STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
HASH = b64encode(sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{title}
<style>{style}</style>
</head>
<body>
<a class="skip" href="#requests">To the requests</a>
<header>{heading}</header>
<nav aria-label="Requests">{contents}</nav>
<main id="requests" tabindex="-1">{body}</main>
</body>
</html>
"""


def documents(app: FastAPI) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @cache
    def page() -> File:
        description = Description(app.openapi())
        return File(page_of(description).encode(), "text/html; charset=utf-8", POLICY)

    @router.get("/docs")
    async def get_docs(known: Known = "") -> Response:
        return page().answer(known)

    return router


def page_of(description: Description) -> str:
    for_programs = element("a", "openapi.json", href="openapi.json")
    return PAGE.format(
        title=element("title", description.title),
        style=STYLE,
        heading=joined(
            element("h1", description.title),
            element("p", f"Version {description.version}. For programs: ", for_programs),
        ),
        contents=description.contents(),
        body=description.requests(),
    )
