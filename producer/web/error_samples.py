"""A few failed images of each kind, for the histogram of errors, found with little reading."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock

from millrace.core.bitmaps import set_bits
from millrace.core.errors import ObjectTooLarge
from millrace.core.job import JobSpec
from millrace.producer.web.gallery import Found
from millrace.producer.web.job_files import JobFiles
from millrace.producer.web.kept import Kept
from millrace.producer.web.outcomes import outcomes_of

OF_EACH = 5
CHUNKS_A_LOOK = 12
JOBS_KEPT = 64
MOST_CODES = 200
"""Codes stand in objects that others made."""


@dataclass(frozen=True, slots=True)
class Samples:
    """`stage/code` → some of its images; `more` says that another look may find what is missing."""

    found: dict[str, list[Found]]
    more: bool


@dataclass(slots=True)
class _Sampled:
    """What was found in the chunks that were `read` of one job."""

    found: dict[str, list[Found]] = field(default_factory=dict)
    read: set[int] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)

    def add(self, shot: Found) -> None:
        error = shot.outcome.get("error")
        if error is None:
            return
        code = f"{error['stage']}/{error['code']}"
        if code in self.found or len(self.found) < MOST_CODES:
            some = self.found.setdefault(code, [])
            if len(some) < OF_EACH:
                some.append(shot)


class ErrorSamples:
    """Reads chunks that hold errors, a few at each look, until every code has a sample. They never
    change, so each is read once."""

    def __init__(self, files: JobFiles) -> None:
        self._files = files
        self._jobs: Kept[JobSpec, _Sampled] = Kept(JOBS_KEPT)

    def of(self, spec: JobSpec, with_errors: bytes, codes: Collection[str]) -> Samples:
        """Samples of these `codes`; `with_errors` has a bit for each chunk that holds an error.
        Raises what reading the job raises."""
        sampled = self._jobs.get(spec, _Sampled)
        with sampled.lock:
            more = self._read_on(spec, sampled, with_errors, codes)
            return Samples({code: [*some] for code, some in sampled.found.items()}, more)

    def _read_on(
        self, spec: JobSpec, sampled: _Sampled, with_errors: bytes, codes: Collection[str]
    ) -> bool:
        """Read some; whether anything is missing that other chunks may hold."""
        directory = self._files.directory(spec)
        looked = 0
        for chunk in set_bits(with_errors):
            if chunk in sampled.read:
                continue
            missing = any(code not in sampled.found for code in codes)
            if not missing and len(sampled.read) >= CHUNKS_A_LOOK:
                return False
            if looked == CHUNKS_A_LOOK:
                return missing
            looked += 1
            first = spec.chunk_size * chunk
            with suppress(ObjectTooLarge):  # others may be had
                for row, outcome in enumerate(outcomes_of(directory, spec, chunk), first):
                    sampled.add(Found(row, outcome))
            sampled.read.add(chunk)
        return False
