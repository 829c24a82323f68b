"""How large a network is, and what one prediction costs, counted from its layers."""

from __future__ import annotations

import math
from typing import Any


def trainable(model: Any) -> int:
    """Parameters as papers count them: without the statistics of normalisation."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def multiply_adds(model: Any) -> int:
    """Of the convolutions and dense layers, for one picture."""
    return sum(_multiply_adds(layer) for layer in model.layers)


def _multiply_adds(layer: Any) -> int:
    from keras import layers

    if isinstance(layer, layers.Dense):
        return int(math.prod(layer.kernel.shape))
    pixels = int(math.prod(layer.output.shape[1:3]))
    if isinstance(layer, layers.SeparableConv2D):
        kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
        return pixels * sum(int(math.prod(kernel.shape)) for kernel in kernels)
    if isinstance(layer, layers.Conv2D):
        return pixels * int(math.prod(layer.kernel.shape))
    return 0
