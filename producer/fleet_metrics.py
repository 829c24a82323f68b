"""How all jobs, queues and workers are, as samples: what a server tells beside its own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import Future, wait

from millrace.core import metrics as m
from millrace.core.errors import CorruptRecord, JobNotFound, MillraceError
from millrace.core.job import JobState
from millrace.core.log import get_logger
from millrace.core.metrics import Sample
from millrace.core.services import Services
from millrace.core.status import status_of
from millrace.core.topology import NOTIFICATIONS, JobKeys, QueueKeys

log = get_logger(__name__)

FRESH_S = 5.0
"""However many ask, Redis is asked this often at most."""
WAIT_S = 4.0
"""Less than Prometheus waits for us."""
STALE_S = 15.0
"""What was read before that is told no more."""
MOST_JOBS = 10_000
"""The newest: older ones are not counted."""
MOST_ACTIVE = 500
"""Of those under way whose images are counted."""
REMEMBERED_S = 60.0
"""An ended job is looked at again after that, for a repair may have set it going."""
AT_ONCE = 1000


class FleetMetrics:
    """Safe to use from several threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._reading = Future[None]()
        self._reading.set_result(None)
        self._samples: list[Sample] = []
        self._read_at = float("-inf")
        self._ended: dict[str, str] = {}
        self._remembered_at = 0.0

    def samples(self) -> list[Sample]:
        """No older than a few seconds, while Redis is quick; then the last ones for a while, and
        then only that it is away. Whoever asks never waits for it longer than `WAIT_S`."""
        with self._lock:
            if self._reading.done() and time.monotonic() - self._read_at > FRESH_S:
                self._reading = Future()
                threading.Thread(target=self._refresh, name="fleet-metrics", daemon=True).start()
            reading = self._reading
        wait([reading], WAIT_S)
        with self._lock:
            fresh = time.monotonic() - self._read_at < STALE_S
            return self._samples if fresh else [Sample(m.REDIS_UP, 0)]

    def _refresh(self) -> None:
        try:
            found = [*self._read(), Sample(m.REDIS_UP, 1)]
        except Exception as error:
            if not isinstance(error, MillraceError):
                log.error("cannot count jobs", exc_info=error)
            found = [Sample(m.REDIS_UP, 0)]
        with self._lock:
            self._samples, self._read_at = found, time.monotonic()
        self._reading.set_result(None)

    def _read(self) -> list[Sample]:
        states = self._states()
        active = [job for job, state in states.items() if not JobState(state).terminal]
        counted = Counter(states.values())
        pending, unhealthy = Counter[str](), Counter[tuple[str, str]]()
        queues = set[str]()
        for job in active[:MOST_ACTIVE]:
            try:
                snapshot = self._services.jobs.snapshot(job)
            except (JobNotFound, CorruptRecord):
                continue  # forgotten meanwhile, or none of ours
            model = snapshot.record.spec.model.name
            pending[model] += snapshot.record.counts.pending
            health = status_of(snapshot).health
            if health != "ok":
                unhealthy[model, health] += 1
            queues |= {snapshot.record.spec.queue, snapshot.record.queue}
        live = Counter[str]()
        for seen in self._services.fleet.workers():
            if not seen.lost and seen.info.state != "stopping":
                live[seen.info.model.partition(":")[0]] += 1
            queues |= set(seen.info.queues.split())
        # A model without workers, or without work, is told as such, not left out.
        models = sorted(pending.keys() | live.keys())
        return [
            *(Sample(m.JOBS, counted[str(state)], (str(state),)) for state in JobState),
            *(Sample(m.PENDING, pending[model], (model,)) for model in models),
            *(Sample(m.LIVE_WORKERS, live[model], (model,)) for model in models),
            *(
                Sample(m.UNHEALTHY, unhealthy[model, health], (model, health))
                for model in models
                for health in ("no_workers", "no_producer", "stalled")
            ),
            *self._of_queues(sorted(queues)),
        ]

    def _of_queues(self, queues: list[str]) -> list[Sample]:
        redis = self._services.redis
        with redis.errors():
            pipe = redis.raw.pipeline(transaction=False)
            pipe.zcard(NOTIFICATIONS)
            for queue in queues:
                pipe.llen(queue)
                pipe.zcard(QueueKeys(queue).leases)
            waiting, *each = pipe.execute()
        return [
            Sample(m.NOTIFICATIONS_WAITING, waiting),
            *(Sample(m.QUEUE_CHUNKS, n, (q,)) for q, n in zip(queues, each[::2], strict=True)),
            *(Sample(m.QUEUE_LEASES, n, (q,)) for q, n in zip(queues, each[1::2], strict=True)),
        ]

    def _states(self) -> dict[str, str]:
        """Of each job, newest first."""
        if time.monotonic() - self._remembered_at > REMEMBERED_S:
            self._ended, self._remembered_at = {}, time.monotonic()
        jobs = self._services.jobs.recent_jobs(MOST_JOBS)
        known = {job: self._ended[job] for job in jobs if job in self._ended}
        unknown = [job for job in jobs if job not in known]
        redis, found = self._services.redis, dict[str, str]()
        for begin in range(0, len(unknown), AT_ONCE):
            some = unknown[begin : begin + AT_ONCE]
            with redis.errors():
                pipe = redis.raw.pipeline(transaction=False)
                for job in some:
                    pipe.hget(JobKeys(job).record, "state")
                said = pipe.execute()
            words = (None if state is None else state.decode(errors="replace") for state in said)
            known_words = {str(state) for state in JobState}
            found |= {
                job: word for job, word in zip(some, words, strict=True) if word in known_words
            }
        self._ended = known | {job: s for job, s in found.items() if JobState(s).terminal}
        return {**found, **known}
