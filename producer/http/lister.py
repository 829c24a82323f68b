"""Listing inputs in the background: a request that submits a job answers at once.

That a job is to be listed stands in Redis before the request is answered. A server that stops
leaves off between two parts of the manifest; the next one, or `millrace resume`, goes on there.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from millrace.core.errors import JobNotFound, MillraceError
from millrace.core.job import JobSpec
from millrace.core.log import about, get_logger
from millrace.core.services import Services
from millrace.producer.enqueue import ListingProgress
from millrace.producer.http.duties import Duties
from millrace.producer.http.pool import Pool
from millrace.producer.recover import list_the_rest
from millrace.producer.submit import accept

log = get_logger(__name__)

AT_ONCE = 4
GRACE_S = 60.0
"""A promise this old without a job is of a request that was never answered."""


class _Stopping(Exception):
    """The server stops: a listing is left off where another can go on. No error of the job."""


class Lister:
    """Makes jobs, and lists them by a few threads of its own."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._duties = Duties(services.redis)
        self._pool = Pool(AT_ONCE, "list")
        self._begun: set[str] = set()
        self._lock = threading.Lock()
        self._told: dict[str, str] = {}
        self._stopping = False

    def submit(self, spec: JobSpec) -> bool:
        """Make the job, to be listed soon; False if it stands already. Raises as `accept` does."""
        self._duties.add("list", spec.job_id)
        try:
            created = accept(self._services, spec)
        except MillraceError:
            # If the job stands after all, it is for the next round to see.
            self._forget_unless_made(spec.job_id)
            raise
        # Another request about the same job may have failed, and taken the promise away.
        self._duties.add("list", spec.job_id)
        self.begin(spec.job_id)
        return created

    def promise(self, job: str) -> None:
        """List a job whose producer died, soon."""
        self._duties.add("list", job)
        self.begin(job)

    def begin(self, job: str) -> None:
        """List a job soon, unless that is under way here."""
        with self._lock:
            if self._stopping or job in self._begun:
                return
            self._begun.add(job)
        self._pool.submit(self._run, job)

    def take_up(self) -> None:
        """Begin whatever was promised and is not being done, by whichever server."""
        for job in self._duties.open("list"):
            self.begin(job)

    def leave_off(self) -> None:
        """Begin nothing more, and leave what is under way where another server can go on."""
        self._stopping = True

    def stop(self, within_s: float = 5.0) -> None:
        """Wait until that is so. What takes longer keeps its lock for a minute at most."""
        self.leave_off()
        self._pool.close(within_s)

    def _run(self, job: str) -> None:
        with about(job=job):
            try:
                self._list(job)
            except _Stopping:
                log.info("left off listing")
            except MillraceError as error:
                # It is tried again and again: what ails it may be mended, or the job cancelled.
                if self._told.get(job) != error.message:
                    log.warning("not listed", error=error.message)
                    self._told[job] = error.message
            except Exception as error:
                log.error("listing failed", exc_info=error)
            finally:
                self._begun.discard(job)

    def _list(self, job: str) -> None:
        try:
            snapshot = self._services.jobs.snapshot(job)
        except JobNotFound:
            if job in self._duties.open("list", older_than_s=GRACE_S):
                self._forget_unless_made(job)
            return
        record = snapshot.record
        if record.listing_complete or record.ending is not None or record.state.terminal:
            self._duties.done("list", job)
            return
        if snapshot.has_producer:
            return
        log.info("listing")
        list_the_rest(self._services, record.spec, self._go_on)
        self._duties.done("list", job)
        self._told.pop(job, None)

    def _forget_unless_made(self, job: str) -> None:
        """Take a promise back, but for a job that stands, or is made at this moment."""
        with suppress(MillraceError):  # who cannot say leaves it to the next round
            if self._stands(job):
                return
            self._duties.done("list", job)
            if self._stands(job):
                self._duties.add("list", job)

    def _stands(self, job: str) -> bool:
        try:
            self._services.jobs.record(job)
        except JobNotFound:
            return False
        return True

    def _go_on(self, _: ListingProgress) -> None:
        if self._stopping:
            raise _Stopping
