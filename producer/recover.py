"""Going on with a job whose producer died, or whose record Redis lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from millrace.core.errors import CorruptRecord, JobConflict, JobNotFound
from millrace.core.job import TAKES_WORK, JobSpec, JobState, Layout, Reason
from millrace.core.jobdir import JobDirectory, decode_rows
from millrace.core.jobstore import Snapshot
from millrace.core.locks import producing
from millrace.core.manifest import ManifestRow, decode_row
from millrace.core.outcome import tally
from millrace.core.restored import Restored
from millrace.core.services import Services
from millrace.core.storage import Location
from millrace.core.summary import Summary
from millrace.producer.control import look_after, resume
from millrace.producer.enqueue import ListingProgress, enqueue
from millrace.producer.job import Job
from millrace.producer.source import remaining_references
from millrace.producer.verification import Verification

SAMPLES = 10


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
        _list_the_rest(services, record.spec, progress)
    return Job(services, job)


def restore(
    services: Services,
    directory: JobDirectory,
    progress: Callable[[int], None] = lambda _: None,
) -> Job:
    """Make the record of a job that Redis lost anew, counted from its directory, and let it go
    on: only chunks without an object run again. If there are none, and it has a summary that says
    so, it has ended as it did, and nothing is written.

    `progress` gets the number of images read. Raises JobConflict if Redis knows the job, it was
    ended early, or the directory is a copy; CorruptRecord if an object is not its chunk's outcome.
    """
    spec = _spec(directory)
    with suppress(JobNotFound):
        services.jobs.record(spec.job_id)
        raise JobConflict(f"Redis knows job {spec.job_id}")
    summary = Summary.read(directory)
    read = _read(spec, directory, summary, progress)
    end = summary.end(read, success=directory.has_success()) if summary else {}
    if end:
        services.jobs.restore(spec, replace(read, said={**read.said, **end}))
        return Job(services, spec.job_id)
    return _anew(services, spec, directory, read)


def _anew(
    services: Services,
    spec: JobSpec,
    directory: JobDirectory,
    read: Restored,
    *,
    replace: bool = False,
) -> Job:
    if read.listing_complete:
        directory.complete_manifest(read.parts, read.total)  # its producer may have died before
    if directory.has_success():
        directory.delete_success()  # until it is finalized again
    services.jobs.restore(spec, read, replace=replace)
    look_after(services, spec.job_id)
    services.feeder.feed(spec)
    return Job(services, spec.job_id)


def repair(
    services: Services,
    directory: JobDirectory,
    found: Verification,
    progress: Callable[[int], None] = lambda _: None,
) -> Job:
    """Remove the corrupt objects that `verify` found and those that are no chunk's, and run
    exactly what is missing again. A paused job stays paused, and keeps its priority and its model.

    Raises as `restore` does, and JobConflict if the job is being listed or run: what is read
    would be out of date by then. Nothing is removed before all is read.
    """
    spec = _spec(directory)
    with suppress(JobNotFound):
        _refuse_moving(services.jobs.snapshot(spec.job_id), spec)
    whole = _said_size(directory) is not None
    corrupt = frozenset(found.corrupt_chunks)
    read = _read(spec, directory, Summary.read(directory), progress, corrupt)
    # An object without rows is a stray only if no rows can be missing.
    strays = [*directory.strays(spec.plan, read.chunks)] if whole else []
    for chunk in found.corrupt_chunks:
        directory.delete_chunk(spec.plan, chunk)
    for name, _ in strays:
        directory.delete_stray(name)
    return _anew(services, spec, directory, read, replace=True)


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


def _list_the_rest(
    services: Services, spec: JobSpec, progress: Callable[[ListingProgress], None]
) -> None:
    job, directory = spec.job_id, JobDirectory(services.stores, spec.directory)
    directory.confirm(spec)
    with producing(services.redis, job) as still_ours:
        parts, images, whole = _manifest(spec, directory)
        # A part may have been written and not published.
        for part in range(services.jobs.record(job).parts, parts):
            count = len(directory.part_lines(part))
            services.jobs.publish_part(job, part, count, spec.plan.chunks_in(count))
        services.feeder.feed(spec)
        rows: Iterator[ManifestRow] = iter(())
        if not whole:
            output, known = Location.parse(spec.output), _rows(spec, directory, parts)
            rows = remaining_references(services.stores, spec.input, output, known)
        enqueue(services, spec, rows, progress, still_ours, first_part=parts, listed=images)


def _manifest(spec: JobSpec, directory: JobDirectory) -> tuple[int, int, bool]:
    """Parts, images, and whether that is all of them. Raises CorruptRecord."""
    parts = directory.parts()
    if parts != list(range(len(parts))):
        raise CorruptRecord(f"{directory.location}: parts of the manifest are missing")
    if not parts:
        return 0, 0, directory.manifest_size() is not None
    last = len(directory.part_lines(parts[-1]))
    images = (len(parts) - 1) * spec.plan.rows_per_part + last
    said = _said_size(directory)
    if said is not None and said != (len(parts), images):
        raise CorruptRecord(f"{directory.location}: the manifest held {said[1]} images once")
    # Only the last part is ever short.
    return len(parts), images, said is not None or last < spec.plan.rows_per_part


def _said_size(directory: JobDirectory) -> tuple[int, int] | None:
    try:
        return directory.manifest_size()
    except CorruptRecord:
        return None  # it will be written again


def _rows(spec: JobSpec, directory: JobDirectory, parts: int) -> Iterator[ManifestRow]:
    for part in range(parts):
        yield from map(decode_row, _part_lines(spec, directory, part, parts))


def _part_lines(spec: JobSpec, directory: JobDirectory, part: int, parts: int) -> list[bytes]:
    lines = directory.part_lines(part)
    if part < parts - 1 and len(lines) != spec.plan.rows_per_part:
        raise CorruptRecord(f"{directory.location}: part {part} holds {len(lines)} rows")
    return lines


def _read(
    spec: JobSpec,
    directory: JobDirectory,
    summary: Summary | None,
    progress: Callable[[int], None],
    corrupt: frozenset[int] = frozenset(),
) -> Restored:
    """What the directory holds. Chunks that are known to be `corrupt` count as missing; raises
    CorruptRecord if there are others."""
    plan = spec.plan
    parts, images, whole = _manifest(spec, directory)
    copies = set(directory.standing_by_key() if spec.layout is Layout.PER_IMAGE else ())
    done, with_errors, samples = list[int](), list[int](), list[bytes]()
    by_code = Counter[str]()
    succeeded = failed = chunks = seen = 0
    for part in range(parts):
        lines = _part_lines(spec, directory, part, parts)
        numbers = plan.chunks_of(part, len(lines))
        chunks += len(numbers)
        for chunk, body in zip(numbers, directory.read_chunks(plan, numbers), strict=True):
            if body is None or chunk in corrupt:
                continue
            rows = decode_rows(lines, plan, chunk)
            try:
                counted = tally(body, rows)
            except CorruptRecord as error:
                raise CorruptRecord(
                    f"chunk {chunk} of {directory.location}: {error.message}",
                    hint="`millrace verify --repair` runs it again",
                ) from None
            if spec.layout is Layout.PER_IMAGE:
                directory.put_missing_by_key(rows, body, copies)
            done.append(chunk)
            succeeded += counted.succeeded
            failed += counted.failed
            by_code.update(counted.by_code)
            if counted.failed:
                with_errors.append(chunk)
                samples += counted.samples[: SAMPLES - len(samples)]
        seen += len(lines)
        progress(seen)
    return Restored(
        parts=parts,
        chunks=chunks,
        total=images,
        succeeded=succeeded,
        failed=failed,
        done=done,
        with_errors=with_errors,
        by_code=by_code,
        samples=samples,
        listing_complete=whole,
        said=summary.run if summary else {},
    )
