"""The form for a new job, a preview of what it would do, and its submission."""

from __future__ import annotations

from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from millrace.core.errors import MillraceError, UsageError
from millrace.core.job import JobSpec, parse_label
from millrace.core.model_ref import ModelRef
from millrace.producer.http.access import Caller, page_operator
from millrace.producer.http.problems import status_for
from millrace.producer.http.requests import JobRequest, conflicts_named, spec_of_request
from millrace.producer.preview import Preview
from millrace.producer.web.dashboard import Dashboard, dashboard
from millrace.producer.web.jobs_pages import known_models
from millrace.producer.web.pages import Who, page, problem_fragment, wants_fragment
from millrace.producer.web.stamps import new_stamp, stamped_job

PREVIEW_WITHIN_S = 10.0

FIELDS = {
    "source": "Images",
    "model": "Model",
    "output": "Results",
    "include": "Only keys like",
    "exclude": "But not like",
    "manifest": "Manifest",
    "top_k": "Answers per image",
    "chunk_size": "Images per chunk",
    "priority": "Priority",
    "layout": "Layout",
    "error_threshold": "Give up after failures",
    "deadline": "Give up when it is",
    "labels": "Labels",
    "notify": "Notify",
    "job_id": "Name",
}
"""The fields, and what the form calls them."""
MORE = tuple(FIELDS)[3:]
"""Those that hide behind `More choices`."""
USUAL = {"priority": "normal", "layout": "chunks"}

router = APIRouter(include_in_schema=False)

Operator = Annotated[Caller, Depends(page_operator)]


class WrongField(UsageError):
    """What a field holds cannot be: told by the name it has in the form, which marks it."""

    code = "wrong_field"

    def __init__(self, field: str, says: str) -> None:
        super().__init__(f"{FIELDS[field]}: {says}")
        self.field = field


async def fields_of(request: Request) -> dict[str, str]:
    """What a form holds, blanks around it taken away."""
    async with request.form(max_files=0, max_fields=40) as form:
        return {
            name: str(value).strip()
            for name in (*FIELDS, "request")
            if (value := form.get(name)) is not None
        }


Asked = Annotated[dict[str, str], Depends(fields_of)]


@router.get("/new")
async def form(request: Request, caller: Operator) -> Response:
    """The empty form, or one that the address fills in."""
    asked = {n: v for n, v in request.query_params.items() if n in FIELDS}
    return await _form(request, caller, asked)


@router.post("/new/preview")
async def show_preview(request: Request, caller: Operator, asked: Asked) -> Response:
    """What the job would do, in the form's page or to stand in it."""
    web = dashboard(request)
    try:
        found = await web.backend.previews.of(lambda: _spec(web, asked), PREVIEW_WITHIN_S)
    except MillraceError as error:
        if wants_fragment(request):
            return problem_fragment(error)
        return await _form(request, caller, asked, problem=error)
    if wants_fragment(request):
        return page("_preview.html", preview=found)
    return await _form(request, caller, asked, found=found)


@router.post("/new")
async def submit(request: Request, caller: Operator, asked: Asked) -> Response:
    """Make the job; its input is listed in the background. Sent twice it is one job."""
    web = dashboard(request)

    def made() -> str:
        spec = _spec(web, asked)
        web.backend.lister.submit(spec)
        return spec.job_id

    try:
        with conflicts_named(FIELDS["job_id"]):
            job = await run_sync(made, limiter=web.backend.writers)
    except MillraceError as error:
        return await _form(request, caller, asked, problem=error, status=status_for(error))
    return RedirectResponse(f"/jobs/{job}", 303)


async def _form(
    request: Request,
    caller: Caller,
    asked: dict[str, str],
    *,
    problem: MillraceError | None = None,
    found: Preview | None = None,
    status: int = 200,
) -> Response:
    shown: dict[str, Any] = {**dict.fromkeys(FIELDS, ""), "request": new_stamp(), **asked}
    backend = dashboard(request).backend
    models = await known_models(backend)
    if len(models) == 1:
        shown["model"] = shown["model"] or models[0]
    shown["more"] = any(asked.get(name, "") not in ("", USUAL.get(name)) for name in MORE)
    return page(
        "new.html",
        status=status,
        here="/new",
        who=Who.of(request, caller),
        asked=shown,
        problem=problem,
        fields=FIELDS,
        wrong=problem.field if isinstance(problem, WrongField) else "",
        preview=found,
        models=models,
        places=[place.uri for place in backend.services.stores.allowed.places],
    )


def _spec(web: Dashboard, asked: dict[str, str]) -> JobSpec:
    """Raises WrongField, and what `spec_of_request` raises."""
    given: dict[str, Any] = {name: asked[name] for name in FIELDS if asked.get(name)}
    given |= {name: _lines(asked.get(name, "")) for name in ("include", "exclude")}
    try:
        given["labels"] = dict(map(parse_label, _lines(asked.get("labels", ""))))
        request = JobRequest(**given)
    except UsageError as error:
        raise WrongField("labels", error.message) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise WrongField(str(first["loc"][0]), first["msg"].removeprefix("Value error, ")) from None
    job_id = request.job_id or stamped_job(
        ModelRef.parse(request.model).name, asked.get("request", "")
    )
    try:
        return spec_of_request(web.backend.services, request, job_id)
    except UsageError as error:
        if error.field not in FIELDS:
            raise
        raise WrongField(error.field, error.message.removeprefix(f"{error.field}: ")) from None


def _lines(text: str) -> list[str]:
    """Of a field that takes one thing a line."""
    return [line.strip() for line in text.split("\n") if line.strip()]
