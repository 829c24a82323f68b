"""The model an export started from, asked for its answers on pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.core.bundle import Bundle
from millrace.core.card import Card
from millrace.core.engine_errors import as_model_errors
from millrace.core.load_tensorflow import load_tensorflow

Predict = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""uint8 pixels [n, height, width, channels] in the card's channel order → scores [n, …]."""

Check = Callable[[Bundle, Predict], None]
"""Looks at a finished bundle, and raises ModelError if it is not to be published."""

Raw = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""The model as it is: what it was trained on in, its own output out."""

AT_ONCE = 8
"""Large models have not the room for all images at once."""


def keras_predict(model: Any, card: Card) -> Predict:
    """A Keras model's answers, normalised as the card says. Raises ModelError if it is one of
    other inputs than the card's."""
    refused = f"{model.name} does not take what {card.name} takes"
    with as_model_errors(refused):
        takes_bytes = str(model.inputs[0].dtype) == "uint8"
    ask = keras_raw(model)

    def raw(batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with as_model_errors(refused):
            return ask(batch)

    return pixels_predict(raw, card, takes_bytes=takes_bytes)


def keras_raw(model: Any) -> Raw:
    """A Keras model in inference mode.

    As a graph, for layer by layer Keras keeps every output until the last: 16 GB of NASNetLarge's.
    """
    tf = load_tensorflow()
    ask = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)
    return lambda batch: np.asarray(ask(tf.convert_to_tensor(batch)))


def pixels_predict(raw: Raw, card: Card, *, takes_bytes: bool) -> Predict:
    """`raw` behind the card's normalisation and, of logits, before softmax; on the host."""
    mean, scale = (np.array(part, np.float32) for part in card.normalisation.mean_and_scale())

    def answer(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        batch = pixels if takes_bytes else (pixels.astype(np.float32) - mean) / scale
        scores = np.asarray(raw(batch)).astype(np.float32)
        return _softmax(scores) if card.scores == "logits" else scores

    return in_steps(answer)


def in_steps(predict: Predict) -> Predict:
    """`predict`, asked for a few images at a time."""

    def stepwise(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        parts = [predict(pixels[i : i + AT_ONCE]) for i in range(0, len(pixels), AT_ONCE)]
        return np.concatenate(parts)

    return stepwise


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: npt.NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return shares
