"""Pause, resume, cancel, retry: a page that asks, for browsers without scripts, and the doing."""

from __future__ import annotations

from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from millrace.core.errors import NotFound
from millrace.producer.http import control
from millrace.producer.http.access import Caller, page_operator
from millrace.producer.http.backend import Backend
from millrace.producer.http.requests import JobIdPath, RetryRequest
from millrace.producer.web.actions import ACTIONS, CANCEL, PAUSE, RESUME, RETRY, Action
from millrace.producer.web.dashboard import dashboard
from millrace.producer.web.pages import Who, page
from millrace.producer.web.stamps import new_stamp, stamped_job

router = APIRouter(include_in_schema=False)

Operator = Annotated[Caller, Depends(page_operator)]


@router.get("/jobs/{job}/{action}")
def ask(request: Request, job: JobIdPath, action: str, caller: Operator) -> Response:
    """The question that the dialog asks where scripts run."""
    found = _action(action)
    dashboard(request).backend.services.jobs.spec(job)
    who = Who.of(request, caller)
    return page("confirm.html", who=who, job_id=job, action=found, stamp=new_stamp())


@router.post("/jobs/{job}/{action}")
async def act(
    request: Request,
    job: JobIdPath,
    action: str,
    _: Operator,
    stamp: Annotated[str, Form(alias="request", max_length=40)] = "",
) -> Response:
    """Do it, and go back to the job, or on to the new one."""
    found = _action(action)
    backend = dashboard(request).backend
    # The others wait for Redis alone.
    limiter = backend.writers if found is RETRY else None
    about = await run_sync(_do, backend, found, job, stamp, limiter=limiter)
    return RedirectResponse(f"/jobs/{about}?done={found.name}", 303)


def _do(backend: Backend, action: Action, job: str, stamp: str) -> str:
    """The job to look at afterwards. Raises JobNotFound, JobConflict."""
    if action is RETRY:
        model = backend.services.jobs.spec(job).model.name
        return control.retry(backend, job, RetryRequest(), stamped_job(model, stamp))
    {CANCEL: control.cancel, PAUSE: control.pause, RESUME: control.resume}[action](backend, job)
    return job


def _action(name: str) -> Action:
    if name not in ACTIONS:
        raise NotFound("there is no such page")
    return ACTIONS[name]
