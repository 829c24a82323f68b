"""`/v1/jobs/{job}/…`: cancel, pause, resume, retry. Each answers with the job's status."""

from __future__ import annotations

from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from millrace.core.errors import JobConflict
from millrace.core.job import JobState
from millrace.core.status import JobStatus
from millrace.producer import control
from millrace.producer.http.access import Caller, operator
from millrace.producer.http.backend import Backend
from millrace.producer.http.board import encode
from millrace.producer.http.jobs import JSON, NO_STORE, accepted
from millrace.producer.http.problems import responses
from millrace.producer.http.requests import (
    IdempotencyKey,
    JobIdPath,
    RetryRequest,
    conflicts_named,
    job_id_for,
    name_of_id,
)
from millrace.producer.retry import retry_spec

router = APIRouter(prefix="/v1/jobs", tags=["control"])

_Operator = Annotated[Caller, Depends(operator)]


@router.post(
    "/{job}/cancel",
    operation_id="cancelJob",
    summary="Cancel a job",
    response_model=JobStatus,
    responses=responses(404, 409, 422),
)
def cancel_job(request: Request, job: JobIdPath, _: _Operator) -> Response:
    """Take no more of its chunks; those in hand end, and what there is is published."""
    backend: Backend = request.app.state.backend
    cancel(backend, job)
    return _status(backend, job)


@router.post(
    "/{job}/pause",
    operation_id="pauseJob",
    summary="Pause a job",
    response_model=JobStatus,
    responses=responses(404, 409, 422),
)
def pause_job(request: Request, job: JobIdPath, _: _Operator) -> Response:
    """Take no more of its chunks until it is resumed."""
    backend: Backend = request.app.state.backend
    pause(backend, job)
    return _status(backend, job)


@router.post(
    "/{job}/resume",
    operation_id="resumeJob",
    summary="Resume a job",
    response_model=JobStatus,
    responses=responses(404, 409, 422),
)
def resume_job(request: Request, job: JobIdPath, _: _Operator) -> Response:
    """Let a paused job go on; one whose listing broke off is listed on, in the background."""
    backend: Backend = request.app.state.backend
    resume(backend, job)
    return _status(backend, job)


@router.post(
    "/{job}/retry",
    operation_id="retryJob",
    summary="Run what failed again",
    status_code=202,
    response_model=JobStatus,
    responses=responses(400, 404, 408, 409, 413, 422),
)
async def retry_job(
    request: Request,
    job: JobIdPath,
    caller: _Operator,
    asked: RetryRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """A job of its own over the failed images of one that has ended."""
    backend: Backend = request.app.state.backend
    wanted = asked or RetryRequest()
    job_id = job_id_for(caller, idempotency_key, wanted.job_id)

    def made() -> Response:
        return accepted(backend, retry(backend, job, wanted, job_id))

    with conflicts_named(name_of_id(idempotency_key)):
        return await run_sync(made, limiter=backend.writers)


def cancel(backend: Backend, job: str) -> None:
    """End a job early; publishing what there is may take longer than anybody would wait."""
    control.cancel(backend.services, job, and_then=lambda _, job: backend.board.care_soon(job))
    backend.board.forget(job)


def pause(backend: Backend, job: str) -> None:
    control.pause(backend.services, job)
    backend.board.forget(job)


def resume(backend: Backend, job: str) -> None:
    """Raises JobNotFound; JobConflict if the job is not under way."""
    snapshot = backend.services.jobs.snapshot(job)
    record = snapshot.record
    if record.state is JobState.PAUSED or record.listing_complete or snapshot.has_producer:
        control.resume(backend.services, job)
    elif record.ending is not None or record.state.terminal:
        raise JobConflict(f"job {job} is {record.state}; it cannot be resumed")
    if not record.listing_complete and not snapshot.has_producer:
        backend.lister.promise(job)
    backend.board.forget(job)


def retry(backend: Backend, job: str, asked: RetryRequest, job_id: str | None) -> str:
    """The id of the new job. It waits for storage."""
    spec = retry_spec(backend.services, job, codes=asked.codes, job_id=job_id)
    backend.lister.submit(spec)
    return spec.job_id


def _status(backend: Backend, job: str) -> Response:
    return Response(encode(backend.board.read(job).status), headers=NO_STORE, media_type=JSON)
