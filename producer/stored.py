"""What a job's directory holds, read whole: the manifest, and what came of its chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Set

from millrace.core.errors import CorruptRecord
from millrace.core.job import JobSpec, Layout
from millrace.core.jobdir import JobDirectory, decode_rows
from millrace.core.manifest import ManifestRow, decode_row
from millrace.core.outcome import decode_outcome, tally
from millrace.core.outcome_schema import decode_strictly
from millrace.core.restored import Restored
from millrace.core.summary import Summary

SAMPLES = 10


def manifest_of(spec: JobSpec, directory: JobDirectory) -> tuple[int, int, bool]:
    """Parts, images, and whether that is all of them. Raises CorruptRecord."""
    parts = directory.parts()
    if parts != list(range(len(parts))):
        raise CorruptRecord(f"{directory.location}: parts of the manifest are missing")
    if not parts:
        return 0, 0, directory.manifest_size() is not None
    last = len(directory.part_lines(parts[-1]))
    images = (len(parts) - 1) * spec.plan.rows_per_part + last
    said = said_size(directory)
    if said is not None and said != (len(parts), images):
        raise CorruptRecord(f"{directory.location}: the manifest held {said[1]} images once")
    # Only the last part is ever short.
    return len(parts), images, said is not None or last < spec.plan.rows_per_part


def said_size(directory: JobDirectory) -> tuple[int, int] | None:
    try:
        return directory.manifest_size()
    except CorruptRecord:
        return None  # it will be written again


def rows_of(spec: JobSpec, directory: JobDirectory, parts: int) -> Iterator[ManifestRow]:
    for part in range(parts):
        yield from map(decode_row, _part_lines(spec, directory, part, parts))


def _part_lines(spec: JobSpec, directory: JobDirectory, part: int, parts: int) -> list[bytes]:
    lines = directory.part_lines(part)
    if part < parts - 1 and len(lines) != spec.plan.rows_per_part:
        raise CorruptRecord(f"{directory.location}: part {part} holds {len(lines)} rows")
    return lines


def _said(directory: JobDirectory, summary: Summary | None) -> dict[str, str | int]:
    """Of its run, as fields of the record: what its summary says, and with which model it began."""
    said = summary.run if summary else {}
    pinned = directory.pinned_model()
    return said if pinned is None else said | {"version": pinned.version, "digest": pinned.digest}


def read(
    spec: JobSpec,
    directory: JobDirectory,
    summary: Summary | None,
    progress: Callable[[int], None],
    suspects: Set[int] = frozenset(),
) -> Restored:
    """What the directory holds. Chunks that are `suspects` are judged as `verify` does, and may be
    corrupt; raises CorruptRecord if others are."""
    plan = spec.plan
    parts, images, whole = manifest_of(spec, directory)
    copies = set(directory.standing_by_key() if spec.layout is Layout.PER_IMAGE else ())
    done, with_errors, corrupt = list[int](), list[int](), list[int]()
    samples = list[bytes]()
    by_code = Counter[str]()
    succeeded = failed = chunks = seen = 0
    for part in range(parts):
        lines = _part_lines(spec, directory, part, parts)
        numbers = plan.chunks_of(part, len(lines))
        chunks += len(numbers)
        for chunk, body in zip(numbers, directory.read_chunks(plan, numbers), strict=True):
            if body is None:
                continue
            rows = decode_rows(lines, plan, chunk)
            suspect = chunk in suspects
            try:
                counted = tally(body, rows, decode_strictly if suspect else decode_outcome)
            except CorruptRecord as error:
                if suspect:
                    corrupt.append(chunk)
                    continue
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
        said=_said(directory, summary),
        corrupt=corrupt,
    )
