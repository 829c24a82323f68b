"""`millrace verify`: are the counts true?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli import options as o
from millrace.cli.command import command, print_json
from millrace.cli.results import JobOrUrl, directory_of

if TYPE_CHECKING:
    from millrace.producer.verification import Verification


@command
def verify(
    job: JobOrUrl,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            envvar="MILLRACE_REPAIR",
            help="Run exactly what is missing again; the job must have ended or be paused.",
        ),
    ] = False,
    redis_url: o.RedisUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """Derive every count from storage alone, and compare the summary and Redis with it."""
    from millrace.cli.progress import checking_progress
    from millrace.core.errors import ExitCode
    from millrace.producer.recover import repair as mend
    from millrace.producer.verify import verify as check

    services = o.services(redis_url)
    directory = directory_of(services, job)
    with checking_progress(quiet=as_json) as checked:
        found = check(services, directory, checked)
    print_json(found.as_json()) if as_json else _show(found)
    if found.ok:
        return
    if not repair:
        raise typer.Exit(ExitCode.CHECK_FAILED)
    with checking_progress(quiet=as_json) as checked:
        mended = mend(services, directory, found, checked).status()
    if not as_json:
        print(f"repairing: {mended.counts.pending:,} images run again", end="")
        print(f" after `millrace resume {found.job_id}`" if mended.state == "paused" else "")


def _show(found: Verification) -> None:
    print(f"job {found.job_id}: {found.state.replace('_', ' ')}")
    print(f"  {found.total:,} images in {found.chunks:,} chunks")
    print(f"  {found.succeeded:,} succeeded, {found.failed:,} failed", end="")
    print(f", {found.without_outcome:,} without outcome" if found.without_outcome else "")
    if not found.asked_redis:
        print("  Redis does not know it, or was not reached")
    for finding in found.findings:
        print(f"  [{finding.where}] {finding.problem}")
    print(f"{len(found.findings):,} findings" if found.findings else "all agree")
