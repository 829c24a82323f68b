"""How a worker would use a graph: by a signature, or by the operations that look like its ends."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millrace.core.card import DEFAULT_SIGNATURE, Card
from millrace.export.inspect_ends import (
    FLOATS,
    likely_inputs,
    likely_outputs,
    unlike_images,
    unlike_scores,
)
from millrace.export.inspect_tensors import Tensor, Tensors

OTHERS = 5
"""How many other operations are named that may be meant."""


@dataclass(frozen=True, slots=True)
class Interface:
    """What goes in and what comes out, and how to say so."""

    tags: tuple[str, ...]
    input: Tensor
    output: Tensor
    signature: str | None = None
    """None where the operations have to be named."""
    other_inputs: tuple[Tensor, ...] = ()
    other_outputs: tuple[Tensor, ...] = ()

    @property
    def takes_images(self) -> bool:
        """Whether the input may be [n, height, width, channels] of 1 or 3."""
        shape = self.input.shape
        return self.input.dtype in (*FLOATS, "uint8") and (
            shape is None or (len(shape) == 4 and shape[3] in (None, 1, 3))
        )

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width, if the graph fixes them."""
        if self.input.shape is None or len(self.input.shape) != 4:
            return None
        height, width = self.input.shape[1:3]
        return (height, width) if height and width else None

    @property
    def grey(self) -> bool:
        return self.input.shape is not None and self.input.shape[-1:] == (1,)

    @property
    def flags(self) -> str:
        """The options of `millrace worker --saved-model` that say so."""
        said = [] if self.tags == ("serve",) else ["--tags", ",".join(self.tags)]
        if self.signature is None:
            said += ["--input-op", self.input.flag, "--output-op", self.output.flag]
        elif self.signature != DEFAULT_SIGNATURE:
            said += ["--signature", self.signature]
        if self.size is not None:
            height, width = self.size
            said += ["--size", str(height) if height == width else f"{height}x{width}"]
        if self.grey:
            said += ["--channels", "L"]
        return shlex.join(said)

    def card(self, height: int, width: int) -> Card:
        """A card that says so, of a model that is called `inspected`. Raises UsageError."""
        return Card.make(
            name="inspected",
            tags=self.tags,
            signature=self.signature,
            input_op=None if self.signature else self.input.flag,
            output_op=None if self.signature else self.output.flag,
            height=height,
            width=width,
            channels="L" if self.grey else "RGB",
        )


def of_signatures(
    tags: tuple[str, ...],
    signatures: Mapping[str, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]],
) -> Interface | None:
    """By the default signature, or the first that takes images; None if there is no signature.

    One with several inputs or outputs cannot be called by its name: the ends are named that
    look most like images and scores.
    """
    usable = {name: ends for name, ends in signatures.items() if ends[0] and ends[1]}
    found = [
        Interface(
            tags,
            inputs[0],
            outputs[0],
            name if len(inputs) == len(outputs) == 1 else None,
            inputs[1:],
            outputs[1:],
        )
        for name, (given, answered) in usable.items()
        for inputs in [tuple(sorted(given, key=unlike_images))]
        for outputs in [tuple(sorted(answered, key=unlike_scores))]
    ]
    return min(
        found,
        key=lambda each: (not each.takes_images, each.signature != DEFAULT_SIGNATURE),
        default=None,
    )


def of_operations(tags: tuple[str, ...], graph_def: Any, tensors: Tensors) -> Interface | None:
    """By what the graph looks like: a placeholder, and where what it feeds ends."""
    nodes = list(graph_def.node)
    inputs = likely_inputs(nodes, tensors)
    for number, given in enumerate(inputs):
        outputs = likely_outputs(nodes, given.operation, tensors)
        if outputs:
            others = (*inputs[:number], *inputs[number + 1 :])
            return Interface(tags, given, outputs[0], None, others, tuple(outputs[1 : OTHERS + 1]))
    return None
