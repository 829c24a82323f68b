"""The producer's stream: list → manifest parts → feed, in the memory of one part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from millrace.core.errors import JobConflict, JobNotFound, MillraceError, RedisUnavailable
from millrace.core.job import TAKES_WORK, JobSpec, JobState, Reason
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import ManifestRow
from millrace.core.services import Services


@dataclass(frozen=True, slots=True)
class ListingProgress:
    """What enqueuing has done so far: images listed, bytes they hold, chunks made."""

    images: int
    bytes: int
    chunks: int


def enqueue(
    services: Services,
    spec: JobSpec,
    rows: Iterable[ManifestRow],
    progress: Callable[[ListingProgress], None] = lambda _: None,
    still_ours: Callable[[], bool] = lambda: True,
    *,
    first_part: int = 0,
    listed: int = 0,
) -> None:
    """Write the manifest part by part and feed each at once, so that workers start while
    listing goes on. `first_part` and `listed` images stand already.

    If listing fails midway, the job ends as `failed`, reason `input_listing_failed`, with
    the partial output published, and the error is raised. Ctrl-C cancels the job likewise. But if
    Redis goes away, the job stays as it is, for `recover.go_on`; raises RedisUnavailable.
    To be called within `producing`, which gives `still_ours`: a producer that stood still
    while another process went on with the job leaves it alone. Raises JobConflict then.
    """
    job, plan = spec.job_id, spec.plan
    directory = JobDirectory(services.stores, spec.directory)
    images, size, chunks = listed, 0, plan.chunks_in(listed)
    part = first_part - 1
    try:
        for part, part_rows in enumerate(_parts(rows, plan.rows_per_part), first_part):
            _check(services, spec, still_ours)
            directory.create_part(part, part_rows)
            count = plan.chunks_in(len(part_rows))
            state, published = services.jobs.publish_part(job, part, len(part_rows), count)
            if state not in (*TAKES_WORK, JobState.PAUSED):
                if state and published <= part:
                    directory.delete_part(part)  # given up by somebody else: it is not counted
                _check(services, spec, still_ours)
                return
            services.feeder.feed(spec)
            images += len(part_rows)
            size += sum(row.size or 0 for row in part_rows)
            chunks += count
            progress(ListingProgress(images, size, chunks))
        _check(services, spec, still_ours)
        directory.complete_manifest(part + 1, images)
    except (JobConflict, RedisUnavailable):
        raise
    except MillraceError:
        _check(services, spec, still_ours)
        give_up(services, job, JobState.FAILED, Reason.INPUT_LISTING_FAILED)
        raise
    except KeyboardInterrupt:
        give_up(services, job, JobState.CANCELLED, Reason.INTERRUPTED)
        raise
    if services.jobs.listing_done(job):
        services.finalizer.finalize(job)


def _check(services: Services, spec: JobSpec, still_ours: Callable[[], bool]) -> None:
    if still_ours():
        return
    try:
        services.jobs.record(spec.job_id)
    except JobNotFound:
        raise JobConflict(
            f"Redis has lost job {spec.job_id} meanwhile",
            hint=f"millrace resume {spec.directory} --from-storage",
        ) from None
    raise JobConflict(f"another process goes on with job {spec.job_id}")


def give_up(services: Services, job: str, ending: JobState, reason: Reason) -> None:
    """End a job early; chunks in hand are still counted, and what there is is published."""
    if services.jobs.stop(job, ending, reason):
        services.finalizer.finalize(job)


def _parts(rows: Iterable[ManifestRow], size: int) -> Iterator[list[ManifestRow]]:
    stream = iter(rows)
    while part := list(islice(stream, size)):
        yield part
