"""`millrace demo-web`: the dashboard over a pipeline that runs on this machine alone."""

from __future__ import annotations

from typing import Annotated

import typer

from millrace.cli.command import command


@command
def demo_web(
    processes: Annotated[
        int, typer.Option(envvar="MILLRACE_PROCESSES", min=1, help="Worker processes.")
    ] = 1,
    port: Annotated[
        int,
        typer.Option(
            envvar="MILLRACE_HTTP_PORT", min=0, max=65535, help="Port to serve on; 0: a free one."
        ),
    ] = 0,
) -> None:
    """Train a digit classifier, predict a bucket with it, and show it all in a browser."""
    from millrace.cli.digits_web_demo import run_web_demo
    from millrace.core.log import configure

    configure("warning")
    run_web_demo(processes, port)
