"""The ends of jobs that are due and may be told from here, and whom they are told to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from millrace.core.errors import BadLocation, CorruptRecord, JobNotFound, LocationNotAllowed
from millrace.core.job import JobSpec
from millrace.core.jobstore import JobStore
from millrace.core.log import get_logger
from millrace.core.notify.delivery import DeliveryState
from millrace.core.notify.outbox import Due, Outbox
from millrace.core.notify.target import Target
from millrace.core.storage.allowed import AllowedLocations

log = get_logger(__name__)

MAX_AGE_S = 3 * 86_400.0
"""An end that nobody took in three days is told no more."""
MOST_DUE = 20_000
"""So many of those that are due, the longest due first, are looked at."""
READ_AT = 1000
"""So many specs are read at a time."""


class End(NamedTuple):
    """A job that has ended, and who is to be told."""

    job: str
    target: Target


class Ends:
    """Raises what `RedisClient.errors` raises. For one thread at a time."""

    def __init__(self, store: JobStore, outbox: Outbox, allowed: AllowedLocations) -> None:
        self._store, self._outbox, self._allowed = store, outbox, allowed
        self._known: dict[Due, Target | None] = {}
        """Of all that was due at the last look: a spec is read once, however long its end waits.
        None is told from here."""

    def due(self) -> list[End]:
        """Those that may be told from here, the longest due first. What nobody told in `MAX_AGE_S`
        and is not ours to tell is given up; until then it takes up room among the `MOST_DUE`, and
        so do the ends of a receiver that takes nothing: what is due after so many is not seen."""
        now_ms = self._outbox.now_ms()
        due = self._outbox.due(now_ms, MOST_DUE)
        known = {each: self._known[each] for each in due if each in self._known}
        unknown = [each for each in due if each not in known]
        for start in range(0, len(unknown), READ_AT):
            known.update(self._read(unknown[start : start + READ_AT]))
        self._known = known
        found = []
        for each in due:
            target = known.get(each)
            if target is not None:
                found.append(End(each.job, target))
            elif each in known and now_ms - each.at_ms > MAX_AGE_S * 1000:
                self._give_up(each.job)
        return found

    def give_up_old(self) -> None:
        """Give up what was due for `MAX_AGE_S`, whoever may tell it; nothing else is read."""
        for each in self._outbox.due(self._outbox.now_ms() - int(MAX_AGE_S * 1000), READ_AT):
            self._give_up(each.job)

    def _give_up(self, job: str) -> None:
        try:
            self._outbox.settle(job, DeliveryState.GIVEN_UP, "nobody told it in time")
        except CorruptRecord:  # that can be written on no record at all
            self._outbox.forget(job)
        log.error("gave up telling the end of a job that nobody tried to tell", job=job)

    def _read(self, due: Sequence[Due]) -> dict[Due, Target | None]:
        """Whom each is told to, if it is from here. What is no job that is to be told is dropped,
        and is not among them."""
        found: dict[Due, Target | None] = {}
        specs = self._store.specs([each.job for each in due])
        for each, spec in zip(due, specs, strict=True):
            if isinstance(spec, CorruptRecord):  # to us: a newer version may read it
                log.warning(
                    "the end of a job is left to who can read it",
                    job=each.job,
                    error=spec.message,
                )
                found[each] = None
            elif isinstance(spec, JobNotFound) or spec.notify is None:
                self._drop(each.job)
            else:
                found[each] = Target.parse(spec.notify) if self._may_tell(spec) else None
        return found

    def _drop(self, job: str) -> None:
        log.warning("nothing is told of what is no job", job=job)
        self._outbox.forget(job)

    def _may_tell(self, spec: JobSpec) -> bool:
        try:
            self._allowed.check(spec.input.uri, spec.output)
        except (LocationNotAllowed, BadLocation):
            return False
        return True
