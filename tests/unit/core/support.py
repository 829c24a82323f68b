"""What the unit tests share: specs, jobs that stand in Redis, and the worker's side of a claim."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime

from millrace.core.claims import Claims, ModelIdentity
from millrace.core.errors import AlreadyExists, ItemError, Stage
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import Tally, error_line
from millrace.core.record import TimingTotals
from millrace.core.services import Services

MODEL = ModelIdentity("1", "sha256:abc")
NO_TIME = TimingTotals()
ERROR_LINE = error_line(ManifestRow("k"), ItemError(Stage.DECODE, "bad_image", "no image"), 1)


def a_spec(job_id: object = "job", *, model: object = "tiny", **fields: object) -> JobSpec:
    """A valid spec; `fields` replace its own. `model` may be a name alone."""
    defaults: dict[str, object] = {
        "job_id": job_id,
        "created_at": datetime(2026, 11, 20, 17, 45, tzinfo=UTC),
        "model": {"name": model} if isinstance(model, str) else model,
        "input": {"uri": "memory://photos"},
        "output": "memory://predictions",
        "chunk_size": 2,
    }
    return JobSpec.make(**(defaults | fields))


def created(services: Services, spec: JobSpec) -> JobSpec:
    """Make a job as a producer does: `job.json`, then the record."""
    with suppress(AlreadyExists):
        JobDirectory(services.stores, spec.directory).create_spec(spec)
    services.jobs.create(spec)
    return spec


def standing_job(
    services: Services, spec: JobSpec, *, rows: int, listed: bool = True, parts: int = 1
) -> JobSpec:
    """Make a job, with `parts` parts of `rows` rows published."""
    created(services, spec)
    for part in range(parts):
        services.jobs.publish_part(spec.job_id, part, rows, spec.plan.chunks_in(rows))
    if listed:
        services.jobs.listing_done(spec.job_id)
    return spec


def a_worker(
    services: Services, name: str = "worker", *, lease_s: float = 30, max_attempts: int = 5
) -> Claims:
    """The claiming side of one worker process."""
    return Claims(services.redis, worker=name, lease_s=lease_s, max_attempts=max_attempts)


def a_tally(succeeded: int, failed: int = 0, code: str = "decode/bad_image") -> Tally:
    """What a chunk's object held."""
    by_code = Counter({code: failed} if failed else {})
    return Tally(succeeded, failed, by_code, [ERROR_LINE] * min(failed, 3))
