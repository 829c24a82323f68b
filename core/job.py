"""What a job is: its immutable spec, and the states it may pass through."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from millrace.core.chunks import DEFAULT_CHUNK_SIZE, PART_ROWS, ChunkPlan
from millrace.core.errors import CorruptRecord, UsageError
from millrace.core.limits import ErrorThreshold, parse_deadline
from millrace.core.notify.target import Target
from millrace.core.storage.location import Location
from millrace.core.topology import (
    JOB_ID_PATTERN,
    LABEL_NAME_PATTERN,
    LABEL_VALUE_PATTERN,
    MODEL_NAME_PATTERN,
    VERSION_PATTERN,
    queue_name,
)

JobId = Annotated[str, StringConstraints(pattern=JOB_ID_PATTERN)]


class JobState(StrEnum):
    """Where a job stands. The cause of an ending is its `reason`, never a state."""

    QUEUED = "queued"
    """Accepted; nothing listed yet."""
    ENQUEUING = "enqueuing"
    """The producer is listing the input; no worker has taken a chunk."""
    RUNNING = "running"
    """Chunks are being predicted; listing may still go on."""
    PAUSED = "paused"
    """Nothing new is claimed until it is resumed."""
    CANCELLING = "cancelling"
    """Cancelled; chunks in hand are ending."""
    FINALIZING = "finalizing"
    """Every outcome is known; the summary is being written."""
    SUCCEEDED = "succeeded"
    """Every image has a prediction (or was skipped)."""
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    """Every image has an outcome; some are errors."""
    FAILED = "failed"
    """No image succeeded, or the job was given up; `reason` says why."""
    CANCELLED = "cancelled"
    """Ended by a person; its partial output stands."""
    EXPIRED = "expired"
    """Ended by its deadline; its partial output stands."""

    @property
    def terminal(self) -> bool:
        return not TRANSITIONS[self]


_S = JobState
_ENDINGS = frozenset({_S.SUCCEEDED, _S.COMPLETED_WITH_ERRORS, _S.FAILED, _S.CANCELLED, _S.EXPIRED})
WHOLE = frozenset({_S.SUCCEEDED, _S.COMPLETED_WITH_ERRORS})
"""Endings that leave no image without an outcome and are no failure."""

TAKES_WORK = frozenset({_S.QUEUED, _S.ENQUEUING, _S.RUNNING})
"""Its chunks may be claimed."""

_GIVING_UP = frozenset({_S.CANCELLING, _S.FINALIZING})

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    _S.QUEUED: frozenset({_S.ENQUEUING, _S.PAUSED}) | _GIVING_UP,
    _S.ENQUEUING: frozenset({_S.RUNNING, _S.PAUSED}) | _GIVING_UP,
    _S.RUNNING: frozenset({_S.PAUSED}) | _GIVING_UP,
    _S.PAUSED: frozenset({_S.RUNNING}) | _GIVING_UP,
    _S.CANCELLING: frozenset({_S.FINALIZING}),
    _S.FINALIZING: _ENDINGS,
    **{ending: frozenset() for ending in _ENDINGS},
}


class Reason(StrEnum):
    """Why a job ended as it did, where the counts alone do not say."""

    NO_INPUTS = "no_inputs"
    INPUT_LISTING_FAILED = "input_listing_failed"
    MODEL_LOAD_FAILED = "model_load_failed"
    JOB_DIRECTORY_UNUSABLE = "job_directory_unusable"
    INTERRUPTED = "interrupted"
    REQUESTED = "requested"
    ERROR_THRESHOLD_EXCEEDED = "error_threshold_exceeded"
    DEADLINE_EXCEEDED = "deadline_exceeded"


class Priority(StrEnum):
    """A job's share of its queue: how many of its chunks may wait there at once."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def window_factor(self) -> float:
        return {"high": 4.0, "normal": 1.0, "low": 0.25}[self.value]


class Layout(StrEnum):
    """`chunks`: one JSON Lines object per chunk. `per-image`: also one JSON per image."""

    CHUNKS = "chunks"
    PER_IMAGE = "per-image"


