"""What the pages work with, put together once: `request.app.state.dashboard`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request

from millrace.core.job import JobSpec
from millrace.producer.http.backend import Backend
from millrace.producer.web.classes import Classes
from millrace.producer.web.error_samples import ErrorSamples
from millrace.producer.web.job_files import JobFiles
from millrace.producer.web.shared import Shared
from millrace.producer.web.throughput import ThroughputHistory
from millrace.producer.web.thumbnail_cache import ThumbnailCache
from millrace.producer.web.thumbnails import Thumbnail, Thumbnails

V = TypeVar("V")

FRESH_S = 0.8
"""How old a piece of a page may be that others look at, too."""

MAKERS = 4
"""Threads that fetch and make thumbnails."""

ROW_THREADS = 4
"""Threads that look up which image is meant, if its part of the manifest is not at hand."""

JOB_THREADS = 16
LIST_THREADS = 4
"""What streams show of a job waits for storage, by a few threads a job. Lists wait for Redis alone:
however many jobs' storage stands still, it takes their threads from nobody."""


class Dashboard:
    """Nothing here touches the network before somebody looks."""

    def __init__(self, backend: Backend) -> None:
        settings = backend.settings
        self.backend = backend
        self.files = JobFiles(backend.services)
        self.classes = Classes(backend.services, self.files)
        self.errors = ErrorSamples(self.files)
        self.throughput = ThroughputHistory()
        cache = ThumbnailCache(
            Path(settings.thumbnail_cache).expanduser(), settings.thumbnail_cache_bytes
        )
        self.thumbnails = Thumbnails(self.files, cache)
        self._makers, self._rows = CapacityLimiter(MAKERS), CapacityLimiter(ROW_THREADS)
        self.of_jobs: Shared[Hashable, Any] = Shared(JOB_THREADS)
        self.of_lists: Shared[Hashable, Any] = Shared(LIST_THREADS)
        self.lists: Counter[Hashable] = Counter()
        """The different lists of jobs that streams show, each with how many show it."""
        self._ended = False
        backend.when_winding_down(self.close)

    def ended(self) -> bool:
        """The server stops: streams end."""
        return self._ended

    async def in_thread(self, make: Callable[[], V]) -> V:
        """Run what waits for storage."""
        return await run_sync(make, limiter=self.backend.readers)

    async def thumbnail(self, spec: JobSpec, row: int, side: int, known: str = "") -> Thumbnail:
        """As `Thumbnails.kept` tells, or made: by threads of their own, so that neither slow
        objects nor a page of many keep anybody waiting for what is there."""
        if self.files.row_at_hand(spec, row) is None:
            await run_sync(self.files.row, spec, row, limiter=self._rows)  # is at hand afterwards
        kept = await run_sync(self.thumbnails.kept, spec, row, side, known)
        if kept is not None:
            return kept
        return await run_sync(self.thumbnails.of, spec, row, side, known, limiter=self._makers)

    def close(self) -> None:
        self._ended = True
        self.classes.close()


def dashboard(request: Request) -> Dashboard:
    """The app's."""
    found: Dashboard = request.app.state.dashboard
    return found
