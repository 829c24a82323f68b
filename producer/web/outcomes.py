"""What stands in a chunk's object, as far as it can be read."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from typing import Any

from millrace.core.errors import CorruptRecord
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.log import get_logger
from millrace.core.outcome import decode_outcome
from millrace.core.sizes import MIB

log = get_logger(__name__)

MOST_CHUNK_BYTES = 32 * MIB
"""Of a chunk that is read for a page. Some thirty may be read at once, that is 1 GB, by the process
that answers all who poll. 128 images with five classes each are 50 kB."""

MOST_PREDICTIONS = 20
"""Of an image, best first: no page shows more, and some of them are kept for a while."""

_OF_AN_ERROR = {"message": "", "retryable": False, "attempts": None}
"""What pages tell of one beside its stage and code. Objects are made by others, and may lack it."""


def outcomes_of(
    directory: JobDirectory, spec: JobSpec, chunk: int, skipped: int = 0
) -> Iterator[dict[str, Any]]:
    """The outcomes of a chunk after the first `skipped`, in the order of the manifest, with as many
    predictions as are shown.

    A chunk that is damaged ends where the damage begins: nobody can mend it by looking, and it
    takes nothing but itself away. Raises the store's errors, ObjectTooLarge among them.
    """
    try:
        body = directory.read_chunk(spec.plan, chunk, MOST_CHUNK_BYTES) or b""
        for line in islice(BytesIO(body), skipped, None):
            outcome = decode_outcome(line)
            if "error" in outcome:
                outcome["error"] = _OF_AN_ERROR | outcome["error"]
            else:
                del outcome["predictions"][MOST_PREDICTIONS:]
            yield outcome
    except CorruptRecord as error:
        log.warning("a chunk is damaged", job=spec.job_id, chunk=chunk, error=error.message)
