"""Train the digit classifier on the digits that come with scikit-learn.

1,797 scans of 8 × 8 pixels, values 0 to 16, from the UCI set "Optical Recognition of
Handwritten Digits". Two thirds are trained on, the rest is held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.core.errors import MissingExtra
from millrace.core.load_tensorflow import load_tensorflow
from millrace.models import build


@dataclass(frozen=True, slots=True)
class Digits:
    """`images` uint8 [n, 8, 8] in 0..255, `labels` int64 [n]."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def load_digits() -> tuple[Digits, Digits]:
    """The digits to train on and those held out. Raises MissingExtra."""
    try:
        from sklearn.datasets import load_digits as bundled
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingExtra("scikit-learn", "demo") from error
    data = bundled()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    seen, unseen, seen_labels, unseen_labels = train_test_split(
        images, data.target, test_size=1 / 3, random_state=0, stratify=data.target
    )
    return Digits(seen, seen_labels), Digits(unseen, unseen_labels)


def train(data: Digits, *, epochs: int = 20, seed: int = 0) -> Any:
    """A trained `keras.Model` that takes pixels in 0..1."""
    load_tensorflow()  # before keras, which would load it with all its greetings
    import keras

    keras.utils.set_random_seed(seed)
    model = build("digits", num_classes=10)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    pixels = data.images[..., np.newaxis].astype(np.float32) / 255
    model.fit(pixels, data.labels, epochs=epochs, batch_size=64, verbose=0)
    return model
