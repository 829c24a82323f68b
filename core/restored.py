"""What storage holds of a job, and the record that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from millrace.core.job import JobSpec, JobState
from millrace.core.record import initial_fields, to_ms


@dataclass(frozen=True, slots=True)
class Restored:
    """What storage holds of a job. Images, but for `parts` and `chunks`."""

    parts: int
    chunks: int
    total: int
    succeeded: int
    failed: int
    done: list[int]
    """Chunks whose object stands, ascending."""
    with_errors: list[int]
    """Those of them that hold an error line."""
    by_code: Mapping[str, int]
    samples: list[bytes]
    listing_complete: bool
    said: Mapping[str, str | int] = field(default_factory=dict)
    """What the summary says of its run, as fields of the record."""
    corrupt: list[int] = field(default_factory=list)
    """Chunks that are not done because what stands there is not their outcome."""

    def fields(self, spec: JobSpec) -> dict[str, Any]:
        """The record of the job: nothing is fed, nothing in hand."""
        when = to_ms(spec.created_at)
        return initial_fields(spec) | {
            "state": JobState.RUNNING if self.chunks else JobState.QUEUED,
            "created_ms": when,
            "updated_ms": when,
            "listing_complete": int(self.listing_complete),
            "parts": self.parts,
            "chunks": self.chunks,
            "total": self.total,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "done": len(self.done),
            "ahead": len(self.done),
            "restored": self.succeeded + self.failed,
            **self.said,
        }
