"""The dashboard: one page and its files, as they lie in `dashboard/`.

There is no build step. All of it is read once, at the start; so what is not in the folder then
cannot be asked for, whatever the name says.

What a stream or a worker is called was said by others, and the page shows it. So it may run only
what lies here, and in browsers that know of it, nothing there can turn a text into elements.
"""

from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter, Response

from shared.serving.errors import Problem
from shared.serving.files import File, Known

FOLDER = Path(__file__).parent / "dashboard"
PAGE = "index.html"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'; require-trusted-types-for 'script'"
)


def files_in(folder: Path) -> dict[str, File]:
    paths = [path for path in folder.iterdir() if path.suffix in TYPES]
    return {path.name: File(path.read_bytes(), TYPES[path.suffix], POLICY) for path in paths}


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
