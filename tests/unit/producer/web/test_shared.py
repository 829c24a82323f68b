"""`Shared`: made once a moment for all who look, and kept as long as somebody may."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from structlog.contextvars import get_contextvars

from millrace.core.log import about
from millrace.producer.http.watch import MOST_LISTENERS
from millrace.producer.web.shared import Shared


def test_what_is_made_for_all_is_about_nobody_s_request() -> None:
    async def ask() -> dict[str, Any]:
        shared = Shared[str, dict[str, Any]]()
        with about(request_id="mine"):
            return await shared.get("it", get_contextvars, 1)

    assert asyncio.run(ask()) == {}


def test_what_each_stream_shows_is_kept() -> None:
    made = list[int]()

    async def ask() -> None:
        shared = Shared[int, None]()
        for _ in "ab":
            for key in range(MOST_LISTENERS):
                await shared.get(key, partial(made.append, key), 600)

    asyncio.run(ask())
    assert made == [*range(MOST_LISTENERS)]
