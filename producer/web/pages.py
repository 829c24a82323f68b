"""Templates → answers: what every page shares, its headers, and pages for what went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from millrace.core.errors import MillraceError
from millrace.producer.http.access import Access, Caller, Role
from millrace.producer.http.problems import Problem
from millrace.producer.web.shown import FILTERS, TESTS, TONES
from millrace.producer.web.static_files import static_url

POLICY = (
    "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""Nothing inline runs or paints; `blob:` is the picture somebody chose, before it is sent."""

HEADERS = {"content-security-policy": POLICY, "cache-control": "no-store", "vary": "hx-request"}


@dataclass(frozen=True, slots=True)
class Who:
    """Whoever looks, as pages know them."""

    name: str
    acts: bool
    open: bool
    """Nobody has to sign in here."""

    @classmethod
    def of(cls, request: Request, caller: Caller) -> Who:
        access: Access = request.app.state.access
        return cls(caller.name, caller.role >= Role.OPERATOR, access.open)


@cache
def environment() -> Environment:
    """The templates. Whatever they show is escaped, and what they forget is an error."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= FILTERS
    made.tests |= TESTS
    made.globals |= {"static": static_url, "tones": TONES, "version": version("millrace")}
    return made


def html(template: str, **context: Any) -> str:
    """A template filled in; `who` is None unless it is given."""
    return environment().get_template(template).render({"who": None, "here": "", **context})


def page(template: str, *, status: int = 200, **context: Any) -> Response:
    """A whole page, or a fragment of one."""
    return HTMLResponse(html(template, **context), status, HEADERS)


def wants_fragment(request: Request) -> bool:
    """Whether htmx asks, which puts what it gets into a page that is there."""
    return "hx-request" in request.headers


def problem_fragment(error: MillraceError) -> Response:
    """What went wrong, to stand where the answer would. It is an answer: browsers log others."""
    return page("_problem.html", detail=error.message, hint=error.hint)


def error_page(request: Request, problem: Problem) -> Response:
    """A page for a request that failed; who has to sign in first is sent there, and back."""
    if problem.status == 401 and request.method == "GET" and not wants_fragment(request):
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(path)}", 303, HEADERS)
    body = problem.body(request.url.path)
    answer = page(
        "_problem.html" if wants_fragment(request) else "problem.html",
        status=problem.status,
        title=body["title"],
        detail=problem.detail,
        hint=problem.hint,
        request_id=body.get("request_id"),
        who=_who(request),
    )
    answer.headers.update(problem.headers)
    return answer


def login_page(request: Request, path: str, problem: str | None, status: int) -> Response:
    """The form that takes a token."""
    return page("login.html", status=status, next=path, problem=problem)


def _who(request: Request) -> Who | None:
    """Whoever looks at an error, which may be that nobody knows them."""
    access: Access = request.app.state.access
    try:
        return Who.of(request, access.caller(request))
    except MillraceError:
        return None
