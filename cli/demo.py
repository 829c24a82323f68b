"""`millrace demo`: the real pipeline, end to end, on this machine alone."""

from __future__ import annotations

from typing import Annotated

import typer

from millrace.cli import options as o
from millrace.cli.command import command


@command
def demo(
    processes: o.Processes = 2,
    keep: Annotated[
        str, typer.Option(envvar="MILLRACE_KEEP", help="Where the predictions are copied to.")
    ] = "demo-run",
) -> None:
    """Train a digit classifier, serve it, and predict a bucket of digits with it."""
    from millrace.cli.digits_demo import run_demo
    from millrace.core.log import configure

    configure("warning")
    run_demo(processes, keep)
