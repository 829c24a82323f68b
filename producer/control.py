"""What may be done to a job that is under way. All of it works while no worker is up."""

from __future__ import annotations

from collections.abc import Callable

from millrace.core.claims import free_expired
from millrace.core.errors import (
    AccessDenied,
    CorruptRecord,
    JobConflict,
    LocationNotAllowed,
    NotFound,
    ObjectTooLarge,
    StorageUnavailable,
)
from millrace.core.job import TAKES_WORK, JobSpec, JobState, Priority, Reason
from millrace.core.jobdir import JobDirectory
from millrace.core.locks import DIED
from millrace.core.log import get_logger
from millrace.core.services import Services

log = get_logger(__name__)


def cancel(
    services: Services,
    job: str,
    *,
    and_then: Callable[[Services, str], None] | None = None,
) -> None:
    """Take no more chunks; those in hand end, and what there is is published, by `and_then` if
    somebody else is to see to that.

    A job that only waits for its end, in a directory that is gone, damaged or closed, ends as
    `failed`. Raises JobNotFound; JobConflict if the job has ended.
    """
    ended = services.finalizer.finalize(job, give_up=True)
    if ended and services.jobs.record(job).reason == Reason.JOB_DIRECTORY_UNUSABLE:
        return
    _refuse_ended(services, job, "cancelled")
    services.jobs.stop(job, JobState.CANCELLED, Reason.REQUESTED)
    (and_then or try_to_look_after)(services, job)


def pause(services: Services, job: str) -> None:
    """Take no more chunks until `resume`. Raises JobNotFound; JobConflict if it is too late."""
    state = services.jobs.pause(job)
    if state is not JobState.PAUSED:
        raise _too_late(job, state, "paused")


def resume(services: Services, job: str) -> None:
    """Let a paused job go on. Raises JobNotFound; JobConflict if it is not under way, or is being
    repaired."""
    state = services.jobs.unpause(job)
    if state is JobState.PAUSED:
        raise JobConflict(f"job {job} is being repaired; it cannot be resumed", hint=DIED)
    if state not in TAKES_WORK:
        raise _too_late(job, state, "resumed")
    spec = services.jobs.spec(job)
    # What was dropped while it was paused is missing now.
    services.feeder.feed_missing(spec, services.queue.waiting(spec.queue))
    services.feeder.feed(spec)


def set_priority(services: Services, job: str, priority: Priority) -> None:
    """Change the share of its queue. Raises JobNotFound; JobConflict if the job has ended."""
    _refuse_ended(services, job, "given another priority")
    services.jobs.set_priority(job, priority)
    services.feeder.feed(services.jobs.spec(job))


def delete(services: Services, job: str, *, outputs: bool = False) -> int:
    """Forget a job that has ended, and with `outputs` remove its directory; returns how many
    objects were removed. Raises JobNotFound; JobConflict if the job has not ended; with `outputs`
    SpecMismatch, or ObjectNotFound, if what would be removed is not its directory."""
    spec = deletable(services, job)
    removed = _remove(services, spec) if outputs else 0
    services.jobs.delete(spec)
    return removed


def deletable(services: Services, job: str) -> JobSpec:
    """The spec of a job that has ended. Raises JobNotFound; JobConflict if it has not."""
    record = services.jobs.record(job)
    if not record.state.terminal:
        raise JobConflict(
            f"job {job} is {record.state}", hint=f"end it first:  millrace cancel {job}"
        )
    return record.spec


def _remove(services: Services, spec: JobSpec) -> int:
    directory = JobDirectory(services.stores, spec.directory)
    directory.confirm(spec)
    return directory.remove()


def look_after(services: Services, job: str) -> None:
    """Do for one job what the reconciler of a worker would: whoever asks may find it so."""
    record = services.jobs.record(job)
    if record.state is JobState.CANCELLING:
        free_expired(services.redis, record.spec.queue)
        record = services.jobs.record(job)  # its last lease may have been among them
    if record.state is JobState.FINALIZING or services.jobs.settle(record):
        services.finalizer.finalize(job)


def try_to_look_after(services: Services, job: str) -> None:
    """The same, if this process can; otherwise a worker will, or somebody who mends the job."""
    try:
        look_after(services, job)
    except (
        StorageUnavailable,
        AccessDenied,
        LocationNotAllowed,
        NotFound,
        CorruptRecord,
        ObjectTooLarge,
    ) as error:
        log.warning("left to the workers to finalize", job=job, error=error.message)


def _refuse_ended(services: Services, job: str, what: str) -> None:
    state = services.jobs.record(job).state
    if state.terminal or state is JobState.FINALIZING:
        raise _too_late(job, state, what)


def _too_late(job: str, state: JobState, what: str) -> JobConflict:
    return JobConflict(f"job {job} is {state}; it cannot be {what}")
