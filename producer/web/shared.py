"""What many streams show alike: worked out once a moment, by one of a few threads, for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

THREADS = 4
MOST_KEPT = 256


class Shared(Generic[K, V]):
    """Its coroutines belong to one event loop."""

    def __init__(self, fresh_s: float) -> None:
        self._fresh_s = fresh_s
        self._made: dict[K, tuple[float, asyncio.Task[V]]] = {}
        self._limiter = CapacityLimiter(THREADS)

    async def get(self, key: K, make: Callable[[], V]) -> V:
        """What `make` makes, which may be what it made for another a moment ago. Raises what it
        raises."""
        now = time.monotonic()
        standing = self._made.get(key)
        if standing is None or now - standing[0] > self._fresh_s:
            if len(self._made) >= MOST_KEPT:
                self._made = {k: v for k, v in self._made.items() if now - v[0] <= self._fresh_s}
            task = asyncio.create_task(run_sync(make, limiter=self._limiter))
            # Nobody may be left to hear of an error.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            standing = self._made[key] = (now, task)
        # One who leaves takes nothing away from the others.
        return await asyncio.shield(standing[1])
