"""What a job's summary says of its run, for a record that Redis lost."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from millrace.core.bottleneck import Bottleneck
from millrace.core.errors import CorruptRecord
from millrace.core.finalize import verdict_of
from millrace.core.job import WHOLE, JobState, ModelPin
from millrace.core.jobdir import JobDirectory
from millrace.core.record import Counts, TimingTotals, to_ms
from millrace.core.restored import Restored
from millrace.core.status import CountsStatus

TIME_US = 1_000_000
"""A summary has the stages' shares alone; of how much in all no longer matters."""

Share = Annotated[float, Field(ge=0, le=1)]


class _Errors(BaseModel):
    by_code: dict[str, int]


class Summary(BaseModel):
    """The part of `summary.json` that the objects cannot tell."""

    state: JobState
    reason: str | None
    model: ModelPin
    counts: CountsStatus
    errors: _Errors
    timing_share: dict[str, Share]
    bottleneck: Bottleneck | None = None
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    completed_at: AwareDatetime | None

    @classmethod
    def read(cls, directory: JobDirectory) -> Summary | None:
        """None if there is none, or nothing that can be read."""
        try:
            return cls.model_validate(directory.read_summary())
        except (CorruptRecord, ValidationError):
            return None

    @property
    def run(self) -> dict[str, str | int]:
        """With which model, and since when, as fields of the record."""
        known: dict[str, str | int] = {"created_ms": to_ms(self.created_at)}
        if self.model.version and self.model.digest:
            known |= {"version": self.model.version, "digest": self.model.digest}
        if self.started_at:
            # The whole of its run is known then, and all its images count as speed.
            known |= {"started_ms": to_ms(self.started_at), "restored": 0}
        return known

    def end(self, found: Restored, *, success: bool) -> dict[str, str | int]:
        """How it ended, as fields of the record; nothing if storage holds anything else.

        `success` tells whether `_SUCCESS` stands.
        """
        counts = Counts(found.total, found.succeeded, found.failed, skipped=0, cancelled=0)
        whole = found.listing_complete and len(found.done) == found.chunks
        said = Counts(**self.counts.model_dump(exclude={"pending"}))
        if (
            not whole
            or said != counts
            or self.errors.by_code != found.by_code
            or (self.state, self.reason) != verdict_of(counts)
            or success != (self.state in WHOLE)
            or self.completed_at is None
        ):
            return {}
        completed = to_ms(self.completed_at)
        return {
            "state": self.state,
            "reason": self.reason or "",
            "completed_ms": completed,
            "updated_ms": completed,
            **self._times(),
        }

    def _times(self) -> dict[str, int]:
        stages = ("fetch", "decode", "infer", "write")
        times = {stage: round(self.timing_share.get(stage, 0) * TIME_US) for stage in stages}
        if self.bottleneck is not None:
            predicting = self.bottleneck.predicting
            whole = times["infer"] / predicting if predicting else TIME_US
            for stage, share in self.bottleneck.waiting.items():
                times[f"wait_{stage}"] = round(share * whole)
        return TimingTotals(**times).fields()
