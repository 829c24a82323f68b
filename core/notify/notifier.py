"""Tells the ends of jobs to their `--notify` URLs: at least once, as long as it takes.

Any process may send: workers do, and `millrace serve`, if they have the secret and the job's
places are allowed to them. A try that fails, or whose sender dies, is repeated later by whoever is
there, with growing pauses, until the receiver takes it or it is given up. `notifying.py` has the
threads.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import deque

import orjson

from millrace.core.errors import CorruptRecord, JobNotFound, MillraceError, SpecMismatch
from millrace.core.jobdir import JobDirectory
from millrace.core.jobstore import JobStore, Snapshot
from millrace.core.log import about, get_logger
from millrace.core.notify.delivery import DeliveryState
from millrace.core.notify.ends import MAX_AGE_S, End, Ends
from millrace.core.notify.outbox import Outbox
from millrace.core.notify.post import NotTakenError, OutOfReachError, post
from millrace.core.notify.rests import Rests
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
LONGEST_REST_S = 60.0
"""A receiver that did not take an end rests as long as that end pauses, but no longer than this,
for it does not say when it is well again."""
JITTER = 0.2
AT_A_TIME = 500
"""Ends handed out for a receiver by one look: then it is looked again."""
ENDED = "job.ended"


class Notifier:
    """Sends what is due. Raises what `RedisClient.errors` raises. Safe to use from several threads,
    if one alone looks for what is due.

    What this process may not send, without a secret or because `MILLRACE_ALLOWED_LOCATIONS` does
    not name the job's places, is left to processes that may: it is no try.
    """

    def __init__(self, store: JobStore, stores: Stores, settings: NotifySettings) -> None:
        self._store, self._stores, self._settings = store, stores, settings
        self._outbox = Outbox(store.redis)
        self._ends = Ends(store, self._outbox, stores.allowed)
        self._rests = Rests()
        self._rules = Rules.of(settings)
        self._keys = settings.notify_keys
        self._taken: set[str] = set()
        self._said_so = False
        # A try takes one time-out at most, and storage its own.
        self._lease_s = settings.notify_timeout_s + 120

    def give_back(self) -> None:
        """Let others try at once what is being tried here: this process ends and waits no more."""
        for job in [*self._taken]:
            self._outbox.settle(job, DeliveryState.WAITING)

    def tick(self) -> int:
        """Try what is due once, one after the other; returns how many were tried."""
        return sum(self.tell(end) for ends in self.due().values() for end in ends)

    def due(self) -> dict[str, deque[End]]:
        """Ends that are due and may be told from here, by their receiver's scheme, host and port:
        some of each, and none of those that rest."""
        found: dict[str, deque[End]] = {}
        if not self._keys:
            self._say_there_is_no_secret()
            self._ends.give_up_old()
            return found
        for end in self._ends.due():
            if end.target not in self._rests:
                ends = found.setdefault(end.target.origin, deque())
                if len(ends) < AT_A_TIME:
                    ends.append(end)
        return found

    def _say_there_is_no_secret(self) -> None:
        """Once, and only where something waits for one."""
        if not self._said_so and self._outbox.due(self._outbox.now_ms(), 1):
            log.warning("ends of jobs wait to be told: MILLRACE_NOTIFY_SECRET is not set")
            self._said_so = True

    def tell(self, end: End) -> bool:
        """Try this one, if no other process has taken it, and its receiver does not rest by now;
        whether it was tried."""
        if end.target in self._rests:
            return False
        attempt = self._outbox.take(end.job, self._lease_s)
        if attempt:
            self._taken.add(end.job)
            try:
                with about(job=end.job, attempt=attempt):
                    self._try(end.job, attempt)
            finally:
                self._taken.discard(end.job)
        return attempt > 0

    def _try(self, job: str, attempt: int) -> None:
        try:
            snapshot = self._store.snapshot(job)
        except JobNotFound as error:
            log.warning("nothing is told of what is no job", error=error.message)
            self._outbox.forget(job)
            return
        except CorruptRecord as error:  # to us: a newer version may read it
            self._failed(job, attempt, error.message)
            return
        record = snapshot.record
        if record.spec.notify is None or not record.state.terminal:
            self._outbox.forget(job)
            return
        target = Target.parse(record.spec.notify)
        with about(to=target.origin):
            try:
                self._send(target, snapshot)
            except NotTakenError as failure:
                pause_s = self._failed(
                    job,
                    attempt,
                    str(failure),
                    age_s=_age_s(snapshot),
                    asked_s=failure.not_before_s,
                    final=failure.final,
                )
                if not failure.final:
                    whole = isinstance(failure, OutOfReachError)
                    self._rests.begin(target, min(pause_s, LONGEST_REST_S), all_of_it=whole)
            except MillraceError as error:
                never = isinstance(error, SpecMismatch)
                self._failed(job, attempt, error.message, age_s=_age_s(snapshot), final=never)
            else:
                self._outbox.settle(job, DeliveryState.DELIVERED)
                log.info("told the end of the job")

    def _failed(
        self,
        job: str,
        attempt: int,
        error: str,
        *,
        age_s: float = 0,
        asked_s: float = 0,
        final: bool = False,
    ) -> float:
        """Have it tried again after a pause, which is returned, or give it up."""
        pause_s = max(self.pause_s(attempt), min(asked_s, LONGEST_PAUSE_S))
        last = final or attempt >= self._settings.notify_attempts
        if last or age_s + pause_s > MAX_AGE_S:
            self._outbox.settle(job, DeliveryState.GIVEN_UP, error)
            log.error("gave up telling the end of the job", error=error)
        else:
            self._outbox.settle(job, DeliveryState.WAITING, error, again_in_s=pause_s)
            log.warning(
                "could not tell the end of the job", error=error, again_in_s=round(pause_s, 1)
            )
        return pause_s

    def _send(self, target: Target, snapshot: Snapshot) -> None:
        """Raises NotTakenError; MillraceError if it is not the receiver's doing."""
        record = snapshot.record
        # Whoever may write to Redis alone has nobody send anything anywhere.
        JobDirectory(self._stores, record.spec.directory).confirm(record.spec)
        event_id, body = event_of(snapshot)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "millrace",
            **signed(self._keys, event_id, int(time.time()), body),
        }
        post(target, body, headers, self._rules, self._settings.notify_timeout_s)

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
