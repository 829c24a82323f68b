"""`millrace runs compare`: training runs side by side, as in a lab notebook."""

from __future__ import annotations

from typing import Annotated

import typer

from millrace.cli import options as o
from millrace.cli.command import command, print_json

runs = typer.Typer(help="Training runs.", no_args_is_help=True)


@runs.callback()
def _group() -> None:
    """Look at training runs."""


@runs.command()
@command
def compare(
    directories: Annotated[
        list[str], typer.Argument(metavar="DIR...", help="Directories of `millrace train --run`.")
    ],
    as_json: o.AsJson = False,
) -> None:
    """Compare training runs: the flags that differ, accuracy, loss, time."""
    from dataclasses import asdict
    from pathlib import Path

    from millrace.cli import show_runs
    from millrace.models.runs import differing, read_run

    found = [read_run(Path(directory).expanduser()) for directory in directories]
    if not as_json:
        show_runs.compared(found)
        return
    rows = [{**asdict(run), "data": run.data.model_dump()} for run in found]
    print_json({"differing": differing(found), "runs": rows})
