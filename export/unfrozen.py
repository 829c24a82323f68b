"""A bundle as TensorFlow itself runs it: its signature or operations, nothing frozen or folded.

Pixels are normalised on the host, and not in the graph as the worker does it: what both answer
alike, both do right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.core.bundle import Bundle
from millrace.core.card import Card
from millrace.core.engine_errors import telling_line
from millrace.core.errors import ModelError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.export.predict import Predict, pixels_predict


def unfrozen_predict(bundle: Bundle) -> Predict:
    """What the bundle's own graph answers. A model of a fixed batch is fed so many at a time.

    Raises MissingExtra, ModelError.
    """
    tf = load_tensorflow()
    where = bundle.path
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph)
    try:
        with graph.as_default():
            meta = tf.compat.v1.saved_model.load(session, list(bundle.card.tags), str(where))
        source, target = map(graph.get_tensor_by_name, _tensors(bundle.card, meta))
    except Exception as error:  # TensorFlow raises nearly anything
        raise ModelError(f"{where} does not load: {telling_line(error)}") from error
    size = source.shape[0] if source.shape.rank else None

    def raw(batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        step = size or len(batch)
        full = np.resize(batch, (-(-len(batch) // step) * step, *batch.shape[1:]))
        try:
            scores = [
                session.run(target, {source: full[at : at + step]})
                for at in range(0, len(full), step)
            ]
        except Exception as error:
            raise ModelError(f"{where} does not run: {telling_line(error)}") from error
        return np.concatenate(scores)[: len(batch)]

    return pixels_predict(raw, bundle.card, takes_bytes=source.dtype == tf.uint8)


def _tensors(card: Card, meta: Any) -> tuple[str, str]:
    """Names of the input and output tensors."""
    if card.signature is not None:
        signature = meta.signature_def[card.signature]
        (given,), (answered,) = signature.inputs.values(), signature.outputs.values()
        return given.name, answered.name
    return _tensor(card.input_op or ""), _tensor(card.output_op or "")


def _tensor(operation: str) -> str:
    return operation if ":" in operation else f"{operation}:0"
