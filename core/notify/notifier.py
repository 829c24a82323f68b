"""Tells the ends of jobs to their `--notify` URLs: at least once, as long as it takes.

Any process may send: workers do, and `millrace serve`, if they have the secret and the job's
places are allowed to them. A try that fails, or whose sender dies, is repeated later by whoever is
there, with growing pauses, until the receiver takes it or it is given up. `notifying.py` has the
threads.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

import orjson

from millrace.core.errors import (
    CorruptRecord,
    JobNotFound,
    LocationNotAllowed,
    MillraceError,
    SpecMismatch,
)
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.jobstore import JobStore, Snapshot
from millrace.core.log import about, get_logger
from millrace.core.notify.delivery import DeliveryState
from millrace.core.notify.outbox import Due, Outbox
from millrace.core.notify.post import NotTakenError, post
from millrace.core.notify.rules import Rules
from millrace.core.notify.signature import signed
from millrace.core.notify.target import Target
from millrace.core.record import from_ms, to_ms
from millrace.core.settings import NotifySettings
from millrace.core.status import status_of
from millrace.core.storage import Stores

log = get_logger(__name__)

BACKOFF = 4
LONGEST_PAUSE_S = 6 * 3600.0
JITTER = 0.2
MAX_AGE_S = 3 * 86_400.0
"""An end that nobody took in three days is told no more."""
LOOK_AT = 1000
"""So many of those that are due, the longest due first, are read at a time."""
MOST_LOOKS = 20
"""So often at each look for what is due."""
MOST_RECEIVERS = 16
"""So many are told at a time; the others' turn comes as these end."""
AT_A_TIME = 16
"""Ends told to a receiver before it is looked whether another one waits for a thread."""
ENDED = "job.ended"


