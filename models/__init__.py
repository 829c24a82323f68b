"""Architectures, one file each behind the same door.

from millrace.models import architecture, build

model = build("resnet50", num_classes=3)  # or weights="imagenet", or weights="my.weights.h5"
architecture("resnet50").scale  # "caffe": how its pixels are to be normalised
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from millrace.core.errors import ModelError, ModelNotFound
from millrace.core.near import near
from millrace.models.architecture import Architecture

IMAGENET, RANDOM = "imagenet", "none"
"""Weights that are no file, as commands take them."""

_MODULES = {
    name: f"millrace.models.{name}"
    for name in (
        "xception",
        "resnet50",
        "inception_v3",
        "mobilenet_v2",
        "nasnet_mobile",
        "nasnet_large",
        "pnasnet5_mobile",
        "pnasnet5_large",
        "efficientnet_v2_b0",
        "efficientnet_v2_s",
        "mnist_softmax",
        "mnist_cnn",
        "digits",
    )
}
"""Each module has an `ARCHITECTURE`."""


def architectures() -> tuple[str, ...]:
    """The names there are. Imports none of them."""
    return tuple(_MODULES)


def architecture(name: str) -> Architecture:
    """What there is to know of one, without making it. Raises ModelNotFound."""
    if name not in _MODULES:
        alike = near(name.replace("-", "_"), _MODULES)
        meant = f"did you mean {' or '.join(alike)}? " if alike else ""
        raise ModelNotFound(
            f"there is no architecture {name!r}", hint=f"{meant}there are {', '.join(_MODULES)}"
        )
    found: Architecture = import_module(_MODULES[name]).ARCHITECTURE
    return found


def build(
    name: str,
    *,
    num_classes: int | None = None,
    weights: str | Path | None = None,
    **options: Any,
) -> Any:
    """A `keras.Model`: float32 images in, class probabilities out.

    `num_classes` is the architecture's own if it is not said. `weights` is None for random ones,
    `imagenet` for those that Keras publishes, or a file that Keras saved. Raises ModelNotFound for
    a name that is no architecture and weights that are no file, ModelError for weights that
    cannot be had or do not fit, and MissingExtra.
    """
    asked = architecture(name)
    classes = asked.classes if num_classes is None else num_classes
    if weights == IMAGENET:
        if not asked.imagenet:
            raise ModelError(f"there are no ImageNet weights of {name}", hint=asked.weights)
        return asked.make(num_classes=classes, weights=IMAGENET, **options)
    if weights is None:
        return asked.make(num_classes=classes, **options)
    from millrace.models.weights import load_weights, weights_file

    file = weights_file(weights)  # before anything slow
    model = asked.make(num_classes=classes, **options)
    load_weights(model, file)
    return model
