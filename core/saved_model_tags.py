"""The tags of a SavedModel's graphs, read without TensorFlow.

Of TensorFlow's `saved_model.proto` and `meta_graph.proto` only what leads to the tags is declared
here; a protocol buffer's reader passes over the rest.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from millrace.core.bundle import SAVED_MODEL
from millrace.core.errors import ModelError


def tag_sets(path: Path) -> list[frozenset[str]]:
    """One set of tags for each graph in a SavedModel directory. Raises ModelError."""
    from google.protobuf.message import DecodeError

    try:
        model = _saved_model().FromString((path / SAVED_MODEL).read_bytes())
    except OSError as error:
        raise ModelError(f"{path} does not load: {error}") from error
    except DecodeError as error:
        raise ModelError(f"{path / SAVED_MODEL} is damaged or cut short") from error
    return [frozenset(graph.meta_info_def.tags) for graph in model.meta_graphs]


@cache
def _saved_model() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    Field = descriptor_pb2.FieldDescriptorProto  # noqa: N806
    file = descriptor_pb2.FileDescriptorProto(name="tags.proto", package="millrace")
    for name, field, number, label, kind in (
        ("SavedModel", "meta_graphs", 2, Field.LABEL_REPEATED, "MetaGraphDef"),
        ("MetaGraphDef", "meta_info_def", 1, Field.LABEL_OPTIONAL, "MetaInfoDef"),
        ("MetaInfoDef", "tags", 4, Field.LABEL_REPEATED, None),
    ):
        file.message_type.add(name=name).field.add(
            name=field,
            number=number,
            label=label,
            type=Field.TYPE_MESSAGE if kind else Field.TYPE_STRING,
            type_name=f".millrace.{kind}" if kind else None,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("millrace.SavedModel"))
