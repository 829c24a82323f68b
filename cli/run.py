"""`millrace run`: the whole job on this machine, with nothing else running."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli import options as o
from millrace.cli.command import command, print_json

if TYPE_CHECKING:
    from millrace.core.status import JobStatus


@command
def run(
    ctx: typer.Context,
    source: o.Source,
    model: Annotated[
        str,
        typer.Option(
            envvar="MILLRACE_MODEL",
            help="NAME[:VERSION] in the repository, or a bundle or SavedModel directory.",
        ),
    ],
    out: o.Out,
    include: o.Include = None,
    exclude: o.Exclude = None,
    manifest: o.Manifest = None,
    chunk_size: o.ChunkSize = 128,
    top_k: o.TopK = None,
    layout: o.JobLayout = "chunks",
    job_id: o.JobIdOption = None,
    error_threshold: o.ErrorThreshold = None,
    deadline: o.Deadline = None,
    notify: o.Notify = None,
    name: o.Name = None,
    tags: o.Tags = None,
    signature: o.Signature = None,
    input_op: o.InputOp = None,
    output_op: o.OutputOp = None,
    size: o.Size = None,
    scale: o.Scale = None,
    channels: o.ChannelsOption = None,
    resize: o.Resize = None,
    labels: o.Labels = None,
    label_offset: o.LabelOffset = None,
    logits: o.Logits = None,
    processes: o.Processes = "1",
    batch_size: o.BatchSize = None,
    max_delay_ms: o.MaxDelayMs = None,
    threads: o.Threads = None,
    engine: o.Engine = None,
    precision: o.PrecisionOption = None,
    device: o.Device = None,
    gpu_memory: o.GpuMemory = None,
    xla: o.Xla = None,
    exact_decode: o.ExactDecode = None,
    models: o.Models = None,
    log_level: Annotated[
        str, typer.Option(envvar="MILLRACE_LOG_LEVEL", help="The workers' log level.")
    ] = "warning",
    log_format: o.LogFormat = None,
    as_json: o.AsJson = False,
) -> None:
    """Predict a bucket or directory here and now: embedded Redis, workers, progress bar."""
    from millrace.cli import show
    from millrace.cli.local import LocalJob, run_locally
    from millrace.cli.model_options import crew_options, worker_environment, worker_options
    from millrace.core.log import configure
    from millrace.core.settings import Settings
    from millrace.worker.model_source import check_saved_model
    from millrace.worker.options import WorkerOptions

    configure("warning", Settings.load(log_format=log_format).log_format)
    options = worker_options(ctx)
    options |= _served(model, options["name"])
    check_saved_model(WorkerOptions.load(**options))  # before there is a job
    status: JobStatus = run_locally(
        LocalJob(
            source=source,
            model=options["model"] or options["name"],
            output=out,
            include=include or (),
            exclude=exclude or (),
            manifest=manifest,
            chunk_size=chunk_size,
            top_k=top_k,
            layout=layout,
            job_id=job_id,
            error_threshold=error_threshold,
            deadline=deadline,
            notify=notify,
        ),
        processes=crew_options(processes, options),
        # A model given by its directory is not looked up in a repository, even if one is set.
        models=models if options["model"] else "",
        environment=worker_environment(options),
        quiet=as_json,
    )
    print_json(status.model_dump(mode="json")) if as_json else show.status(status)
    raise typer.Exit(show.exit_code(status))


def _served(model: str, name: str) -> dict[str, str]:
    """The worker's options for a model named by the repository, or by its directory."""
    from millrace.core.bundle import is_saved_model
    from millrace.core.errors import ModelNotFound, UsageError

    path = Path(model).expanduser()
    if is_saved_model(path):
        return {
            "model": "",
            "saved_model": str(path.resolve()),
            "name": name or _name_of(path),
        }
    if "/" in model or path.is_dir():
        raise ModelNotFound(f"{model} holds no SavedModel (saved_model.pb)")
    if name:
        raise UsageError("--name goes with a SavedModel directory")
    return {"model": model, "saved_model": ""}


def _name_of(path: Path) -> str:
    """A queue name for a SavedModel directory: `…/resnet50/3` is `resnet50`."""
    import re

    folder = path.resolve()
    if folder.name.isdigit():
        folder = folder.parent
    return re.sub(r"[^A-Za-z0-9._-]", "-", folder.name).strip("-._") or "model"
