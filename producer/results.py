"""Reading a job's outcomes back, from object storage alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from millrace.core.chunks import ChunkPlan
from millrace.core.jobdir import JobDirectory
from millrace.core.outcome import decode_outcome


def outcome_lines(directory: JobDirectory, plan: ChunkPlan) -> Iterator[bytes]:
    """The raw outcome lines of every committed chunk, in the store's order.

    Names are zero-padded, so on object storage that is manifest order; directories are
    sorted here.
    """
    chunks = directory.committed_chunks(plan)
    for chunk in chunks if directory.location.scheme != "file" else sorted(chunks):
        body = directory.read_chunk(plan, chunk)
        yield from (body or b"").splitlines()


def outcomes(directory: JobDirectory, plan: ChunkPlan) -> Iterator[dict[str, Any]]:
    """Every committed outcome as a dictionary. Raises CorruptRecord."""
    return map(decode_outcome, outcome_lines(directory, plan))


def error_lines(directory: JobDirectory, plan: ChunkPlan) -> Iterator[dict[str, Any]]:
    """The error outcomes: from `errors.jsonl` once it stands, else from the chunks so far."""
    body = directory.read_errors()
    if body is not None:
        yield from map(decode_outcome, body.splitlines())
        return
    yield from (outcome for outcome in outcomes(directory, plan) if "error" in outcome)
