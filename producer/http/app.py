"""The web application: middleware, routes, errors and the OpenAPI document, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio.to_thread import run_sync
from fastapi import FastAPI

from millrace.core.services import Services
from millrace.producer.http import (
    checks,
    control,
    events,
    fleet,
    health,
    jobs,
    metrics,
    outcomes,
    predict,
    problems,
    session,
)
from millrace.producer.http.access import Access
from millrace.producer.http.backend import Backend
from millrace.producer.http.cors import ASKED_WITH, TOLD, Cors
from millrace.producer.http.envelope import Envelope
from millrace.producer.http.fast_status import FastStatus
from millrace.producer.http.openapi import describe
from millrace.producer.http.settings import HttpSettings
from millrace.producer.web import routes as dashboard


def create_app(services: Services, settings: HttpSettings) -> FastAPI:
    """The app over these services. Raises UsageError for settings that would leave it open."""
    access = Access(settings)
    backend = Backend(services, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        backend.start()
        yield
        await run_sync(backend.stop)

    app = FastAPI(
        title="millrace",
        summary="A bucket of images in, JSON predictions out.",
        version=version("millrace"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.access = access
    app.state.backend = backend
    problems.install(app)
    # The last one added is the outermost.
    app.add_middleware(FastStatus, board=backend.board, access=access, route=jobs.STATUS_ROUTE)
    app.add_middleware(
        Envelope,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
    )
    if settings.origins:
        app.add_middleware(
            Cors,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=ASKED_WITH,
            expose_headers=TOLD,
        )
    app.include_router(session.router)
    for part in (jobs, control, events, outcomes, checks, fleet, predict, health):
        app.include_router(part.router)
    # Last, so that it is around everything else.
    metrics.install(app, services, open_to_all=settings.metrics_open)
    describe(app)
    dashboard.install(app)
    return app
