"""`millrace cancel`, `pause`, `resume`, `priority`, `retry` and `delete`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli import options as o
from millrace.cli.command import command, confirm, print_json, refuse_silence
from millrace.cli.results import JobOrUrl, directory_of

if TYPE_CHECKING:
    from millrace.core.services import Services


@command
def cancel(job: o.JobArgument, redis_url: o.RedisUrl = None, as_json: o.AsJson = False) -> None:
    """End a job early: chunks in hand finish, what there is is published."""
    from millrace.producer import control

    services = o.services(redis_url)
    control.cancel(services, job)
    _report(services, job, as_json)


@command
def pause(job: o.JobArgument, redis_url: o.RedisUrl = None, as_json: o.AsJson = False) -> None:
    """Let nothing new of a job be claimed; chunks in hand finish."""
    from millrace.producer import control

    services = o.services(redis_url)
    control.pause(services, job)
    _report(services, job, as_json)


@command
def resume(
    job: JobOrUrl,
    from_storage: Annotated[
        bool,
        typer.Option(
            "--from-storage",
            envvar="MILLRACE_FROM_STORAGE",
            help="JOB is a directory's URL: make anew the record that Redis lost.",
        ),
    ] = False,
    redis_url: o.RedisUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """Let a job go on that is paused, whose producer died, or that Redis lost."""
    from millrace.cli.progress import checking_progress, listing_progress
    from millrace.core.errors import UsageError
    from millrace.producer.recover import go_on, restore

    services = o.services(redis_url)
    if ("/" in job) != from_storage:
        raise UsageError("--from-storage and the URL of a job's directory go together")
    if from_storage:
        with checking_progress(quiet=as_json) as checked:
            restored = restore(services, directory_of(services, job), checked)
        job = restored.id
    if not from_storage or not services.jobs.record(job).listing_complete:
        with listing_progress(quiet=as_json) as listed:
            go_on(services, job, listed)
    _report(services, job, as_json)


@command
def priority(
    job: o.JobArgument,
    level: Annotated[str, typer.Argument(metavar="PRIORITY", help="high, normal or low.")],
    redis_url: o.RedisUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """Change a job's share of its queue while it runs."""
    from millrace.core.errors import UsageError
    from millrace.core.job import Priority
    from millrace.producer import control

    services = o.services(redis_url)
    try:
        wanted = Priority(level)
    except ValueError:
        raise UsageError(f"{level!r} is no priority: expected high, normal or low") from None
    control.set_priority(services, job, wanted)
    _report(services, job, as_json)


@command
def retry(
    job: o.JobArgument,
    failed: Annotated[
        bool, typer.Option("--failed", envvar="MILLRACE_FAILED", help="Run what failed again.")
    ] = False,
    code: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MILLRACE_CODE", help="Only errors of this code or stage/code (repeatable)."
        ),
    ] = None,
    job_id: o.JobIdOption = None,
    redis_url: o.RedisUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """Run the failed images of an ended job again, as a job of its own."""
    from millrace.cli import show
    from millrace.cli.progress import listing_progress
    from millrace.core.errors import UsageError
    from millrace.producer.retry import retry as submit_again

    if not failed:
        raise UsageError("say what to run again:  millrace retry JOB --failed")
    services = o.services(redis_url)
    with listing_progress(quiet=as_json) as listed:
        child = submit_again(services, job, codes=code or (), job_id=job_id, progress=listed)
    status = child.status()
    print_json(status.model_dump(mode="json")) if as_json else show.submitted(status)
    if status.terminal:
        raise typer.Exit(show.exit_code(status))


@command
def delete(
    job: o.JobArgument,
    outputs: Annotated[
        bool,
        typer.Option("--outputs", envvar="MILLRACE_OUTPUTS", help="Its directory as well."),
    ] = False,
    yes: o.Yes = False,
    redis_url: o.RedisUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """Forget an ended job; its results stay unless --outputs is given."""
    from millrace.producer import control

    refuse_silence("delete it", yes=yes, as_json=as_json)
    services = o.services(redis_url)
    spec = control.deletable(services, job)
    if not yes:
        what = f"{spec.directory} and all in it" if outputs else f"the record of {job}"
        confirm(f"Delete {what}?", otherwise="nothing was deleted")
    removed = control.delete(services, job, outputs=outputs)
    if as_json:
        print_json({"job_id": job, "deleted": True, "objects_removed": removed})
    else:
        print(f"deleted {job}" + (f" and {removed:,} objects" if outputs else ""))


def _report(services: Services, job: str, as_json: bool) -> None:
    from millrace.cli import show
    from millrace.producer.job import Job

    status = Job(services, job).status()
    print_json(status.model_dump(mode="json")) if as_json else show.status(status)
