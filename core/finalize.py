"""Finalization: publish the errors and the summary, then let the job end.

Whoever completes the last chunk does it; any reader that finds a job waiting for it repairs
that. Every step may be repeated: the same content is written again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any, TypeVar

from millrace.core.bitmaps import set_bits
from millrace.core.errors import AccessDenied, MillraceError, ObjectNotFound, SpecMismatch
from millrace.core.job import WHOLE, JobState, Reason
from millrace.core.jobdir import JobDirectory
from millrace.core.jobstore import FINALIZER_LOCK_S, JobStore, Snapshot
from millrace.core.log import get_logger
from millrace.core.record import JobRecord, from_ms
from millrace.core.status import status_of
from millrace.core.storage import Stores

log = get_logger(__name__)

T = TypeVar("T")


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
        with self._store.finalizing(job) as keep_lock:
            if keep_lock is None:
                return False
            snapshot = self._store.snapshot(job)
            if snapshot.record.state is not JobState.FINALIZING:
                return False
            ended = replace(snapshot, record=_ended(snapshot))
            reason = ended.record.reason
            try:
                self._publish(ended, keep_lock)
            except SpecMismatch as error:
                log.error("nothing is published for a foreign record", job=job, error=error.message)
                unusable = Reason.JOB_DIRECTORY_UNUSABLE
                ended = replace(
                    ended, record=replace(ended.record, state=JobState.FAILED, reason=unusable)
                )
            except MillraceError as error:
                if reason != Reason.JOB_DIRECTORY_UNUSABLE:
                    raise
                log.warning("nothing could be published", job=job, error=error.message)
            concluded = self._store.conclude(ended.record)
        if concluded:
            state, reason = ended.record.state, ended.record.reason
            log.info("the job ended", job=job, state=str(state), reason=reason)
        return concluded

    def _publish(self, ended: Snapshot, keep_lock: Callable[[], None]) -> None:
        record = ended.record
        directory = JobDirectory(self._stores, record.spec.directory)
        directory.confirm(record.spec)
        if record.counts.cancelled:
            self._remove_uncounted(directory, record, keep_lock)
        failed = set_bits(self._store.failed_bitmap(record.spec.job_id))
        lines = directory.error_lines(record.spec.plan, now_and_then(keep_lock, failed))
        directory.put_errors(line + b"\n" for line in lines)
        directory.put_summary(_summary(ended))
        if record.state in WHOLE:
            directory.put_success()

    def _remove_uncounted(
        self, directory: JobDirectory, record: JobRecord, keep_lock: Callable[[], None]
    ) -> None:
        """A worker that died between committing and counting leaves a chunk the job now ends
        without; its object would contradict the counts, and nobody counts it any more."""
        job, plan = record.spec.job_id, record.spec.plan
        counted = set(set_bits(self._store.done_bitmap(job)))
        if len(counted) != record.done:
            return  # Redis has forgotten the job meanwhile: its objects are all that is left of it
        standing = now_and_then(keep_lock, directory.committed_chunks(plan))
        uncounted = list[int]()
        with suppress(ObjectNotFound):  # a directory nothing was ever written to
            uncounted = [chunk for chunk in standing if chunk not in counted]
        for chunk in uncounted:
            try:
                directory.delete_chunk(plan, chunk)
            except AccessDenied as error:
                # The job is to end all the same.
                log.warning("an uncounted chunk stays", job=job, chunk=chunk, error=error.message)


def now_and_then(
    call: Callable[[], None], items: Iterable[T], every_s: float = FINALIZER_LOCK_S / 4
) -> Iterator[T]:
    """The items as they are, with a call between two of them when it is time again."""
    last = time.monotonic()
    for item in items:
        if time.monotonic() - last >= every_s:
            call()
            last = time.monotonic()
        yield item


def _ended(snapshot: Snapshot) -> JobRecord:
    """The record as it will be when the job has ended."""
    record = snapshot.record
    state, reason = verdict(record)
    counts = record.counts
    return replace(
        record,
        state=state,
        reason=reason,
        counts=replace(counts, cancelled=counts.cancelled + counts.pending),
        completed_at=from_ms(snapshot.now_ms),
        updated_at=from_ms(snapshot.now_ms),
    )


def _summary(ended: Snapshot) -> dict[str, Any]:
    """The status of the job, without what is of the moment."""
    summary: dict[str, Any] = status_of(ended).model_dump(mode="json")
    summary["millrace_version"] = version("millrace")
    for live in ("health", "workers", "progress"):
        del summary[live]
    return summary


def verdict(record: JobRecord) -> tuple[JobState, str | None]:
    """How a job ends, by its counts: none of many succeeded is a failure, not a success."""
    counts = record.counts
    cut_short = counts.pending or not record.listing_complete
    if record.ending is not None and (
        cut_short or record.reason == Reason.ERROR_THRESHOLD_EXCEEDED
    ):
        return record.ending, record.reason
    if counts.total == 0:
        return JobState.FAILED, Reason.NO_INPUTS
    if counts.failed == 0:
        return JobState.SUCCEEDED, None
    return (JobState.COMPLETED_WITH_ERRORS if counts.succeeded else JobState.FAILED), None
