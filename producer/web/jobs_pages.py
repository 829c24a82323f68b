"""The front page: jobs with live bars, by state, model and label, a page at a time; the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from millrace.core.errors import MillraceError, UsageError
from millrace.core.job import JobState, parse_label
from millrace.core.model_ref import ModelRef
from millrace.core.services import Services
from millrace.producer.http.access import Caller, page_viewer, viewer
from millrace.producer.http.backend import Backend
from millrace.producer.page import JobsPage, Wanted, jobs_page
from millrace.producer.web.dashboard import FRESH_S, Dashboard, dashboard
from millrace.producer.web.pages import Who, html, page
from millrace.producer.web.streams import News, stream

PER_PAGE = 25
CALM_S = 3.0
"""How old a list may be of which every job has ended, for another one may begin; and one that
only some jobs belong to, for which many may have to be looked at."""
LISTS_FRESH = 8
"""Different lists that are kept so fresh. The more there are beyond, the older each may be: all
together they cost the same."""

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which jobs, as the address says. What is no state or model chooses nothing."""

    state: str = ""
    model: str = ""
    label: str = ""
    """`NAME=VALUE`"""
    cursor: str = ""
    problem: str = ""
    """Why no job has such a label: it is typed by people, who would wonder at a list of all."""

    @classmethod
    def of(cls, request: Request) -> Chosen:
        asked = request.query_params
        # Longer ones are none, and not shown either.
        state, model, label = (asked.get(name, "")[:400] for name in ("state", "model", "label"))
        return cls(
            state=state if state in {*JobState} else "",
            model="" if _unread(ModelRef.parse, model) else model,
            label=label,
            cursor=asked.get("cursor", "")[:300],
            problem=_unread(parse_label, label) if label else "",
        )

    def query(self, cursor: str = "") -> str:
        fields = {"state": self.state, "model": self.model, "label": self.label, "cursor": cursor}
        return urlencode({name: value for name, value in fields.items() if value})

    @property
    def wanted(self) -> Wanted:
        return Wanted(
            states=frozenset({JobState(self.state)}) if self.state else frozenset(),
            model=ModelRef.parse(self.model) if self.model else None,
            labels=dict([parse_label(self.label)]) if self.label and not self.problem else {},
        )


@router.get("/")
async def jobs(request: Request, caller: Annotated[Caller, Depends(page_viewer)]) -> Response:
    """The list of jobs."""
    chosen, web = Chosen.of(request), dashboard(request)
    models = {*await known_models(web.backend), chosen.model} - {""}
    found = await run_sync(_page, web, chosen)
    return page(
        "jobs.html",
        here="/",
        who=Who.of(request, caller),
        query=chosen.query(chosen.cursor),
        states=[*JobState],
        models=sorted(models),
        **_shown(chosen, found),
    )


@router.get("/live")
async def live(request: Request, caller: Annotated[Caller, Depends(viewer)]) -> Response:
    """The list of the same page, again whenever it changes."""
    chosen, web, who = Chosen.of(request), dashboard(request), Who.of(request, caller)

    active = True

    def listed() -> tuple[str, bool]:
        found = _page(web, chosen)
        shown = html("_job_list.html", who=who, **_shown(chosen, found))
        return shown, any(not job.terminal for job in found.jobs)

    async def news() -> News:
        nonlocal active
        fresh_s = FRESH_S if active and not chosen.wanted else CALM_S
        fresh_s *= max(1, len(web.lists) / LISTS_FRESH)
        try:
            shown, active = await web.of_lists.get((chosen, who.acts), listed, fresh_s)
        except MillraceError as error:  # Redis is away: what stands there stays
            return News(away=error.message)
        return News({"jobs": shown})

    return await stream(request, news, _looked_at(web, chosen))


@router.get("/workers")
def workers(request: Request, caller: Annotated[Caller, Depends(page_viewer)]) -> Response:
    """Every worker that was heard of lately."""
    found = dashboard(request).backend.services.fleet.workers()
    return page("workers.html", here="/workers", who=Who.of(request, caller), workers=found)


@contextmanager
def _looked_at(web: Dashboard, chosen: Chosen) -> Iterator[None]:
    """While a stream shows this list."""
    web.lists[chosen] += 1
    try:
        yield
    finally:
        web.lists[chosen] -= 1
        if not web.lists[chosen]:
            del web.lists[chosen]


def _page(web: Dashboard, chosen: Chosen) -> JobsPage:
    if chosen.problem:
        return JobsPage([], None)
    backend = web.backend
    return jobs_page(
        backend.services,
        lambda job: backend.board.read(job).status,
        limit=PER_PAGE,
        cursor=chosen.cursor or None,
        wanted=chosen.wanted,
    )


def _shown(chosen: Chosen, found: JobsPage) -> dict[str, Any]:
    """What the list is drawn from."""
    return {
        "jobs": found.jobs,
        "chosen": chosen,
        "newer": (chosen.query() or "all") if chosen.cursor else "",
        "older": chosen.query(found.next_cursor) if found.next_cursor else "",
    }


def _unread(parse: Callable[[str], object], text: str) -> str:
    """Why the text cannot be read, if it cannot."""
    try:
        parse(text)
    except UsageError as error:
        return error.message
    return ""


async def known_models(backend: Backend) -> list[str]:
    """The models of the repository, if there is one, and those that workers serve."""
    return await run_sync(_known_models, backend, limiter=backend.shelf.limiter)


def _known_models(backend: Backend) -> list[str]:
    found: set[str] = set()
    with suppress(MillraceError):
        found |= served_models(backend.services)
    with suppress(MillraceError):
        found |= {model.name for model in backend.shelf.models()}
    return sorted(found)


def served_models(services: Services) -> set[str]:
    """The names of the models that live workers serve."""
    seen = services.fleet.workers()
    return {ModelRef.parse(one.info.model).name for one in seen if not one.lost}
