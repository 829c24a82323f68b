"""What a training run leaves on record: how it was asked for, each epoch, and how it ended."""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from pydantic import BaseModel, ConfigDict

Flag = int | float | str | None

PACKAGES = ("millrace", "tensorflow", "keras", "numpy")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSummary(_Frozen):
    """Which pictures. `digest` is that of pixels, labels and class names."""

    source: str
    seen: int
    unseen: int
    classes: tuple[str, ...]
    skipped: int
    digest: str


class RunRecord(_Frozen):
    """`run.json`, written once when a run begins."""

    schema_version: Literal[1] = 1
    recipe: str
    flags: dict[str, Flag]
    data: DataSummary
    versions: dict[str, str]
    created_at: datetime

    @property
    def epochs(self) -> int:
        """How many there are to be."""
        return int(self.flags.get("epochs") or 0)


class Epoch(_Frozen):
    """One pass over the seen pictures, and what the model made of the unseen ones then."""

    number: int
    loss: float
    accuracy: float
    unseen_loss: float
    unseen_accuracy: float
    seconds: float


class State(_Frozen):
    """`state.json`: the finished epochs, and the checkpoint that holds the last one's weights."""

    schema_version: Literal[1] = 1
    epochs: tuple[Epoch, ...] = ()
    checkpoint: str | None = None


class Result(_Frozen):
    """`result.json`: the finished model, on pictures it has not learnt from."""

    schema_version: Literal[1] = 1
    accuracy: float
    loss: float
    epochs: int
    seconds: float
    finished_at: datetime


def installed_versions() -> dict[str, str]:
    """Of what a result may depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
