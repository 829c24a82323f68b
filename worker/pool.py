"""Celery's thread pool, which takes the next chunk when the model will soon want it.

A chunk taken earlier would only wait here while another worker stands idle.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from celery.concurrency import thread
from kombu.asynchronous import get_event_loop

_mine = threading.local()


class ChunkPool(thread.TaskPool):  # type: ignore[misc]
    """Has a free slot while fewer chunks than `limit` are in hand and the images of all of
    them are under way.

    The consumer takes a message only while a slot is free (`worker_disable_prefetch`), and
    otherwise sleeps up to a second; waking it keeps the model fed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._entering = 0
        self._lock = threading.Lock()

    @property
    def num_processes(self) -> int:
        """Celery takes a message only while fewer than so many are in hand."""
        with self._lock:
            return 0 if self._entering else int(self.limit)

    def on_apply(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            self._entering += 1
        chunk = _Chunk(self)

        def run(*args: Any, **kwargs: Any) -> Any:
            _mine.chunk = chunk
            return target(*args, **kwargs)

        result = super().on_apply(run, *args, **kwargs)
        result.f.add_done_callback(lambda _: chunk.end())
        return result

    def entered(self) -> None:
        """One chunk fewer is entering."""
        with self._lock:
            self._entering -= 1
        self.wake()

    def wake(self) -> None:
        """The event loop looks for free slots on every turn."""
        loop = get_event_loop()
        if loop is not None:
            loop.call_soon(_nothing)


class _Chunk:
    """One call in the pool: its images enter the pipeline, later it ends."""

    def __init__(self, pool: ChunkPool) -> None:
        self._pool = pool
        self._entering = True

    def enter(self) -> None:
        if self._entering:
            self._entering = False
            self._pool.entered()

    def end(self) -> None:
        self.enter()
        self._pool.wake()


def all_under_way() -> None:
    """Said by a chunk's own thread: its images need nothing more of it but to be waited for."""
    chunk = getattr(_mine, "chunk", None)
    if chunk is not None:
        chunk.enter()


def _nothing() -> None:
    pass
