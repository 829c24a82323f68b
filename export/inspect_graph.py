"""A graph's operations: which ones an answer depends on, how many, and what they weigh."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from millrace.export.inspect_tensors import attribute_of

VARIABLES = frozenset({"VarHandleOp", "VariableV2", "Variable"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One node. `function` names the function it is in, if it is not in the graph itself."""

    name: str
    type: str
    function: str | None = None


@dataclass(frozen=True, slots=True)
class Parameters:
    """Numbers a model was trained to, as far as the graph says how many: in variables, and in
    constants, which is where freezing puts them."""

    variables: int
    constants: int

    @property
    def total(self) -> int:
        return self.variables + self.constants


class Walk:
    """From an output back to all it depends on; through the functions that are called, too."""

    def __init__(self, graph_def: Any, output: str | None) -> None:
        """`output` is an operation's name; None takes everything."""
        self._graph_def = graph_def
        self._functions = {each.signature.name: each for each in graph_def.library.function}
        everything = list(graph_def.node)
        self._nodes = everything if output is None else reached(everything, output)
        self._called = self._calls(self._nodes)

    def ops(self) -> dict[str, int]:
        """How many of each type, most first."""
        counted = Counter(node.op for node in self._all())
        return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))

    def operations(self) -> tuple[Operation, ...]:
        """Every node of the graph, then of all its functions."""
        in_graph = (Operation(node.name, node.op) for node in self._graph_def.node)
        in_functions = (
            Operation(node.name, node.op, name)
            for name, function in self._functions.items()
            for node in function.node_def
        )
        return (*in_graph, *in_functions)

    def parameters(self) -> Parameters:
        """A variable read in several places is one."""
        variables = {
            attribute_of(node, "shared_name").s or node.name: _elements(
                attribute_of(node, "shape").shape
            )
            for node in self._all()
            if node.op in VARIABLES and _holds_numbers(node)
        }
        constants = (
            _elements(attribute_of(node, "value").tensor.tensor_shape)
            for node in self._all()
            if node.op == "Const" and _holds_numbers(node)
        )
        # A lone number is a setting (a slope, a small constant that guards a division).
        return Parameters(sum(variables.values()), sum(size for size in constants if size > 1))

    def _all(self) -> Iterator[Any]:
        yield from self._nodes
        for name in self._called:
            yield from self._functions[name].node_def

    def _calls(self, nodes: Iterable[Any]) -> list[str]:
        """The functions that nodes call, and those that these call."""
        found: dict[str, None] = {}
        pending = [name for node in nodes for name in _named_functions(node)]
        while pending:
            name = pending.pop()
            if name in self._functions and name not in found:
                found[name] = None
                bodies = self._functions[name].node_def
                pending += [name for node in bodies for name in _named_functions(node)]
        return list(found)


def source(name: str) -> str:
    """The operation an input of a node comes from: `^control`, `operation` or `operation:1`."""
    return name.removeprefix("^").partition(":")[0]


def reached(nodes: list[Any], output: str) -> list[Any]:
    """Those of the nodes that the output depends on, in their order."""
    by_name = {node.name: node for node in nodes}
    seen, pending = set[str](), [output]
    while pending:
        name = pending.pop()
        if name not in seen and name in by_name:
            seen.add(name)
            pending += [source(each) for each in by_name[name].input]
    return [node for node in nodes if node.name in seen]


def _named_functions(node: Any) -> Iterator[str]:
    yield node.op  # as functions were called once
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        elif value.HasField("list"):
            yield from (each.name for each in value.list.func)


def _elements(shape: Any) -> int:
    return prod(max(0, dim.size) for dim in shape.dim)


def _holds_numbers(node: Any) -> bool:
    """Whether weights are kept in such: floats, or what they are quantised to."""
    from tensorflow.core.framework import types_pb2 as types

    return attribute_of(node, "dtype").type in (
        types.DT_FLOAT,
        types.DT_DOUBLE,
        types.DT_HALF,
        types.DT_BFLOAT16,
        types.DT_INT8,
        types.DT_UINT8,
        types.DT_QINT8,
        types.DT_QUINT8,
    )
