"""A table of training runs for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from millrace.cli.show import print_table
from millrace.models.runs import Run, RunState, differing, said

_COLOURS = {RunState.FINISHED: "green", RunState.RUNNING: "cyan", RunState.UNFINISHED: "yellow"}


def compared(runs: Sequence[Run]) -> None:
    """One row a run: its state, the flags that differ, and what came of it."""
    flags = [name for name in differing(runs) if name != "epochs"]
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("run", overflow="fold")
    for name in ("state", *flags):
        table.add_column(name.replace("_", " "))
    for name in ("epochs", "accuracy", "loss", "time"):
        table.add_column(name, justify="right")
    for run in runs:
        table.add_row(
            escape(run.path),
            f"[{_COLOURS[run.state]}]{run.state}[/]",
            *(_flag(said(run, name)) for name in flags),
            f"{run.epochs_done}/{run.epochs}",
            "-" if run.accuracy is None else f"{run.accuracy:.2%}",
            "-" if run.loss is None else f"{run.loss:.4f}",
            f"{run.seconds:,.1f} s",
        )
    print_table(table)


def _flag(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else escape(str(value))
