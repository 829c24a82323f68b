"""A small convolutional network for handwritten digits of 28 × 28 pixels.

`millrace train mnist-cnn --data DIR --run RUN` brings it to about 0.98 on the unseen half of
MNIST's 10,000 test digits, learning from the other half, in 15 seconds on two cores.
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
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.4),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.4),
            layers.Dense(num_classes, activation="softmax", name="probabilities"),
        ],
        name="mnist_cnn",
    )


ARCHITECTURE = Architecture(
    name="mnist_cnn",
    height=HEIGHT,
    width=WIDTH,
    channels="L",
    scale="0,255",
    classes=10,
    weights="millrace train mnist-cnn",
    labels=lambda: tuple(str(digit) for digit in range(10)),
    make=make,
)
