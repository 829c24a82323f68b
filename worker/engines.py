"""Which engine runs the model, and why."""

from __future__ import annotations

from importlib.util import find_spec

from millrace.core.bundle import Bundle
from millrace.core.errors import ModelError
from millrace.core.log import get_logger
from millrace.worker.predictor import Predictor
from millrace.worker.tuning import EngineName, Tuning, gpus

log = get_logger(__name__)


def load_predictor(bundle: Bundle, tuning: Tuning) -> Predictor:
    """The model in the engine asked for. Raises ModelError, MissingExtra."""
    why = "it was asked for"
    if tuning.engine is not EngineName.TENSORFLOW:
        against = _against_openvino(tuning) if tuning.engine is EngineName.AUTO else None
        if against is None:
            from millrace.worker.openvino_model import OpenVINOModel

            try:
                model = OpenVINOModel(bundle, tuning)
                if tuning.engine is EngineName.AUTO:
                    why = "it is installed, and takes the model"
                log.info("the engine is OpenVINO", precision=str(tuning.precision), why=why)
                return model
            except ModelError as error:
                if tuning.engine is EngineName.OPENVINO:
                    raise
                against = error.message
        why = against
    from millrace.worker.session import Session

    session = Session(bundle, tuning)
    log.info("the engine is TensorFlow", precision=str(tuning.precision), why=why)
    return session


def _against_openvino(tuning: Tuning) -> str | None:
    """Why not to try it, if there is a reason."""
    if find_spec("openvino") is None:
        return "OpenVINO is not installed"
    if tuning.xla:
        return "XLA is TensorFlow's"
    if tuning.device != "cpu" and (tuning.device != "auto" or gpus()):
        return "the model runs on a GPU"
    return None
