"""A TensorFlow 1 checkpoint → the variables of a graph that came without them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from millrace.core.errors import ModelError, ModelNotFound
from millrace.core.near import near

_PART = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")


def checkpoint_prefix(path: Path) -> Path:
    """What TensorFlow calls a checkpoint: the path its files begin with.

    `path` may be that, one of the files, or a directory that holds one checkpoint. Raises
    ModelNotFound.
    """
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if len(found) != 1:
            raise ModelNotFound(
                f"{path} holds {len(found) or 'no'} checkpoints",
                hint=f"say which: --checkpoint {path}/model.ckpt, as its files' names begin",
            )
        return found[0].with_suffix("")
    prefix = path.with_name(_PART.sub("", path.name))
    # Before TensorFlow 0.12 a checkpoint was one file.
    if Path(f"{prefix}.index").is_file() or prefix.is_file():
        return prefix
    raise ModelNotFound(
        f"there is no checkpoint {path}", hint=f"a checkpoint has a file {prefix.name}.index"
    )


def restore(tf: Any, session: Any, names: Iterable[str], checkpoint: Path) -> None:
    """Give these variables of the session's graph their values, and enter them as its variables.

    Raises ModelError if the checkpoint lacks one or has it in another shape.
    """
    reader = tf.train.load_checkpoint(str(checkpoint))
    held = reader.get_variable_to_shape_map()
    for name in names:
        operation = session.graph.get_operation_by_name(name)
        key = _key(operation, held)
        if key is None:
            close = near(name, held)
            raise ModelError(
                f"{checkpoint} has no variable {name!r}",
                hint=f"it has {' or '.join(close)}" if close else None,
            )
        shape = tf.TensorShape(operation.get_attr("shape"))
        if not shape.is_compatible_with(held[key]):
            raise ModelError(
                f"{checkpoint} has {name!r} in shape {held[key]}, the graph in {shape.as_list()}"
            )
        variable = _variable(tf, operation, held[key])
        session.run(variable.initializer, {variable.initial_value: reader.get_tensor(key)})


def _key(operation: Any, held: Iterable[str]) -> str | None:
    """The variable's name in the checkpoint."""
    shared = operation.get_attr("shared_name").decode()
    return next((name for name in (shared, operation.name) if name in held), None)


def _variable(tf: Any, operation: Any, shape: Any) -> Any:
    """The variable that an operation of an imported graph stands for, in the graph's collection.

    A graph loses its variables' own initialisers with all that is for training alone.
    """
    from tensorflow.core.framework.variable_pb2 import VariableDef
    from tensorflow.python.ops.resource_variable_ops import ResourceVariable

    tensor, dtype = operation.outputs[0], tf.as_dtype(operation.get_attr("dtype"))
    zeros = tf.zeros(shape, dtype)
    by_handle = operation.type == "VarHandleOp"
    if by_handle:
        assign = tf.raw_ops.AssignVariableOp(resource=tensor, value=zeros)
        # Where TensorFlow looks for a variable's value when it freezes a graph.
        read = f"{operation.name}/Read/ReadVariableOp"
        snapshot = tf.raw_ops.ReadVariableOp(resource=tensor, dtype=dtype, name=read)
    else:
        assign = tf.raw_ops.Assign(ref=tensor, value=zeros).op
        snapshot = tf.identity(tensor)
    described = VariableDef(
        variable_name=tensor.name,
        initial_value_name=zeros.name,
        initializer_name=assign.name,
        snapshot_name=snapshot.name,
        is_resource=by_handle,
        trainable=True,
    )
    kind = ResourceVariable if by_handle else tf.compat.v1.Variable
    variable = kind.from_proto(described)
    operation.graph.add_to_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES, variable)
    return variable
