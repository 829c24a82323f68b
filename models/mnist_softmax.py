"""Softmax regression on handwritten digits: one weight for each pixel and class.

`millrace train mnist-softmax --data DIR --run RUN` brings it to about 0.909 on the unseen half of
MNIST's 10,000 test digits, learning from the other half, in a few seconds on a CPU.
"""

from __future__ import annotations

from typing import Any

from millrace.core.load_tensorflow import load_tensorflow
from millrace.models.architecture import Architecture

HEIGHT = WIDTH = 28


def make(*, num_classes: int = 10) -> Any:
    """Untrained; input float32 [n, 28, 28, 1] in 0..1, output probabilities [n, num_classes]."""
    load_tensorflow()  # before keras, which would load it with all its greetings
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((HEIGHT, WIDTH, 1), name="image"),
            layers.Flatten(),
            layers.Dense(num_classes, activation="softmax", name="probabilities"),
        ],
        name="mnist_softmax",
    )


ARCHITECTURE = Architecture(
    name="mnist_softmax",
    height=HEIGHT,
    width=WIDTH,
    channels="L",
    scale="0,255",
    classes=10,
    weights="millrace train mnist-softmax",
    labels=lambda: tuple(str(digit) for digit in range(10)),
    make=make,
)
