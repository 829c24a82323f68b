"""The reconciler: a tick in every worker that finds what was lost and sets it going again."""

from __future__ import annotations

import math
import time

from millrace.core.chunk_queue import ChunkQueue
from millrace.core.claims import free_expired
from millrace.core.errors import JobNotFound, MillraceError, RedisUnavailable
from millrace.core.feed import Feeder
from millrace.core.finalize import Finalizer
from millrace.core.job import TAKES_WORK, JobState
from millrace.core.jobstore import JobStore
from millrace.core.log import about, get_logger
from millrace.core.topology import QueueKeys

log = get_logger(__name__)


class Reconciler:
    """Frees expired leases, re-sends vanished chunks, tops up, and finishes finalizations.

    One worker at a time does it per queue, under a lock that expires with its holder.

    While Redis is away nobody can renew a lease. So after an outage it frees none for the length
    of a lease: whoever is alive renews until then, and keeps the chunks it is running. Nor after
    it stood still itself between two ticks: so may have everybody else.
    """

    def __init__(
        self,
        store: JobStore,
        queue: ChunkQueue,
        feeder: Feeder,
        finalizer: Finalizer,
        *,
        worker: str,
        every_s: float,
        lease_s: float,
    ) -> None:
        """`worker` is the name that the lock carries."""
        self._store = store
        self._queue = queue
        self._feeder = feeder
        self._finalizer = finalizer
        self._worker = worker
        self._lock_ms = max(1, int(every_s * 1000) - 500)
        self._lease_s = lease_s
        self._late_s = every_s + lease_s / 3
        self._last_tick = math.inf
        self._outage = False
        self._leases_count_from = 0.0

    def tick(self, queue: str) -> bool:
        """Reconcile one queue, unless somebody did within the interval. True if it ran.

        Raises what `RedisClient.errors` raises.
        """
        try:
            return self._tick(queue)
        except RedisUnavailable:
            self._outage = True
            raise
        finally:
            self._last_tick = time.time()

    def _tick(self, queue: str) -> bool:
        redis = self._store.redis
        with redis.errors():
            # The lock is left to expire: it also spaces the ticks of all workers.
            key = QueueKeys(queue).reconciler
            ours = redis.raw.set(key, self._worker, nx=True, px=self._lock_ms)
        leases_count = self._leases_count()
        if not ours:
            return False
        if leases_count:
            free_expired(redis, queue)
        waiting = self._queue.waiting(queue)
        for job in self._store.active_jobs(queue):
            with about(job=job):
                try:
                    self._look_after(queue, job, waiting)
                except MillraceError as error:
                    # One job's trouble (its storage is away, say) must not hold up the others.
                    log.warning("could not reconcile a job", error=error.message)
        return True

    def _leases_count(self) -> bool:
        """Whether a lease that ran out says that its worker is gone."""
        # By the clock on the wall, which goes on while a machine sleeps, as Redis's does.
        gap_s = time.time() - self._last_tick
        now = time.monotonic()
        if self._outage or gap_s > self._late_s:
            self._outage = False
            self._leases_count_from = now + self._lease_s
        return now >= self._leases_count_from

    def _look_after(self, queue: str, job: str, waiting: set[tuple[str, int]]) -> None:
        try:
            record = self._store.record(job)
        except JobNotFound:
            self._store.forget_active(queue, job)
            raise
        if record.state is JobState.FINALIZING or self._store.settle(record):
            self._finalizer.finalize(job)
        elif record.state in TAKES_WORK:
            if record.queue != queue:  # where workers of another version hand its chunks over
                waiting = waiting | self._queue.waiting(record.queue)
            resent = self._feeder.feed_missing(record.spec, waiting)
            if resent:
                log.info("re-sent chunks that were lost", chunks=resent)
            self._feeder.feed(record.spec)
