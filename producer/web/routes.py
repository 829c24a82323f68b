"""The dashboard's routes, and how an app takes it in."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from millrace.producer.web import (
    action_pages,
    job_pages,
    jobs_pages,
    new_pages,
    static_files,
    thumbnail_routes,
    try_pages,
)
from millrace.producer.web.dashboard import Dashboard
from millrace.producer.web.pages import error_page, login_page

router = APIRouter(include_in_schema=False)
for part in (
    static_files, jobs_pages, new_pages, try_pages, job_pages, thumbnail_routes, action_pages,
):  # fmt: skip
    router.include_router(part.router)


def install(app: FastAPI) -> None:
    """Give an app with a `backend` the dashboard, and its look to errors and to signing in."""
    app.state.dashboard = Dashboard(app.state.backend)
    app.state.error_page = error_page
    app.state.login_page = login_page
    app.include_router(router)
