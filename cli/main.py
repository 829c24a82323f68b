"""The `millrace` command. Importing it loads no subsystem: `--help` must answer at once."""

from __future__ import annotations

from typing import Annotated

import typer

from millrace.cli.control import cancel, delete, pause, priority, resume, retry
from millrace.cli.demo import demo
from millrace.cli.demo_web import demo_web
from millrace.cli.doctor import doctor
from millrace.cli.enqueue import enqueue
from millrace.cli.export import export
from millrace.cli.inspect import inspect
from millrace.cli.models import models_app
from millrace.cli.results import errors, results
from millrace.cli.run import run
from millrace.cli.runs import runs
from millrace.cli.serve import serve
from millrace.cli.status import jobs, status, workers
from millrace.cli.train import train
from millrace.cli.verify import verify
from millrace.cli.verify_model import verify_model
from millrace.cli.worker import worker

EPILOG = (
    "Exit codes: 0 ok, 1 job failed, 2 usage, 3 completed with errors, 4 not found, "
    "5 unavailable, 6 access denied, 7 conflict, 8 model, 9 no inputs, 10 timeout, "
    "11 check failed, 70 internal, 71 wedged, 72 missing extra, 130 interrupted."
)

app = typer.Typer(
    name="millrace",
    help="Asynchronous batch inference over object storage.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("millrace"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Asynchronous batch inference over object storage."""


COMMANDS = (
    *(run, enqueue, worker, serve),
    *(status, jobs, workers, results, errors, verify),
    *(cancel, pause, resume, priority, retry, delete),
    *(export, inspect, verify_model, train),
    *(doctor, demo, demo_web),
)
GROUPS = {"models": models_app, "runs": runs}
for function in COMMANDS:
    app.command()(function)
for name, group in GROUPS.items():
    app.add_typer(group, name=name)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
