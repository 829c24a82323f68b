"""A finished bundle answers as the model it was made of, or is not published."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from millrace.core.bundle import Bundle
from millrace.core.errors import ModelError
from millrace.export.agreement import Agreement, compare
from millrace.export.pictures import pictures
from millrace.export.predict import Predict
from millrace.export.unfrozen import unfrozen_predict

IMAGES = 8

CompareWith = Callable[[Bundle, Predict, npt.NDArray[np.uint8]], Agreement]
"""How a bundle agrees with its source on such pixels."""


def with_tensorflow(bundle: Bundle, predict: Predict, pixels: npt.NDArray[np.uint8]) -> Agreement:
    """How TensorFlow answers from the bundle. `pixels` are in the card's channel order."""
    return compare(unfrozen_predict(bundle)(pixels), predict(pixels))


def refuse_disagreement(
    bundle: Bundle, predict: Predict, compare_with: CompareWith = with_tensorflow
) -> None:
    """Raise ModelError if the bundle answers other than the source model does, or both would
    answer what is no number: then each image would be an error."""
    card = bundle.card
    pixels = pictures(IMAGES, card.height, card.width, card.channels.depth)
    agreement = compare_with(bundle, _of_numbers(predict, card.name), pixels)
    if not agreement.ok:
        raise ModelError(
            f"{card.name}: the bundle does not answer as the model it was made of: {agreement}",
            hint="nothing was published",
        )


def _of_numbers(predict: Predict, name: str) -> Predict:
    """The same answers. Raises ModelError for NaN and infinity."""

    def answers(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        scores = predict(pixels)
        if not np.isfinite(scores).all():
            raise ModelError(
                f"{name} answers NaN or infinity",
                hint="look at its weights and the scale of its input; nothing was published",
            )
        return scores

    return answers
