"""Thumbnails over HTTP: by job and row, kept by the browser that asked, and by nobody else."""

from __future__ import annotations

from typing import Annotated
from xml.sax.saxutils import escape

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from millrace.core.errors import UsageError
from millrace.producer.http.access import Caller, viewer
from millrace.producer.http.requests import JobIdPath
from millrace.producer.web.dashboard import dashboard
from millrace.producer.web.thumbnails import SIDES

HEADERS = {"content-security-policy": "default-src 'none'"}
"""`nosniff` stands in every answer of the server."""

FOR_A_DAY = "private, max-age=86400, immutable"
ASK_AGAIN = "private, no-cache"
FOR_A_MINUTE = "private, max-age=60"

WORDS = {
    "object_not_found": "gone",
    "access_denied": "access denied",
    "outside_root": "outside the input",
    "source_changed": "changed since",
    "too_large": "too large to show",
    "unavailable": "storage is away",
    "empty": "empty",
    "not_an_image": "not a picture",
    "decompression_bomb": "too many pixels",
    "truncated": "cut off",
    "corrupt": "damaged",
}

router = APIRouter(include_in_schema=False)


@router.get("/jobs/{job}/thumbnails/{row}")
async def thumbnail(
    request: Request,
    job: JobIdPath,
    row: Annotated[int, Path(ge=0, le=2**40)],
    _: Annotated[Caller, Depends(viewer)],
    side: Annotated[int, Query()] = SIDES[0],
) -> Response:
    """The image of a manifest row, small, as WebP; a drawing that says why, if there is none."""
    if side not in SIDES:
        raise UsageError(f"side: one of {', '.join(map(str, SIDES))}")
    web = dashboard(request)
    known = request.headers.get("if-none-match", "").strip('"')
    # By threads of their own: a page of them keeps nobody else waiting.
    found = await run_sync(
        lambda: web.thumbnails.of(web.files.spec(job), row, side, known), limiter=web.makers
    )
    if found is None:
        etag = {"etag": f'"{known}"', "cache-control": FOR_A_DAY}
        return Response(status_code=304, headers=HEADERS | etag)
    if found.problem:
        headers = HEADERS | {"cache-control": FOR_A_MINUTE, "millrace-problem": found.problem}
        return Response(_drawing(found.problem), headers=headers, media_type="image/svg+xml")
    keep = {"etag": f'"{found.etag}"', "cache-control": FOR_A_DAY if found.lasting else ASK_AGAIN}
    return Response(found.data, headers=HEADERS | keep, media_type="image/webp")


def _drawing(problem: str) -> str:
    said = escape(WORDS.get(problem, problem.replace("_", " ")))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 192 192" width="192" height="192">'
        '<g fill="none" stroke="#8a949d" stroke-width="6" stroke-linecap="round">'
        '<rect x="52" y="38" width="88" height="74" rx="9"/><path d="m62 102 68-54"/></g>'
        '<text x="96" y="146" text-anchor="middle" font-family="system-ui, sans-serif" '
        f'font-size="17" fill="#8a949d">{said}</text></svg>'
    )
