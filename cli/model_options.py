"""From a worker's command-line options to the environment its processes read."""

from __future__ import annotations

from typing import Any

import typer

SETTINGS = ("models", "redis_url", "log_level")


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


def _from_environment(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "ENVIRONMENT"
