"""`millrace status`, `jobs` and `workers`: where things stand."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli import options as o
from millrace.cli.command import command, print_json

if TYPE_CHECKING:
    from millrace.core.job import JobState


@command
def status(
    job: o.JobArgument,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            "-w",
            envvar="MILLRACE_WATCH",
            help="Follow it with a live bar until it ends.",
        ),
    ] = False,
    redis_url: o.RedisUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """Show one job: counts, rate, time left, errors."""
    from millrace.cli import show
    from millrace.cli.progress import prediction_progress
    from millrace.core.log import configure
    from millrace.core.settings import Settings
    from millrace.producer import open_job

    settings = Settings.load(redis_url=redis_url)
    configure("warning", settings.log_format)
    handle = open_job(job, settings)
    if watch:
        with prediction_progress(quiet=as_json) as predicted:
            current = handle.wait(progress=predicted)
    else:
        current = handle.status()
    print_json(current.model_dump(mode="json")) if as_json else show.status(current)
    if watch:
        raise typer.Exit(show.exit_code(current))


@command
def jobs(
    limit: Annotated[int, typer.Option(envvar="MILLRACE_LIMIT", min=1, help="How many.")] = 20,
    state: Annotated[
        list[str] | None,
        typer.Option(envvar="MILLRACE_JOBS_STATE", help="Only in this state; repeatable."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(envvar="MILLRACE_JOBS_MODEL", help="Only on this model: NAME[:VERSION]."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MILLRACE_JOBS_LABEL", help="Only with this label, NAME=VALUE; repeatable."
        ),
    ] = None,
    redis_url: o.RedisUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """List the newest jobs."""
    from millrace.cli import show
    from millrace.core.job import parse_label
    from millrace.core.model_ref import ModelRef
    from millrace.producer.job import newest_jobs
    from millrace.producer.page import Wanted

    wanted = Wanted(
        states=frozenset(map(_state, state or ())),
        model=ModelRef.parse(model) if model else None,
        labels=dict(map(parse_label, label or ())),
    )
    rows = newest_jobs(o.services(redis_url), limit, wanted)
    print_json([row.model_dump(mode="json") for row in rows]) if as_json else show.jobs(rows)


def _state(text: str) -> JobState:
    """Raises UsageError."""
    from millrace.core.errors import UsageError
    from millrace.core.job import JobState

    try:
        return JobState(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a state", hint=f"one of {', '.join(JobState)}") from None


@command
def workers(
    here: Annotated[
        bool,
        typer.Option(
            "--here",
            envvar="MILLRACE_HERE",
            help="Only this machine's; exit code 4 if none is alive (a health check).",
        ),
    ] = False,
    redis_url: o.RedisUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """List the worker processes heard of in the last ten minutes."""
    import socket

    from millrace.cli import show
    from millrace.core.errors import ExitCode
    from millrace.core.services import Services
    from millrace.core.settings import Settings

    rows = Services(Settings.load(redis_url=redis_url)).fleet.workers()
    if here:
        rows = [row for row in rows if row.info.host == socket.gethostname()]
    if as_json:
        print_json(
            [{**asdict(row.info), "last_seen": row.last_seen, "lost": row.lost} for row in rows]
        )
    else:
        show.workers(rows)
    if here and all(row.lost for row in rows):
        raise typer.Exit(ExitCode.NOT_FOUND)
