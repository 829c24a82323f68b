"""A `GraphDef` in a file, frozen or with a checkpoint beside it → a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from millrace.core.card import DEFAULT_SIGNATURE
from millrace.core.engine_errors import as_model_errors, telling_line
from millrace.core.errors import ModelError, ModelNotFound, UsageError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.core.settings import Settings
from millrace.core.storage import Location
from millrace.export.bundle import Destination, export_source
from millrace.export.check import refuse_disagreement
from millrace.export.checkpoint import checkpoint_prefix, restore
from millrace.export.facts import Facts
from millrace.export.inspect_graph import VARIABLES
from millrace.export.predict import Check
from millrace.export.session_graph import SessionGraph, by_operations
from millrace.export.source import Source, Written, write_saved_model

TEXT = (".pbtxt", ".pbtext")
SUFFIXES = (".pb", *TEXT)


def export_graph(
    path: Path | str,
    facts: Facts,
    *,
    repository: str,
    checkpoint: Path | str | None = None,
    settings: Settings | None = None,
    force: bool = False,
    check: Check | None = refuse_disagreement,
) -> Location:
    """Publish the graph in a `.pb` or `.pbtxt` file, by its operations; returns where it lies.

    With a checkpoint its variables stay variables; without one it has to be frozen. Raises
    ModelNotFound, ModelError, UsageError and the store's errors.
    """
    source = GraphSource(Path(path), Path(checkpoint) if checkpoint else None)
    destination = Destination(repository, force=force, settings=settings, check=check)
    return export_source(source, facts, destination).location


class GraphSource(Source):
    """A file with a `GraphDef`, and the checkpoint of its variables if it is not frozen."""

    def __init__(self, path: Path, checkpoint: Path | None = None) -> None:
        """Raises ModelNotFound."""
        if not path.is_file():
            raise ModelNotFound(f"there is no file {path}")
        self.facts = Facts()
        self._path = path
        self._checkpoint = None if checkpoint is None else checkpoint_prefix(checkpoint)

    def write(self, path: Path, facts: Facts) -> Written:
        if facts.signature is not None:
            raise UsageError("--signature is for a SavedModel; a graph is used by its operations")
        tf = load_tensorflow()
        tags = facts.tags or ("serve",)
        graph_def = _read(tf, self._path)
        where = str(self._path)
        graph = _imported(tf, graph_def, where)
        ends = by_operations(graph, where, facts.input_op, facts.output_op)
        needed = _leading_to(tf, graph_def, ends.target)
        if ends.source.partition(":")[0] not in {node.name for node in needed.node}:
            raise ModelError(f"{where}: {facts.output_op!r} does not depend on {facts.input_op!r}")
        variables = [node.name for node in needed.node if node.op in VARIABLES]
        if self._checkpoint is not None:
            # What only training needs has no place in it: readers, queues, optimisers.
            graph = _imported(tf, needed, where)
        elif variables:
            raise ModelError(
                f"{where} is not frozen: it holds {len(variables)} variables, {variables[0]} first",
                hint="give its checkpoint: --checkpoint model.ckpt",
            )
        session = tf.compat.v1.Session(graph=graph)
        with as_model_errors(f"{where} cannot be used"), graph.as_default():
            if self._checkpoint is not None:
                restore(tf, session, variables, self._checkpoint)
            model = SessionGraph(tf, session, ends, where)
            write_saved_model(tf, session, path, tags, model.source, model.target)
        return Written(
            tags=tags,
            signature=DEFAULT_SIGNATURE,
            input_op=ends.source.removesuffix(":0"),
            output_op=ends.target.removesuffix(":0"),
            shape=(model.height, model.width, model.depth),
            takes_bytes=model.takes_bytes,
            output_type=model.target.op.type,
            raw=model,
        )


def _read(tf: Any, path: Path) -> Any:
    """The `GraphDef` in a file. Raises ModelError if it holds none, or a part of one."""
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError

    graph_def = tf.compat.v1.GraphDef()
    try:
        if path.suffix in TEXT:
            text_format.Parse(path.read_text(encoding="utf-8"), graph_def)
        else:
            graph_def.ParseFromString(path.read_bytes())
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not a whole GraphDef: {telling_line(error)}") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if not graph_def.node:
        raise ModelError(f"{path} holds no GraphDef", hint="a SavedModel is named by its directory")
    return graph_def


def _imported(tf: Any, graph_def: Any, where: str) -> Any:
    graph = tf.Graph()
    with as_model_errors(f"{where} is no graph TensorFlow takes"), graph.as_default():
        tf.graph_util.import_graph_def(_elsewhere(graph_def), name="")
    return graph


def _elsewhere(graph_def: Any) -> Any:
    """Without the devices it was trained on, which are not here."""
    for node in graph_def.node:
        node.device = ""
    return graph_def


def _leading_to(tf: Any, graph_def: Any, tensor: str) -> Any:
    """The part of a graph that `tensor` is worked out with."""
    return tf.compat.v1.graph_util.extract_sub_graph(graph_def, [tensor.partition(":")[0]])
