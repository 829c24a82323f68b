"""The status of jobs for many who poll: read some times a second at most, shared by all."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass

import orjson
from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from millrace.core.errors import MillraceError
from millrace.core.log import about, get_logger
from millrace.core.services import Services
from millrace.core.status import JobStatus, status_of
from millrace.producer.control import try_to_look_after
from millrace.producer.http.pool import Pool

log = get_logger(__name__)

FRESH_S = 0.25
AHEAD = 0.5
"""At this part of its time a status that is asked for is read anew, ahead of its end: whoever polls
meanwhile is given the one before, and hundreds who poll at once never wait for one read."""
MOST_KEPT = 1024
READERS = 8
CARERS = 2


@dataclass(frozen=True, slots=True)
class Posted:
    """A status as it was read, and as JSON; `pace` are its last completions, newest first:
    (milliseconds of Redis TIME, images), as of `now_ms`."""

    status: JobStatus
    body: bytes
    read_at: float
    pace: Sequence[tuple[int, int]] = ()
    now_ms: int = 0


class StatusBoard:
    """Its coroutines belong to one event loop; `read`, `forget` and `care_soon` to any thread.

    Reading has threads of its own: however many requests wait for storage, a status does not.
    """

    def __init__(self, services: Services, fresh_s: float = FRESH_S) -> None:
        self._services = services
        self._fresh_s = fresh_s
        self._posted: OrderedDict[str, Posted] = OrderedDict()
        self._reading: dict[str, asyncio.Task[Posted]] = {}
        self._limiter = CapacityLimiter(READERS)
        self._carers = Pool(CARERS, "look-after")
        self._in_care: set[str] = set()
        self._lock = threading.Lock()

    def fresh(self, job: str) -> Posted | None:
        """What is posted of a job, if it is not too old."""
        posted = self._posted.get(job)
        if posted is None:
            return None
        age = time.monotonic() - posted.read_at
        if age > self._fresh_s:
            return None
        if age > self._fresh_s * AHEAD:
            self._reading_of(job)
        return posted

    async def posted(self, job: str) -> Posted:
        """Where the job stands, at most `fresh_s` ago. Raises JobNotFound, RedisUnavailable."""
        posted = self.fresh(job)
        if posted is not None:
            return posted
        # One who leaves takes nothing away from the others who wait for the same.
        return await asyncio.shield(self._reading_of(job))

    def _reading_of(self, job: str) -> asyncio.Task[Posted]:
        task = self._reading.get(job)
        if task is None:
            # Of nobody's request in particular: it has a context of its own.
            task = asyncio.create_task(self._read_and_post(job), context=Context())
            task.add_done_callback(_heard)
            self._reading[job] = task
        return task

    async def _read_and_post(self, job: str) -> Posted:
        this = asyncio.current_task()
        try:
            posted = await run_sync(self.read, job, limiter=self._limiter)
            with self._lock:
                if self._reading.get(job) is this:
                    self._posted[job] = posted
                    self._posted.move_to_end(job)
                    while len(self._posted) > MOST_KEPT:
                        self._posted.popitem(last=False)
            return posted
        finally:
            with self._lock:
                if self._reading.get(job) is this:
                    del self._reading[job]

    def read(self, job: str) -> Posted:
        """Read it now. A job that waits for its end is looked after, by another thread."""
        began = time.monotonic()
        snapshot = self._services.jobs.snapshot(job)
        if snapshot.needs_care:
            self.care_soon(job)
        status = status_of(snapshot)
        return Posted(status, encode(status), began, snapshot.pace, snapshot.now_ms)

    def forget(self, job: str) -> None:
        """Something was done to the job: what was read before is not shown any more."""
        with self._lock:
            self._posted.pop(job, None)
            self._reading.pop(job, None)

    def care_soon(self, job: str) -> None:
        """Do for a job what the reconciler of a worker would, without anybody waiting for it."""
        with self._lock:
            if job in self._in_care:
                return
            self._in_care.add(job)
        self._carers.submit(self._care, job)

    def _care(self, job: str) -> None:
        try:
            with about(job=job):
                try_to_look_after(self._services, job)
        except MillraceError as error:
            log.warning("left to the workers", job=job, error=error.message)
        except Exception as error:
            log.error("looking after a job failed", job=job, exc_info=error)
        finally:
            self._in_care.discard(job)
            self.forget(job)

    def close(self) -> None:
        """Begin nothing new; what is being finalized has a lock of its own that expires."""
        self._carers.close()


def _heard(read: asyncio.Task[Posted]) -> None:
    """Nobody may wait for it: if what is read ahead fails, who asks next reads, and is told."""
    if not read.cancelled():
        read.exception()


def encode(status: JobStatus) -> bytes:
    """A status as JSON."""
    return orjson.dumps(status.model_dump(mode="json"))
