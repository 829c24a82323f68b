"""`/metrics`: the server's requests, and how all jobs, queues and workers are."""

from __future__ import annotations

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Depends, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from millrace.core.exposition import page_of, register_process, registry_of
from millrace.core.services import Services
from millrace.producer.fleet_metrics import FleetMetrics
from millrace.producer.http.access import viewer
from millrace.producer.http.observed import Observed, Requests
from millrace.producer.http.problems import responses

_EXAMPLE = """# HELP millrace_jobs Jobs that Redis knows.
# TYPE millrace_jobs gauge
millrace_jobs{state="running"} 1.0
"""

SCRAPES_AT_ONCE = 4
"""In threads of their own: all others may be waiting for a Redis that hangs."""


def install(app: FastAPI, services: Services, *, open_to_all: bool = False) -> None:
    """Count every request from now on, and tell. Raises MissingExtra."""
    requests, fleet = Requests(), FleetMetrics(services)
    registry = registry_of(lambda: [({}, requests.samples()), ({}, fleet.samples())])
    register_process(registry, "millrace_server")
    limiter = CapacityLimiter(SCRAPES_AT_ONCE)

    async def who(request: Request) -> None:
        if not open_to_all:
            await viewer(request)

    @app.get(
        "/metrics",
        tags=["metrics"],
        operation_id="metrics",
        summary="For Prometheus",
        response_class=Response,
        responses={
            200: {
                "description": "In Prometheus's text format",
                "content": {"text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE}},
            },
            **responses(),
        },
        dependencies=[Depends(who)],
    )
    async def metrics(request: Request) -> Response:
        """Jobs by state, images that wait, queues, leases, live workers, requests, the process."""
        accept = request.headers.get("accept", "")
        body, content_type = await run_sync(page_of, registry, accept, limiter=limiter)
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    app.add_middleware(Observed, requests=requests)
