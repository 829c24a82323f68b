"""PNASNet-5 in Keras, after Liu et al. 2018, "Progressive Neural Architecture Search"
(https://arxiv.org/abs/1712.00559).

Keras has none of its own. The authors' is `research/slim/nets/nasnet/pnasnet.py` of
https://github.com/tensorflow/models; layers are named after its scopes, `/` as `_`. What serves
training alone there, drop path and the auxiliary head, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from millrace.core.load_tensorflow import load_tensorflow
from millrace.models import imagenet
from millrace.models.architecture import Architecture

Operation = tuple[str, int]
"""What is done, and to which state: 0 is the cell's input, 1 the input of the cell before it,
and 2 to 6 are the sums of the blocks."""

CELL: tuple[tuple[Operation, Operation], ...] = (
    (("separable_5x5", 1), ("max_pool", 1)),
    (("separable_7x7", 0), ("max_pool", 0)),
    (("separable_5x5", 0), ("separable_3x3", 0)),
    (("separable_3x3", 4), ("max_pool", 0)),
    (("separable_3x3", 1), ("none", 0)),
)
"""The cell the search found: each block adds two results up, and all five sums are joined. It
serves with a stride of two as well."""

KERNELS = {"separable_3x3": 3, "separable_5x5": 5, "separable_7x7": 7}


@dataclass(frozen=True, slots=True)
class Size:
    """`cells` beside the two of the stem; `filters` of the first of them, doubled at one and at
    two thirds of the way; `stem` filters of the first convolution."""

    cells: int
    filters: int
    stem: int


def architecture(name: str, size: Size, *, side: int) -> Architecture:
    """PNASNet-5 of a size, for square pictures."""

    def sized(*, num_classes: int = imagenet.CLASSES) -> Any:
        return make(name, size, side=side, num_classes=num_classes)

    return Architecture(
        name=name,
        height=side,
        width=side,
        channels="RGB",
        scale="tf",
        classes=imagenet.CLASSES,
        weights="Keras publishes none: train it, or give a weights file of this model.",
        labels=imagenet.labels,
        make=sized,
    )


def make(name: str, size: Size, *, side: int, num_classes: int) -> Any:
    """Untrained; input float32 [n, side, side, 3] in -1..1, output [n, num_classes]."""
    load_tensorflow()  # before keras, which would load it with all its greetings
    import keras
    from keras import layers

    network = _Network()
    image = keras.Input((side, side, 3), name="image")
    net = layers.Conv2D(
        size.stem, 3, strides=2, use_bias=False, kernel_initializer=network.random, name="conv0"
    )(image)
    net = network.normalised(net, "conv0_bn")
    before, net = net, network.cell(net, net, size.filters // 4, 2, "cell_stem_0", first=True)
    before, net = net, network.cell(net, before, size.filters // 2, 2, "cell_stem_1")
    filters = size.filters
    for number in range(size.cells):
        halves = number in (size.cells // 3, size.cells * 2 // 3)
        filters *= 2 if halves else 1
        before, net = (
            net,
            network.cell(net, before, filters, 2 if halves else 1, f"cell_{number}"),
        )
    net = layers.ReLU()(net)
    net = layers.GlobalAveragePooling2D(name="global_pool")(net)
    net = layers.Dropout(0.5, name="dropout")(net)
    scores = layers.Dense(num_classes, activation="softmax", name="predictions")(net)
    return keras.Model(image, scores, name=name)


class _Network:
    """The parts that are repeated; `name` begins the names of a part's layers."""

    def __init__(self) -> None:
        import keras

        self._layers = keras.layers
        self.random = keras.initializers.VarianceScaling(2.0, "fan_out")

    def cell(
        self, net: Any, before: Any, filters: int, stride: int, name: str, *, first: bool = False
    ) -> Any:
        """[n, h, w, …] to [n, h / stride, w / stride, 5 · filters]."""
        second = net if first else self._fitted(before, net, filters, name)
        squeezed = self._convolved(net, filters, 1, f"{name}_1x1", f"{name}_beginning_bn")
        states = [squeezed, second]
        for number, block in enumerate(CELL):
            inner = f"{name}_comb_iter_{number}"
            summands = [
                # What the cell has made itself is reduced already.
                self._result(done, states[state], filters, stride if state < 2 else 1, where)
                for (done, state), where in zip(
                    block, (f"{inner}_left", f"{inner}_right"), strict=True
                )
            ]
            states.append(self._layers.Add(name=f"{inner}_combine")(summands))
        return self._layers.Concatenate(name=f"{name}_cell_output")(states[2:])

    def normalised(self, net: Any, name: str) -> Any:
        return self._layers.BatchNormalization(momentum=0.9997, epsilon=1e-3, name=name)(net)

    def _result(self, done: str, net: Any, filters: int, stride: int, name: str) -> Any:
        fits = net.shape[-1] == filters
        if done in KERNELS:
            for number in (1, 2):
                net = self._separable(net, done, number, filters, stride, name)
                stride = 1
            return net
        if done == "max_pool":
            net = self._layers.MaxPooling2D(3, stride, "same", name=f"{name}_max_pool")(net)
            return net if fits else self._joined(net, filters, 1, f"{name}_1x1", f"{name}_bn_1")
        if stride == 1 and fits:
            return net
        return self._convolved(net, filters, stride, f"{name}_1x1", f"{name}_bn_1")

    def _separable(
        self, net: Any, done: str, number: int, filters: int, stride: int, name: str
    ) -> Any:
        net = self._layers.ReLU()(net)
        net = self._layers.SeparableConv2D(
            filters,
            KERNELS[done],
            stride,
            "same",
            use_bias=False,
            depthwise_initializer=self.random,
            pointwise_initializer=self.random,
            name=f"{name}_{done}_{number}",
        )(net)
        return self.normalised(net, f"{name}_bn_{done}_{number}")

    def _fitted(self, before: Any, net: Any, filters: int, name: str) -> Any:
        """The input of the cell before, of this one's height, width and number of filters."""
        if before.shape[1] != net.shape[1]:
            return self._halved(before, filters, name)
        if before.shape[-1] != filters:
            return self._convolved(before, filters, 1, f"{name}_prev_1x1", f"{name}_prev_bn")
        return before

    def _halved(self, net: Any, filters: int, name: str) -> Any:
        """Half the height and width: every other pixel, beside those one further down and right,
        whose path has the one filter more where they are odd."""
        layers = self._layers
        net = layers.ReLU()(net)
        shifted = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_path2_pad")(net)
        shifted = layers.Cropping2D(((1, 0), (1, 0)), name=f"{name}_path2_shift")(shifted)
        paths = [
            self._one_by_one(path, (filters + more) // 2, 2, f"{name}_path{more + 1}_conv")
            for more, path in enumerate((net, shifted))
        ]
        joined = layers.Concatenate(name=f"{name}_final_path")(paths)
        return self.normalised(joined, f"{name}_final_path_bn")

    def _convolved(self, net: Any, filters: int, stride: int, name: str, bn: str) -> Any:
        return self._joined(self._layers.ReLU()(net), filters, stride, name, bn)

    def _joined(self, net: Any, filters: int, stride: int, name: str, bn: str) -> Any:
        return self.normalised(self._one_by_one(net, filters, stride, name), bn)

    def _one_by_one(self, net: Any, filters: int, stride: int, name: str) -> Any:
        return self._layers.Conv2D(
            filters, 1, stride, use_bias=False, kernel_initializer=self.random, name=name
        )(net)
