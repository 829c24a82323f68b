"""Pause, resume, cancel, retry: a page that asks, for browsers without scripts, and the doing."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from millrace.core.errors import NotFound
from millrace.core.services import Services
from millrace.producer import control
from millrace.producer.http.access import Caller, page_operator
from millrace.producer.http.requests import JobIdPath
from millrace.producer.retry import retry_spec
from millrace.producer.web.actions import ACTIONS, RETRY, Action
from millrace.producer.web.dashboard import Dashboard, dashboard
from millrace.producer.web.pages import Who, page

router = APIRouter(include_in_schema=False)

Operator = Annotated[Caller, Depends(page_operator)]


@router.get("/jobs/{job}/{action}")
def ask(request: Request, job: JobIdPath, action: str, caller: Operator) -> Response:
    """The question that the dialog asks where scripts run."""
    found = _action(action)
    dashboard(request).backend.services.jobs.spec(job)
    who = Who.of(request, caller)
    return page("confirm.html", who=who, job_id=job, action=found)


@router.post("/jobs/{job}/{action}")
def act(request: Request, job: JobIdPath, action: str, _: Operator) -> Response:
    """Do it, and go back to the job, or on to the new one."""
    found, web = _action(action), dashboard(request)
    about = _do(web, found, job)
    web.backend.board.forget(job)
    return RedirectResponse(f"/jobs/{about}?done={found.name}", 303)


def _do(web: Dashboard, action: Action, job: str) -> str:
    """The job to look at afterwards. Raises JobNotFound, JobConflict."""
    services: Services = web.backend.services
    if action is RETRY:
        spec = retry_spec(services, job)
        web.backend.lister.submit(spec)
        return spec.job_id
    if action.name == "cancel":
        control.cancel(services, job, and_then=lambda _, cancelled: web.backend.board.care_soon(cancelled))
    elif action.name == "pause":
        control.pause(services, job)
    else:
        control.resume(services, job)
    return job


def _action(name: str) -> Action:
    if name not in ACTIONS:
        raise NotFound("there is no such page")
    return ACTIONS[name]
