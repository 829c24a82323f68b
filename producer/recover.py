"""Going on with a job whose producer died, or whose record Redis lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from millrace.core.errors import CorruptRecord, JobConflict, JobNotFound
from millrace.core.job import TAKES_WORK, JobSpec, JobState, Reason
from millrace.core.jobdir import JobDirectory
from millrace.core.jobstore import Snapshot
from millrace.core.locks import producing, rebuilding
from millrace.core.manifest import ManifestRow
from millrace.core.record import JobRecord
from millrace.core.restored import Restored
from millrace.core.services import Services
from millrace.core.storage import Location
from millrace.core.summary import Summary
from millrace.producer.control import look_after, resume
from millrace.producer.enqueue import ListingProgress, enqueue
from millrace.producer.job import Job
from millrace.producer.source import remaining_references
from millrace.producer.stored import manifest_of, read, rows_of, said_size
from millrace.producer.verification import Verification


def go_on(
    services: Services, job: str, progress: Callable[[ListingProgress], None] = lambda _: None
) -> Job:
    """Let a job that stands still go on: resume it if it is paused, list the rest of its input
    if its producer died. Nothing is listed into it twice.

    Raises JobNotFound; JobConflict if it has ended or another process lists it; what `submit`
    raises.
    """
    snapshot = services.jobs.snapshot(job)
    record = snapshot.record
    if record.state is JobState.PAUSED or record.listing_complete:
        resume(services, job)
        if snapshot.has_producer:
            return Job(services, job)
    if not record.listing_complete:
        if record.state in (JobState.CANCELLING, JobState.FINALIZING) or record.state.terminal:
            raise JobConflict(f"job {job} is {record.state}; it cannot be resumed")
        list_the_rest(services, record.spec, progress)
    return Job(services, job)


def restore(
    services: Services,
    directory: JobDirectory,
    progress: Callable[[int], None] = lambda _: None,
) -> Job:
    """Make the record of a job that Redis lost anew, counted from its directory, and let it go
    on: only chunks without an object run again. If there are none, and it has a summary that says
    so, it has ended as it did, and nothing is written.

    `progress` gets the number of images read. Raises JobConflict if Redis knows the job, another
    process restores it, it was ended early, or the directory is a copy; CorruptRecord if an object
    is not its chunk's outcome.
    """
    spec = _spec(directory)
    with rebuilding(services.redis, spec.job_id) as still_ours:
        with suppress(JobNotFound):
            services.jobs.record(spec.job_id)
            raise JobConflict(f"Redis knows job {spec.job_id}")
        summary = Summary.read(directory)
        found = read(spec, directory, summary, progress)
        end = summary.end(found, success=directory.has_success()) if summary else {}
        # First the record: whoever finds one there has changed nothing.
        services.jobs.restore(spec, replace(found, said={**found.said, **end}))
        if end:
            return Job(services, spec.job_id)
        _reopen(spec, directory, found, still_ours)
    return _let_go_on(services, spec)


def repair(
    services: Services,
    directory: JobDirectory,
    found: Verification,
    progress: Callable[[int], None] = lambda _: None,
) -> Job:
    """Remove the corrupt objects that `verify` found and those that are no chunk's, and run
    exactly what is missing again. A paused job stays paused, and keeps its priority and its model.

    Raises as `restore` does, and JobConflict if the job is being listed or run, or was changed
    while it was read. Nothing is removed before all is read and the record no longer counts it:
    a repair that is interrupted after that leaves the job paused, to be repaired again.
    """
    spec = _spec(directory)
    with rebuilding(services.redis, spec.job_id) as still_ours:
        before = _at_rest(services, spec)
        whole = said_size(directory) is not None
        held = read(spec, directory, Summary.read(directory), progress, set(found.corrupt_chunks))
        # An object without rows is a stray only if no rows can be missing.
        strays = [*directory.strays(spec.plan, held.chunks)] if whole else []
        # Paused, so that nobody claims a chunk whose object is yet to go.
        services.jobs.restore(spec, held, instead_of=before, paused=True)
        for chunk in held.corrupt:
            _must_be(still_ours, spec)
            directory.delete_chunk(spec.plan, chunk)
        for name, _ in strays:
            _must_be(still_ours, spec)
            directory.delete_stray(name)
        _reopen(spec, directory, held, still_ours)
        if before is None or before.state is not JobState.PAUSED:
            _must_be(still_ours, spec)
            services.jobs.unpause(spec.job_id, rebuilding=True)
    return _let_go_on(services, spec)


def _reopen(
    spec: JobSpec, directory: JobDirectory, found: Restored, still_ours: Callable[[], bool]
) -> None:
    """Make the directory that of a job under way."""
    _must_be(still_ours, spec)
    if found.listing_complete:
        directory.complete_manifest(found.parts, found.total)  # its producer may have died before
    if directory.has_success():
        directory.delete_success()  # until it is finalized again


def _must_be(still_ours: Callable[[], bool], spec: JobSpec) -> None:
    """Raise JobConflict if this process stood still for so long that others may have gone on."""
    if not still_ours():
        raise JobConflict(f"another process goes on with job {spec.job_id}")


def _let_go_on(services: Services, spec: JobSpec) -> Job:
    look_after(services, spec.job_id)
    services.feeder.feed(spec)
    return Job(services, spec.job_id)


def _at_rest(services: Services, spec: JobSpec) -> JobRecord | None:
    """The job's record; None if Redis has none. Raises JobConflict if it is under way."""
    try:
        snapshot = services.jobs.snapshot(spec.job_id)
    except JobNotFound:
        return None
    _refuse_moving(snapshot, spec)
    return snapshot.record


