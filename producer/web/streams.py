"""Server-sent events that carry pieces of a page, each only when it has changed.

They are counted with those of the API, for each costs the same.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response

from millrace.producer.http.streams import Closing
from millrace.producer.web.dashboard import dashboard

EVERY_S = 1.0
HEARTBEAT_S = 15.0

_BREAK = re.compile("\r\n|\r|\n")

HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


@dataclass(frozen=True, slots=True)
class News:
    """Pieces of a page by the name of their event; `over` says that there will be no more, and
    `away` why nothing can be looked at, which is an event like them."""

    pieces: dict[str, str] = field(default_factory=dict)
    over: bool = False
    away: str = ""


def event(name: str, data: str) -> bytes:
    """One event. A line break in the data begins another line of it."""
    lines = "".join(f"data: {line}\n" for line in _BREAK.split(data)) if data else "data:\n"
    return f"event: {name}\n{lines}\n".encode("utf-8", "replace")


async def stream(
    request: Request,
    news: Callable[[], Awaitable[News]],
    meanwhile: AbstractContextManager[None] | None = None,
) -> Response:
    """Ask for `news` until they are over, the browser leaves or the server stops; `meanwhile` is
    entered for as long. Raises Busy."""
    web = dashboard(request)

    async def events() -> AsyncGenerator[bytes]:
        with web.backend.watcher.place(), meanwhile or nullcontext():
            yield b""
            sent = {"away": ""}
            quiet = 0.0
            while not web.ended() and not await request.is_disconnected():
                now = await news()
                told = {"away": now.away, **now.pieces}
                changed = [(n, piece) for n, piece in told.items() if sent.get(n) != piece]
                for name, piece in changed:
                    yield event(name, piece)
                sent |= changed
                if now.over:
                    yield event("over", "")
                    return
                quiet = 0.0 if changed else quiet + EVERY_S
                if quiet >= HEARTBEAT_S:
                    yield b": still here\n\n"
                    quiet = 0.0
                await asyncio.sleep(EVERY_S)

    frames = events()
    await anext(frames)
    return Closing(frames, headers=HEADERS, media_type="text/event-stream")
