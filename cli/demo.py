"""`millrace demo`: the real pipeline, end to end, on this machine alone."""

from __future__ import annotations

from typing import Annotated

import typer

from millrace.cli.command import command


@command
def demo(
    processes: Annotated[
        int, typer.Option(envvar="MILLRACE_PROCESSES", min=1, help="Worker processes.")
    ] = 2,
    keep: Annotated[
        str, typer.Option(envvar="MILLRACE_KEEP", help="Where the predictions are copied to.")
    ] = "demo-run",
) -> None:
    """Train a digit classifier, serve it, and predict a bucket of digits with it."""
    from millrace.cli.digits_demo import run_demo
    from millrace.core.log import configure

    configure("warning")
    run_demo(processes, keep)
