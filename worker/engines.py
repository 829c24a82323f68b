"""Which engine runs the model, and why."""

from __future__ import annotations

from importlib.util import find_spec

from millrace.core.bundle import Bundle
from millrace.core.errors import MissingExtra, ModelError
from millrace.core.log import get_logger
from millrace.worker.predictor import Predictor
from millrace.worker.tuning import GPU_HINT, EngineName, Tuning, gpus

log = get_logger(__name__)


def load_predictor(bundle: Bundle, tuning: Tuning) -> Predictor:
    """The model in the engine asked for. Raises ModelError, MissingExtra."""
    predictor, why = _load(bundle, tuning)
    predictor.why = why
    log.info(f"the engine is {predictor.title}", precision=str(tuning.precision), why=why)
    return predictor


def _load(bundle: Bundle, tuning: Tuning) -> tuple[Predictor, str]:
    if tuning.engine is EngineName.TENSORFLOW:
        return _tensorflow(bundle, tuning), "it was asked for"
    if tuning.engine is EngineName.OPENVINO:
        return _openvino(bundle, tuning), "it was asked for"
    if against := _against_openvino(tuning):
        return _tensorflow(bundle, tuning), against
    try:
        return _openvino(bundle, tuning), "it is installed, and takes the model"
    except (MissingExtra, ModelError) as error:
        return _tensorflow(bundle, tuning), error.message


def _tensorflow(bundle: Bundle, tuning: Tuning) -> Predictor:
    from millrace.worker.session import Session

    return Session(bundle, tuning)


def _openvino(bundle: Bundle, tuning: Tuning) -> Predictor:
    from millrace.worker.openvino_model import OpenVINOModel

    return OpenVINOModel(bundle, tuning)


def _against_openvino(tuning: Tuning) -> str | None:
    """Why not to try it, if there is a reason."""
    if find_spec("openvino") is None:
        return "OpenVINO is not installed"
    if tuning.xla:
        return "XLA is TensorFlow's"
    if tuning.wants_gpu:
        return "a GPU was asked for"
    if tuning.device != "cpu" and gpus() and _tensorflow_gpus():
        return "the model runs on a GPU"
    return None


def _tensorflow_gpus() -> int:
    """Asked of TensorFlow itself, which takes seconds to import: a GPU that is there is of no use
    to a TensorFlow made for CPUs."""
    from millrace.worker.session import usable_gpus

    try:
        count = usable_gpus()
    except ModelError:
        count = 0
    if not count:
        log.warning(
            "there is a GPU, and TensorFlow cannot use it; the model runs on the CPU", hint=GPU_HINT
        )
    return count
