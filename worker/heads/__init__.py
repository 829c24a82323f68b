"""Output heads: a task's scores become the `predictions` of an outcome line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from millrace.core.bundle import Bundle
from millrace.core.card import Task
from millrace.worker.heads.classification import ClassificationHead


class Head(Protocol):
    """Turns one row of scores into JSON-ready predictions."""

    def __call__(self, scores: npt.NDArray[np.float32], top_k: int | None) -> list[dict[str, Any]]:
        """`top_k` is the job's wish; None leaves it to the card. Raises ItemError."""


_HEADS: dict[Task, Callable[[Bundle, tuple[int | None, ...]], Head]] = {
    Task.CLASSIFICATION: ClassificationHead,
}


def make_head(bundle: Bundle, output_shape: tuple[int | None, ...]) -> Head:
    """The head for a bundle's task. Raises ModelError if the output does not fit it."""
    return _HEADS[bundle.card.task](bundle, output_shape)
