"""Celery's thread pool, which takes the next chunk when the model will soon want it.

A chunk taken earlier would only wait here while another worker stands idle; but of small chunks,
many are wanted at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery.concurrency import thread
from kombu.asynchronous import get_event_loop

from millrace.worker.options import SLOTS

MOST = 64
"""Chunks in hand, however small they are."""

_mine = threading.local()


class ChunkPool(thread.TaskPool):  # type: ignore[misc]
    """Has a free slot while the images of all chunks in hand are under way, and these are fewer
    than `limit`, or, if that is the usual one, hold fewer images together than the pipeline takes
    at once.

    The consumer takes a message only while a slot is free (`worker_disable_prefetch`), and
    otherwise sleeps up to a second; waking it keeps the model fed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.executor = ThreadPoolExecutor(MOST, thread_name_prefix="chunk")
        self._entering = 0
        self._filled = 0.0
        """How full of the chunks in hand the pipeline would be, if none of their images had left
        it yet; more than 1 of chunks that are larger than it."""
        self._lock = threading.Lock()

    @property
    def num_processes(self) -> int:
        """Celery takes a message only while fewer than so many are in hand."""
        with self._lock:
            if self._entering:
                return 0
            small = self._filled < 1 and self.limit == SLOTS
            return MOST if small else int(self.limit)

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

    def entered(self, share: float) -> None:
        """One chunk fewer is entering; it fills so large a share of the pipeline."""
        with self._lock:
            self._entering -= 1
            self._filled += share
        self.wake()

    def ended(self, share: float) -> None:
        """One chunk fewer, of that share, is in hand."""
        with self._lock:
            self._filled -= share
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
        self._share: float | None = None

    def enter(self, share: float) -> None:
        if self._share is None:
            self._share = share
            self._pool.entered(share)

    def end(self) -> None:
        self.enter(0.0)
        self._pool.ended(self._share or 0.0)


def all_under_way(share: float) -> None:
    """Said by a chunk's own thread: its images need nothing more of it but to be waited for, and
    are so large a share of what the pipeline takes at once."""
    chunk = getattr(_mine, "chunk", None)
    if chunk is not None:
        chunk.enter(share)


def _nothing() -> None:
    pass
