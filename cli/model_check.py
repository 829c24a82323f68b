"""Does a bundle answer as the model it was made of? Through the worker's own session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millrace.core.bundle import Bundle
from millrace.core.card import Channels
from millrace.core.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from millrace.export.agreement import Agreement
    from millrace.export.predict import Predict

    Pixels = npt.NDArray[np.uint8]
    Scores = npt.NDArray[np.float32]

IMAGES = 8


def refuse_disagreement(bundle: Bundle, predict: Predict) -> None:
    """Raise ModelError if a worker would answer other than the source model does, or both would
    answer what is no number: then each image would be an error."""
    from millrace.export.pictures import pictures

    card = bundle.card
    pixels = pictures(IMAGES, card.height, card.width, card.channels.depth)
    agreement = compare_with(bundle, _of_numbers(predict, card.name), pixels)
    if not agreement.ok:
        raise ModelError(
            f"{card.name}: the bundle does not answer as the model it was made of: {agreement}",
            hint="nothing was published",
        )


def compare_with(bundle: Bundle, predict: Predict, pixels: Pixels) -> Agreement:
    """How a worker's answers, by TensorFlow in float32, agree with the source model's.

    `pixels` [n, height, width, channels] are RGB or L. Raises ModelError, MissingExtra.
    """
    from millrace.export.agreement import compare
    from millrace.export.predict import in_steps
    from millrace.worker.session import Session
    from millrace.worker.tuning import EngineName, Tuning

    in_order = pixels[..., ::-1] if bundle.card.channels is Channels.BGR else pixels
    theirs = predict(in_order)
    session = Session(bundle, Tuning(engine=EngineName.TENSORFLOW, device="cpu"))
    return compare(in_steps(session.predict)(pixels), theirs)


def _of_numbers(predict: Predict, name: str) -> Predict:
    """The same answers. Raises ModelError for NaN and infinity."""
    import numpy as np

    def answers(pixels: Pixels) -> Scores:
        scores = predict(pixels)
        if not np.isfinite(scores).all():
            raise ModelError(
                f"{name} answers NaN or infinity",
                hint="look at its weights and the scale of its input; nothing was published",
            )
        return scores

    return answers
