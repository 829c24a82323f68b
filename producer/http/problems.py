"""Every error as RFC 9457 problem details: `application/problem+json`, with a stable `code`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from structlog.contextvars import get_contextvars

from millrace.core import errors as e
from millrace.core.log import get_logger

log = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:millrace:problem:"

STATUS: dict[type[e.MillraceError], int] = {
    e.MillraceError: 500,
    e.UsageError: 422,
    e.LocationNotAllowed: 403,
    e.NotFound: 404,
    e.AccessDenied: 403,
    e.Unauthenticated: 401,
    e.Conflict: 409,
    e.Unavailable: 503,
    e.SourceChanged: 409,
    e.ObjectTooLarge: 413,
    e.CorruptRecord: 500,
    e.WaitTimeout: 504,
    e.BadMessage: 500,
    e.MissingExtra: 500,
    e.ModelError: 422,
    e.ItemError: 422,
}
"""The nearest class of an error says its status."""

HTTP_CODES = {
    400: "bad_request",
    404: "no_such_page",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_media_type",
    429: "busy",
}
"""What the framework itself refuses."""

RETRY_AFTER_S = 5
_PLAIN = "/:@!$&'()*+,;="
"""What stands for itself in the path of a URL: RFC 3986, section 3.3."""


class ProblemModel(BaseModel):
    """RFC 9457 problem details. `code` is a stable word for programs, `hint` says what to do."""

    model_config = ConfigDict(title="Problem", extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    hint: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One error as it is answered."""

    status: int
    code: str
    detail: str
    hint: str | None = None
    more: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def body(self, path: str | None) -> dict[str, Any]:
        known = {
            "type": f"{TYPE_PREFIX}{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": None if path is None else quote(path, safe=_PLAIN),
            "code": self.code,
            "hint": self.hint,
            "request_id": get_contextvars().get("request_id"),
        }
        return {name: value for name, value in known.items() if value is not None} | self.more

    def response(self, path: str | None) -> Response:
        """`path` is what was asked for, if it is known."""
        body = orjson.dumps(self.body(path), default=str)
        headers = {"cache-control": "no-store", **self.headers}
        return Response(body, self.status, headers, media_type=MEDIA_TYPE)


def status_for(error: e.MillraceError | type[e.MillraceError]) -> int:
    """The HTTP status of an error."""
    kind = error if isinstance(error, type) else type(error)
    return next(STATUS[near] for near in kind.__mro__ if near in STATUS)


def problem_of(error: Exception) -> Problem:
    """What is answered for an error. An unexpected one tells nothing of itself."""
    if isinstance(error, e.MillraceError):
        status = status_for(error)
        headers = {}
        if status == 401:
            headers["www-authenticate"] = 'Bearer realm="millrace"'
        if status == 503:
            headers["retry-after"] = str(RETRY_AFTER_S)
        more: dict[str, Any] = {}
        if isinstance(error, e.ItemError):
            more = {"stage": str(error.stage)}
        elif isinstance(error, e.BadManifest):
            more = {"line": error.line}
        return Problem(status, error.code, error.message, error.hint, more, headers)
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        code = HTTP_CODES.get(error.status_code, "http_error")
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        return Problem(error.status_code, code, str(error.detail), headers=headers)
    return Problem(500, "internal", "the server met an error that it did not expect")


def _invalid(error: RequestValidationError) -> Problem:
    found = [
        {"at": [str(step) for step in problem["loc"]], "message": problem["msg"]}
        for problem in error.errors()
    ]
    first = found[0] if found else {"at": [], "message": "it cannot be read"}
    where = ".".join(first["at"])
    return Problem(422, "invalid_request", f"{where}: {first['message']}", more={"errors": found})


ErrorPage = Callable[[Request, Problem], Response]
"""How pages for people show a problem: `app.state.error_page`, which is the dashboard's."""


async def answer(request: Request, error: Exception) -> Response:
    """The answer to a request that failed: to a browser outside the API a page."""
    problem = problem_of(error)
    if problem.status == 405:
        problem.headers["allow"] = _allowed(request)
    if problem.code == "invalid_request" and _calls_json_something_else(request):
        problem = replace(problem, hint="say what comes: Content-Type: application/json")
    if problem.status < 400:
        return Response(status_code=problem.status, headers=problem.headers)
    request_id = get_contextvars().get("request_id")
    if problem.code == "internal" and request_id:
        # Such an answer is given outside of what names all others.
        problem.headers["x-request-id"] = request_id
    if problem.status >= 500 and problem.code != "internal":
        log.warning("a request failed", path=request.url.path, error=problem.detail)
    return shown(request, problem)


def shown(request: Request, problem: Problem) -> Response:
    """The problem as a page, or as problem details where it is not a page that asks."""
    page: ErrorPage | None = getattr(request.app.state, "error_page", None)
    if page is not None and _is_page(request):
        return page(request, problem)
    return problem.response(request.url.path)


def _allowed(request: Request) -> str:
    """The methods of a path, of which several routes may have one each."""
    return ", ".join(
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    )


def _calls_json_something_else(request: Request) -> bool:
    """It says nothing of its body or, as `curl -d` does, that it is a form."""
    said = request.headers.get("content-type", "").partition(";")[0]
    sends = request.headers.get("content-length", "0") != "0"
    takes_json = _to_api(request) and request.url.path != "/v1/predict"
    return takes_json and sends and said in ("", "application/x-www-form-urlencoded")


def _to_api(request: Request) -> bool:
    return request.url.path.startswith("/v1/")


def _is_page(request: Request) -> bool:
    """A browser asks for a page, or htmx, which takes anything, for a piece of one."""
    if _to_api(request):
        return False
    return "text/html" in request.headers.get("accept", "") or "hx-request" in request.headers


def install(app: FastAPI) -> None:
    """Let every error of the app be answered so."""
    for kind in (e.MillraceError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: these problems, and those that every route may answer."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": f"Problem: {HTTPStatus(status).phrase}",
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in sorted({*statuses, 401, 403, 500, 503})
    }
