"""Compare training runs, as in a lab notebook: what differed, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from millrace.models.run_directory import RunDirectory
from millrace.models.training_record import DataSummary, Flag


class RunState(StrEnum):
    """Where a run stands."""

    FINISHED = "finished"
    RUNNING = "running"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `accuracy` and `loss` are of the unseen pictures after its last finished epoch."""

    path: str
    state: RunState
    recipe: str
    flags: dict[str, Flag]
    data: DataSummary
    versions: dict[str, str]
    created_at: datetime
    epochs_done: int
    epochs: int
    accuracy: float | None
    loss: float | None
    seconds: float


def read_run(path: Path) -> Run:
    """Raises ObjectNotFound if it holds no run, BadData if it is damaged."""
    directory = RunDirectory(path)
    record, epochs = directory.record(), directory.state().epochs
    return Run(
        path=str(path),
        state=_state(directory),
        recipe=record.recipe,
        flags=record.flags,
        data=record.data,
        versions=record.versions,
        created_at=record.created_at,
        epochs_done=len(epochs),
        epochs=record.epochs,
        accuracy=epochs[-1].unseen_accuracy if epochs else None,
        loss=epochs[-1].unseen_loss if epochs else None,
        seconds=round(sum(epoch.seconds for epoch in epochs), 3),
    )


def differing(runs: Sequence[Run]) -> list[str]:
    """The flags, `recipe` and `data` among them, that are not the same in all runs."""
    names = ["recipe", *dict.fromkeys(name for run in runs for name in run.flags), "data"]
    return [name for name in names if len({said(run, name) for run in runs}) > 1]


def said(run: Run, name: str) -> Flag:
    """What was said of a flag; None if nothing. Data are told apart by their digest."""
    if name == "recipe":
        return run.recipe
    if name == "data":
        return run.data.digest.removeprefix("sha256:")[:12]
    return run.flags.get(name)


def _state(directory: RunDirectory) -> RunState:
    if directory.result() is not None:
        return RunState.FINISHED
    return RunState.RUNNING if directory.running() else RunState.UNFINISHED
