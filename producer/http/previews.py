"""Dry runs for whoever asks, by the API or a form: so many at once, and none for too long."""

from __future__ import annotations

import time
from collections.abc import Callable

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from millrace.core.errors import Busy
from millrace.core.job import JobSpec
from millrace.core.services import Services
from millrace.producer.preview import Preview, preview

AT_ONCE = 4
MOST_OBJECTS = 100_000
"""Looked at, whether they are images of the job or not."""


class Previews:
    """Its coroutines belong to one event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._open = 0
        self._limiter = CapacityLimiter(AT_ONCE)

    async def of(self, spec: Callable[[], JobSpec], within_s: float) -> Preview:
        """What the job would do whose spec is made by `spec`, as far as that is found out
        within `within_s` seconds. Raises Busy, what `spec` raises and what listing does."""
        if self._open >= AT_ONCE:
            raise Busy(f"{self._open} dry runs are under way already")
        self._open += 1
        try:
            return await run_sync(self._look, spec, within_s, limiter=self._limiter)
        finally:
            self._open -= 1

    def _look(self, spec: Callable[[], JobSpec], within_s: float) -> Preview:
        until = time.monotonic() + within_s
        return preview(
            self._services,
            spec(),
            enough=lambda objects: objects >= MOST_OBJECTS or time.monotonic() > until,
        )
