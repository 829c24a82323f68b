"""The short way to a status that was read a moment ago.

Whoever polls asks `GET /v1/jobs/{id}` again and again. What is fresh on the board is answered here,
ahead of the router; all else, every error among it, goes the way of any other request.
"""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from millrace.core.errors import AccessDenied
from millrace.producer.http.access import Access
from millrace.producer.http.board import StatusBoard

_PATH = re.compile(r"/v1/jobs/([^/]+)")


class FastStatus:
    """Plain ASGI. `route` is the one that is spared, for whoever counts requests by it."""

    def __init__(self, app: ASGIApp, board: StatusBoard, access: Access, route: object) -> None:
        self._app = app
        self._board = board
        self._access = access
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = self._body(scope)
        if body is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = self._route
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _body(self, scope: Scope) -> bytes | None:
        if scope["type"] != "http" or scope["method"] != "GET" or scope["query_string"]:
            return None
        path = _PATH.fullmatch(scope["path"])
        if path is None:
            return None
        try:
            # First, for what is asked of the board may have it read Redis.
            self._access.caller(Request(scope))
        except AccessDenied:
            return None  # the router says why
        posted = self._board.fresh(path[1])
        return posted.body if posted else None