class Notifier:
    """Sends what is due. Safe to use from several threads. Raises what `RedisClient.errors` raises.

    What this process may not send, without a secret or because `MILLRACE_ALLOWED_LOCATIONS` does
    not name the job's places, is left to processes that may: it is no try.
    """

    def __init__(self, store: JobStore, stores: Stores, settings: NotifySettings) -> None:
        self._store, self._stores, self._settings = store, stores, settings
        self._outbox = Outbox(store.redis)
        self._rules = Rules.of(settings)
        self._keys = settings.notify_keys
        self._stopping = threading.Event()
        self._taken: set[str] = set()
        self._said_so = False
        # A try takes one time-out at most, and storage its own.
        self._lease_s = settings.notify_timeout_s + 120

    def stop(self) -> None:
        """Begin no more tries; what is left is another process's."""
        self._stopping.set()

    def give_back(self) -> None:
        """Let others try at once what is being tried here: this process ends and waits no more."""
        for job in [*self._taken]:
            self._outbox.settle(job, DeliveryState.WAITING)

    def tick(self) -> int:
        """Try what is due once, one after the other; returns how many were tried."""
        return sum(map(self.tell, self.due().values()))

    def due(self) -> dict[str, list[str]]:
        """Jobs whose end is due to be told and may be told from here, by their receiver: some of
        each, so that who has thousands, or may not be told from here, hides nobody."""
        found: dict[str, list[str]] = {}
        for some in islice(self._outbox.due(LOOK_AT), MOST_LOOKS):
            for job, receiver in self._receivers(some):
                if not self._keys:
                    self._say_there_is_no_secret()
                    return {}
                jobs = found.setdefault(receiver, [])
                if len(jobs) < AT_A_TIME:
                    jobs.append(job)
            if sum(len(jobs) == AT_A_TIME for jobs in found.values()) >= MOST_RECEIVERS:
                break
        return found

    def _say_there_is_no_secret(self) -> None:
        """Once, and only where something waits for one."""
        if not self._said_so:
            log.warning("ends of jobs wait to be told: MILLRACE_NOTIFY_SECRET is not set")
            self._said_so = True

    def tell(self, jobs: Iterable[str]) -> int:
        """Try these that no other process has taken, one receiver's, until one is not taken;
        returns how many were tried."""
        tried = 0
        for job in jobs:
            if self._stopping.is_set():
                break
            attempt = self._outbox.take(job, self._lease_s)
            if attempt:
                tried += 1
                self._taken.add(job)
                try:
                    with about(job=job):
                        taken = self._try(job, attempt)
                finally:
                    self._taken.discard(job)
                if not taken:
                    break  # the others would hold this thread as long, for nothing
        return tried

    def _receivers(self, due: Sequence[Due]) -> Iterator[tuple[str, str]]:
        """Each job that may be told from here, and whose it is. What is no job that is to be told
        is dropped, and what is not ours to tell and nobody told in `MAX_AGE_S` given up."""
        for (job, for_s), spec in zip(due, self._store.specs([job for job, _ in due]), strict=True):
            if spec is None or spec.notify is None:
                log.warning("nothing is told of what is no job", job=job)
                self._outbox.forget(job)
            elif self._may_tell(spec):
                yield job, Target.parse(spec.notify).origin
            elif for_s > MAX_AGE_S:
                self._outbox.settle(job, DeliveryState.GIVEN_UP, "nobody told it in time")
                log.error("gave up telling the end of a job that nobody tried to tell", job=job)

    def _may_tell(self, spec: JobSpec) -> bool:
        with suppress(LocationNotAllowed):
            self._stores.allowed.check(spec.input.uri, spec.output)
            return True
        return False

    def _try(self, job: str, attempt: int) -> bool:
        """Whether it is settled for good, taken or not to be told at all."""
        try:
            snapshot = self._store.snapshot(job)
        except (JobNotFound, CorruptRecord) as error:
            log.warning("nothing is told of what is no job", error=error.message)
            self._outbox.forget(job)
            return True
        record = snapshot.record
        if record.spec.notify is None or not record.state.terminal:
            self._outbox.forget(job)
            return True
        target = Target.parse(record.spec.notify)
        bound = log.bind(to=target.origin, attempt=attempt)
        try:
            self._send(target, snapshot)
        except NotTakenError as failure:
            pause_s = max(self.pause_s(attempt), min(failure.not_before_s, LONGEST_PAUSE_S))
            last = failure.final or attempt >= self._settings.notify_attempts
            if last or _age_s(snapshot) + pause_s > MAX_AGE_S:
                self._outbox.settle(job, DeliveryState.GIVEN_UP, str(failure))
                bound.error("gave up telling the end of the job", error=str(failure))
                return False
            self._outbox.settle(job, DeliveryState.WAITING, str(failure), again_in_s=pause_s)
            bound.warning(
                "could not tell the end of the job",
                error=str(failure),
                again_in_s=round(pause_s, 1),
            )
            return False
        self._outbox.settle(job, DeliveryState.DELIVERED)
        bound.info("told the end of the job")
        return True

    def _send(self, target: Target, snapshot: Snapshot) -> None:
        """Raises NotTakenError."""
        record = snapshot.record
        try:
            # Whoever may write to Redis alone has nobody send anything anywhere.
            JobDirectory(self._stores, record.spec.directory).confirm(record.spec)
            event_id, body = event_of(snapshot)
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "millrace",
                **signed(self._keys, event_id, int(time.time()), body),
            }
            post(target, body, headers, self._rules, self._settings.notify_timeout_s)
        except SpecMismatch as error:
            raise NotTakenError(error.message, final=True) from None
        except MillraceError as error:
            raise NotTakenError(error.message) from None

    def pause_s(self, attempt: int) -> float:
        """After this many tries: 5 s, 20 s, 80 s, …, no longer than six hours, and a little more or
        less, lest all that failed together is tried again together."""
        grown = self._settings.notify_backoff_s * float(BACKOFF) ** (attempt - 1)
        pause = min(grown, LONGEST_PAUSE_S)
        return pause * random.uniform(1 - JITTER, 1 + JITTER)


def event_of(snapshot: Snapshot) -> tuple[str, bytes]:
    """The event of a job's end: its id, which is the same however often it is told, also after
    Redis was lost, and its JSON: the status, under what makes it an event."""
    record = snapshot.record
    assert record.completed_at is not None
    ended = f"{record.spec.job_id}\n{record.state}\n{to_ms(record.completed_at)}"
    event_id = f"evt_{hashlib.sha256(ended.encode()).hexdigest()[:32]}"
    status = status_of(snapshot).model_dump(mode="json", exclude={"notification"})
    return event_id, orjson.dumps({"event_id": event_id, "event": ENDED, **status})


def _age_s(snapshot: Snapshot) -> float:
    """How long ago the job ended."""
    ended = snapshot.record.completed_at
    return 0.0 if ended is None else (from_ms(snapshot.now_ms) - ended).total_seconds()
