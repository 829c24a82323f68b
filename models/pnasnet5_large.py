"""PNASNet-5, the large one (Liu et al. 2018): 86.1 M parameters."""

from __future__ import annotations

from typing import Any

from millrace.models import imagenet, pnasnet5
from millrace.models.architecture import Architecture

SIDE = 331
SIZE = pnasnet5.Size(cells=12, filters=216, stem=96)


def make(*, num_classes: int = imagenet.CLASSES) -> Any:
    """Untrained; input float32 [n, 331, 331, 3] in -1..1, output [n, num_classes]."""
    return pnasnet5.make("pnasnet5_large", SIZE, side=SIDE, num_classes=num_classes)


ARCHITECTURE = Architecture(
    name="pnasnet5_large",
    height=SIDE,
    width=SIDE,
    channels="RGB",
    scale="tf",
    classes=imagenet.CLASSES,
    weights="Keras publishes none: train it, or give a weights file of this model.",
    labels=imagenet.labels,
    make=make,
)
