"""A bundle as TensorFlow itself runs it: its signature or operations, nothing frozen or folded.

Pixels are normalised on the host, and not in the graph as the worker does it: what both answer
alike, both do right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.core.bundle import Bundle
from millrace.core.engine_errors import as_model_errors
from millrace.core.load_tensorflow import load_tensorflow
from millrace.export.predict import Predict, pixels_predict
from millrace.export.session_graph import SessionGraph, by_operations, by_signature


def unfrozen_predict(bundle: Bundle) -> Predict:
    """What the bundle's own graph answers. A model of a fixed batch is fed so many at a time.

    Raises MissingExtra, ModelError.
    """
    tf, card, where = load_tensorflow(), bundle.card, str(bundle.path)
    session = tf.compat.v1.Session(graph=tf.Graph())
    with as_model_errors(f"{where} does not load"), session.graph.as_default():
        meta = tf.compat.v1.saved_model.load(session, list(card.tags), where)
        if card.signature is None:
            ends = by_operations(session.graph, where, card.input_op, card.output_op)
        else:
            ends = by_signature(session.graph, meta, where, card.signature)
        graph = SessionGraph(tf, session, ends, where)

    def raw(batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with as_model_errors(f"{where} does not run"):
            return np.asarray(graph(batch))

    return pixels_predict(raw, card, takes_bytes=graph.takes_bytes)
