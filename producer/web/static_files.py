"""The dashboard's own files: read once, named by their content, kept by browsers for good."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from millrace.core.errors import NotFound

FOLDER = Path(__file__).parent / "static"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FOR_GOOD = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One of them, and the beginning of its SHA-256."""

    body: bytes
    media_type: str
    digest: str


@cache
def static_files() -> dict[str, StaticFile]:
    """By their path within the folder. Nothing else can be asked for."""
    found = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.suffix in TYPES:
            body = path.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:16]
            name = path.relative_to(FOLDER).as_posix()
            found[name] = StaticFile(body, TYPES[path.suffix], digest)
    return found


def static_url(name: str) -> str:
    """The URL of a file as it is now; with other content it has another one."""
    return f"/static/{name}?{static_files()[name].digest}"


@router.get("/static/{name:path}")
def static(request: Request, name: str) -> Response:
    """A file, for whoever asks: there is nothing secret in them."""
    file = static_files().get(name)
    if file is None:
        raise NotFound("there is no such file")
    etag = f'"{file.digest}"'
    lasting = request.url.query == file.digest
    headers = {"etag": etag, "cache-control": FOR_GOOD if lasting else "no-cache"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers=headers, media_type=file.media_type)
