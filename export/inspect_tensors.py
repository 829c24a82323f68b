"""Dtypes and shapes of a graph's tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Shape = tuple[int | None, ...]

_NAMES = {"float": "float32", "double": "float64", "half": "float16"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """What goes in or comes out. `shape` is None if not even the rank is known."""

    name: str
    """`input:0`, as TensorFlow names it: operation and output."""
    dtype: str
    shape: Shape | None
    key: str | None = None
    """The name a signature gives it."""

    @property
    def operation(self) -> str:
        return self.name.partition(":")[0]

    @property
    def flag(self) -> str:
        """As `--input-op` takes it: the first output needs no number."""
        return self.name.removesuffix(":0")

    @property
    def batch(self) -> str:
        """`free`, `fixed at N` or `unknown`."""
        if not self.shape:
            return "unknown"
        return "free" if self.shape[0] is None else f"fixed at {self.shape[0]}"

    def __str__(self) -> str:
        shape = "of unknown shape"
        if self.shape is not None:
            shape = f"[{', '.join('?' if side is None else str(side) for side in self.shape)}]"
        return f"{self.flag} {self.dtype} {shape}"


class Tensors:
    """Asks TensorFlow, which infers shapes; of a graph with operations it lacks, the graph."""

    def __init__(self, graph_def: Any) -> None:
        """Loaded TensorFlow is expected."""
        import tensorflow as tf

        self._nodes = {node.name: node for node in graph_def.node}
        self._graph: Any = tf.Graph()
        try:
            with self._graph.as_default():
                tf.graph_util.import_graph_def(graph_def, name="")
        except Exception:  # of an operation that this TensorFlow does not have, mostly
            self._graph = None

    def of(self, name: str) -> Tensor | None:
        """The tensor `name`, or None if there is none."""
        operation, _, number = name.partition(":")
        node = self._nodes.get(operation)
        if node is None:
            return None
        if self._graph is not None:
            try:
                tensor = self._graph.get_tensor_by_name(f"{operation}:{number or 0}")
            except (KeyError, ValueError):
                return None  # it has no such output
            shape = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
            return Tensor(tensor.name, tensor.dtype.base_dtype.name, shape)
        return Tensor(f"{operation}:{number or 0}", self._dtype(node), _said_shape(node, number))

    @staticmethod
    def named(dtype: str) -> str:
        """`float` of the protocol buffer is `float32`."""
        return _NAMES.get(dtype, dtype)

    def _dtype(self, node: Any) -> str:
        from tensorflow.core.framework.types_pb2 import DataType

        for attribute in ("dtype", "T", "DstT", "out_type"):
            if kind := attribute_of(node, attribute).type:
                name = DataType.Name(kind)
                return self.named(name.removeprefix("DT_").lower())
        return "unknown"


def attribute_of(node: Any, name: str) -> Any:
    """A node's attribute, or an empty one. To ask the node itself would put one there."""
    from tensorflow.core.framework.attr_value_pb2 import AttrValue

    value = node.attr.get(name)
    return AttrValue() if value is None else value


def _said_shape(node: Any, number: str) -> Shape | None:
    """What the graph itself says of a shape: those who write it may note them."""
    noted = attribute_of(node, "_output_shapes").list.shape
    at = int(number or 0)
    if at < len(noted):
        return shape_of(noted[at])
    said = attribute_of(node, "shape")
    return shape_of(said.shape) if said.HasField("shape") else None


def shape_of(proto: Any) -> Shape | None:
    """A `TensorShapeProto`'s sides."""
    if proto.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in proto.dim)
