"""From 8-bit pixels to a model's input, as a worker does it from the same facts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from millrace.core.card import Channels, Normalisation
from millrace.models.architecture import Architecture


def model_input(
    images: npt.NDArray[np.uint8], architecture: Architecture
) -> npt.NDArray[np.float32]:
    """uint8 [n, height, width, channels], RGB or L, as float32 of the same shape.

    Channels are turned to BGR where the normalisation is defined for it.
    """
    normalisation = Normalisation.parse(architecture.scale)
    mean, scale = (np.asarray(part, np.float32) for part in normalisation.mean_and_scale())
    if normalisation.mode == "caffe":
        images = images[..., ::-1]
    scaled: npt.NDArray[np.float32] = (images.astype(np.float32) - mean) / scale
    return scaled


def depth(architecture: Architecture) -> int:
    """How many channels the input has."""
    return Channels(architecture.channels).depth
