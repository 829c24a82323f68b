"""From a worker's command-line options to the environment its processes read."""

from __future__ import annotations

import sys
from typing import Any

import typer

SETTINGS = ("models", "redis_url", "log_level", "log_format")


def worker_options(ctx: typer.Context) -> dict[str, Any]:
    """The worker's options among a command's parameters; None where nothing was said.

    `model` and `saved_model` exclude each other: the command line wins over the environment,
    and what is not meant is "", so that no process takes it from the environment again.
    """
    from millrace.worker.options import WorkerOptions

    known = (*WorkerOptions.model_fields, *SETTINGS)
    given = {name: value for name, value in ctx.params.items() if name in known}
    rivals = ("model", "saved_model")
    if all(given.get(name) for name in rivals):
        said = [name for name in rivals if not _from_environment(ctx, name)]
        if len(said) == 1:
            given |= {name: "" for name in rivals if name not in said}
    if "saved_model" in given and not given["saved_model"] and _from_environment(ctx, "name"):
        given["name"] = ""
    return given | {name: given.get(name) or "" for name in (*rivals, "name")}


def worker_environment(options: dict[str, Any]) -> dict[str, str]:
    """`batch_size=32` → `{"MILLRACE_BATCH_SIZE": "32"}`; options left out are None."""
    return {
        f"MILLRACE_{name.upper()}": str(value)
        for name, value in options.items()
        if value is not None
    }


def crew_options(processes: str, options: dict[str, Any]) -> int:
    """How many processes to start: as many as was said, or, for `auto`, as are fastest here.

    Raises UsageError.
    """
    from millrace.core.errors import UsageError
    from millrace.worker.options import WorkerOptions

    if processes.isdecimal() and int(processes):
        return int(processes)
    if processes != "auto":
        raise UsageError(f"--processes is a number or auto, not {processes!r}")
    if options.get("threads") is not None:
        raise UsageError("--processes auto finds the threads; leave out --threads")
    from millrace.worker.split import best_split

    print("millrace: finding how to share the cores", file=sys.stderr)
    split = best_split(WorkerOptions.load(**options), worker_environment(options))
    rate = f"{split.images_per_s:g} images/s" if split.images_per_s else "nothing measured"
    print(f"millrace: {split.processes} x {split.threads} threads, {rate}", file=sys.stderr)
    return split.processes


def _from_environment(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "ENVIRONMENT"
