"""The OpenAPI document: what the routes say, and what holds for all of them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from millrace.producer.http.access import COOKIE
from millrace.producer.http.examples import EXAMPLES
from millrace.producer.http.problems import ProblemModel

TAGS = [
    {"name": "jobs", "description": "Submit, list, poll and watch jobs."},
    {"name": "control", "description": "Cancel, pause, resume, retry."},
    {"name": "results", "description": "What came of every image."},
    {"name": "checks", "description": "Dry runs, and counts derived from storage alone."},
    {"name": "predict", "description": "One picture at once."},
    {"name": "fleet", "description": "Models, and the workers that serve them."},
    {"name": "health", "description": "For load balancers; without a token."},
    {"name": "metrics", "description": "For Prometheus."},
]

_SECURITY = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A viewer's token reads; an operator's also acts.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "What a browser gets for a token at `/login`; from our own pages only.",
    },
}
_DESCRIPTION = """Errors are RFC 9457 problem details (`application/problem+json`) whose `code` is a
stable word. Times are RFC 3339 in UTC. `docs/http.md` says more."""


def describe(app: FastAPI) -> None:
    """Let the app answer `/openapi.json` with a document that leaves nothing out."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=_DESCRIPTION,
        routes=app.routes,
        tags=TAGS,
    )
    components = document.setdefault("components", {})
    problem = ProblemModel.model_json_schema(ref_template="#/components/schemas/{model}")
    components.setdefault("schemas", {})["Problem"] = problem
    components["securitySchemes"] = _SECURITY
    for name, example in EXAMPLES.items():
        components["schemas"][name]["examples"] = [example]
    for path, operations in document["paths"].items():
        if path.startswith("/v1/") or path == "/metrics":
            for operation in operations.values():
                operation["security"] = [{"token": []}, {"session": []}]
    return document
