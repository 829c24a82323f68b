"""What stands in a chunk's object, as far as it can be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from millrace.core.errors import CorruptRecord, ObjectTooLarge
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.log import get_logger
from millrace.core.outcome import decode_outcome

log = get_logger(__name__)

_OF_AN_ERROR = {"message": "", "retryable": False, "attempts": None}
"""What pages tell of one beside its stage and code. Objects are made by others, and may lack it."""


def outcomes_of(
    directory: JobDirectory, spec: JobSpec, chunk: int, skipped: int = 0
) -> Iterator[dict[str, Any]]:
    """The outcomes of a chunk after the first `skipped`, in the order of the manifest.

    A chunk that is damaged ends where the damage begins: nobody can mend it by looking, and it
    takes nothing but itself away. Raises the store's errors.
    """
    try:
        body = directory.read_chunk(spec.plan, chunk) or b""
        for line in body.splitlines()[skipped:]:
            outcome = decode_outcome(line)
            if "error" in outcome:
                outcome["error"] = _OF_AN_ERROR | outcome["error"]
            yield outcome
    except (CorruptRecord, ObjectTooLarge) as error:
        log.warning("a chunk is damaged", job=spec.job_id, chunk=chunk, error=error.message)
