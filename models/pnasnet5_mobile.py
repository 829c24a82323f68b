"""PNASNet-5, the small one (Liu et al. 2018): 5.1 M parameters."""

from __future__ import annotations

from typing import Any

from millrace.models import imagenet, pnasnet5
from millrace.models.architecture import Architecture

SIDE = 224
SIZE = pnasnet5.Size(cells=9, filters=54, stem=32)


def make(*, num_classes: int = imagenet.CLASSES) -> Any:
    """Untrained; input float32 [n, 224, 224, 3] in -1..1, output [n, num_classes]."""
    return pnasnet5.make("pnasnet5_mobile", SIZE, side=SIDE, num_classes=num_classes)


ARCHITECTURE = Architecture(
    name="pnasnet5_mobile",
    height=SIDE,
    width=SIDE,
    channels="RGB",
    scale="tf",
    classes=imagenet.CLASSES,
    weights="Keras publishes none: train it, or give a weights file of this model.",
    labels=imagenet.labels,
    make=make,
)
