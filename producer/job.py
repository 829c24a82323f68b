"""A submitted job, from the outside: poll it, wait for it, read what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from millrace.core.bitmaps import set_bits
from millrace.core.errors import MillraceError
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.log import get_logger
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.status import JobStatus, status_of
from millrace.producer.control import cancel, look_after, pause, resume, try_to_look_after
from millrace.producer.page import Wanted, jobs_page
from millrace.producer.results import error_outcomes, outcomes
from millrace.producer.waiting import PATIENCE_S, wait_for

log = get_logger(__name__)


class Job:
    """A handle on one job. Cheap to make; every method asks Redis or storage afresh."""

    def __init__(self, services: Services, job_id: str) -> None:
        self._services = services
        self.id = job_id

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def status(self) -> JobStatus:
        """Where the job stands now.

        A job found past its deadline, or waiting for its end, is moved on on the way, for
        there may be no worker to do it. Raises JobNotFound, RedisUnavailable.
        """
        snapshot = self._services.jobs.snapshot(self.id)
        if snapshot.needs_care:
            try_to_look_after(self._services, self.id)
            snapshot = self._services.jobs.snapshot(self.id)
        return status_of(snapshot)

    def cancel(self) -> None:
        """Take no more chunks; those in hand end, and what there is is published.

        Raises JobNotFound; JobConflict if the job has ended.
        """
        cancel(self._services, self.id)

    def pause(self) -> None:
        """Take no more chunks until `resume`. Raises as `cancel` does."""
        pause(self._services, self.id)

    def resume(self) -> None:
        """Let a paused job go on. Raises as `cancel` does."""
        resume(self._services, self.id)

    def wait(
        self,
        timeout: float | None = None,
        *,
        progress: Callable[[JobStatus], None] | None = None,
        poll_s: float = 0.5,
        patience_s: float = PATIENCE_S,
    ) -> JobStatus:
        """Poll until the job has ended, and return its last status.

        `timeout` and `poll_s` are seconds; `progress` is called with every status. Once Redis has
        answered, it may be away for `patience_s` at a time. Raises JobNotFound; RedisUnavailable;
        WaitTimeout. The job goes on regardless.
        """
        return wait_for(
            self.id,
            self.status,
            timeout,
            progress=progress,
            poll_s=poll_s,
            patience_s=patience_s,
        )

    def results(self) -> Iterator[dict[str, Any]]:
        """Stream the outcomes committed so far, in manifest order: one dictionary per image,
        with `key`, `etag` and either `predictions` or `error`."""
        return outcomes(self._directory(), self._spec().plan)

    def errors(self) -> Iterator[dict[str, Any]]:
        """Stream the error outcomes committed so far."""
        failed = set_bits(self._services.jobs.failed_bitmap(self.id))
        return error_outcomes(self._directory(), self._spec().plan, failed)

    def _spec(self) -> JobSpec:
        return self._services.jobs.spec(self.id)

    def _directory(self) -> JobDirectory:
        return JobDirectory(self._services.stores, self._spec().directory)


def newest_jobs(services: Services, limit: int, wanted: Wanted | None = None) -> list[JobStatus]:
    """The status of each of the newest jobs that are `wanted`, newest first. One odd record hides
    no other.

    Those that wait for their end are moved on, as `Job.status` does, until one of them cannot be:
    what keeps one (its storage is away, say) would hold up the list for each of the others, too.
    """
    wanted = wanted or Wanted()
    caring = True

    def read(job: str) -> JobStatus:
        nonlocal caring
        snapshot = services.jobs.snapshot(job)
        if caring and snapshot.needs_care:
            try:
                look_after(services, job)
            except MillraceError as error:
                log.warning("left to the workers to finalize", job=job, error=error.message)
                caring = False
            snapshot = services.jobs.snapshot(job)
        return status_of(snapshot)

    found, cursor = list[JobStatus](), None
    while len(found) < limit:
        page = jobs_page(services, read, limit=limit - len(found), cursor=cursor, wanted=wanted)
        # Being read may have moved one on.
        found += [job for job in page.jobs if not wanted.states or job.state in wanted.states]
        cursor = page.next_cursor
        if cursor is None:
            break
    return found


def open_job(job_id: str, settings: Settings | None = None) -> Job:
    """A handle on a job submitted earlier, perhaps by another process."""
    return Job(Services(settings or Settings.load()), job_id)
