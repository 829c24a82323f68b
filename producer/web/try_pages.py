"""Try a picture: drop it, and see what the model says, by way of the same queue as any job."""

from __future__ import annotations

from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, File, Form, UploadFile
from starlette.requests import Request
from starlette.responses import Response

from millrace.core.errors import MillraceError, ObjectTooLarge, UsageError
from millrace.core.model_ref import ModelRef
from millrace.core.sizes import shown_bytes
from millrace.producer.http.access import Caller, page_operator
from millrace.producer.http.predictions import Answer
from millrace.producer.web.dashboard import dashboard
from millrace.producer.web.jobs_pages import served_models
from millrace.producer.web.pages import Who, page, problem_fragment, wants_fragment

TOP = 10

router = APIRouter(include_in_schema=False)

Operator = Annotated[Caller, Depends(page_operator)]


@router.get("/try")
async def form(request: Request, caller: Operator, model: str = "") -> Response:
    """A place to drop a picture."""
    return await _form(request, caller, model)


@router.post("/try")
async def ask(
    request: Request,
    caller: Operator,
    picture: Annotated[UploadFile, File()],
    model: Annotated[str, Form(max_length=160)] = "",
) -> Response:
    """What the workers say of the picture, in the form's page or to stand in it."""
    backend = dashboard(request).backend
    limit = backend.settings.max_upload_bytes
    try:
        backend.predictions.refuse_crowd()  # before a picture is read
        content = await picture.read(limit + 1)
        if len(content) > limit:
            raise ObjectTooLarge(f"the picture is larger than {shown_bytes(limit)}")
        if not content:
            raise UsageError("choose a picture first")
        answer = await backend.predictions.predict(
            content, ModelRef.parse(model), TOP, backend.settings.predict_timeout_s
        )
    except MillraceError as error:
        if wants_fragment(request):
            return problem_fragment(error)
        return await _form(request, caller, model, problem=error)
    shown = {
        "predictions": answer.predictions,
        "model": _name(answer),
        "took": answer.took_s,
    }
    if wants_fragment(request):
        return page("_answer.html", answer=shown)
    return await _form(request, caller, model, answer=shown)


async def _form(
    request: Request,
    caller: Caller,
    chosen: str,
    *,
    answer: dict[str, Any] | None = None,
    problem: MillraceError | None = None,
) -> Response:
    models, away = await run_sync(_models, request)
    return page(
        "try.html",
        here="/try",
        who=Who.of(request, caller),
        models=models,
        away=away,
        chosen=chosen,
        answer=answer,
        problem=problem,
    )


def _models(request: Request) -> tuple[list[str], MillraceError | None]:
    """Those that would answer now, or why nobody knows them."""
    try:
        return sorted(served_models(dashboard(request).backend.services)), None
    except MillraceError as error:
        return [], error


def _name(answer: Answer) -> str:
    name, version = answer.model["name"], answer.model["version"]
    return f"{name}:{version}" if version else name
