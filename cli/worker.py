"""`millrace worker`: serve a model on this machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from millrace.cli import options as o
from millrace.cli.command import command


@command
def worker(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Option(envvar="MILLRACE_MODEL", help="NAME or NAME:VERSION in the repository."),
    ] = None,
    saved_model: Annotated[
        str | None,
        typer.Option(envvar="MILLRACE_SAVED_MODEL", help="Or: a SavedModel directory."),
    ] = None,
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
    metrics_port: o.MetricsPort = None,
    metrics_address: o.MetricsAddress = "127.0.0.1",
    models: o.Models = None,
    redis_url: o.RedisUrl = None,
    log_level: o.LogLevel = None,
    log_format: o.LogFormat = None,
) -> None:
    """Load a model, then predict chunks until told to stop."""
    from millrace.cli.model_options import crew_options, worker_environment, worker_options
    from millrace.core.errors import RedisUnavailable
    from millrace.core.log import configure
    from millrace.core.redis_client import RedisClient
    from millrace.core.settings import Settings
    from millrace.worker.crew_metrics import supervised
    from millrace.worker.model_source import check_saved_model
    from millrace.worker.options import WorkerOptions

    settings = Settings.load(
        redis_url=redis_url, models=models, log_level=log_level, log_format=log_format
    )
    configure(settings.log_level, settings.log_format)
    options = worker_options(ctx)
    # Nonsense is reported here, once, not by every process.
    check_saved_model(WorkerOptions.load(**options))
    number = crew_options(processes, options)
    try:
        RedisClient(settings, timeout_s=2).ping()
    except RedisUnavailable as error:
        print(f"millrace worker: {error.message}; waiting for it", file=sys.stderr)
    environment = worker_environment(options)
    with supervised(number, environment, metrics_address, metrics_port) as supervisor:
        raise typer.Exit(supervisor.run())
