"""`/v1/jobs`: submit, list, look at one."""

from __future__ import annotations

from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response
from structlog.contextvars import bind_contextvars

from millrace.core.job import JobState, parse_label
from millrace.core.model_ref import ModelRef
from millrace.core.status import JobStatus
from millrace.producer.http.access import Caller, operator, viewer
from millrace.producer.http.backend import Backend
from millrace.producer.http.board import encode
from millrace.producer.http.problems import responses
from millrace.producer.http.requests import (
    IdempotencyKey,
    JobIdPath,
    JobRequest,
    conflicts_named,
    job_id_for,
    name_of_id,
    spec_of_request,
)
from millrace.producer.page import Wanted, jobs_page

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JSON = "application/json"
NO_STORE = {"cache-control": "no-store"}


class JobList(BaseModel):
    """A page of jobs, newest first. Without `next_cursor` there are no older ones."""

    jobs: list[JobStatus]
    next_cursor: str | None = Field(examples=["MTc2NDIzNzkwMDAwMDpkaWdpdHM"])


@router.post(
    "",
    operation_id="submitJob",
    summary="Submit a job",
    status_code=202,
    response_model=JobStatus,
    responses={
        202: {
            "description": "The job stands; its input is being listed.",
            "headers": {
                "Location": {"description": "The job.", "schema": {"type": "string"}},
            },
        },
        **responses(400, 404, 408, 409, 413, 422),
    },
)
async def submit(
    request: Request,
    asked: JobRequest,
    caller: Annotated[Caller, Depends(operator)],
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make a job over all images below a storage URL. It is answered as soon as the job stands;
    listing goes on in the background, also after the server was started anew."""
    backend: Backend = request.app.state.backend
    job_id = job_id_for(caller, idempotency_key, asked.job_id)
    if job_id is not None:
        bind_contextvars(job=job_id)

    def made() -> Response:
        spec = spec_of_request(backend.services, asked, job_id)
        backend.lister.submit(spec)
        return accepted(backend, spec.job_id)

    with conflicts_named(name_of_id(idempotency_key)):
        return await run_sync(made, limiter=backend.writers)


@router.get(
    "",
    operation_id="listJobs",
    summary="List jobs",
    response_model=JobList,
    responses=responses(422),
)
def listed(
    request: Request,
    _: Annotated[Caller, Depends(viewer)],
    limit: Annotated[int, Query(ge=1, le=200, description="Jobs a page.")] = 50,
    cursor: Annotated[
        str | None, Query(max_length=300, description="`next_cursor` of the page before.")
    ] = None,
    state: Annotated[list[JobState] | None, Query(description="In one of these states.")] = None,
    model: Annotated[
        str | None, Query(max_length=160, description="NAME or NAME:VERSION.", examples=["digits"])
    ] = None,
    label: Annotated[
        list[str] | None,
        Query(description="NAME=VALUE; all of them.", examples=[["team=catalogue"]]),
    ] = None,
) -> Response:
    """Jobs, newest first. A page is short, or empty, where few of many jobs meet the filter: go on
    while there is a `next_cursor`."""
    backend: Backend = request.app.state.backend
    wanted = Wanted(
        states=frozenset(state or ()),
        model=ModelRef.parse(model) if model else None,
        labels=dict(map(parse_label, label or ())),
    )
    page = jobs_page(
        backend.services,
        lambda job: backend.board.read(job).status,
        limit=limit,
        cursor=cursor,
        wanted=wanted,
    )
    body = JobList(jobs=page.jobs, next_cursor=page.next_cursor).model_dump_json()
    return Response(body, headers=NO_STORE, media_type=JSON)


@router.get(
    "/{job}",
    operation_id="getJob",
    summary="Where a job stands",
    response_model=JobStatus,
    responses=responses(404, 422),
)
async def status(
    request: Request, job: JobIdPath, _: Annotated[Caller, Depends(viewer)]
) -> Response:
    """The job's status, at most a quarter of a second old. Polling it is cheap."""
    backend: Backend = request.app.state.backend
    posted = await backend.board.posted(job)
    return Response(posted.body, headers=NO_STORE, media_type=JSON)


STATUS_ROUTE = router.routes[-1]


def accepted(backend: Backend, job: str) -> Response:
    """202, with the status of a job that something was begun for."""
    backend.board.forget(job)
    return Response(
        encode(backend.board.read(job).status),
        202,
        {**NO_STORE, "location": f"/v1/jobs/{job}"},
        media_type=JSON,
    )
