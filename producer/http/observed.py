"""Every request by its id and its time: bound to the log lines it causes, answered, counted.

Plain ASGI, for it is on every request's way: a few microseconds.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from millrace.core import metrics as m
from millrace.core.log import get_logger
from millrace.core.metrics import Counts, Sample
from millrace.core.topology import JOB_ID_PATTERN
from millrace.producer.http.envelope import SIGNING_IN

log = get_logger(__name__)

HEADER = "x-request-id"
_HEADER = HEADER.encode()
_GIVEN = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")
_JOB = re.compile(rf"(?:/v1)?/jobs/({JOB_ID_PATTERN[1:-1]})(?=[/?]|$)")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "none"
"""Of a request for what there is not: what people ask for has no bounds."""


class Requests:
    """What was asked and answered so far."""

    def __init__(self) -> None:
        self._counts = Counts()
        self._open = 0  # of the event loop alone

    def begin(self) -> None:
        self._open += 1

    def end(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """`seconds` are None of what lasts as long as somebody listens."""
        self._open -= 1
        method = method if method in METHODS else "other"
        self._counts.add(m.REQUESTS, 1, method, route, str(status))
        if seconds is not None:
            self._counts.observe(m.REQUEST_SECONDS, (seconds,), method, route)

    def samples(self) -> list[Sample]:
        return [*self._counts.samples(), Sample(m.REQUESTS_OPEN, self._open)]


class Observed:
    """Takes the `X-Request-ID` that was given, or makes one."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app, self._requests = app, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given(scope) or _made()
        # Each request has a task of its own, whose context ends with it.
        bind_contextvars(request_id=request_id.decode())
        _bind_job(scope["path"])
        status = 500  # of what is raised through us
        lasts = False
        started = time.perf_counter()
        self._requests.begin()

        async def send_named(message: Message) -> None:
            nonlocal status, lasts
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ())]
                lasts = _value(headers, b"content-type").startswith(b"text/event-stream")
                if scope["path"] not in SIGNING_IN:
                    # It was made just now.
                    _bind_job(_value(headers, b"location").decode("latin-1"))
                message["headers"] = [*headers, (_HEADER, request_id)]
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        finally:
            seconds = time.perf_counter() - started
            method: str = scope["method"]
            self._requests.end(method, route_of(scope), status, None if lasts else seconds)
            # People poll: what only reads is told of in debugging alone.
            say = log.debug if method in ("GET", "HEAD") else log.info
            say(
                "answered a request",
                method=method,
                path=scope["path"],
                status=status,
                seconds=round(seconds, 4),
            )


def route_of(scope: Scope) -> str:
    """The template of the path that was asked for, as `/v1/jobs/{job}`."""
    route: Any = scope.get("route")
    return getattr(route, "path", None) or NO_ROUTE


def _bind_job(path: str) -> None:
    """From now on the lines are about the job that a path names, if it names one."""
    job = _JOB.match(path)
    if job is not None:
        bind_contextvars(job=job[1])


def _given(scope: Scope) -> bytes | None:
    value = _value(scope["headers"], _HEADER)
    return value if _GIVEN.fullmatch(value) else None


def _made() -> bytes:
    """An id that no other request has; it is no secret, and asking the system for one costs more
    than all else here."""
    return b"%016x" % random.getrandbits(64)


def _value(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """Of the first header of that name; empty if there is none."""
    return next((value for key, value in headers if key == name), b"")
