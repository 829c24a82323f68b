"""`/v1/preview`: a job's dry run. `/v1/jobs/{job}/verify`: every count derived from storage."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any

import orjson
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from millrace.producer.http.access import Caller, operator, viewer
from millrace.producer.http.backend import Backend
from millrace.producer.http.jobs import JSON, NO_STORE
from millrace.producer.http.problems import responses
from millrace.producer.http.requests import JobIdPath, JobRequest, spec_of_request
from millrace.producer.http.verifier import Check

router = APIRouter(prefix="/v1", tags=["checks"])

PREVIEW_WITHIN_S = 20.0


class PreviewModel(BaseModel):
    """What a job would do. `complete` is false if the input holds more than was counted."""

    job_id: str
    images: int = Field(examples=[1797])
    bytes: int
    chunks: int
    types: dict[str, int] = Field(examples=[{".png": 1797}])
    first_keys: list[str]
    model: dict[str, Any]
    output: str
    standing: int
    output_problem: str | None
    complete: bool


class FindingModel(BaseModel):
    where: str = Field(examples=["chunk 17"])
    problem: str


class VerificationModel(BaseModel):
    """What storage holds of a job, and what is not as it should be."""

    job_id: str
    state: str
    total: int
    succeeded: int
    failed: int
    by_code: dict[str, int]
    chunks: int
    missing_chunks: list[int]
    corrupt_chunks: list[int]
    strays: list[str]
    findings: list[FindingModel]
    asked_redis: bool
    without_outcome: int
    ok: bool


class CheckModel(BaseModel):
    """A verification: under way, or done with a result."""

    job_id: str
    done: bool
    images_checked: int
    started_at: datetime
    result: VerificationModel | None


@router.post(
    "/preview",
    operation_id="previewJob",
    summary="Try a job dry",
    response_model=PreviewModel,
    responses=responses(400, 404, 408, 413, 422),
)
async def preview_job(
    request: Request, asked: JobRequest, _: Annotated[Caller, Depends(operator)]
) -> Response:
    """What the job would find and do, with nothing made but a probe of the output, which is
    removed again. Of a large input the beginning is counted."""
    backend: Backend = request.app.state.backend
    found = await backend.previews.of(
        lambda: spec_of_request(backend.services, asked, asked.job_id), PREVIEW_WITHIN_S
    )
    return Response(orjson.dumps(found.as_json()), headers=NO_STORE, media_type=JSON)


_Wait = Annotated[
    float, Query(ge=0, le=60, description="Seconds to wait for the result, if it takes longer.")
]
_CHECKS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The result."},
    202: {"description": "It is under way.", "model": CheckModel},
    **responses(404, 422),
}


@router.post(
    "/jobs/{job}/verify",
    operation_id="verifyJob",
    summary="Verify a job",
    response_model=CheckModel,
    responses=_CHECKS,
)
async def verify_job(
    request: Request,
    job: JobIdPath,
    _: Annotated[Caller, Depends(operator)],
    wait: _Wait = 20.0,
) -> Response:
    """Derive every count of a job from storage alone, and compare what claims to know it. What
    takes longer than `wait` goes on, and is asked for with GET."""
    backend: Backend = request.app.state.backend
    check = await run_sync(backend.verifier.begin, job)
    return await _answer(check, wait)


@router.get(
    "/jobs/{job}/verify",
    operation_id="getVerification",
    summary="What verifying a job found",
    response_model=CheckModel,
    responses=_CHECKS,
)
async def last_check(
    request: Request, job: JobIdPath, _: Annotated[Caller, Depends(viewer)], wait: _Wait = 0.0
) -> Response:
    """The newest verification of the job that this server was asked for."""
    backend: Backend = request.app.state.backend
    return await _answer(backend.verifier.last(job), wait)


async def _answer(check: Check, wait: float) -> Response:
    future = asyncio.wrap_future(check.future)
    # Whether anybody still waits for it or not: else its error would be told as one nobody saw.
    future.add_done_callback(lambda f: f.cancelled() or f.exception())
    done, _ = await asyncio.wait([future], timeout=wait)
    body = {
        "job_id": check.job,
        "done": bool(done),
        "images_checked": check.images,
        "started_at": check.started_at,
        "result": future.result().as_json() if done else None,
    }
    headers = NO_STORE if done else NO_STORE | {"location": f"/v1/jobs/{check.job}/verify"}
    status = 200 if done else 202
    return Response(orjson.dumps(body, default=dict), status, headers, JSON)
