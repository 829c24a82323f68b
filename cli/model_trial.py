"""A SavedModel tried as a worker would run it: does it freeze, does OpenVINO take it?"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from millrace.core.bundle import Bundle
from millrace.core.errors import MillraceError

if TYPE_CHECKING:
    from millrace.worker.predictor import Predictor


@dataclass(frozen=True, slots=True)
class EngineTrial:
    """How one engine fared. `why` says what stood against it."""

    runs: bool
    why: str | None = None
    batch: int | None = None
    """The batch size, if it has to be that."""
    output: tuple[int | None, ...] | None = None
    """Shape of one image's scores."""


@dataclass(frozen=True, slots=True)
class Trial:
    """`frozen` is None if the model does not run; `openvino` if that is not installed."""

    tensorflow: EngineTrial
    frozen: bool | None
    why_not_frozen: str | None
    openvino: EngineTrial | None


def try_out(bundle: Bundle) -> Trial:
    """Load it in each engine and predict. Raises MissingExtra if there is no TensorFlow."""
    from millrace.worker.session import Session
    from millrace.worker.tuning import EngineName, Tuning

    frozen, why_not = None, None
    try:
        session = Session(bundle, Tuning(engine=EngineName.TENSORFLOW, device="cpu"))
        ran = _ran(session)
        frozen, why_not = session.unfrozen is None, session.unfrozen
    except MillraceError as error:
        ran = EngineTrial(False, error.message)
    return Trial(ran, frozen, why_not, _openvino(bundle))


def _openvino(bundle: Bundle) -> EngineTrial | None:
    if find_spec("openvino") is None:
        return None
    from millrace.worker.openvino_model import OpenVINOModel
    from millrace.worker.tuning import EngineName, Tuning

    try:
        return _ran(OpenVINOModel(bundle, Tuning(engine=EngineName.OPENVINO, device="cpu")))
    except MillraceError as error:
        return EngineTrial(False, error.message)


def _ran(predictor: Predictor) -> EngineTrial:
    return EngineTrial(True, None, predictor.batch_limit, predictor.output_shape)
