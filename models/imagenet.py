"""Networks of `keras.applications`, and the weights and labels that Keras publishes for them.

Only those two need the internet, once: Keras keeps what it fetched, and checks it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from millrace.core.errors import ModelError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.models.architecture import Architecture

CLASSES = 1000
PUBLISHED = "Keras publishes weights trained on ImageNet: weights=imagenet fetches them."


def application(name: str, title: str, *, side: int, scale: str) -> Architecture:
    """`keras.applications.<title>` for square pictures; `scale` is what its own
    `preprocess_input` does."""

    def make(*, num_classes: int = CLASSES, weights: str | None = None) -> Any:
        load_tensorflow()  # before keras, which would load it with all its greetings
        import keras

        network = getattr(keras.applications, title)
        if weights is None:
            return network(weights=None, classes=num_classes)
        if num_classes != CLASSES:
            raise ModelError(
                f"the weights of ImageNet are of {CLASSES} classes, not {num_classes}",
                hint=f"leave the number of classes away, or train {name} on your own",
            )
        with _fetching(
            f"the ImageNet weights of {name}", "without internet, give a file: --weights FILE"
        ):
            return network(weights=weights)

    return Architecture(
        name=name,
        height=side,
        width=side,
        channels="RGB",
        scale=scale,
        classes=CLASSES,
        weights=PUBLISHED,
        labels=labels,
        make=make,
        imagenet=True,
    )


def labels() -> tuple[str, ...]:
    """The names of ImageNet's classes, in the order of the published weights' outputs.

    Raises ModelError where Keras cannot fetch them, MissingExtra.
    """
    load_tensorflow()
    import numpy as np
    from keras.applications import imagenet_utils

    falling = np.arange(CLASSES, 0, -1, dtype=np.float32)[np.newaxis]
    with _fetching("the names of ImageNet's classes", "without internet, give them: --labels FILE"):
        (best_first,) = imagenet_utils.decode_predictions(falling, top=CLASSES)
    return tuple(name for _, name, _ in best_first)


@contextmanager
def _fetching(what: str, hint: str) -> Iterator[None]:
    """Keras tells of its progress on standard output, where results go, and raises what is
    no more than an Exception."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except TypeError:
        raise
    except Exception as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{what} cannot be fetched: {why}", hint=hint) from error
