"""A job as its page shows it: the status and what is drawn beside it."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.core.errors import MillraceError
from millrace.core.fleet import SeenWorker
from millrace.core.job import JobSpec
from millrace.core.log import get_logger
from millrace.core.status import JobStatus
from millrace.core.topology import queue_name
from millrace.producer.http.board import Posted
from millrace.producer.web.actions import Action, actions_for
from millrace.producer.web.charts import Chart, chart_of
from millrace.producer.web.classes import ClassCounts
from millrace.producer.web.dashboard import Dashboard
from millrace.producer.web.gallery import Found
from millrace.producer.web.shown import percent, words

log = get_logger(__name__)

CLASSES_SHOWN = 23
"""With the rest of them in one more line they fill the columns they stand in."""
NOTHING_COUNTED = ClassCounts([], 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class JobView:
    """`errors` are (`stage/code`, images, some of them), most first; `took` is in seconds; `live`
    says that more is to come; `say` is what a screen reader says of changes."""

    job: JobStatus
    actions: list[Action]
    chart: Chart | None
    errors: list[tuple[str, int, list[Found]]]
    classes: ClassCounts
    workers: list[SeenWorker]
    took: float | None
    live: bool
    say: str


def view_of(dashboard: Dashboard, posted: Posted) -> JobView:
    """What there is to show now. Storage that is away takes nothing but its own part away."""
    job, services = posted.status, dashboard.backend.services
    spec = services.jobs.spec(job.job_id)
    classes = _classes(dashboard, spec)
    chart = chart_of(
        dashboard.throughput.of(job.job_id, posted.pace, None if job.terminal else posted.now_ms)
    )
    took = None
    if job.started_at is not None and job.completed_at is not None:
        took = (job.completed_at - job.started_at).total_seconds()
    return JobView(
        job=job,
        actions=actions_for(job),
        chart=chart,
        errors=_errors(dashboard, spec, job),
        classes=classes,
        workers=_workers(services.fleet.workers(), job),
        took=took,
        live=not job.terminal or classes.waiting > 0,
        say=_say(job),
    )


def _classes(dashboard: Dashboard, spec: JobSpec) -> ClassCounts:
    finished = dashboard.backend.services.jobs.done_bitmap(spec.job_id)
    return dashboard.classes.of(spec, finished, CLASSES_SHOWN)


def _errors(
    dashboard: Dashboard, spec: JobSpec, job: JobStatus
) -> list[tuple[str, int, list[Found]]]:
    if not job.errors.by_code:
        return []
    try:
        bitmap = dashboard.backend.services.jobs.failed_bitmap(job.job_id)
        samples = dashboard.errors.of(spec, bitmap)
    except MillraceError as error:
        log.warning("no samples of errors", job=job.job_id, error=error.message)
        samples = {}
    by_count = sorted(job.errors.by_code.items(), key=lambda item: (-item[1], item[0]))
    return [(code, images, samples.get(code, [])) for code, images in by_count]


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
    tenths = int(job.progress * 10) / 10
    return f"{words(job.state).capitalize()}, {percent(tenths)} done."
