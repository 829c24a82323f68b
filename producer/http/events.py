"""`/v1/jobs/{job}/events`: server-sent events, so that nobody has to poll."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header
from starlette.requests import Request
from starlette.responses import Response

from millrace.producer.http.access import Caller, viewer
from millrace.producer.http.backend import Backend
from millrace.producer.http.problems import responses
from millrace.producer.http.requests import JobIdPath
from millrace.producer.http.streams import Closing
from millrace.producer.http.watch import event_id

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

EVENT_STREAM = "text/event-stream"
_TEXT = {"type": "string"}
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["status", "progress", "end"]},
        "id": _TEXT,
        "data": _TEXT | {"contentMediaType": "application/json"},
    },
}
_EXAMPLE = (
    'retry: 2000\n\nid: 1764237900123-9d3f01aa\nevent: status\ndata: {"schema_version":1,…}\n\n'
    'id: 1764237902481-51b2c0de\nevent: progress\ndata: {"schema_version":1,…}\n\n'
    ": still here\n\nevent: end\ndata: {}\n\n"
)


@router.get(
    "/{job}/events",
    operation_id="watchJob",
    summary="Watch a job",
    response_class=Response,
    responses={
        200: {
            "description": "`status` when the job's state, reason or health changes, `progress`"
            " when its counts do, `end` once it has ended; `data` is the whole status.",
            "content": {EVENT_STREAM: {"itemSchema": _EVENT, "example": _EXAMPLE}},
        },
        204: {"description": "The job has ended, and `Last-Event-ID` is its last event."},
        **responses(404, 422),
    },
)
async def events(
    request: Request,
    job: JobIdPath,
    _: Annotated[Caller, Depends(viewer)],
    last_event_id: Annotated[
        str | None, Header(max_length=64, description="The last event that came.")
    ] = None,
) -> Response:
    """Server-sent events of a job, until it has ended. Who comes back with the id of the last
    event gets what came since, or where the job stands now."""
    backend: Backend = request.app.state.backend
    posted = await backend.board.posted(job)
    if posted.status.terminal and last_event_id == event_id(posted):
        return Response(status_code=204)
    frames = backend.watcher.stream(job, last_event_id)
    await anext(frames)
    return Closing(
        frames,
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        media_type=EVENT_STREAM,
    )
