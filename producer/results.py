"""Reading a job's outcomes back, from object storage alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from millrace.core.chunks import ChunkPlan
from millrace.core.jobdir import JobDirectory
from millrace.core.outcome import decode_outcome


def outcome_lines(directory: JobDirectory, plan: ChunkPlan) -> Iterator[bytes]:
    """The raw outcome lines of every committed chunk, in manifest order."""
    for body in directory.read_chunks(plan, _committed(directory, plan)):
        yield from (body or b"").splitlines()


def outcomes(directory: JobDirectory, plan: ChunkPlan) -> Iterator[dict[str, Any]]:
    """Every committed outcome as a dictionary. Raises CorruptRecord."""
    return map(decode_outcome, outcome_lines(directory, plan))


def error_outcomes(
    directory: JobDirectory, plan: ChunkPlan, chunks: Iterable[int] | None = None
) -> Iterator[dict[str, Any]]:
    """The error outcomes: from `errors.jsonl` once it stands, else from the chunks so far.

    `chunks` are those known to hold an error, if they are known.
    """
    lines = directory.published_errors()
    if lines is None:
        candidates = _committed(directory, plan) if chunks is None else chunks
        lines = directory.error_lines(plan, candidates)
    return map(decode_outcome, lines)


def _committed(directory: JobDirectory, plan: ChunkPlan) -> Iterable[int]:
    """The committed chunks in manifest order.

    Names are zero-padded, so object storage lists them in it; a directory in any.
    """
    chunks = directory.committed_chunks(plan)
    return sorted(chunks) if directory.location.scheme == "file" else chunks
