"""`millrace enqueue`: a bucket becomes a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli import options as o
from millrace.cli.command import command, print_json

if TYPE_CHECKING:
    from millrace.producer.preview import Preview


@command
def enqueue(
    source: o.Source,
    model: Annotated[
        str, typer.Option(envvar="MILLRACE_MODEL", help="NAME or NAME:VERSION of the model.")
    ],
    out: o.Out,
    include: o.Include = None,
    exclude: o.Exclude = None,
    manifest: o.Manifest = None,
    chunk_size: o.ChunkSize = 128,
    priority: o.Priority = "normal",
    top_k: o.TopK = None,
    layout: o.JobLayout = "chunks",
    job_id: o.JobIdOption = None,
    error_threshold: o.ErrorThreshold = None,
    deadline: o.Deadline = None,
    label: o.Label = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", envvar="MILLRACE_DRY_RUN", help="Count and check; no job."),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", envvar="MILLRACE_WAIT", help="Wait until the job has ended.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(envvar="MILLRACE_TIMEOUT", min=0, help="Give up waiting after seconds."),
    ] = None,
    models: o.Models = None,
    redis_url: o.RedisUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """Enqueue a bucket or directory of images for prediction."""
    from millrace.cli import show
    from millrace.cli.progress import listing_progress, prediction_progress
    from millrace.core.job import parse_label
    from millrace.core.log import configure
    from millrace.core.model_ref import ModelRef
    from millrace.core.services import Services
    from millrace.core.settings import Settings
    from millrace.producer.preview import preview
    from millrace.producer.submit import make_spec, submit_spec

    configure("warning")
    services = Services(Settings.load(redis_url=redis_url, models=models))
    spec = make_spec(
        services,
        source,
        model=ModelRef.parse(model),
        output=out,
        include=include or (),
        exclude=exclude or (),
        manifest=manifest,
        chunk_size=chunk_size,
        priority=priority,
        top_k=top_k,
        layout=layout,
        job_id=job_id,
        error_threshold=error_threshold,
        deadline=deadline,
        labels=dict(map(parse_label, label or ())),
    )
    if dry_run:
        with listing_progress(quiet=as_json) as listed:
            found = preview(services, spec, listed)
        print_json(found.as_json()) if as_json else show.preview(found)
        _exit_for_preview(found)
        return
    with listing_progress(quiet=as_json) as listed:
        job = submit_spec(services, spec, listed)
    if wait:
        if not as_json:
            show.enqueued(job.id)
        with prediction_progress(quiet=as_json) as predicted:
            current = job.wait(timeout, progress=predicted)
    else:
        current = job.status()
    if as_json:
        print_json(current.model_dump(mode="json"))
    elif wait:
        show.status(current)
    else:
        show.submitted(current)
    if wait or current.terminal:
        raise typer.Exit(show.exit_code(current))


def _exit_for_preview(found: Preview) -> None:
    from millrace.core.errors import ExitCode

    if found.output_problem:
        raise typer.Exit(ExitCode.CHECK_FAILED)
    if not found.images:
        raise typer.Exit(ExitCode.NO_INPUTS)
