"""The dashboard: one page and its files, as they lie in `dashboard/`.

There is no build step. All of it is read once, at the start; so what is not in the folder then
cannot be asked for, whatever the name says. A browser asks each time whether a file is still the
same, and mostly it is: a page is never of two versions.

What a stream or a worker is called was said by others, and the page shows it. So it may run only
what lies here, and in browsers that know of it, nothing there can turn a text into elements.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Response

from shared.serving.errors import Problem

FOLDER = Path(__file__).parent / "dashboard"
PAGE = "index.html"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
GUARDS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'; require-trusted-types-for 'script'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

Known = Annotated[str, Header(alias="if-none-match")]


@dataclass(frozen=True)
class File:
    body: bytes
    media_type: str
    etag: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "etag", f'"{sha256(self.body).hexdigest()[:32]}"')

    def answer(self, known: str) -> Response:
        """All of it, or that it is what the browser knows already."""
        headers = GUARDS | {"etag": self.etag}
        if self.etag in {tag.strip().removeprefix("W/") for tag in known.split(",")}:
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=self.media_type, headers=headers)


def files_in(folder: Path) -> dict[str, File]:
    paths = [path for path in folder.iterdir() if path.suffix in TYPES]
    return {path.name: File(path.read_bytes(), TYPES[path.suffix]) for path in paths}


def pages(files: Mapping[str, File]) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def get_page(known: Known = "") -> Response:
        return files[PAGE].answer(known)

    @router.get("/dashboard/{name}")
    async def get_file(name: str, known: Known = "") -> Response:
        if name == PAGE or name not in files:  # below another path its addresses lead nowhere
            raise Problem(404, "not_found", f"there is no file {name!r}")
        return files[name].answer(known)

    return router
