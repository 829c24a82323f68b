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
from millrace.core.errors import (
    AccessDenied,
    CorruptRecord,
    LocationNotAllowed,
    MillraceError,
    ObjectNotFound,
    ObjectTooLarge,
    SpecMismatch,
)
from millrace.core.job import WHOLE, JobState, Reason
from millrace.core.jobdir import JobDirectory
from millrace.core.jobstore import JobStore, Snapshot
from millrace.core.locks import FINALIZER_LOCK_S, finalizing
from millrace.core.log import about, get_logger
from millrace.core.record import Counts, JobRecord, from_ms
from millrace.core.status import status_of
from millrace.core.storage import Stores

log = get_logger(__name__)

T = TypeVar("T")

_HOPELESS = (LocationNotAllowed, ObjectNotFound, CorruptRecord, ObjectTooLarge, AccessDenied)
"""What waiting will not mend, unless the directory is only out of this machine's sight."""


class Finalizer:
    """Writes `errors.jsonl`, `summary.json` and `_SUCCESS`, in that order."""

    def __init__(self, store: JobStore, stores: Stores) -> None:
        self._store = store
        self._stores = stores
        self.on_end: Callable[[], object] = lambda: None
        """Called when this process has ended a job."""

    def finalize(self, job: str, *, give_up: bool = False) -> bool:
        """End a job that is finalizing; False if it is not, or another process is at it.

        With `give_up` a directory that is gone, damaged or closed makes it `failed`, reason
        `job_directory_unusable`, with nothing published.
        `_SUCCESS` stands only where every image has an outcome and one at least succeeded.
        Raises the store's errors; the job then stays in finalizing for the next reader.
        """
        with about(job=job):
            return self._finalize(job, give_up=give_up)

    def _finalize(self, job: str, *, give_up: bool) -> bool:
        if self._store.record(job).state is not JobState.FINALIZING:
            return False
        with finalizing(self._store.redis, job) as keep_lock:
            if keep_lock is None:
                return False
            snapshot = self._store.snapshot(job)
            if snapshot.record.state is not JobState.FINALIZING:
                return False
            ended = replace(snapshot, record=_ended(snapshot))
            reason = ended.record.reason
            try:
                self._publish(ended, keep_lock)
            except MillraceError as error:
                unusable = Reason.JOB_DIRECTORY_UNUSABLE
                hopeless = _HOPELESS if give_up else SpecMismatch
                if reason != unusable and not isinstance(error, hopeless):
                    raise
                log.error("nothing could be published", job=job, error=error.message)
                failed = replace(ended.record, state=JobState.FAILED, reason=unusable)
                ended = replace(ended, record=failed)
            concluded = self._store.conclude(ended.record)
        if concluded:
            state, reason = ended.record.state, ended.record.reason
            log.info("the job ended", job=job, state=str(state), reason=reason)
            self.on_end()
        return concluded

    def _publish(self, ended: Snapshot, keep_lock: Callable[[], None]) -> None:
        record = ended.record
        directory = JobDirectory(self._stores, record.spec.directory)
        directory.confirm(record.spec)
        if record.state not in WHOLE:
            self._remove_uncounted(directory, record, keep_lock)
        failed = set_bits(self._store.failed_bitmap(record.spec.job_id))
        lines = directory.error_lines(record.spec.plan, now_and_then(keep_lock, failed))
        directory.put_errors(line + b"\n" for line in lines)
        directory.put_summary(_summary(ended))
        if record.state in WHOLE:
            directory.put_success()
        elif directory.has_success():
            directory.delete_success()  # of an earlier end

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
        try:
            for chunk in uncounted:
                directory.delete_chunk(plan, chunk)
            for part in directory.parts():
                if part >= record.parts:  # of a producer that died before it was counted
                    directory.delete_part(part)
        except AccessDenied as error:
            # The job is to end all the same.
            log.warning("what is not counted stays", job=job, error=error.message)


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
    for live in ("health", "workers", "progress", "notification"):
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
    return verdict_of(counts)


def verdict_of(counts: Counts) -> tuple[JobState, str | None]:
    """The same, of a job that nobody ended."""
    if counts.total == 0:
        return JobState.FAILED, Reason.NO_INPUTS
    if counts.failed == 0:
        return JobState.SUCCEEDED, None
    return (JobState.COMPLETED_WITH_ERRORS if counts.succeeded else JobState.FAILED), None
