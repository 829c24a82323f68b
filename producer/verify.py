"""`verify`: derive every count of a job from storage alone, and compare what claims to know it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from millrace.core.bitmaps import set_bits
from millrace.core.errors import CorruptRecord, JobNotFound, RedisUnavailable
from millrace.core.job import WHOLE, JobSpec, JobState, Layout
from millrace.core.jobdir import JobDirectory, decode_rows
from millrace.core.jobstore import Snapshot
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import decode_outcome, tally
from millrace.core.outcome_schema import decode_strictly
from millrace.core.services import Services
from millrace.core.topology import (
    BY_KEY_PREFIX,
    MANIFEST_COMPLETE,
    by_key_digest,
    by_key_object,
)
from millrace.producer.verification import Verification

ENDED_EARLY = frozenset({JobState.CANCELLED, JobState.EXPIRED, JobState.FAILED})
"""Endings that may leave images without an outcome; they are counted as cancelled."""


def verify(
    services: Services,
    directory: JobDirectory,
    progress: Callable[[int], None] = lambda _: None,
) -> Verification:
    """Check that each manifest row has exactly one outcome line, in order and well formed,
    that errors, summary and the names of the copies by key say the same, and that Redis agrees,
    if it knows the job.

    Chunks may lack an object while Redis says that the job is under way, but none that it takes
    for finished; and in a job that was ended early, as many images as it says are cancelled.
    `progress` gets the number of images checked. Raises the store's errors, CorruptRecord if the
    spec or manifest cannot be read.
    """
    spec = directory.read_spec()
    found = Verification(spec.job_id, "unknown")
    # Redis first: what it counts by now must stand in storage, which may be ahead.
    snapshot, finished = _claimed(found, services, spec)
    summary = _summary(found, directory)
    if snapshot is not None:
        found.state = str(snapshot.record.state)
    elif summary is not None:
        found.state = str(summary.get("state"))
    found.asked_redis = snapshot is not None
    ended = snapshot is None or snapshot.record.state.terminal
    errors = _check_chunks(found, spec, directory, None if ended else finished, progress)
    if summary is not None and ended:
        _check_published(found, directory, summary, errors)
    if snapshot is not None:
        _check_redis(found, snapshot, finished)
    if ended and summary is None:
        why = "though the job has ended" if snapshot else "and Redis does not say the job runs"
        found.note("summary.json", f"is missing {why}")
    if found.missing_chunks and not _accounted_for(found, snapshot, summary):
        found.note("results", f"chunks without an object: {_some(found.missing_chunks)}")
    return found


def _accounted_for(
    found: Verification, snapshot: Snapshot | None, summary: dict[str, Any] | None
) -> bool:
    """Whether the images without an outcome are pending, or were cancelled with their job."""
    if snapshot is not None and not snapshot.record.state.terminal:
        return True
    counted = _counts(summary or {}).get("cancelled")
    cancelled = snapshot.record.counts.cancelled if snapshot is not None else counted
    return found.state in ENDED_EARLY and cancelled == found.without_outcome


def _counts(summary: dict[str, Any]) -> dict[str, Any]:
    counts = summary.get("counts")
    return counts if isinstance(counts, dict) else {}


def _check_redis(found: Verification, snapshot: Snapshot, finished: set[int]) -> None:
    missing = set(found.missing_chunks)
    for chunk in sorted(finished & missing):
        found.note("redis", f"chunk {chunk} is finished, but has no object")
    record = snapshot.record
    if record.state.terminal:
        counts = record.counts
        found.compare("redis", "total", counts.total, found.total)
        found.compare("redis", "succeeded", counts.succeeded, found.succeeded)
        found.compare("redis", "failed", counts.failed, found.failed)
        found.compare("redis", "cancelled", counts.cancelled, found.without_outcome)
        found.compare("redis", "errors by code", snapshot.by_code, dict(found.by_code))
        for chunk in sorted(set(range(found.chunks)) - missing - finished):
            found.note("redis", f"chunk {chunk} has an object, but is not finished")


def _summary(found: Verification, directory: JobDirectory) -> dict[str, Any] | None:
    try:
        return directory.read_summary()
    except CorruptRecord as error:
        found.note("summary.json", error.message)
        return None


def _claimed(
    found: Verification, services: Services, spec: JobSpec
) -> tuple[Snapshot | None, set[int]]:
    """What Redis says of the job, and the chunks it takes for finished by then."""
    try:
        snapshot = services.jobs.snapshot(spec.job_id)
        # After the record: what has ended by then finishes no more chunks.
        done = services.jobs.done_bitmap(spec.job_id)
    except (JobNotFound, RedisUnavailable):
        return None, set()
    except CorruptRecord as error:
        found.note("redis", error.message)
        return None, set()
    if snapshot.record.spec.directory != spec.directory:
        return None, set()  # another job of that name
    return snapshot, set(set_bits(done))


def _check_chunks(
    found: Verification,
    spec: JobSpec,
    directory: JobDirectory,
    finished: set[int] | None,
    progress: Callable[[int], None],
) -> bytes:
    """Returns a digest of all error lines, in their order.

    A chunk's copies by key follow its object: they are due of those that are `finished`, which
    None says of all.
    """
    plan = spec.plan
    copies = set[bytes]()
    errors = hashlib.blake2b()
    said = _manifest_size(found, directory)  # first: while it is not said, more parts may come
    parts = directory.parts()
    if parts != list(range(len(parts))):
        found.note("manifest", f"parts are missing: there are {parts}")
    for part in parts:
        lines = directory.part_lines(part)
        if len(lines) != plan.rows_per_part and part != parts[-1]:
            found.note("manifest", f"part {part} holds {len(lines)} rows of {plan.rows_per_part}")
        numbers = plan.chunks_of(part, len(lines))
        found.total += len(lines)
        found.chunks += len(numbers)
        for chunk, body in zip(numbers, directory.read_chunks(plan, numbers), strict=True):
            if body is None:
                found.missing_chunks.append(chunk)
                continue
            rows = decode_rows(lines, plan, chunk)
            if spec.layout is Layout.PER_IMAGE and (finished is None or chunk in finished):
                copies.update(by_key_digest(by_key_object(row.key)) for row in rows)
            if _has_errors(found, chunk, body, rows):
                _digest(errors, (x for x in body.splitlines() if "error" in decode_outcome(x)))
        progress(found.total)
    if said is not None:
        found.compare(MANIFEST_COMPLETE, "parts and images", said, (len(parts), found.total))
    _check_strays(found, spec, directory, set(parts))
    if copies:
        copies.difference_update(directory.standing_by_key())
    if copies:
        found.note(BY_KEY_PREFIX, f"{len(copies):,} images have no object")
    return errors.digest()


def _check_strays(
    found: Verification, spec: JobSpec, directory: JobDirectory, parts: set[int]
) -> None:
    plan = spec.plan
    strays = [*directory.strays(plan, found.chunks)]
    # What was listed and run meanwhile is not judged.
    later = set(directory.parts()) - parts if strays else set()
    for name, chunk in strays:
        if chunk is None or plan.part_of(chunk) not in later:
            found.strays.append(name)
            found.note(name, "belongs to no chunk of the manifest")


def _manifest_size(found: Verification, directory: JobDirectory) -> tuple[int, int] | None:
    try:
        return directory.manifest_size()
    except CorruptRecord as error:
        found.note(MANIFEST_COMPLETE, error.message)
        return None


def _digest(digest: hashlib.blake2b, lines: Iterable[bytes]) -> None:
    for line in lines:
        digest.update(line + b"\n")


def _has_errors(found: Verification, chunk: int, body: bytes, rows: list[ManifestRow]) -> bool:
    """Count a chunk; whether it holds error lines. One that is corrupt is noted instead."""
    try:
        counted = tally(body, rows, decode_strictly)
    except CorruptRecord as error:
        found.corrupt_chunks.append(chunk)
        found.note(f"chunk {chunk}", error.message)
        return False
    found.succeeded += counted.succeeded
    found.failed += counted.failed
    found.by_code += Counter(counted.by_code)
    return counted.failed > 0


def _check_published(
    found: Verification, directory: JobDirectory, summary: dict[str, Any], errors: bytes
) -> None:
    where = "summary.json"
    counts, by_code = _counts(summary), summary.get("errors")
    by_code = by_code.get("by_code") if isinstance(by_code, dict) else None
    found.compare(where, "state", summary.get("state"), found.state)
    found.compare(where, "total", counts.get("total"), found.total)
    found.compare(where, "succeeded", counts.get("succeeded"), found.succeeded)
    found.compare(where, "failed", counts.get("failed"), found.failed)
    found.compare(where, "cancelled", counts.get("cancelled"), found.without_outcome)
    found.compare(where, "errors by code", by_code, dict(found.by_code))
    complete = found.state in WHOLE
    if complete and found.state != _verdict(found):
        found.note(where, f"state is {found.state}, storage says {_verdict(found)}")
    if directory.has_success() != complete:
        found.note("_SUCCESS", "is missing" if complete else "stands though the job is not whole")
    published = directory.published_errors()
    if published is None:
        found.note("errors.jsonl", "is missing")
        return
    digest = hashlib.blake2b()
    _digest(digest, published)
    if digest.digest() != errors:
        found.note("errors.jsonl", "does not hold the error lines of the chunks")


def _verdict(found: Verification) -> str:
    return JobState.COMPLETED_WITH_ERRORS if found.failed else JobState.SUCCEEDED


def _some(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:10])
    return shown + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
