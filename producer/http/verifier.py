"""Verifying jobs in the background: of a large one it takes minutes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime

from millrace.core.errors import ObjectNotFound, ServerUnavailable
from millrace.core.jobdir import JobDirectory
from millrace.core.log import about
from millrace.core.services import Services
from millrace.producer.http.pool import Pool
from millrace.producer.verification import Verification
from millrace.producer.verify import verify

AT_ONCE = 2
KEPT = 100


@dataclass(slots=True)
class Check:
    """One verification, under way or done; a failure is kept for whoever asks, too."""

    job: str
    images: int = 0
    """Checked so far."""
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    future: Future[Verification] = field(default_factory=Future)


class Verifier:
    """The newest check of each job, as long as not too many others came after it."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._pool = Pool(AT_ONCE, "verify")
        self._checks: OrderedDict[str, Check] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, job: str) -> Check:
        """Check a job soon, unless that is under way. Raises JobNotFound, LocationNotAllowed."""
        spec = self._services.jobs.spec(job)
        self._services.stores.allowed.check(spec.input.uri, spec.output)
        with self._lock:
            standing = self._checks.get(job)
            if standing is not None and not standing.future.done():
                return standing
            check = Check(job)
            future = self._pool.submit(self._run, check)
            if future is None:
                raise ServerUnavailable("the server is stopping")
            check.future = future
            self._checks[job] = check
            self._checks.move_to_end(job)
            while len(self._checks) > KEPT:
                self._checks.popitem(last=False)
            return check

    def last(self, job: str) -> Check:
        """The newest check. Raises ObjectNotFound."""
        check = self._checks.get(job)
        if check is None:
            raise ObjectNotFound(f"job {job} was not verified here", hint="POST begins it")
        return check

    def close(self) -> None:
        """What is under way only reads."""
        self._pool.close()

    def _run(self, check: Check) -> Verification:
        def count(images: int) -> None:
            check.images = images

        with about(job=check.job):
            spec = self._services.jobs.spec(check.job)
            directory = JobDirectory(self._services.stores, spec.directory)
            return verify(self._services, directory, count)
