"""The status of a job: the JSON that `status --json`, the summary and the API share."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from millrace.core.bottleneck import Bottleneck, bottleneck_of
from millrace.core.job import TAKES_WORK, JobState
from millrace.core.jobstore import Snapshot
from millrace.core.notify.delivery import DeliveryState
from millrace.core.notify.target import Target
from millrace.core.record import JobRecord, from_ms
from millrace.core.topology import (
    BY_KEY_PREFIX,
    ERRORS_FILE,
    MANIFEST_PREFIX,
    RESULTS_PREFIX,
    SUMMARY_FILE,
)

RATE_WINDOW_MS = 60_000
STALLED_AFTER_S = 120
UNLISTED_AFTER_S = 3
"""A job is made before its listing begins, which is in a moment."""

Health = Literal["ok", "no_workers", "no_producer", "stalled"]


class ModelStatus(BaseModel):
    name: str
    version: str | None
    digest: str | None


class InputStatus(BaseModel):
    uri: str
    include: list[str]
    exclude: list[str]
    manifest: str | None
    listing_complete: bool


class OutputStatus(BaseModel):
    """URLs of what the job writes; `by_key_uri` only in the per-image layout."""

    uri: str
    results_uri: str
    manifest_uri: str
    errors_uri: str
    summary_uri: str
    by_key_uri: str | None


class CountsStatus(BaseModel):
    """Images. `total = pending + succeeded + failed + skipped + cancelled`, always."""

    total: int
    pending: int
    succeeded: int
    failed: int
    skipped: int
    cancelled: int


class ErrorsStatus(BaseModel):
    """`by_code`: `stage/code` → images. `samples`: the first few error lines."""

    by_code: dict[str, int]
    samples: list[dict[str, Any]]


class WorkersStatus(BaseModel):
    """`active` hold chunks of this job now; `live` serve its queue."""

    active: int
    live: int


class NotificationStatus(BaseModel):
    """`to` is the URL without its path, which may hold a token; `error` is of the last try, and
    `due_at` says when there will be another."""

    to: str
    state: DeliveryState
    attempts: int
    error: str | None
    due_at: datetime | None


class JobStatus(BaseModel):
    """One job at one moment. Times are RFC 3339 in UTC; `total` is provisional until
    `input.listing_complete`; `progress` is 0 to 1; `eta_s` is None while unknown."""

    schema_version: Literal[1] = 1
    job_id: str
    parent_job_id: str | None
    labels: dict[str, str] = {}
    state: JobState
    terminal: bool
    reason: str | None
    health: Health
    model: ModelStatus
    input: InputStatus
    output: OutputStatus
    counts: CountsStatus
    progress: float = Field(ge=0, le=1)
    rate_images_per_s: float
    eta_s: float | None
    errors: ErrorsStatus
    workers: WorkersStatus
    timing_share: dict[str, float]
    bottleneck: Bottleneck | None
    notification: NotificationStatus | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    updated_at: datetime


def status_of(snapshot: Snapshot) -> JobStatus:
    """Work a snapshot out into a status."""
    record = snapshot.record
    spec, counts = record.spec, record.counts
    now = from_ms(snapshot.now_ms)
    rate = _rate(snapshot)
    uri = spec.directory.uri.removesuffix("/")
    settled = record.listing_complete or record.state.terminal
    return JobStatus(
        job_id=spec.job_id,
        parent_job_id=spec.parent_job_id,
        labels=spec.labels,
        state=record.state,
        terminal=record.state.terminal,
        reason=record.reason,
        health=_health(snapshot, now),
        model=ModelStatus(name=spec.model.name, version=record.version, digest=record.digest),
        input=InputStatus(
            uri=spec.input.uri,
            include=list(spec.input.include),
            exclude=list(spec.input.exclude),
            manifest=spec.input.manifest,
            listing_complete=record.listing_complete,
        ),
        output=OutputStatus(
            uri=uri,
            results_uri=f"{uri}/{RESULTS_PREFIX}",
            manifest_uri=f"{uri}/{MANIFEST_PREFIX}",
            errors_uri=f"{uri}/{ERRORS_FILE}",
            summary_uri=f"{uri}/{SUMMARY_FILE}",
            by_key_uri=f"{uri}/{BY_KEY_PREFIX}" if spec.layout == "per-image" else None,
        ),
        counts=CountsStatus(
            total=counts.total,
            pending=counts.pending,
            succeeded=counts.succeeded,
            failed=counts.failed,
            skipped=counts.skipped,
            cancelled=counts.cancelled,
        ),
        progress=round(counts.finished / counts.total, 4) if counts.total else float(settled),
        rate_images_per_s=round(rate, 2),
        eta_s=_eta(record, rate),
        errors=ErrorsStatus(
            by_code=snapshot.by_code,
            samples=snapshot.samples,
        ),
        workers=WorkersStatus(
            active=len({owner.rpartition("/")[0] for owner in snapshot.owners}),
            live=snapshot.live_workers,
        ),
        timing_share=record.timing.shares(),
        bottleneck=bottleneck_of(record.timing),
        notification=_notification(record),
        created_at=record.created_at,
        started_at=record.started_at,
        completed_at=record.completed_at,
        updated_at=record.updated_at,
    )


def _notification(record: JobRecord) -> NotificationStatus | None:
    if record.spec.notify is None:
        return None
    delivery = record.delivery
    return NotificationStatus(
        to=Target.parse(record.spec.notify).origin,
        state=delivery.state,
        attempts=delivery.attempts,
        error=delivery.error,
        due_at=delivery.due_at,
    )


def _rate(snapshot: Snapshot) -> float:
    """Images per second: of the last minute while running, of the whole run once it ended.

    What was done before the record was made anew took its time unseen, and does not count.
    """
    record = snapshot.record
    end = record.completed_at
    if end is not None:
        seconds = (end - record.started_at).total_seconds() if record.started_at else 0.0
        images = record.counts.succeeded + record.counts.failed - record.restored
        return images / seconds if seconds else 0.0
    recent = [entry for entry in snapshot.pace if entry[0] >= snapshot.now_ms - RATE_WINDOW_MS]
    if len(recent) < 2:
        return 0.0
    # The oldest completion only marks where the interval begins.
    images = sum(images for _, images in recent[:-1])
    return images / max(0.001, (snapshot.now_ms - recent[-1][0]) / 1000)


def _eta(record: JobRecord, rate: float) -> float | None:
    if record.state.terminal or not record.listing_complete or rate <= 0:
        return None
    return round(record.counts.pending / rate, 1)


def _health(snapshot: Snapshot, now: datetime) -> Health:
    record = snapshot.record
    if record.state not in TAKES_WORK:
        return "ok"
    if not record.listing_complete and not snapshot.has_producer:
        age_s = (now - record.created_at).total_seconds()
        return "no_producer" if age_s > UNLISTED_AFTER_S else "ok"
    if not record.counts.pending:
        return "ok"
    if not snapshot.live_workers:
        return "no_workers"
    last = max(t for t in (record.created_at, record.started_at, record.progress_at) if t)
    return "stalled" if (now - last).total_seconds() > STALLED_AFTER_S else "ok"
