"""A graph in a TensorFlow session: its ends found by name or signature, and asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.core.card import tensor_name
from millrace.core.errors import ModelError
from millrace.core.near import MOST, near
from millrace.export.inspect_interface import of_operations
from millrace.export.inspect_tensors import Tensors

MANY = "name one of each with --input-op and --output-op"

OBJECTS_ALONE = (
    "nothing a session can feed: no signature, and no placeholder of numbers; "
    "TensorFlow 2 writes them with tf.saved_model.save(…, signatures=…)"
)


@dataclass(frozen=True, slots=True)
class Ends:
    """The names of the tensors that images go into and scores come out of."""

    source: str
    target: str
    signature: str | None = None


def by_operations(graph: Any, where: str, input_op: str | None, output_op: str | None) -> Ends:
    """The ends that are named. Raises ModelError with names that are near."""
    if input_op is None or output_op is None:
        missing = "input" if input_op is None else "output"
        raise ModelError(f"{where}: which is the {missing} operation?", hint=likely(graph))
    return Ends(_tensor(graph, where, input_op), _tensor(graph, where, output_op))


def signatures(meta: Any) -> list[str]:
    """The names of a graph's signatures, but for those of TensorFlow's own."""
    return sorted(name for name in meta.signature_def if not name.startswith("__"))


def by_signature(graph: Any, meta: Any, where: str, name: str) -> Ends:
    """The ends a signature names. Raises ModelError with those there are if there is no such
    one, and if it has not one of each."""
    names = signatures(meta)
    if name not in names:
        raise ModelError(
            f"{where} has no signature {name!r}",
            hint=f"it has {', '.join(names)}" if names else likely(graph, OBJECTS_ALONE),
        )
    signature = meta.signature_def[name]
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        inputs, outputs = len(signature.inputs), len(signature.outputs)
        raise ModelError(
            f"{where}: signature {name!r} has {inputs} input{'' if inputs == 1 else 's'} and "
            f"{outputs} output{'' if outputs == 1 else 's'}",
            hint=MANY,
        )
    (given,), (answered,) = signature.inputs.values(), signature.outputs.values()
    return Ends(given.name, answered.name, name)


def likely(graph: Any, otherwise: str = "name them with --input-op and --output-op") -> str:
    """The flags that may be meant, for a hint: those that `inspect` would name."""
    graph_def = graph.as_graph_def()
    found = of_operations((), graph_def, Tensors(graph_def))
    if found is None:
        return otherwise
    inputs, outputs = (
        " or ".join(each.flag for each in ends[:MOST])
        for ends in ((found.input, *found.other_inputs), (found.output, *found.other_outputs))
    )
    return f"perhaps --input-op {inputs} --output-op {outputs}"


def _tensor(graph: Any, where: str, operation: str) -> str:
    name = tensor_name(operation)
    try:
        graph.get_tensor_by_name(name)
    except (KeyError, ValueError):
        names = [each.name for each in graph.get_operations()]
        close = near(operation.partition(":")[0], names)
        if operation.partition(":")[0] in names:
            what = f"{where}: operation {operation.partition(':')[0]!r} has no output {name!r}"
        else:
            what = f"{where} has no operation {operation!r}"
        hint = f"perhaps {' or '.join(close)}" if close else likely(graph)
        raise ModelError(what, hint=hint) from None
    return name


class SessionGraph:
    """One input and one output of a graph whose variables are in place."""

    def __init__(self, tf: Any, session: Any, ends: Ends, where: str) -> None:
        """Raises ModelError if the input is not one that takes pictures."""
        self._session, self._where, self.ends = session, where, ends
        self.source = session.graph.get_tensor_by_name(ends.source)
        self.target = session.graph.get_tensor_by_name(ends.target)
        if self.source.dtype not in (tf.float32, tf.uint8):
            raise ModelError(
                f"{where}: the input {ends.source!r} takes {self.source.dtype.name}",
                hint="millrace feeds float32 or uint8",
            )
        if not (self.target.dtype.is_floating or self.target.dtype.is_integer):
            raise ModelError(
                f"{where}: the output {ends.target!r} is {self.target.dtype.name}, not numbers"
            )
        rank = self.source.shape.rank
        if rank not in (None, 4):
            raise ModelError(
                f"{where}: expected an input of [n, height, width, channels], "
                f"not {self.source.shape.as_list()}"
            )
        self.takes_bytes = self.source.dtype == tf.uint8
        sides = self.source.shape.as_list() if rank == 4 else [None] * 4
        self.batch: int | None
        self.height: int | None
        self.width: int | None
        self.depth: int | None
        self.batch, self.height, self.width, self.depth = sides
        self._call = session.make_callable(self.target, [self.source])

    def __call__(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Outputs [n, …] of inputs [n, …], in batches of the graph's own size if it fixes one."""
        step = self.batch or len(batch)
        rows = [self._rows(batch[i : i + step], step) for i in range(0, len(batch), step)]
        return np.concatenate(rows)

    def _rows(self, some: npt.NDArray[Any], step: int) -> npt.NDArray[Any]:
        short = step - len(some)
        if short:
            some = np.concatenate([some, np.zeros((short, *some.shape[1:]), some.dtype)])
        answer = np.asarray(self._call(some))
        if answer.shape[:1] != (step,):
            raise ModelError(f"{self._where}: {step} images in, output of {answer.shape}")
        return answer[: step - short]
