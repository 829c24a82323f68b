"""Submit a job: check what can be checked, write the spec, stream the input into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain

from millrace.core.chunks import DEFAULT_CHUNK_SIZE
from millrace.core.errors import (
    AlreadyExists,
    JobConflict,
    JobNotFound,
    ModelNotFound,
    ObjectNotFound,
    RedisUnavailable,
)
from millrace.core.job import JobSpec, Layout, Priority, new_job_id
from millrace.core.jobdir import JobDirectory
from millrace.core.locks import producing
from millrace.core.log import about
from millrace.core.manifest import ManifestRow
from millrace.core.model_ref import ModelRef
from millrace.core.notify.rules import check_notify
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.storage import Location
from millrace.core.topology import queue_name
from millrace.producer.enqueue import ListingProgress, enqueue
from millrace.producer.job import Job
from millrace.producer.source import check_input, image_references


def submit(
    source: str,
    *,
    model: str,
    output: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    manifest: str | None = None,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    priority: Priority | str = Priority.NORMAL,
    top_k: int | None = None,
    layout: Layout | str = Layout.CHUNKS,
    job_id: str | None = None,
    error_threshold: str | None = None,
    deadline: str | None = None,
    notify: str | None = None,
    labels: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    progress: Callable[[ListingProgress], None] = lambda _: None,
) -> Job:
    """Enqueue a bucket or directory for prediction; returns when everything is listed.

    `source` and `output` are directories, `file://` or `s3://` URLs; `model` is `NAME` or
    `NAME:VERSION`. The same `job_id` with the same request is the same job. With more failed
    images than `error_threshold` (`100`, `5%`) the job fails; past its `deadline` (`2h`, or an
    RFC 3339 time) it expires. `notify` is a URL that is told of its end; `labels` are words of
    yours to find it by. Settings come from `MILLRACE_…` unless given.

    Raises UsageError, ModelNotFound, JobConflict, AccessDenied, ObjectNotFound,
    RedisUnavailable, StorageUnavailable. An input without images makes a job that has
    `failed`, reason `no_inputs`.
    """
    services = Services(settings or Settings.load())
    spec = make_spec(
        services,
        source,
        model=ModelRef.parse(model),
        output=output,
        include=include,
        exclude=exclude,
        manifest=manifest,
        chunk_size=chunk_size,
        priority=priority,
        top_k=top_k,
        layout=layout,
        job_id=job_id,
        error_threshold=error_threshold,
        deadline=deadline,
        notify=notify,
        labels=labels,
    )
    return submit_spec(services, spec, progress)


def make_spec(
    services: Services,
    source: str,
    *,
    model: ModelRef,
    output: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    manifest: str | None = None,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    priority: Priority | str = Priority.NORMAL,
    top_k: int | None = None,
    layout: Layout | str = Layout.CHUNKS,
    job_id: str | None = None,
    error_threshold: str | None = None,
    deadline: str | None = None,
    notify: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> JobSpec:
    """The spec of what a user asks for, with the model resolved. Raises as `submit` does."""
    services.stores.allowed.check(Location.parse(source).uri, Location.parse(output).uri)
    if notify is not None:
        check_notify(services.settings, notify)
    version, digest = _model_of(services, model, job_id)
    return JobSpec.make(
        job_id=job_id or new_job_id(model.name),
        created_at=datetime.now(UTC),
        model={
            "name": model.name,
            "requested_version": model.version,
            "version": version,
            "digest": digest,
        },
        input={
            "uri": Location.parse(source).uri,
            "include": tuple(include),
            "exclude": tuple(exclude),
            "manifest": manifest and Location.parse(manifest).uri.removesuffix("/"),
        },
        output=Location.parse(output).uri,
        chunk_size=chunk_size,
        priority=priority,
        top_k=top_k,
        layout=layout,
        error_threshold=error_threshold,
        deadline=deadline,
        notify=notify,
        labels=dict(labels or {}),
    )


def _model_of(
    services: Services, model: ModelRef, job_id: str | None
) -> tuple[str | None, str | None]:
    """As `resolve_model`; but a job that stands is the same job also when its model is gone."""
    try:
        return resolve_model(services, model)
    except ModelNotFound:
        with suppress(JobNotFound):
            if job_id is not None:
                its = services.jobs.spec(job_id).model
                if (its.name, its.requested_version) == (model.name, model.version):
                    return its.version, its.digest
        raise


def resolve_model(services: Services, model: ModelRef) -> tuple[str | None, str | None]:
    """The model's version and digest as the repository has them.

    A model the repository lacks may still be served from a plain SavedModel by a worker that
    is up now. Without a repository nothing is known here: the first worker to claim a chunk
    pins the job to its model. Raises ModelNotFound.
    """
    if not services.settings.models:
        return model.version, None
    try:
        bundle = services.repository().resolve(model)
    except ModelNotFound:
        queue = queue_name(model.name, model.version)
        live = [seen for seen in services.fleet.workers() if not seen.lost]
        if any(queue in seen.info.queues.split() for seen in live):
            return model.version, None
        raise
    return bundle.version, bundle.card.digest


def submit_spec(
    services: Services,
    spec: JobSpec,
    progress: Callable[[ListingProgress], None] = lambda _: None,
) -> Job:
    """Make the job and stream its input in, unless it stands already."""
    with about(job=spec.job_id):
        return _submit(services, spec, progress)


def _submit(services: Services, spec: JobSpec, progress: Callable[[ListingProgress], None]) -> Job:
    services.redis.ping()
    job = Job(services, spec.job_id)
    if _stands(services, spec):
        return job
    rows = _begun(image_references(services.stores, spec.input, Location.parse(spec.output)))
    spec, created = _make(services, spec)
    if created:
        with (
            _hint(f"millrace resume {spec.job_id}"),
            producing(services.redis, spec.job_id) as still_ours,
        ):
            enqueue(services, spec, rows, progress, still_ours)
    return job


def accept(services: Services, spec: JobSpec) -> bool:
    """Make the job, with nothing of its input listed: that is for `recover.list_the_rest`, of
    this process or another. False if it stands already. Raises as `submit` does, but of its input
    only what the first request shows.
    """
    services.redis.ping()
    if _stands(services, spec):
        return False
    check_input(services.stores, spec.input, Location.parse(spec.output))
    return _make(services, spec)[1]


def _make(services: Services, spec: JobSpec) -> tuple[JobSpec, bool]:
    """Write `job.json` and the record, unless they stand; the spec that does, and whether the
    record is new."""
    spec, fresh = _write_spec(services, spec)
    with _hint(f"millrace resume {spec.directory} --from-storage"):
        begun = not fresh and JobDirectory(services.stores, spec.directory).parts()
        if begun and not _stands(services, spec):
            # Without a record of it, for that would keep it from being restored.
            raise JobConflict(
                f"{spec.directory} holds a job that Redis no longer knows",
                hint=f"millrace resume {spec.directory} --from-storage",
            )
        standing = services.jobs.create(spec)
    if standing is not None and standing != spec.digest:
        raise _conflict(spec.job_id)
    return spec, standing is None


@contextmanager
def _hint(command: str) -> Iterator[None]:
    """Tell how to go on with a job that Redis left half made."""
    try:
        yield
    except RedisUnavailable as error:
        raise RedisUnavailable(
            error.message, hint=f"the job goes on, once Redis is back, with:  {command}"
        ) from error


def _stands(services: Services, spec: JobSpec) -> bool:
    """Whether this very job was submitted before. Raises JobConflict if another one was."""
    try:
        standing = services.jobs.spec(spec.job_id)
    except JobNotFound:
        return False
    if standing.digest != spec.digest:
        raise _conflict(spec.job_id)
    return True


def _begun(rows: Iterator[ManifestRow]) -> Iterator[ManifestRow]:
    """`rows` with the first one already read: a missing bucket shows before a job is made."""
    first = next(rows, None)
    return iter(()) if first is None else chain((first,), rows)


def _write_spec(services: Services, spec: JobSpec) -> tuple[JobSpec, bool]:
    """Write `job.json`, or take the one that stands if it asks for the same."""
    directory = JobDirectory(services.stores, spec.directory)
    with suppress(AlreadyExists):
        # A worker that stood still while its job was deleted writes into the directory yet.
        if not directory.is_littered():
            directory.create_spec(spec)
            return spec, True
    try:
        standing = directory.read_spec()
    except ObjectNotFound:
        raise JobConflict(
            f"{spec.directory} holds what another job left there",
            hint="remove it, or choose another --job-id",
        ) from None
    if standing.digest != spec.digest:
        raise _conflict(spec.job_id)
    return standing, False


def _conflict(job_id: str) -> JobConflict:
    return JobConflict(
        f"job {job_id} exists with another spec", hint="choose another --job-id, or leave it out"
    )
