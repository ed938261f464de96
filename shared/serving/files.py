"""Files for a browser: guarded, and not sent again while they are the same.

A browser asks each time whether a file is still what it knows, and mostly it is; so a page is never
of two versions. What it may load and run, the policy of each kind of page says.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated

from fastapi import Header, Response

GUARDS = {
    "cache-control": "no-cache",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

Known = Annotated[str, Header(alias="if-none-match")]


@dataclass(frozen=True)
class File:
    body: bytes
    media_type: str
    policy: str
    etag: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "etag", f'"{sha256(self.body).hexdigest()[:32]}"')

    def answer(self, known: str) -> Response:
        """All of it, or that it is what the browser knows already."""
        headers = GUARDS | {"content-security-policy": self.policy, "etag": self.etag}
        if self.etag in {tag.strip().removeprefix("W/") for tag in known.split(",")}:
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=self.media_type, headers=headers)
