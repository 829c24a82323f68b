"""`/v1/jobs/{job}/results` and `/errors`: streamed, as JSON Lines or CSV, from any row on."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlencode

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from millrace.core.outcome import decode_outcome
from millrace.producer.http.access import Caller, viewer
from millrace.producer.http.backend import Backend
from millrace.producer.http.problems import responses
from millrace.producer.http.requests import JobIdPath
from millrace.producer.outcome_csv import CSV_COLUMNS, csv_blocks
from millrace.producer.ranges import OutcomeRanges, Rows, gathered

router = APIRouter(prefix="/v1/jobs", tags=["results"])

JSON_LINES = "application/x-ndjson"
CSV = "text/csv; charset=utf-8"
NEXT_CURSOR = "millrace-next-cursor"
_ACCEPTED = {
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/json-lines": "jsonl",
    "application/*": "jsonl",
    "*/*": "jsonl",
    "text/csv": "csv",
    "text/*": "csv",
}


class Format(StrEnum):
    """JSON Lines: all of every outcome. CSV: an image's best class, or its error."""

    JSONL = "jsonl"
    CSV = "csv"


_Format = Annotated[Format | None, Query(description="Wins over `Accept`.")]
_Cursor = Annotated[
    int,
    Query(
        ge=0,
        le=10**12,
        description="Begin at this row of the manifest: the `millrace-next-cursor` before.",
    ),
]
_LINE = (
    '{"key":"photos/1.jpg","etag":"\\"9b2c\\"","predictions":[{"label":"seven","index":7,'
    '"score":0.98}]}\n'
)
_ERROR = (
    '{"key":"photos/2.jpg","etag":"\\"77aa\\"","error":{"stage":"decode","code":"corrupt",'
    '"message":"not an image","retryable":false,"attempts":1}}\n'
)

_CSV_LINE = 'photos/1.jpg,"""9b2c""",seven,7,0.98,,,'
_CSV_ERROR = 'photos/2.jpg,"""77aa""",,,,decode,corrupt,not an image'


def _documented(example: str, as_csv: str) -> dict[int | str, dict[str, Any]]:
    text = {"type": "string"}
    cursor = {"description": "Where to go on, if more stands.", "schema": text}
    return {
        200: {
            "description": "Outcomes, in the manifest's order.",
            "headers": {"Millrace-Next-Cursor": cursor, "Link": {"schema": text}},
            "content": {
                JSON_LINES: {"schema": text, "example": example},
                "text/csv": {"schema": text, "example": f"{','.join(CSV_COLUMNS)}\r\n{as_csv}\r\n"},
            },
        },
        **responses(404, 406, 413, 422),
    }


@router.get(
    "/{job}/results",
    operation_id="streamResults",
    summary="Stream outcomes",
    response_class=Response,
    responses=_documented(_LINE, _CSV_LINE),
)
async def results(
    request: Request,
    job: JobIdPath,
    _: Annotated[Caller, Depends(viewer)],
    format: _Format = None,
    cursor: _Cursor = 0,
    limit: Annotated[
        int | None, Query(ge=1, le=1_000_000, description="So many at most; all, by default.")
    ] = None,
) -> Response:
    """What came of every image so far, an error or predictions each, in the manifest's order. Of a
    job under way rows that have no outcome yet are passed over."""
    backend: Backend = request.app.state.backend
    form = format or _wanted(request)
    found, rows = await run_sync(_ranged, backend, job, cursor, limit)
    lines = gathered(found.blocks(rows))
    headers = _headers(request, form, rows.next_row, limit)
    return await backend.streams.answer(
        _as(form, lines), JSON_LINES if form is Format.JSONL else CSV, headers
    )


@router.get(
    "/{job}/errors",
    operation_id="streamErrors",
    summary="Stream errors",
    response_class=Response,
    responses=_documented(_ERROR, _CSV_ERROR),
)
async def errors(
    request: Request,
    job: JobIdPath,
    _: Annotated[Caller, Depends(viewer)],
    format: _Format = None,
    cursor: _Cursor = 0,
    limit: Annotated[
        int | None, Query(ge=1, le=1000, description="So many at most; all, by default.")
    ] = None,
) -> Response:
    """The images that failed so far, in the manifest's order."""
    backend: Backend = request.app.state.backend
    form = format or _wanted(request)
    found = await run_sync(OutcomeRanges, backend.services, job)
    next_row: int | None = None
    lines: Iterable[bytes]
    if limit is None:
        lines = (line for _, line in found.errors(cursor))
    else:
        lines, next_row = await run_sync(found.errors_page, cursor, limit, limiter=backend.readers)
    headers = _headers(request, form, next_row, limit)
    return await backend.streams.answer(
        _as(form, gathered(line + b"\n" for line in lines)),
        JSON_LINES if form is Format.JSONL else CSV,
        headers,
    )


def _ranged(
    backend: Backend, job: str, cursor: int, limit: int | None
) -> tuple[OutcomeRanges, Rows]:
    found = OutcomeRanges(backend.services, job)
    return found, found.results(cursor, limit)


def _as(form: Format, blocks: Iterator[bytes]) -> Generator[bytes]:
    """Whole lines in blocks, in the form that is wanted."""
    if form is Format.CSV:
        blocks = csv_blocks(decode_outcome(line) for block in blocks for line in block.splitlines())
    yield from blocks


def _wanted(request: Request) -> Format:
    """What `Accept` likes best of what there is. Raises HTTPException 406."""
    best, quality = None, 0.0
    for part in request.headers.get("accept", "*/*").split(","):
        name, *parameters = (word.strip().lower() for word in part.split(";"))
        weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        try:
            q = float(weight)
        except ValueError:
            q = 0.0
        if name in _ACCEPTED and q > quality:
            best, quality = Format(_ACCEPTED[name]), q
    if best is None:
        raise HTTPException(406, f"there is {JSON_LINES} and text/csv")
    return best


def _headers(
    request: Request, form: Format, next_row: int | None, limit: int | None
) -> dict[str, str]:
    headers = {"cache-control": "no-store", "vary": "accept"}
    if next_row is not None:
        query = urlencode({"format": form, "cursor": next_row, "limit": limit})
        headers[NEXT_CURSOR] = str(next_row)
        headers["link"] = f'<{request.url.path}?{query}>; rel="next"'
    return headers
