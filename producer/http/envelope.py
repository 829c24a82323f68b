"""What every request and answer has to keep to: a body from somebody known, within its limit and
its time, and safe headers.

Plain ASGI, around everything else, so that it costs next to nothing.
"""

from __future__ import annotations

import math

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millrace.core.errors import MillraceError
from millrace.core.sizes import MIB, shown_bytes
from millrace.producer.http.access import operator, page_operator, viewer
from millrace.producer.http.problems import answer

UPLOAD_PATHS = frozenset({"/v1/predict", "/try"})
SIGNING_IN = frozenset({"/login", "/logout"})
"""What anybody may post to: one brings a token, the other takes nothing."""
PASSED_OVER_BYTES = 64 * MIB
PASSED_OVER_S = 5
BODY_WITHIN_S = 120.0
"""A body that comes more slowly is not waited for: 32 MB at 2 Mbit/s takes as long."""
_SAFE = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


class Envelope:
    """Refuses bodies of those who may not send any before they are read, and those over the limit,
    by what they say of their length and by what comes."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_upload_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_SAFE]
            await send(message)

        if scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send_safely)
            return
        path = scope["path"]
        limit = self._max_upload_bytes if path in UPLOAD_PATHS else self._max_body_bytes
        request = Request(scope)
        try:
            # Whatever is posted acts; no other method sends anything that is taken.
            posted = scope["method"] == "POST"
            if path.startswith("/v1/"):
                await (operator if posted else viewer)(request)
            elif posted and path not in SIGNING_IN:
                await page_operator(request)
            if _said_length(scope) > limit:
                raise HTTPException(413, _detail(limit), {"connection": "close"})
        except (MillraceError, HTTPException) as error:
            await _passed_over(receive)
            refusal = await answer(request, error)
            await refusal(scope, receive, send_safely)
            return
        await self._app(scope, _counted(receive, limit), send_safely)


async def _passed_over(receive: Receive) -> None:
    """Read some of what comes and keep nothing: a client that is still sending may not see an
    answer. More than that is cut off, for the connection does not outlive it."""
    left = PASSED_OVER_BYTES
    with anyio.move_on_after(PASSED_OVER_S):
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body"):
                return


def _counted(receive: Receive, limit: int) -> Receive:
    came, until, whole = 0, anyio.current_time() + BODY_WITHIN_S, False

    async def receive_some() -> Message:
        nonlocal came, whole
        # After the body, who asks waits for the client to leave.
        with anyio.CancelScope(deadline=math.inf if whole else until) as waiting:
            message = await receive()
        if waiting.cancelled_caught:
            raise HTTPException(408, "the body did not come in time", {"connection": "close"})
        if message["type"] == "http.request":
            came += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if came > limit:
                raise HTTPException(413, _detail(limit), {"connection": "close"})
        return message

    return receive_some


def _said_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


def _detail(limit: int) -> str:
    return f"the request's body is larger than {shown_bytes(limit)}"
