"""The tags of a SavedModel, read without TensorFlow."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.core.bundle import SAVED_MODEL
from millrace.core.errors import ModelError
from millrace.core.saved_model_tags import tag_sets


def test_each_graph_s_tags_are_read_among_all_else(tmp_path: Path) -> None:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = SavedModel(saved_model_schema_version=1)
    for tags in (["serve"], ["serve", "gpu"], []):
        graph = model.meta_graphs.add()
        graph.meta_info_def.tags.extend(tags)
        graph.meta_info_def.tensorflow_version = "2.21"
        graph.graph_def.node.add(name="input_1", op="Placeholder")
    (tmp_path / SAVED_MODEL).write_bytes(model.SerializeToString())
    assert tag_sets(tmp_path) == [frozenset({"serve"}), frozenset({"serve", "gpu"}), frozenset()]


@pytest.mark.parametrize("content", [None, b"not a protocol buffer"])
def test_what_is_no_saved_model_is_said(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / SAVED_MODEL).write_bytes(content)
    with pytest.raises(ModelError, match=str(tmp_path)):
        tag_sets(tmp_path)
