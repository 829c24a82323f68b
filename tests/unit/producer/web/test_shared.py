"""`Shared`: made once a moment for all who look, and kept as long as somebody may."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any

from structlog.contextvars import get_contextvars

from millrace.core.log import about
from millrace.producer.http.watch import MOST_LISTENERS
from millrace.producer.web.shared import Shared


def test_what_is_made_for_all_is_about_nobody_s_request() -> None:
    async def ask() -> dict[str, Any]:
        shared = Shared[str, dict[str, Any]](1)
        with about(request_id="mine"):
            return await shared.get("it", get_contextvars, 1)

    assert asyncio.run(ask()) == {}


def test_what_each_stream_shows_is_kept() -> None:
    made = list[int]()

    async def ask() -> None:
        shared = Shared[int, None](1)
        for _ in "ab":
            for key in range(MOST_LISTENERS):
                await shared.get(key, partial(made.append, key), 600)

    asyncio.run(ask())
    assert made == [*range(MOST_LISTENERS)]


def test_what_is_being_made_is_not_begun_again_however_old() -> None:
    begun, gate = list[int](), threading.Event()

    def make() -> int:
        begun.append(1)
        gate.wait(20)
        return 7

    async def ask() -> list[int]:
        shared = Shared[str, int](2)
        asking = [asyncio.create_task(shared.get("it", make, 0)) for _ in "abc"]
        try:
            await asyncio.sleep(0)
            assert await shared.get("another", lambda: 8, 0) == 8
        finally:
            gate.set()
        return await asyncio.gather(*asking)

    assert asyncio.run(ask()) == [7, 7, 7]
    assert begun == [1]
