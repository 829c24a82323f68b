"""Architectures, one file each behind the same door: `build(name, num_classes=…)`.

from millrace.models import build

model = build("digits", num_classes=10)
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from millrace.core.errors import ModelError, ModelNotFound
from millrace.core.load_tensorflow import load_tensorflow
from millrace.models.architecture import Architecture

_MODULES = {
    "digits": "millrace.models.digits",
    "mnist_cnn": "millrace.models.mnist_cnn",
    "mnist_softmax": "millrace.models.mnist_softmax",
}


def architectures() -> tuple[str, ...]:
    """The names there are."""
    return tuple(_MODULES)


def architecture(name: str) -> Architecture:
    """What there is to know of one. Raises ModelNotFound, which lists those there are."""
    if name not in _MODULES:
        near = get_close_matches(name, _MODULES, 3)
        raise ModelNotFound(
            f"there is no architecture {name!r}",
            hint=f"{'did you mean' if near else 'there are'} {', '.join(near or _MODULES)}",
        )
    found: Architecture = import_module(_MODULES[name]).ARCHITECTURE
    return found


def build(
    name: str, *, num_classes: int | None = None, weights: str | None = None, **options: Any
) -> Any:
    """A `keras.Model`: float32 images in, class probabilities out.

    `weights` is None for random ones, `imagenet` for Keras's own, or a file of weights.
    Raises ModelNotFound for a name that is not an architecture, and ModelError.
    """
    chosen = architecture(name)
    load_tensorflow()  # before keras, which would load it with all its greetings
    published = weights if weights == "imagenet" else None
    model = chosen.make(num_classes=num_classes or chosen.classes, weights=published, **options)
    if weights is not None and published is None:
        try:
            model.load_weights(Path(weights).expanduser())
        except Exception as error:  # h5py and Keras raise nearly anything
            raise ModelError(f"{weights} are no weights of {name}: {error}") from error
    return model
