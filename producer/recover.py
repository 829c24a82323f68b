"""Going on with a job whose producer died, or whose record Redis lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from millrace.core.errors import CorruptRecord, JobConflict
from millrace.core.job import JobSpec, JobState
from millrace.core.jobdir import JobDirectory, decode_rows
from millrace.core.jobstore import Restored
from millrace.core.manifest import ManifestRow, decode_row
from millrace.core.outcome import tally
from millrace.core.services import Services
from millrace.core.storage import Location
from millrace.producer.control import look_after, resume
from millrace.producer.enqueue import ListingProgress, enqueue
from millrace.producer.job import Job
from millrace.producer.source import remaining_references

SAMPLES = 10


def go_on(
    services: Services, job: str, progress: Callable[[ListingProgress], None] = lambda _: None
) -> Job:
    """Let a job that stands still go on: resume it if it is paused, list the rest of its input
    if its producer died. Nothing is listed into it twice.

    Raises JobNotFound; JobConflict if it has ended or another process lists it; what `submit`
    raises.
    """
    record = services.jobs.record(job)
    if record.state is JobState.PAUSED or record.listing_complete:
        resume(services, job)
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
    on: only chunks without an object run again.

    `progress` gets the number of images read. Raises JobConflict if Redis knows the job or it
    was ended early; CorruptRecord if an object is not its chunk's outcome (`verify` names it).
    """
    spec = directory.read_spec()
    _refuse_ended_early(spec, directory)
    services.jobs.restore(spec, _read(spec, directory, progress))
    look_after(services, spec.job_id)
    services.feeder.feed(spec)
    return Job(services, spec.job_id)


def repair(
    services: Services,
    directory: JobDirectory,
    corrupt: list[int],
    progress: Callable[[int], None] = lambda _: None,
) -> Job:
    """Remove the objects of `corrupt` chunks and run exactly what is missing again.

    Raises as `restore` does.
    """
    spec = directory.read_spec()
    _refuse_ended_early(spec, directory)
    for chunk in corrupt:
        directory.delete_chunk(spec.plan, chunk)
    services.jobs.delete(spec)
    return restore(services, directory, progress)


def _refuse_ended_early(spec: JobSpec, directory: JobDirectory) -> None:
    summary = directory.read_summary()
    if summary is not None and summary.get("counts", {}).get("cancelled"):
        raise JobConflict(f"job {spec.job_id} was ended early: {summary.get('state')}")


def _list_the_rest(
    services: Services, spec: JobSpec, progress: Callable[[ListingProgress], None]
) -> None:
    job, directory = spec.job_id, JobDirectory(services.stores, spec.directory)
    with services.jobs.producing(job):
        parts, images, whole = _manifest(spec, directory)
        # A part may have been written and not published.
        for part in range(services.jobs.record(job).parts, parts):
            count = len(directory.part_lines(part))
            services.jobs.publish_part(job, part, count, spec.plan.chunks_in(count))
        rows: Iterator[ManifestRow] = iter(())
        if not whole:
            output, known = Location.parse(spec.output), _rows(directory, range(parts))
            rows = remaining_references(services.stores, spec.input, output, known)
        enqueue(services, spec, rows, progress, first_part=parts, listed=images)


def _manifest(spec: JobSpec, directory: JobDirectory) -> tuple[int, int, bool]:
    """Parts, images, and whether that is all of them. Raises CorruptRecord."""
    parts = directory.parts()
    if parts != list(range(len(parts))):
        raise CorruptRecord(f"{directory.location}: parts of the manifest are missing")
    if not parts:
        return 0, 0, directory.manifest_size() is not None
    last = len(directory.part_lines(parts[-1]))
    images = (len(parts) - 1) * spec.plan.rows_per_part + last
    said = directory.manifest_size()
    if said is not None and said != (len(parts), images):
        raise CorruptRecord(f"{directory.location}: the manifest held {said[1]} images once")
    # Only the last part is ever short.
    return len(parts), images, said is not None or last < spec.plan.rows_per_part


def _rows(directory: JobDirectory, parts: range) -> Iterator[ManifestRow]:
    for part in parts:
        yield from map(decode_row, directory.part_lines(part))


def _read(spec: JobSpec, directory: JobDirectory, progress: Callable[[int], None]) -> Restored:
    plan = spec.plan
    parts, images, whole = _manifest(spec, directory)
    done, with_errors, samples = list[int](), list[int](), list[bytes]()
    by_code = Counter[str]()
    succeeded = failed = chunks = seen = 0
    for part in range(parts):
        lines = directory.part_lines(part)
        first = part * plan.chunks_per_part
        numbers = range(first, first + plan.chunks_in(len(lines)))
        chunks += len(numbers)
        for chunk, body in zip(numbers, directory.read_chunks(plan, numbers), strict=True):
            if body is None:
                continue
            counted = tally(body, decode_rows(lines, plan, chunk))
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
    )
