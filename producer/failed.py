"""The images of an ended job that failed, to be run again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from millrace.core.errors import ObjectNotFound
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import decode_outcome
from millrace.core.storage import Location, Stores


def failed_rows(stores: Stores, job: Location, codes: Sequence[str]) -> Iterator[ManifestRow]:
    """The failed images of the job at `job`, in manifest order; of `codes` (`stage/code` or
    `code`) only, if any are given.

    They are taken as they are now: what was repaired since has another ETag. Raises
    ObjectNotFound if the job has not published its errors.
    """
    lines = JobDirectory(stores, job).published_errors()
    if lines is None:
        raise ObjectNotFound(f"{job} has no errors.jsonl; it has not ended")
    for outcome in map(decode_outcome, lines):
        stage, code = outcome["error"]["stage"], outcome["error"]["code"]
        if not codes or code in codes or f"{stage}/{code}" in codes:
            yield ManifestRow(outcome["key"], None, None)
