"""Logging in with a browser: a form takes the token, a cookie stands for it from then on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from millrace.core.errors import Unauthenticated
from millrace.producer.http.access import COOKIE, SESSION_S, Access

router = APIRouter(include_in_schema=False)

LoginPage = Callable[[Request, str, str | None, int], Response]
"""The form, which posts `token` and `next` to `/login`, given where to go afterwards, what went
wrong and the status of the answer: `app.state.login_page`."""


@router.get("/login")
async def form(request: Request, next: str = "/") -> Response:
    """The form; where nobody needs a token, the page itself."""
    access: Access = request.app.state.access
    if access.open:
        return RedirectResponse(local(next), 303)
    return _form(request, next, None, 200)


@router.post("/login")
async def login(
    request: Request,
    token: Annotated[str, Form(max_length=4096)],
    next: Annotated[str, Form(max_length=2048)] = "/",
) -> Response:
    """Take a token for a cookie that scripts cannot read and other sites cannot use."""
    access: Access = request.app.state.access
    access.refuse_other_sites(request)
    try:
        caller = access.by_token(token.strip())
    except Unauthenticated as error:
        return _form(request, next, error.message, 401)
    answer = RedirectResponse(local(next), 303)
    answer.set_cookie(
        COOKIE,
        access.session(caller),
        max_age=SESSION_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
async def logout(request: Request) -> Response:
    """Take the cookie away."""
    access: Access = request.app.state.access
    access.refuse_other_sites(request)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


def local(path: str) -> str:
    """The path of ours to go on to; whatever else was asked for, the front page."""
    ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if ours else "/"


def _form(request: Request, path: str, problem: str | None, status: int) -> Response:
    page: LoginPage = request.app.state.login_page
    return page(request, local(path), problem, status)
