"""A Keras model → one flat graph of constants, whose first and last operation bear given names.

That is what a program which knows no Keras asks for: a placeholder to feed and an operation to
read, both by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from millrace.core.engine_errors import as_model_errors
from millrace.core.errors import ModelError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.core.sizes import MIB

MOST_BYTES = 2000 * MIB
"""A protocol buffer holds less than 2 GiB, and a graph of constants is one."""

_SOURCE = "millrace_source"

_UNSAVABLE = (
    (re.compile(r"Assign\w*VariableOp|ResourceScatter\w+"), "keeps state while it predicts"),
    (
        re.compile(r"(Stateless)?(Random|Truncated|Parameterized|Multinomial)\w*"),
        "answers at random",
    ),
    (re.compile(r"(Eager)?PyFunc(Stateless)?"), "calls Python"),
)
"""Kinds of operations, and what a model does by them."""


@dataclass(frozen=True, slots=True)
class FlatGraph:
    """A `GraphDef` without variables. `source` and `target` are operations of one output."""

    graph_def: Any
    source: str
    target: str
    target_type: str


def flatten(
    model: Any, shape: tuple[int, int, int], *, source: str, target: str | None
) -> FlatGraph:
    """Trace `model` for [n, height, width, channels] in inference mode and freeze it.

    `source` names the placeholder, `target` the last operation: left out, it is called as its
    layer and its kind, `predictions/Softmax`. Raises ModelError for a model that keeps state,
    plays dice or calls Python while it predicts, for no file holds that.
    """
    tf = load_tensorflow()
    weights = sum(math.prod(each.shape) * tf.as_dtype(each.dtype).size for each in model.weights)
    if weights > MOST_BYTES:
        raise ModelError(
            f"the weights take {weights / 2**30:.1f} GiB, and a flat graph holds 2 GiB at most",
            hint="write it with model.export(DIRECTORY) and export that directory",
        )
    dtype = tf.as_dtype(str(model.inputs[0].dtype))
    with as_model_errors(f"{model.name} cannot be made a graph"):
        graph_def, last = _frozen(tf, model, tf.TensorSpec([None, *shape], dtype, _SOURCE))
    kinds = {node.name: node.op for node in graph_def.node}
    if last not in kinds or kinds[last] == "Placeholder":
        raise ModelError(f"{model.name} answers with its own input")
    graph_def = tf.compat.v1.graph_util.extract_sub_graph(graph_def, [last])
    if _SOURCE not in {node.name for node in graph_def.node}:
        raise ModelError(f"the answer of {model.name} does not depend on its input")
    names = _plain_names(model, [node.name for node in graph_def.node])
    target = target or names[last]
    names = _with_ends(names, {_SOURCE: source, last: target})
    return FlatGraph(_renamed(graph_def, names), source, target, kinds[last])


def _frozen(tf: Any, model: Any, spec: Any) -> tuple[Any, str]:
    """The frozen `GraphDef`, and the operation in it that answers."""
    from tensorflow.python.framework import convert_to_constants

    call = tf.function(lambda images: model(images, training=False), input_signature=[spec])
    traced = call.get_concrete_function()
    _refuse_unsavable(model, traced.graph.as_graph_def())
    captured = [each for each in traced.graph.captures if each[0].dtype == tf.resource]
    variables = {id(each.handle) for each in traced.graph.variables}
    if any(id(outer) not in variables for outer, _ in captured):
        raise ModelError(
            f"{model.name} looks things up in a table, which a flat graph cannot hold",
            hint="write it with model.export(DIRECTORY) and export that directory",
        )
    # Loops and branches stay what they are: as TensorFlow 1's Switch and Merge no other engine
    # takes them.
    frozen = convert_to_constants.convert_variables_to_constants_v2(
        traced, lower_control_flow=False
    )
    graph_def = frozen.graph.as_graph_def()
    (output,) = frozen.outputs
    # A function's answer goes through an Identity of its own.
    answer = output.op.inputs[0] if output.op.type == "Identity" else output
    if answer.value_index == 0:
        return graph_def, answer.op.name
    return graph_def, output.op.name


def _refuse_unsavable(model: Any, graph_def: Any) -> None:
    bodies = (function.node_def for function in graph_def.library.function)
    nodes = [node for nodes in (graph_def.node, *bodies) for node in nodes]
    for node in nodes:
        for kinds, does in _UNSAVABLE:
            if kinds.fullmatch(node.op):
                raise ModelError(
                    f"{model.name} {does}: operation {node.name} ({node.op})",
                    hint="leave that layer out of the model that is exported",
                )


def _plain_names(model: Any, names: Iterable[str]) -> dict[str, str]:
    """What operations are called after their layers alone.

    Keras opens a layer's scope twice, so that `resnet50/predictions/Softmax` is called
    `resnet50_1/predictions_1/Softmax`.
    """
    layers = {layer.name for layer in model._flatten_layers()}

    def bare(part: str) -> str:
        without = re.sub(r"_\d+$", "", part)
        return without if without in layers else part

    taken = set(names)
    chosen = dict[str, str]()
    for name in names:
        *scopes, last = name.split("/")
        if scopes and bare(scopes[0]) == model.name:
            del scopes[0]
        # A layer that is called twice cannot give its name twice.
        for wish in ("/".join([*map(bare, scopes), last]), "/".join([*scopes, last]), name):
            if wish not in taken or wish == name:
                break
        taken.add(wish)
        chosen[name] = wish
    return chosen


def _with_ends(names: Mapping[str, str], ends: Mapping[str, str]) -> dict[str, str]:
    """`names` with those of `ends`; whatever else is called so makes way."""
    taken = {*names.values(), *ends.values()}
    chosen = dict(names)
    for old, new in names.items():
        if old not in ends and new in ends.values():
            number = 1
            while f"{new}_{number}" in taken:
                number += 1
            chosen[old] = f"{new}_{number}"
            taken.add(chosen[old])
    return chosen | dict(ends)


def _renamed(graph_def: Any, names: Mapping[str, str]) -> Any:
    """A copy in which every operation bears its new name."""

    def reference(text: str) -> str:
        mark = "^" if text.startswith("^") else ""
        name, colon, number = text.removeprefix("^").partition(":")
        return f"{mark}{names[name]}{colon}{number}"

    copy = type(graph_def)()
    copy.CopyFrom(graph_def)
    for node in copy.node:
        node.name = names[node.name]
        node.input[:] = [reference(text) for text in node.input]
        node.device = ""
        if "_class" in node.attr:  # says beside which other operation it is placed
            del node.attr["_class"]
        for attribute in ("_has_manual_control_dependencies", "_user_specified_name"):
            if attribute in node.attr:
                del node.attr[attribute]
    return copy
