"""What every request and answer has to keep to: a body within its limit, and safe headers.

Plain ASGI, around everything else, so that it costs next to nothing.
"""

from __future__ import annotations

from anyio import move_on_after
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millrace.core.sizes import MIB, shown_bytes
from millrace.producer.http.problems import Problem, shown

UPLOAD_PATHS = frozenset({"/v1/predict", "/try"})
PASSED_OVER_BYTES = 64 * MIB
PASSED_OVER_S = 5
_SAFE = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


class Envelope:
    """Refuses bodies over the limit, by what they say of their length and by what comes."""

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
        if _said_length(scope) > limit:
            await _passed_over(receive)
            problem = Problem(413, "too_large", _detail(limit), headers={"connection": "close"})
            await shown(Request(scope), problem)(scope, receive, send_safely)
            return
        await self._app(scope, _counted(receive, limit), send_safely)


async def _passed_over(receive: Receive) -> None:
    """Read some of what comes and keep nothing: a client that is still sending may not see an
    answer. More than that is cut off, for the connection does not outlive it."""
    left = PASSED_OVER_BYTES
    with move_on_after(PASSED_OVER_S):
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body"):
                return


def _counted(receive: Receive, limit: int) -> Receive:
    came = 0

    async def receive_some() -> Message:
        nonlocal came
        message = await receive()
        if message["type"] == "http.request":
            came += len(message.get("body", b""))
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