MAX_LABELS = 32
LabelName = Annotated[str, StringConstraints(pattern=LABEL_NAME_PATTERN)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelPin(_Frozen):
    """The model asked for, and what the repository said it is at submission."""

    name: str = Field(pattern=MODEL_NAME_PATTERN)
    requested_version: str | None = Field(None, pattern=VERSION_PATTERN)
    version: str | None = Field(None, pattern=VERSION_PATTERN)
    digest: str | None = None


class InputSpec(_Frozen):
    """Which objects: everything under `uri`, filtered; or what `manifest` names under it; or
    what failed in the job `failed_of`, of which only the `codes` (`stage/code`), if any."""

    uri: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    manifest: str | None = None
    failed_of: JobId | None = None
    codes: tuple[str, ...] = ()


class JobSpec(_Frozen):
    """What the user asked for: `job.json`, written once and never changed."""

    schema_version: Literal[1] = 1
    job_id: JobId
    created_at: datetime
    model: ModelPin
    input: InputSpec
    output: str
    chunk_size: int = Field(DEFAULT_CHUNK_SIZE, ge=1, le=PART_ROWS)
    priority: Priority = Priority.NORMAL
    top_k: int | None = Field(None, ge=1, le=10_000)
    layout: Layout = Layout.CHUNKS
    error_threshold: str | None = None
    deadline: str | None = None
    notify: str | None = None
    """The URL that is told when the job has ended."""
    labels: dict[LabelName, LabelValue] = Field(default={}, max_length=MAX_LABELS)
    """The user's own words about the job, to find it by."""

    @field_validator("error_threshold")
    @classmethod
    def _is_threshold(cls, value: str | None) -> str | None:
        if value is not None:
            ErrorThreshold.parse(value)
        return value

    @field_validator("deadline")
    @classmethod
    def _is_deadline(cls, value: str | None) -> str | None:
        if value is not None:
            parse_deadline(value, datetime.now(UTC))
        return value

    @field_validator("notify")
    @classmethod
    def _is_target(cls, value: str | None) -> str | None:
        if value is not None:
            Target.parse(value)
        return value

    def __hash__(self) -> int:
        # Labels are a dictionary; the id alone tells nearly all specs apart.
        return hash((self.job_id, self.created_at))

    @property
    def plan(self) -> ChunkPlan:
        return ChunkPlan(self.chunk_size)

    @property
    def queue(self) -> str:
        return queue_name(self.model.name, self.model.version)

    @property
    def parent_job_id(self) -> str | None:
        """The job whose failed images this one runs again."""
        return self.input.failed_of

    @property
    def directory(self) -> Location:
        """`<output>/<job_id>/`"""
        return Location.parse(self.output).child(self.job_id)

    @property
    def digest(self) -> str:
        """SHA-256 of what was asked for: equal for two submissions of the same work.

        When and under which id it was asked, and which version the repository held at that
        moment, are not part of the request.
        """
        unasked: Any = {"job_id": True, "created_at": True, "model": {"version", "digest"}}
        if not self.labels:
            unasked["labels"] = True  # as before there were any
        if self.notify is None:
            unasked["notify"] = True
        asked = self.model_dump_json(exclude=unasked)
        return f"sha256:{hashlib.sha256(asked.encode()).hexdigest()}"

    @classmethod
    def make(cls, **fields: object) -> JobSpec:
        """Build a spec from what a user gave. Raises UsageError naming the field."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            wrong = UsageError(f"{where}: {first['msg'].removeprefix('Value error, ')}")
            wrong.field = where
            raise wrong from None

    @classmethod
    def from_json(cls, text: str | bytes) -> JobSpec:
        """Read a spec back from Redis or storage. Raises CorruptRecord."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise CorruptRecord(f"not a job spec: {error.errors()[0]['msg']}") from None


def parse_label(text: str) -> tuple[str, str]:
    """Read `NAME=VALUE`. Raises UsageError if there is no `=`."""
    name, separator, value = text.partition("=")
    if not separator:
        raise UsageError(f"{text!r} is no label: expected NAME=VALUE")
    return name, value


def new_job_id(model: str, now: datetime | None = None) -> str:
    """`digits-20261120-174500-4f9c`: sorts by time within a model, never collides."""
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%d-%H%M%S")
    return f"{model}-{stamp}-{secrets.token_hex(2)}"
