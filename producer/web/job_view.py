"""A job as its page shows it: the status and what is drawn beside it."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.core.errors import MillraceError
from millrace.core.fleet import SeenWorker
from millrace.core.job import JobSpec
from millrace.core.log import get_logger
from millrace.core.record import to_ms
from millrace.core.status import JobStatus
from millrace.core.topology import queue_name
from millrace.producer.http.board import Posted
from millrace.producer.web.actions import Action, actions_for
from millrace.producer.web.charts import Chart, chart_of
from millrace.producer.web.classes import ClassCounts
from millrace.producer.web.dashboard import Dashboard
from millrace.producer.web.error_samples import Samples
from millrace.producer.web.gallery import Found
from millrace.producer.web.shown import percent, share_done, words
from millrace.producer.web.thumbnails import version_of

log = get_logger(__name__)

CLASSES_SHOWN = 23
"""With the rest of them in one more line they fill the columns they stand in."""
NO_SAMPLES = Samples({}, more=False)


@dataclass(frozen=True, slots=True)
class JobView:
    """`errors` are (`stage/code`, images, some of them), most first; `took` is in seconds;
    `version` tells its thumbnails from those of another job of its name; `reading` says that
    results are being read for this view; `say` is what a screen reader says of changes."""

    job: JobStatus
    actions: list[Action]
    chart: Chart | None
    errors: list[tuple[str, int, list[Found]]]
    classes: ClassCounts
    workers: list[SeenWorker]
    took: float | None
    version: str
    reading: bool
    say: str

    @property
    def live(self) -> bool:
        """Whether more is to come."""
        return self.reading or not self.job.terminal


def view_of(dashboard: Dashboard, posted: Posted) -> JobView:
    """What there is to show now. Storage that is away takes nothing but its own part away."""
    job, services = posted.status, dashboard.backend.services
    spec = services.jobs.spec(job.job_id)
    classes = _classes(dashboard, spec)
    samples = _samples(dashboard, spec, job)
    throughput = dashboard.throughput.of(spec, posted.pace, None if job.terminal else posted.now_ms)
    took = None
    if job.started_at is not None and job.completed_at is not None:
        took = (job.completed_at - job.started_at).total_seconds()
    return JobView(
        job=job,
        actions=actions_for(job),
        chart=chart_of(throughput, to_ms(job.started_at) if job.started_at else None),
        errors=_errors(job, samples),
        classes=classes,
        workers=_workers(services.fleet.workers(), job),
        took=took,
        version=version_of(spec),
        reading=classes.waiting > 0 or samples.more,
        say=_say(job),
    )


def _classes(dashboard: Dashboard, spec: JobSpec) -> ClassCounts:
    finished = dashboard.backend.services.jobs.done_bitmap(spec.job_id)
    return dashboard.classes.of(spec, finished, CLASSES_SHOWN)


def _samples(dashboard: Dashboard, spec: JobSpec, job: JobStatus) -> Samples:
    if not job.errors.by_code:
        return NO_SAMPLES
    try:
        bitmap = dashboard.backend.services.jobs.failed_bitmap(job.job_id)
        return dashboard.errors.of(spec, bitmap, job.errors.by_code)
    except MillraceError as error:
        log.warning("no samples of errors", job=job.job_id, error=error.message)
        return NO_SAMPLES


def _errors(job: JobStatus, samples: Samples) -> list[tuple[str, int, list[Found]]]:
    by_count = sorted(job.errors.by_code.items(), key=lambda item: (-item[1], item[0]))
    return [(code, images, samples.found.get(code, [])) for code, images in by_count]


def _workers(workers: list[SeenWorker], job: JobStatus) -> list[SeenWorker]:
    """Those that serve its queue."""
    queue = queue_name(job.model.name, job.model.version)
    return [seen for seen in workers if queue in seen.info.queues.split()]


def _say(job: JobStatus) -> str:
    """Changes seldom enough to be listened to: with the state, and every tenth of the way."""
    if job.terminal:
        failed = (
            f", {job.counts.failed:,} of {job.counts.total:,} failed" if job.counts.failed else ""
        )
        return f"The job has ended: {words(job.state)}{failed}."
    tenths = int(share_done(job) * 10) / 10
    return f"{words(job.state).capitalize()}, {percent(tenths)} done."
