"""What a SavedModel says of itself, read from its protocol buffer: nothing is run.

facts = read_saved_model(path)      # SavedModelFacts
facts.graphs[0].interface.flags     # "--tags myTag --input-op input --output-op output --size 112"
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace.core.bundle import SAVED_MODELS, is_saved_model
from millrace.core.engine_errors import telling_line
from millrace.core.errors import ModelError, ModelNotFound
from millrace.core.load_tensorflow import load_tensorflow
from millrace.export.inspect_graph import Operation, Parameters, Walk
from millrace.export.inspect_interface import Interface, of_operations, of_signatures
from millrace.export.inspect_tensors import Tensor, Tensors, shape_of


@dataclass(frozen=True, slots=True)
class Signature:
    """One of a graph's signatures; its tensors carry the names it gives them."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """One graph of a SavedModel."""

    tags: tuple[str, ...]
    tensorflow: str
    """The version that wrote it."""
    signatures: tuple[Signature, ...]
    interface: Interface | None
    """How a worker would use it; None if nothing in it takes and answers numbers."""
    parameters: Parameters
    ops: dict[str, int]
    """Operations by type, most first: those the answer depends on, each function's once."""
    operations: tuple[Operation, ...]
    """All there are, whether the answer depends on them or not."""
    functions: int
    proto: Any
    """Its `MetaGraphDef`."""


@dataclass(frozen=True, slots=True)
class SavedModelFacts:
    """A SavedModel's directory and the graphs in it."""

    path: Path
    form: str
    """`binary` or `text`."""
    files: int
    bytes: int
    graphs: tuple[GraphFacts, ...]


def read_saved_model(path: Path) -> SavedModelFacts:
    """Read a SavedModel's directory, whoever wrote it.

    Raises ModelNotFound if it is none, ModelError if it cannot be read, MissingExtra.
    """
    if not is_saved_model(path):
        raise ModelNotFound(f"{path} holds no SavedModel ({SAVED_MODELS[0]})")
    form, proto = _parsed(path)
    if not proto.meta_graphs:
        raise ModelError(f"{path} holds no graph")
    files = [file for file in path.rglob("*") if file.is_file()]
    return SavedModelFacts(
        path,
        form,
        len(files),
        sum(file.stat().st_size for file in files),
        tuple(_graph(each) for each in proto.meta_graphs),
    )


def _parsed(path: Path) -> tuple[str, Any]:
    load_tensorflow()
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    binary, text = (path / name for name in SAVED_MODELS)
    try:
        if binary.is_file():
            return "binary", SavedModel.FromString(binary.read_bytes())
        return "text", text_format.Parse(text.read_text(encoding="utf-8"), SavedModel())
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        file = binary if binary.is_file() else text
        raise ModelError(f"{file} is damaged or cut short: {telling_line(error)}") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _graph(meta: Any) -> GraphFacts:
    tensors = Tensors(meta.graph_def)
    signatures = tuple(
        Signature(
            name,
            tuple(_tensor(tensors, *item) for item in sorted(signature.inputs.items())),
            tuple(_tensor(tensors, *item) for item in sorted(signature.outputs.items())),
        )
        for name, signature in sorted(meta.signature_def.items())
        if not name.startswith("__")
    )
    tags = tuple(meta.meta_info_def.tags)
    interface = of_signatures(tags, {x.name: (x.inputs, x.outputs) for x in signatures})
    if interface is None:
        interface = of_operations(tags, meta.graph_def, tensors)
    walk = Walk(meta.graph_def, None if interface is None else interface.output.operation)
    return GraphFacts(
        tags=tags,
        tensorflow=meta.meta_info_def.tensorflow_version,
        signatures=signatures,
        interface=interface,
        parameters=walk.parameters(),
        ops=walk.ops(),
        operations=walk.operations(),
        functions=len(meta.graph_def.library.function),
        proto=meta,
    )


def _tensor(tensors: Tensors, key: str, info: Any) -> Tensor:
    """A signature's tensor. Of one that is not dense (sparse, ragged) the parts have names."""
    from tensorflow.core.framework.types_pb2 import DataType

    dtype = tensors.named(DataType.Name(info.dtype).removeprefix("DT_").lower())
    return Tensor(info.name, dtype, shape_of(info.tensor_shape), key)