def _refuse_moving(snapshot: Snapshot, spec: JobSpec) -> None:
    job, record = spec.job_id, snapshot.record
    if record.spec.directory != spec.directory:
        raise JobConflict(f"Redis knows another job {job}")
    if snapshot.has_producer:
        raise JobConflict(f"job {job} is still being listed")
    if record.ending is not None:
        raise JobConflict(f"job {job} was ended early: {record.state}")
    if record.state in TAKES_WORK:
        raise JobConflict(
            f"job {job} is {record.state}", hint=f"let it end, or:  millrace pause {job}"
        )


def _spec(directory: JobDirectory) -> JobSpec:
    """The spec of a job that may be gone on with."""
    spec = directory.read_spec()
    if directory.location != spec.directory:
        raise JobConflict(f"{directory.location} is a copy of {spec.directory}")
    try:
        summary = directory.read_summary() or {}
    except CorruptRecord:
        summary = {}  # it will be written again
    state, reason = summary.get("state"), summary.get("reason")
    if state in (JobState.CANCELLED, JobState.EXPIRED) or (
        state == JobState.FAILED and reason not in (None, Reason.NO_INPUTS)
    ):
        raise JobConflict(f"job {spec.job_id} was ended early: {state}")
    return spec


def list_the_rest(
    services: Services,
    spec: JobSpec,
    progress: Callable[[ListingProgress], None] = lambda _: None,
) -> None:
    """List what a job's manifest does not hold yet, which may be all of it. A paused job stays
    paused. Raises JobConflict if another process is listing it, and what `submit` raises."""
    job, directory = spec.job_id, JobDirectory(services.stores, spec.directory)
    directory.confirm(spec)
    with producing(services.redis, job) as still_ours:
        parts, images, whole = manifest_of(spec, directory)
        # A part may have been written and not published.
        for part in range(services.jobs.record(job).parts, parts):
            count = len(directory.part_lines(part))
            services.jobs.publish_part(job, part, count, spec.plan.chunks_in(count))
        services.feeder.feed(spec)
        rows: Iterator[ManifestRow] = iter(())
        if not whole:
            output, known = Location.parse(spec.output), rows_of(spec, directory, parts)
            rows = remaining_references(services.stores, spec.input, output, known)
        enqueue(services, spec, rows, progress, still_ours, first_part=parts, listed=images)
