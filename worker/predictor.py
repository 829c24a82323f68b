"""A loaded model as the rest of the worker sees it, whichever engine runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from millrace.core.bundle import Bundle
from millrace.core.errors import ModelError
from millrace.core.log import get_logger
from millrace.worker.tuning import EngineName, Tuning

log = get_logger(__name__)

Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]

BAKED_IN = "its input says so"

ALIKE = 0.05
"""How far answers may lie apart for rounding, in bfloat16 too; of the largest."""


class OutOfMemoryError(Exception):
    """The device has no room for this batch; a smaller one may do."""


class Predictor(ABC):
    """One model, ready to predict. `predict` may be called from one thread at a time."""

    engine: ClassVar[EngineName]
    title: ClassVar[str]
    """The engine's name in prose."""
    output_shape: tuple[int | None, ...]
    """Of one image's scores."""

    def __init__(self, bundle: Bundle, tuning: Tuning) -> None:
        self.bundle = bundle
        self.tuning = tuning
        self.why = ""
        """This engine, in words."""
        self.batch_limit: int | None = None
        """The batch size, if the model fixes it."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        card = self.bundle.card
        return card.height, card.width, card.channels.depth

    def predict(self, pixels: Pixels) -> Scores:
        """uint8 pixels [n, height, width, channels] to float32 scores [n, …], in order.

        A model whose batch dimension is fixed is run in batches of that size. Raises
        OutOfMemoryError; ModelError if the model does not answer row for row.
        """
        if self.batch_limit is None:
            return self._checked(pixels)
        step = self.batch_limit
        return np.concatenate(
            [self._padded(pixels[i : i + step], step) for i in range(0, len(pixels), step)]
        )

    def zeros(self, size: int) -> Pixels:
        """A batch of black images."""
        return np.zeros((size, *self.input_shape), np.uint8)

    def _try_out(self) -> None:
        """Run it, for loading does not find out whether a model runs: with an image alone, and
        with two together, for some hide a batch of one behind a free dimension, or mix the
        images of a batch up: those get their images alone.

        Raises ModelError; OutOfMemoryError if there is no room for one image."""
        two = np.random.default_rng(2).integers(0, 256, (2, *self.input_shape), np.uint8)
        alone = np.concatenate([self.predict(two[:1]), self.predict(two[1:])])
        if self.batch_limit is not None:
            return
        try:
            together = self.predict(two)
        except ModelError as error:
            self._fix_batch(1, error.message)
            return
        except OutOfMemoryError:  # one at a time fits, and more are halved when they are met
            return
        apart = ALIKE * float(np.nanmax(np.abs(alone), initial=0.0))
        if not np.allclose(together, alone, rtol=ALIKE, atol=apart, equal_nan=True):
            self._fix_batch(1, "two images together are answered otherwise than alone")

    def _fix_batch(self, size: int, why: str) -> None:
        """Predict in batches of this size."""
        self.batch_limit = size
        log.warning("the model's batch size is fixed; it runs slower", batch_size=size, why=why)

    @abstractmethod
    def _run(self, pixels: Pixels) -> Scores:
        """One batch through the engine. Raises OutOfMemoryError, ModelError."""

    def _padded(self, pixels: Pixels, size: int) -> Scores:
        short = size - len(pixels)
        if not short:
            return self._checked(pixels)
        return self._checked(np.concatenate([pixels, self.zeros(short)]))[: len(pixels)]

    def _checked(self, pixels: Pixels) -> Scores:
        scores = self._run(pixels)
        if scores.shape[:1] != pixels.shape[:1]:
            raise ModelError(
                f"{self.bundle.card.name}: {len(pixels)} images in, output of {scores.shape}"
            )
        return scores
