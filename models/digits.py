"""A small convolutional classifier for 8 × 8 greyscale digits.

`millrace train digits --run RUN` brings it to about 0.97 on the held-out third of
scikit-learn's digits, in a few seconds on a CPU.
"""

from __future__ import annotations

from typing import Any

from millrace.core.load_tensorflow import load_tensorflow
from millrace.models.architecture import Architecture

HEIGHT = WIDTH = 8


def make(*, num_classes: int = 10) -> Any:
    """Untrained; input float32 [n, 8, 8, 1] in 0..1, output probabilities [n, num_classes]."""
    load_tensorflow()  # before keras, which would load it with all its greetings
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((HEIGHT, WIDTH, 1), name="image"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(num_classes, activation="softmax", name="probabilities"),
        ],
        name="digits",
    )


ARCHITECTURE = Architecture(
    name="digits",
    height=HEIGHT,
    width=WIDTH,
    channels="L",
    scale="0,255",
    classes=10,
    weights="millrace train digits",
    labels=lambda: tuple(str(digit) for digit in range(10)),
    make=make,
)
