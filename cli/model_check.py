"""Does a bundle answer as the model it was made of? Through the worker's own session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millrace.core.bundle import Bundle
from millrace.core.card import Channels

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from millrace.export.agreement import Agreement
    from millrace.export.predict import Predict

    Pixels = npt.NDArray[np.uint8]


def refuse_disagreement(bundle: Bundle, predict: Predict) -> None:
    """Raise ModelError if a worker would answer other than the source model does, or no numbers."""
    from millrace.export import check

    check.refuse_disagreement(bundle, predict, compare_with)


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
