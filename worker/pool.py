"""Celery's thread pool, which tells the event loop when a chunk slot is free again."""

from __future__ import annotations

from typing import Any

from celery.concurrency import thread
from kombu.asynchronous import get_event_loop


class ChunkPool(thread.TaskPool):  # type: ignore[misc]
    """The consumer takes a message only while a slot is free (`worker_disable_prefetch`), and
    otherwise sleeps up to a second; waking it keeps the slots full."""

    def on_apply(self, *args: Any, **kwargs: Any) -> Any:
        result = super().on_apply(*args, **kwargs)
        loop = get_event_loop()
        if loop is not None:
            result.f.add_done_callback(lambda _: loop.call_soon(_nothing))
        return result


def _nothing() -> None:
    """Waking the loop is enough: it looks for free slots on every turn."""
