"""How far a model in low precision answers as it does in float32, on the images it gets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from millrace.core.log import get_logger
from millrace.worker.predictor import Pixels, Predictor, Scores

log = get_logger(__name__)

SAMPLE = 64
"""Images that are predicted twice: some seconds of work, once."""

EXPECTED = 0.99


class Agreement:
    """Predicts in low precision; the first images in float32 as well, for the log.

    Whatever becomes of the comparison, the images have their answers.
    """

    def __init__(self, low: Predictor, reference: Predictor) -> None:
        self._low = low
        self._reference: Predictor | None = reference
        self._seen = self._same = 0

    def predict(self, pixels: Pixels) -> Scores:
        """As `Predictor.predict`, in low precision."""
        scores = self._low.predict(pixels)
        if self._reference is not None:
            self._compare(self._reference, pixels, scores)
        return scores

    def close(self) -> None:
        """Compare no more, and say what was found."""
        if self._reference is None:
            return
        self._reference = None  # and with it a second copy of the model
        if self._seen:
            self._say(self._same / self._seen)

    def _compare(self, reference: Predictor, pixels: Pixels, scores: Scores) -> None:
        try:
            exact = reference.predict(pixels)
        except Exception as error:
            log.warning("not compared with float32", error=str(error)[:200])
            self.close()
            return
        self._seen += len(scores)
        self._same += int(np.sum(_best(scores) == _best(exact)))
        if self._seen >= SAMPLE:
            self.close()

    def _say(self, share: float) -> None:
        say = log.info if share >= EXPECTED else log.warning
        say(
            "answered as float32 would",
            precision=str(self._low.tuning.precision),
            images=self._seen,
            top_1_agreement=round(share, 4),
        )


def _best(scores: Scores) -> npt.NDArray[np.intp]:
    best: npt.NDArray[np.intp] = scores.reshape(len(scores), -1).argmax(axis=1)
    return best
