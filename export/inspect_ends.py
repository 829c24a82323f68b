"""Which operations of a graph take the images and answer, by what they look like."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

from millrace.export.inspect_graph import source
from millrace.export.inspect_tensors import Tensor, Tensors

FLOATS = ("float32", "float16", "bfloat16", "float64", "unknown")
FINAL = re.compile(r"(?i)soft_?max|output|inference|predict|prob|score|logit|embedding|result")
"""What operations that answer are called."""

_PLACEHOLDERS = ("Placeholder", "PlaceholderV2")
_SHARES = ("Softmax", "Sigmoid")
_CHOOSING = ("ArgMax", "ArgMin", "TopK", "TopKV2")
"""What they choose from is the answer."""

_HANDING_ON = (
    *("Identity", "IdentityN", "StopGradient", "PreventGradient"),
    *("Reshape", "Squeeze", "ExpandDims", "Cast"),
)
"""What comes out of them is what went in."""

_ASIDE = re.compile(
    r"(?i)(^|/)(gradients?|training|train|loss(es)?|metrics?|save|adam\w*|sgd|momentum|rmsprop"
    r"|dropout|init|report|summar\w*|batch_?norm\w*|aux\w*)(_\d+)?(/|$)"
)
"""Scopes in which no answer is found."""

_NO_ANSWER = re.compile(
    r"^(Assign\w*|(Resource)?(Sparse)?Apply\w+|Save\w*|Restore\w*|Print\w*|Assert|NoOp|Const"
    r"|\w*Summary\w*)$"
)


def likely_inputs(nodes: list[Any], tensors: Tensors) -> list[Tensor]:
    """The placeholders of numbers; those with a default only if there are no others."""
    for kinds in (_PLACEHOLDERS, ("PlaceholderWithDefault",)):
        found = [tensors.of(node.name) for node in nodes if node.op in kinds]
        taken = [each for each in found if each is not None and _is_number(each.dtype)]
        if taken:
            return sorted(taken, key=unlike_images)
    return []


def likely_outputs(nodes: list[Any], given: str, tensors: Tensors) -> list[Tensor]:
    """Where what the input `given` feeds may be answered, the likeliest first.

    That is where the graph ends, or a softmax; but not one that an end is worked out from, as
    in attention.
    """
    consumers = _consumers(nodes)
    fed = _fed(nodes, given)
    at = {node.name: number for number, node in enumerate(fed)}
    found: dict[str, Tensor] = {}
    ends: set[str] = set()
    for node in fed:
        last = node.name not in consumers
        name = source(node.input[0]) if last and node.op in _CHOOSING else node.name
        if not (last or node.op in _SHARES) or name not in at:
            continue
        if _NO_ANSWER.match(fed[at[name]].op):
            continue
        tensor = tensors.of(name)
        if tensor is not None and is_scores(tensor):
            found[name] = tensor
            if last and not _ASIDE.search(name):
                ends.add(name)
    midway = _midway(fed, consumers, ends)

    def rank(name: str) -> tuple[bool, bool, bool, bool, bool, int]:
        final = fed[at[name]].op == "Softmax" or bool(FINAL.search(name.rpartition("/")[2]))
        return (
            bool(_ASIDE.search(name)),
            name in midway,
            not final,
            name not in ends,
            not FINAL.search(name),
            -at[name],
        )

    return [found[name] for name in sorted(found, key=rank)]


def unlike_images(tensor: Tensor) -> tuple[bool, bool]:
    """Sorts what looks like images first."""
    shape = tensor.shape
    images = shape is not None and len(shape) == 4 and shape[3] in (1, 3)
    return not images, shape is not None and len(shape) != 4


def unlike_scores(tensor: Tensor) -> tuple[bool, bool, bool]:
    """Sorts what looks like scores first."""
    named = bool(FINAL.search(tensor.key or "") or FINAL.search(tensor.name))
    logits = "logit" in (tensor.key or tensor.name).lower()
    return not is_scores(tensor), logits, not named


def is_scores(tensor: Tensor) -> bool:
    """Whether it may be a row of numbers for each image."""
    return tensor.dtype in FLOATS and (tensor.shape is None or len(tensor.shape) >= 2)


def _is_number(dtype: str) -> bool:
    return dtype in (*FLOATS, "uint8", "int8", "int32", "int64", "uint16", "int16")


def _consumers(nodes: Iterable[Any]) -> dict[str, list[Any]]:
    """For each operation, the nodes that its outputs go into."""
    found: dict[str, list[Any]] = {}
    for node in nodes:
        for name in node.input:
            if not name.startswith("^"):
                found.setdefault(source(name), []).append(node)
    return found


def _fed(nodes: list[Any], given: str) -> list[Any]:
    """The nodes that depend on an input, each after those of them that it needs.

    What a loop of TensorFlow 1 hands to its next round comes before it, and does not count. What
    goes round in any other way, which no TensorFlow runs, is left out.
    """
    consumers = _consumers(nodes)
    for node in nodes:
        if node.op == "NextIteration":
            consumers.pop(node.name, None)
    needs: Counter[str] = Counter()
    seen, pending = {given}, [given]
    while pending:
        for node in consumers.get(pending.pop(), []):
            needs[node.name] += 1
            if node.name not in seen:
                seen.add(node.name)
                pending.append(node.name)
    fed: list[Any] = []
    ready = deque([given])
    while ready:
        for node in consumers.get(ready.popleft(), []):
            needs[node.name] -= 1
            if not needs[node.name]:
                fed.append(node)
                ready.append(node.name)
    return fed


def _midway(fed: list[Any], consumers: Mapping[str, list[Any]], ends: set[str]) -> set[str]:
    """The nodes that an end is worked out from, and not only handed on to."""
    leading, midway = set(ends), set[str]()
    for node in reversed(fed):
        for consumer in consumers.get(node.name, []):
            if consumer.name in leading:
                leading.add(node.name)
            if consumer.name in (midway if consumer.op in _HANDING_ON else leading):
                midway.add(node.name)
    return midway
