"""`retry`: a child job over exactly what failed in its parent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from millrace.core.errors import JobConflict
from millrace.core.job import InputSpec, JobSpec, new_job_id
from millrace.core.jobdir import JobDirectory
from millrace.core.services import Services
from millrace.producer.enqueue import ListingProgress
from millrace.producer.job import Job
from millrace.producer.submit import submit_spec


def retry(
    services: Services,
    job: str,
    *,
    codes: Sequence[str] = (),
    job_id: str | None = None,
    progress: Callable[[ListingProgress], None] = lambda _: None,
) -> Job:
    """Submit the failed images of an ended job again, as a job of its own beside it.

    `codes` (`stage/code` or `code`) choose among them. The parent stays as it is; the child's
    status names it. Raises JobNotFound, JobConflict if the job has not ended, and what
    `submit` raises. If nothing failed so, the child has `failed`, reason `no_inputs`.
    """
    return submit_spec(services, retry_spec(services, job, codes=codes, job_id=job_id), progress)


def retry_spec(
    services: Services, job: str, *, codes: Sequence[str] = (), job_id: str | None = None
) -> JobSpec:
    """The spec of such a job. Raises JobNotFound, JobConflict."""
    record = services.jobs.record(job)
    if not record.state.terminal:
        raise JobConflict(f"job {job} is {record.state}; its failures are not all known yet")
    parent = record.spec
    JobDirectory(services.stores, parent.directory).confirm(parent)
    fields = parent.model_dump()
    fields |= {
        "job_id": job_id or new_job_id(parent.model.name),
        "created_at": datetime.now(UTC),
        "input": InputSpec(uri=parent.input.uri, failed_of=job, codes=tuple(sorted(set(codes)))),
        "deadline": None,
        "error_threshold": None,
    }
    return JobSpec.make(**fields)
