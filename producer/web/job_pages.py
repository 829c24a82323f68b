"""The page of one job, what keeps it up to date, its gallery, and its images one by one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from millrace.core.errors import (
    JobNotFound,
    MillraceError,
    NotFound,
    ObjectTooLarge,
    RedisUnavailable,
)
from millrace.core.job import TAKES_WORK, JobSpec
from millrace.core.manifest import ManifestRow
from millrace.producer.http.access import Caller, page_viewer, viewer
from millrace.producer.http.requests import JobIdPath
from millrace.producer.web.actions import ACTIONS
from millrace.producer.web.dashboard import FRESH_S, Dashboard, dashboard
from millrace.producer.web.gallery import Kind, Page, Wanted, page_of
from millrace.producer.web.job_view import JobView, view_of
from millrace.producer.web.outcomes import outcomes_of
from millrace.producer.web.pages import Who, html, page
from millrace.producer.web.shown import done
from millrace.producer.web.stamps import new_stamp
from millrace.producer.web.streams import News, stream
from millrace.producer.web.thumbnails import SIDES, said, version_of

PIECES = ("controls", "progress", "chart", "errors", "classes", "workers")
"""What of the page is brought up to date: template `_NAME.html`, event `NAME`."""

STILL_S = 10.0
"""How old the page of a job may be that nothing becomes of: workers come and go."""

MOST_ROWS = 2**40

router = APIRouter(include_in_schema=False)

Row = Annotated[int, Path(ge=0, le=MOST_ROWS)]
Viewer = Annotated[Caller, Depends(page_viewer)]


@dataclass(frozen=True, slots=True)
class Gallery:
    """A page of outcomes and the filter it was made by; `query` leads on with the same one,
    `version` is for its thumbnails, and `problem` is why there is nothing."""

    wanted: Wanted
    page: Page
    continued: bool
    query: str
    version: str
    problem: MillraceError | None


@dataclass(frozen=True, slots=True)
class Seen:
    """The pieces of a page, and whether results are being read for them yet."""

    news: News
    reading: bool


def asked_for(
    kind: Kind = "all",
    label: Annotated[str, Query(max_length=1000)] = "",
    code: Annotated[str, Query(max_length=200)] = "",
    least: Annotated[str, Query(max_length=30)] = "",
    most: Annotated[str, Query(max_length=30)] = "",
) -> Wanted:
    """The filter, as a form sends it: empty fields are no wish."""
    return Wanted(kind, label.strip(), code, _number(least), _number(most))


After = Annotated[int, Query(ge=0, le=MOST_ROWS)]


@router.get("/jobs/{job}")
async def job_page(
    request: Request,
    job: JobIdPath,
    caller: Viewer,
    wanted: Annotated[Wanted, Depends(asked_for)],
    after: After = 0,
    did: Annotated[str, Query(alias="done")] = "",
) -> Response:
    """Everything about one job."""
    web = dashboard(request)
    posted = await web.backend.board.posted(job)

    def whole() -> Response:
        view = view_of(web, posted)
        action = ACTIONS.get(did)
        return page(
            "job.html",
            who=Who.of(request, caller),
            view=view,
            gallery=_gallery(web, view.job.job_id, wanted, after),
            actions=ACTIONS,
            stamp=new_stamp(),
            notice=action and {"text": action.done, "tone": "good"},
        )

    return await web.in_thread(whole)


@router.get("/jobs/{job}/live")
async def live(
    request: Request, job: JobIdPath, caller: Annotated[Caller, Depends(viewer)]
) -> Response:
    """The pieces of its page, each whenever it changes, until nothing more will."""
    web, who = dashboard(request), Who.of(request, caller)
    with suppress(RedisUnavailable):  # the stream itself tells it
        await web.backend.board.posted(job)  # no stream about no job

    reading = True

    async def news() -> News:
        nonlocal reading
        try:
            posted = await web.backend.board.posted(job)
            # Of a job that stands still the same is shown for a while, for all who look at it; and
            # of one that was paused just now, nothing of before.
            still = not reading and posted.status.state not in TAKES_WORK
            found: Seen = await web.of_jobs.get(
                (job, who.acts, posted.body if still else posted.status.state),
                lambda: _seen(view_of(web, posted), who),
                STILL_S if still else FRESH_S,
            )
            reading = found.reading
            return found.news
        except JobNotFound:
            return News(over=True)  # it was deleted
        except MillraceError as error:
            return News(away=error.message)  # Redis is away: what stands there stays

    return await stream(request, news)


@router.get("/jobs/{job}/gallery")
async def gallery(
    request: Request,
    job: JobIdPath,
    caller: Viewer,
    wanted: Annotated[Wanted, Depends(asked_for)],
    after: After = 0,
) -> Response:
    """Some of its outcomes, to stand in its page."""
    web = dashboard(request)
    status = (await web.backend.board.posted(job)).status
    found = await web.in_thread(lambda: _gallery(web, job, wanted, after))
    answer = page("_gallery.html", gallery=found, view={"job": status})
    if not after:
        answer.headers["hx-replace-url"] = f"/jobs/{job}?{found.query}".rstrip("&?")
    return answer


@router.get("/jobs/{job}/images/{row}")
async def image(request: Request, job: JobIdPath, row: Row, caller: Viewer) -> Response:
    """One image and all that is known of it."""
    web = dashboard(request)
    total = (await web.backend.board.posted(job)).status.counts.total
    if row >= total:
        raise NotFound(f"{job} has {total:,} images, and none of number {row + 1:,}")

    def known() -> tuple[JobSpec, ManifestRow, dict[str, Any] | None, bool]:
        spec = web.files.spec(job)
        named = web.files.row(spec, row)
        chunk, at = divmod(row, spec.chunk_size)
        try:
            found = next(outcomes_of(web.files.directory(spec), spec, chunk, at), None)
            return spec, named, found, False
        except ObjectTooLarge:
            return spec, named, None, True

    spec, named, outcome, too_large = await web.in_thread(known)
    # It is made before the browser asks for it, to say in words if there is none.
    thumbnail = await web.thumbnail(spec, row, SIDES[1])
    return page(
        "image.html",
        who=Who.of(request, caller),
        job_id=job,
        row=row,
        total=total,
        key=named.key,
        etag=named.etag,
        size=named.size,
        outcome=outcome,
        too_large=too_large,
        thumbnail_version=version_of(spec),
        unseen=said(thumbnail.problem) if thumbnail.problem else "",
    )


def _seen(view: JobView, who: Who) -> Seen:
    pieces = {
        name: html(f"_{name}.html", view=view, who=who, workers=view.workers) for name in PIECES
    }
    pieces |= {"say": view.say, "more": str(done(view.job) or "")}
    return Seen(News(pieces, over=not view.live), view.reading)


def _gallery(web: Dashboard, job: str, wanted: Wanted, after: int) -> Gallery:
    spec = web.files.spec(job)
    problem = None
    try:
        found = _page(web, spec, wanted, after)
    except MillraceError as error:
        found, problem = Page([], None, 0), error
    fields = {
        "kind": "" if wanted.kind == "all" else wanted.kind,
        "label": wanted.label,
        "code": wanted.code,
        "least": wanted.least,
        "most": wanted.most,
    }
    query = urlencode({name: value for name, value in fields.items() if value not in ("", None)})
    query = f"{query}&" if query else ""
    return Gallery(wanted, found, after > 0, query, version_of(spec), problem)


def _page(web: Dashboard, spec: JobSpec, wanted: Wanted, after: int) -> Page:
    jobs = web.backend.services.jobs
    # A chunk that holds no error need not be read to find one.
    chunks = jobs.failed_bitmap if wanted.only_errors else jobs.done_bitmap
    return page_of(web.files.directory(spec), spec, chunks(spec.job_id), wanted, after)


def _number(text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
