"""What requests may hold, checked and documented; how it becomes a job's spec."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Header, Path
from pydantic import BaseModel, ConfigDict, Field, field_validator

from millrace.core.chunks import DEFAULT_CHUNK_SIZE, PART_ROWS
from millrace.core.errors import JobConflict, UsageError
from millrace.core.job import MAX_LABELS, JobSpec, LabelName, LabelValue, Layout, Priority
from millrace.core.model_ref import ModelRef
from millrace.core.services import Services
from millrace.core.storage import Location
from millrace.core.topology import JOB_ID_PATTERN
from millrace.producer.http.access import Caller
from millrace.producer.page import OUR_LABELS
from millrace.producer.submit import make_spec

EXAMPLE_JOB = "digits-20261120-174500-4f9c"

JobIdPath = Annotated[
    str, Path(pattern=JOB_ID_PATTERN, description="The job's id.", examples=[EXAMPLE_JOB])
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="A word of your own for this very request: sent again it is the same job, and "
        "sent with another body a conflict.",
        examples=["6f1c0f0e-3b1c-4c57-9d0e-0d1c5f6b7a88"],
    ),
]

_Url = Annotated[str, Field(min_length=1, max_length=4096)]
_Pattern = Annotated[str, Field(min_length=1, max_length=1024)]


class JobRequest(BaseModel):
    """What to predict, with which model, and where to."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "source": "s3://photos/2026/",
                    "model": "resnet50",
                    "output": "s3://predictions/",
                    "include": ["*.jpg"],
                    "labels": {"team": "catalogue"},
                }
            ]
        },
    )

    source: _Url = Field(description="Images: all below this storage URL.")
    model: str = Field(max_length=160, description="NAME or NAME:VERSION.")
    output: _Url = Field(description="The job's directory is made below this storage URL.")
    include: list[_Pattern] = Field([], max_length=100, description="Only keys that match one.")
    exclude: list[_Pattern] = Field([], max_length=100, description="Not keys that match one.")
    manifest: _Url | None = Field(
        None, description="Instead of listing: a URL of keys, one a line."
    )
    chunk_size: int = Field(DEFAULT_CHUNK_SIZE, ge=1, le=PART_ROWS, description="Images a chunk.")
    priority: Priority = Field(Priority.NORMAL, description="Its share of the queue.")
    top_k: int | None = Field(None, ge=1, le=10_000, description="Classes an image.")
    layout: Layout = Field(Layout.CHUNKS, description="`per-image`: one JSON an image as well.")
    job_id: str | None = Field(
        None, pattern=JOB_ID_PATTERN, description="Your own id: submitting it twice is one job."
    )
    error_threshold: str | None = Field(
        None, max_length=20, description="`100` or `5%` failed images end the job as failed."
    )
    deadline: str | None = Field(
        None, max_length=40, description="`2h`, or an RFC 3339 time, after which it expires."
    )
    notify: str | None = Field(
        None, max_length=2048, description="A URL that is told, signed, when the job has ended."
    )
    labels: dict[LabelName, LabelValue] = Field(
        {},
        max_length=MAX_LABELS,
        description=f"Words of yours to find the job by; `{OUR_LABELS}…` are ours.",
    )

    @field_validator("labels")
    @classmethod
    def _not_ours(cls, labels: dict[str, str]) -> dict[str, str]:
        for name in labels:
            if name.startswith(OUR_LABELS):
                raise ValueError(f"{name}: labels that begin with {OUR_LABELS} are ours")
        return labels


class RetryRequest(BaseModel):
    """Which failed images to run again: of these codes, or all."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"codes": ["fetch/timeout"]}]}
    )

    codes: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(
        [], max_length=100, description="`stage/code` or `code`."
    )
    job_id: str | None = Field(None, pattern=JOB_ID_PATTERN, description="The new job's id.")


def spec_of_request(services: Services, asked: JobRequest, job_id: str | None) -> JobSpec:
    """The spec of what is asked for. Raises what `make_spec` raises."""
    given: dict[str, Any] = dict(asked)
    source, output, manifest = (given.pop(name) for name in ("source", "output", "manifest"))
    for url in filter(None, (source, output, manifest)):
        storage_url(url)
    if manifest:
        services.stores.allowed.check(Location.parse(manifest).uri)
    given |= {"model": ModelRef.parse(asked.model), "job_id": job_id}
    return make_spec(services, source, output=output, manifest=manifest, **given)


def storage_url(text: str) -> Location:
    """A location by its URL: what a bare path means here, only the server knows. Raises
    BadLocation, UsageError."""
    if "://" not in text:
        raise UsageError(f"{text!r} is not a storage URL", hint="s3://BUCKET/… or file:///…")
    return Location.parse(text)


def job_id_for(caller: Caller, key: str | None, job_id: str | None) -> str | None:
    """The id of the job that a request with this key is about: always the same one, so that the
    job itself remembers the key. None if any id will do. Raises UsageError."""
    if key is None:
        return job_id
    if job_id is not None:
        raise UsageError("a job_id makes the request idempotent already; leave Idempotency-Key out")
    digest = hashlib.sha256(f"{caller.id}\0{key}".encode()).hexdigest()
    return f"once-{digest[:32]}"


def name_of_id(key: str | None) -> str:
    """What a request says which job it is about by."""
    return "job_id" if key is None else "Idempotency-Key"


@contextmanager
def conflicts_named(named: str) -> Iterator[None]:
    """Around making a job: what is in its way is told in the words of who asked."""
    try:
        yield
    except JobConflict as error:
        hint = error.hint and error.hint.replace("--job-id", named)
        raise JobConflict(error.message, hint=hint) from error
