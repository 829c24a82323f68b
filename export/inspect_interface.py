"""How a worker would use a graph: by a signature, or by the operations that look like its ends."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millrace.core.card import DEFAULT_SIGNATURE, Card
from millrace.export.inspect_graph import source
from millrace.export.inspect_tensors import Tensor, Tensors

OTHERS = 5
"""How many other operations are named that may be meant."""

_PLACEHOLDERS = ("Placeholder", "PlaceholderV2")
_CHOOSING = ("ArgMax", "ArgMin", "TopK", "TopKV2")
"""What they choose from is the answer."""

_FINAL = re.compile(r"(?i)soft_?max|output|inference|predict|prob|score|logit|embedding|result")
_ASIDE = re.compile(
    r"(?i)(^|/)(gradients?|training|train|loss(es)?|metrics?|save|adam\w*|sgd|momentum|rmsprop"
    r"|dropout|init|report|summar\w*|batch_?norm\w*|aux\w*)(_\d+)?(/|$)"
)
"""Scopes in which no answer is found."""

_NO_ANSWER = re.compile(
    r"^(Assign\w*|Save\w*|Restore\w*|Print\w*|Assert|NoOp|Const|\w*Summary\w*)$"
)
_FLOATS = ("float32", "float16", "bfloat16", "float64", "unknown")


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
        return self.input.dtype in (*_FLOATS, "uint8") and (
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
        for inputs in [tuple(sorted(given, key=_unlike_images))]
        for outputs in [tuple(sorted(answered, key=_unlike_scores))]
    ]
    return min(
        found,
        key=lambda each: (not each.takes_images, each.signature != DEFAULT_SIGNATURE),
        default=None,
    )


def of_operations(tags: tuple[str, ...], graph_def: Any, tensors: Tensors) -> Interface | None:
    """By what the graph looks like: a placeholder, and where what it feeds ends."""
    nodes = list(graph_def.node)
    inputs = sorted(_inputs(nodes, tensors), key=_unlike_images)
    for number, given in enumerate(inputs):
        outputs = _outputs(nodes, given.operation, tensors)
        if outputs:
            others = (*inputs[:number], *inputs[number + 1 :])
            return Interface(tags, given, outputs[0], None, others, tuple(outputs[1 : OTHERS + 1]))
    return None


def _inputs(nodes: list[Any], tensors: Tensors) -> list[Tensor]:
    """The placeholders of numbers; those with a default only if there are no others."""
    for kinds in (_PLACEHOLDERS, ("PlaceholderWithDefault",)):
        found = [tensors.of(node.name) for node in nodes if node.op in kinds]
        taken = [each for each in found if each is not None and _is_number(each.dtype)]
        if taken:
            return taken
    return []


def _outputs(nodes: list[Any], given: str, tensors: Tensors) -> list[Tensor]:
    """Where answers may be, the likeliest first."""
    fed = _fed(nodes, given)
    used = {source(name) for node in fed for name in node.input if not name.startswith("^")}
    by_name = {node.name: node for node in nodes}
    places: dict[str, tuple[bool, bool, bool, bool, int]] = {}
    for at, node in enumerate(fed):
        last = node.name not in used
        name = node.name
        if node.op in _CHOOSING and last:
            name = source(node.input[0])
        elif not last and node.op not in ("Softmax", "Sigmoid"):
            continue
        if name == given or _NO_ANSWER.match(by_name[name].op):
            continue
        final = by_name[name].op == "Softmax" or bool(_FINAL.search(name.rpartition("/")[2]))
        rank = (bool(_ASIDE.search(name)), not final, not last, not _FINAL.search(name), -at)
        places[name] = min(rank, places.get(name, rank))
    ranked = sorted(places, key=lambda name: places[name])
    found = (tensors.of(name) for name in ranked)
    return [each for each in found if each is not None and _is_scores(each)]


def _fed(nodes: list[Any], given: str) -> list[Any]:
    """The nodes that depend on an input, in an order in which each comes after what it needs
    wherever the graph has one."""
    consumers: dict[str, list[Any]] = {}
    for node in nodes:
        for name in node.input:
            if not name.startswith("^"):
                consumers.setdefault(source(name), []).append(node)
    seen: dict[str, Any] = {}
    level = consumers.get(given, [])
    depth: dict[str, int] = {}
    step = 0
    while level and step <= len(nodes):
        step += 1
        following: dict[str, Any] = {}
        for node in level:
            if node.name not in seen:
                seen[node.name] = node
                depth[node.name] = step
                following |= {each.name: each for each in consumers.get(node.name, [])}
        level = list(following.values())
    return sorted(seen.values(), key=lambda node: depth[node.name])


def _unlike_images(tensor: Tensor) -> tuple[bool, bool]:
    shape = tensor.shape
    images = shape is not None and len(shape) == 4 and shape[3] in (1, 3)
    return not images, shape is not None and len(shape) != 4


def _unlike_scores(tensor: Tensor) -> tuple[bool, bool, bool]:
    named = bool(_FINAL.search(tensor.key or "") or _FINAL.search(tensor.name))
    logits = "logit" in (tensor.key or tensor.name).lower()
    return not _is_scores(tensor), logits, not named


def _is_scores(tensor: Tensor) -> bool:
    return tensor.dtype in _FLOATS and (tensor.shape is None or len(tensor.shape) >= 2)


def _is_number(dtype: str) -> bool:
    return dtype in (*_FLOATS, "uint8", "int8", "int32", "int64", "uint16", "int16")
