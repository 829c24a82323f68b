"""How far a model in low precision answers as it does in float32, on the images it gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from pydantic import Field

from millrace.core.log import get_logger
from millrace.core.settings import EnvironmentSettings
from millrace.worker.predictor import Pixels, Predictor, Scores

log = get_logger(__name__)

SAMPLE = 64
"""Images that a worker predicts twice: some seconds of work, once."""

LEAST = 16
"""Of them, in each of its processes: fewer would say little of it."""

EXPECTED = 0.99


class Crew(EnvironmentSettings):
    """What the supervisor tells each process of all of them."""

    crew: int = Field(1, ge=1, description="how many there are")

    @property
    def sample(self) -> int:
        """Images that each of them compares."""
        return max(LEAST, -(-SAMPLE // self.crew))


@dataclass(frozen=True, slots=True)
class Compared:
    """So many images of the `sample` were compared, so many of them answered alike."""

    sample: int = 0
    images: int = 0
    same: int = 0

    @property
    def share(self) -> float | None:
        return round(self.same / self.images, 4) if self.images else None


class Agreement:
    """Predicts in low precision; the first images in float32 as well, to tell how they agree.

    Whatever becomes of the comparison, the images have their answers.
    """

    def __init__(
        self,
        low: Predictor,
        reference: Predictor,
        sample: int,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        """`told` is called when there is more to tell."""
        self._low = low
        self._reference: Predictor | None = reference
        self._told = told
        self.compared = Compared(sample)

    def warm_up(self, batch_size: int) -> None:
        """Predict in float32 what will be compared at once: the first time sets things up."""
        if self._reference is not None:
            size = min(batch_size, self.compared.sample)
            self._answers(self._reference, self._reference.zeros(size))

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
        self.compared = replace(self.compared, sample=self.compared.images)
        self._told()
        if (share := self.compared.share) is not None:
            self._say(share)

    def _compare(self, reference: Predictor, pixels: Pixels, scores: Scores) -> None:
        before = self.compared
        some = min(len(pixels), before.sample - before.images)
        exact = self._answers(reference, pixels[:some])
        if exact is None:
            return
        same = int(np.sum(_best(scores[:some]) == _best(exact)))
        self.compared = Compared(before.sample, before.images + some, before.same + same)
        if self.compared.images == before.sample:
            self.close()
        else:
            self._told()

    def _answers(self, reference: Predictor, pixels: Pixels) -> Scores | None:
        """None if it fails, and then it is tried no more."""
        try:
            return reference.predict(pixels)
        except Exception as error:
            log.warning("not compared with float32", error=str(error)[:200])
            self.close()
            return None

    def _say(self, share: float) -> None:
        say = log.info if share >= EXPECTED else log.warning
        say(
            "answered as float32 would",
            precision=str(self._low.tuning.precision),
            images=self.compared.images,
            top_1_agreement=share,
        )


def _best(scores: Scores) -> npt.NDArray[np.intp]:
    best: npt.NDArray[np.intp] = scores.reshape(len(scores), -1).argmax(axis=1)
    return best
