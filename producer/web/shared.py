"""What many streams show alike: worked out once a moment, by one of some threads, for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from contextvars import Context
from functools import partial
from typing import Generic, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from millrace.producer.http.watch import MOST_LISTENERS

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST_KEPT = 2 * MOST_LISTENERS
"""Not less than one for each stream: what is not kept is made anew for every look."""


class Shared(Generic[K, V]):
    """Its coroutines belong to one event loop."""

    def __init__(self, threads: int) -> None:
        self._made: dict[K, tuple[float, asyncio.Task[V]]] = {}
        self._limiter = CapacityLimiter(threads)

    async def get(self, key: K, make: Callable[[], V], fresh_s: float) -> V:
        """What `make` makes, which may be what it makes for another at this moment, or made within
        the last `fresh_s` seconds. Raises what it raises."""
        now = time.monotonic()
        made, task = self._made.get(key, (0.0, None))
        if task is None or (task.done() and now - made > fresh_s):
            if len(self._made) >= MOST_KEPT:
                del self._made[min(self._made, key=lambda known: self._made[known][0])]
            # For everybody, it is about nobody's request in particular.
            task = asyncio.create_task(run_sync(make, limiter=self._limiter), context=Context())
            self._made[key] = (now, task)
            task.add_done_callback(partial(self._forget_failed, key))
        # One who leaves takes nothing away from the others.
        return await asyncio.shield(task)

    def _forget_failed(self, key: K, done: asyncio.Task[V]) -> None:
        """An error is for those who asked, of whom nobody may be left to hear it."""
        if (done.cancelled() or done.exception()) and self._made.get(key, (0, None))[1] is done:
            del self._made[key]
