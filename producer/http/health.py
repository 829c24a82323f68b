"""`/healthz`: the process answers. `/readyz`: so do Redis and object storage."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from millrace.producer.http.jobs import JSON, NO_STORE
from millrace.producer.http.problems import MEDIA_TYPE, Problem
from millrace.producer.http.ready import ReadyChecks, Word

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Of each service whether it answers; no more, for nobody has to say who they are."""

    status: Literal["ok"] = "ok"
    redis: Word = Field(examples=["ok"])
    storage: Word = Field(examples=["ok"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", operation_id="health", summary="The server runs", response_model=Health)
async def health() -> Response:
    """Answers while the process does."""
    return Response(b'{"status":"ok"}', headers=NO_STORE, media_type=JSON)


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    operation_id="readiness",
    summary="The server can work",
    response_model=Readiness,
    responses={
        503: {
            "description": "Problem: Redis or storage does not answer",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    },
)
async def readiness(request: Request) -> Response:
    """Whether Redis and storage answered within the last seconds."""
    checks: ReadyChecks = request.app.state.backend.ready
    words = await checks.words()
    if set(words.values()) == {"ok"}:
        return Response(Readiness(**words).model_dump_json(), headers=NO_STORE, media_type=JSON)
    failing = " and ".join(name for name, word in words.items() if word != "ok")
    problem = Problem(503, "not_ready", f"no answer from {failing}", more=dict(words))
    return problem.response(request.url.path)
