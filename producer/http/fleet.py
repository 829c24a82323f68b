"""`/v1/models` and `/v1/workers`: what can be asked for, and who answers."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from millrace.core.services import Services
from millrace.core.topology import queue_name
from millrace.producer.http.access import Caller, viewer
from millrace.producer.http.backend import Backend
from millrace.producer.http.jobs import JSON, NO_STORE
from millrace.producer.http.problems import responses
from millrace.producer.http.shelf import Shelf

router = APIRouter(prefix="/v1", tags=["fleet"])

_Viewer = Annotated[Caller, Depends(viewer)]


class ServedModel(BaseModel):
    """One version of a model: what its card says, and how many workers serve it now. One that
    workers serve from elsewhere than the repository has no more than a name."""

    name: str = Field(examples=["digits"])
    version: str | None = Field(examples=["1"])
    bytes: int | None = Field(None, examples=[1_234_567])
    claimed: bool = Field(
        False, description="Somebody publishes, replaces or removes it, or was killed at that."
    )
    task: str | None = Field(None, examples=["classification"])
    input: str | None = Field(None, examples=["8x8 L"])
    labels: int | None = Field(None, examples=[10])
    digest: str | None = None
    problem: str | None = Field(None, description="Why it cannot be used.")
    live_workers: int = Field(examples=[2])


class ModelList(BaseModel):
    models: list[ServedModel]


class WorkerModel(BaseModel):
    """One worker process as it described itself last."""

    worker: str = Field(examples=["4242@host/9f3c"])
    model: str = Field(examples=["digits"])
    queues: str
    state: str = Field(examples=["busy"])
    slots: int
    images: int
    images_per_s: float
    started_ms: int
    running: dict[str, Any] | None = None
    last_seen: datetime
    lost: bool


class WorkerList(BaseModel):
    workers: list[WorkerModel]


@router.get(
    "/models",
    operation_id="listModels",
    summary="List models",
    response_model=ModelList,
    responses=responses(),
)
async def models(request: Request, _: _Viewer) -> Response:
    """Every version in the repository, and what workers serve beside it."""
    backend: Backend = request.app.state.backend
    found = await run_sync(
        served_models, backend.services, backend.shelf, limiter=backend.shelf.limiter
    )
    body = ModelList(models=found).model_dump_json()
    return Response(body, headers=NO_STORE, media_type=JSON)


@router.get(
    "/workers",
    operation_id="listWorkers",
    summary="List workers",
    response_model=WorkerList,
    responses=responses(),
)
def workers(request: Request, _: _Viewer) -> Response:
    """The worker processes heard of in the last ten minutes."""
    backend: Backend = request.app.state.backend
    seen = [
        WorkerModel(**asdict(one.info), last_seen=one.last_seen, lost=one.lost)
        for one in backend.services.fleet.workers()
    ]
    body = WorkerList(workers=seen).model_dump_json()
    return Response(body, headers=NO_STORE, media_type=JSON)


def served_models(services: Services, shelf: Shelf) -> list[ServedModel]:
    """What the repository holds, and what live workers serve beside it."""
    live = [seen.info for seen in services.fleet.workers() if not seen.lost]
    queues = [info.queues.split() for info in live]
    known = shelf.models()
    found = [
        ServedModel(
            **asdict(model),
            live_workers=sum(queue_name(model.name, model.version) in theirs for theirs in queues),
        )
        for model in known
    ]
    names = {model.name for model in known}
    for word in sorted({info.model for info in live}):
        name, _, version = word.partition(":")
        if name not in names:
            count = sum(info.model == word for info in live)
            found.append(ServedModel(name=name, version=version or None, live_workers=count))
    return found
