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
from millrace.producer.web.thumbnails import SIDES, said, version_of

HEADERS = {"content-security-policy": "default-src 'none'"}
"""`nosniff` stands in every answer of the server."""

FOR_A_DAY = "private, max-age=86400, immutable"
ASK_AGAIN = "private, no-cache"
FOR_A_MINUTE = "private, max-age=60"

PAPER, INK = "#eef1f3", "#55626e"
_DARK = (
    "@media (prefers-color-scheme: dark){svg>rect{fill:#1f2a31}g{stroke:#9babb6}text{fill:#9babb6}}"
)
"""A drawing knows nothing of the page's stylesheet, of which these are two colours."""

router = APIRouter(include_in_schema=False)


@router.get("/jobs/{job}/thumbnails/{row}")
async def thumbnail(
    request: Request,
    job: JobIdPath,
    row: Annotated[int, Path(ge=0, le=2**40)],
    _: Annotated[Caller, Depends(viewer)],
    side: Annotated[int, Query()] = SIDES[0],
    v: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """The image of a manifest row, small, as WebP; a drawing that says why, if there is none.

    It stays with the browser for a day if the address says which job of that id is meant: one
    that was deleted may have given its id to another.
    """
    if side not in SIDES:
        raise UsageError(f"side: one of {', '.join(map(str, SIDES))}")
    web = dashboard(request)
    known = request.headers.get("if-none-match", "").strip('"')

    spec = await run_sync(web.files.spec, job)
    found = await web.thumbnail(spec, row, side, known)
    keep = FOR_A_DAY if v == version_of(spec) else ASK_AGAIN
    if found.lasting and found.etag == known:
        etag = {"etag": f'"{known}"', "cache-control": keep}
        return Response(status_code=304, headers=HEADERS | etag)
    if found.problem:
        headers = HEADERS | {"cache-control": FOR_A_MINUTE, "millrace-problem": found.problem}
        return Response(_drawing(found.problem), headers=headers, media_type="image/svg+xml")
    etag = {"etag": f'"{found.etag}"', "cache-control": keep if found.lasting else ASK_AGAIN}
    return Response(found.data, headers=HEADERS | etag, media_type="image/webp")


def _drawing(problem: str) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 192 192" width="192" height="192">'
        f'<style>{_DARK}</style><rect width="192" height="192" fill="{PAPER}"/>'
        f'<g fill="none" stroke="{INK}" stroke-width="6" stroke-linecap="round">'
        '<rect x="52" y="38" width="88" height="74" rx="9"/><path d="m62 102 68-54"/></g>'
        '<text x="96" y="146" text-anchor="middle" font-family="system-ui, sans-serif" '
        f'font-size="17" fill="{INK}">{escape(said(problem))}</text></svg>'
    )
