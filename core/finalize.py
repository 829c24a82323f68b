"""Finalization: publish the errors and the summary, then let the job end.

Whoever completes the last chunk does it; any reader that finds a job waiting for it repairs
that. Every step may be repeated: the same content is written again.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from millrace.core.job import JobState, Reason
from millrace.core.jobdir import JobDirectory
from millrace.core.jobstore import JobStore, set_bits
from millrace.core.log import get_logger
from millrace.core.outcome import decode_outcome
from millrace.core.record import JobRecord
from millrace.core.status import status_of
from millrace.core.storage import Stores

log = get_logger(__name__)


class Finalizer:
    """Writes `errors.jsonl`, `summary.json` and `_SUCCESS`, in that order."""

    def __init__(self, store: JobStore, stores: Stores) -> None:
        self._store = store
        self._stores = stores

    def finalize(self, job: str) -> bool:
        """End a job that is finalizing; False if it is not, or another process is at it.

        `_SUCCESS` stands only where every image has an outcome and one at least succeeded.
        Raises the store's errors; the job then stays in finalizing for the next reader.
        """
        if self._store.record(job).state is not JobState.FINALIZING:
            return False
        with self._store.finalizing(job) as held:
            if not held:
                return False
            snapshot = self._store.snapshot(job)
            record = snapshot.record
            if record.state is not JobState.FINALIZING:
                return False
            directory = JobDirectory(self._stores, record.spec.directory)
            ending, reason = verdict(record)
            cancelled = record.counts.pending
            directory.put_errors(self._error_lines(record, directory))
            summary: dict[str, Any] = status_of(snapshot).model_dump(mode="json")
            summary["state"], summary["terminal"], summary["reason"] = ending, True, reason
            summary["counts"] |= {"pending": 0, "cancelled": cancelled}
            summary["completed_at"] = summary["updated_at"]
            summary["eta_s"] = None
            summary["millrace_version"] = version("millrace")
            for live in ("health", "workers", "progress"):
                del summary[live]
            directory.put_summary(summary)
            if ending in (JobState.SUCCEEDED, JobState.COMPLETED_WITH_ERRORS):
                directory.put_success()
            self._store.conclude(record, ending, reason or "", cancelled)
        log.info("the job ended", job=job, state=str(ending), reason=reason)
        return True

    def _error_lines(self, record: JobRecord, directory: JobDirectory) -> Iterator[bytes]:
        """Every error line of the job, from the chunks that hold one."""
        for chunk in set_bits(self._store.failed_bitmap(record.spec.job_id)):
            body = directory.read_chunk(record.spec.plan, chunk) or b""
            for line in body.splitlines():
                if "error" in decode_outcome(line):
                    yield line + b"\n"


def verdict(record: JobRecord) -> tuple[JobState, str | None]:
    """How a job ends, by its counts: none of many succeeded is a failure, not a success."""
    counts = record.counts
    if record.ending is not None and (counts.pending or not record.listing_complete):
        return record.ending, record.reason
    if counts.total == 0:
        return JobState.FAILED, Reason.NO_INPUTS
    if counts.failed == 0:
        return JobState.SUCCEEDED, None
    return (JobState.COMPLETED_WITH_ERRORS if counts.succeeded else JobState.FAILED), None
