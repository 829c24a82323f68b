"""A SavedModel of anyone's making → a bundle: copied as it is, with a card beside it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from millrace.core.bundle import SAVED_MODEL, is_saved_model, read_bundle
from millrace.core.card import CARD_FILE, DEFAULT_SIGNATURE, LABELS_FILE
from millrace.core.engine_errors import as_model_errors
from millrace.core.errors import ModelError, ModelNotFound
from millrace.core.load_tensorflow import load_tensorflow
from millrace.core.saved_model_tags import tag_sets
from millrace.core.settings import Settings
from millrace.core.storage import Location
from millrace.export.bundle import Destination, export_source
from millrace.export.check import refuse_disagreement
from millrace.export.facts import Facts
from millrace.export.predict import Check
from millrace.export.session_graph import (
    OBJECTS_ALONE,
    Ends,
    SessionGraph,
    by_operations,
    by_signature,
    likely,
    signatures,
)
from millrace.export.source import Source, Written


def export_saved_model(
    path: Path | str,
    facts: Facts,
    *,
    repository: str,
    settings: Settings | None = None,
    force: bool = False,
    check: Check | None = refuse_disagreement,
) -> Location:
    """Publish a copy of the SavedModel at `path`, of TensorFlow 1 or 2; returns where it lies.

    Its card, if it has one, says what `facts` do not. Raises ModelNotFound, ModelError,
    UsageError and the store's errors.
    """
    destination = Destination(repository, force=force, settings=settings, check=check)
    return export_source(SavedModelSource(Path(path)), facts, destination).location


class SavedModelSource(Source):
    """A directory that holds a SavedModel."""

    def __init__(self, path: Path) -> None:
        """Raises ModelNotFound; ModelError if it has a card that cannot be read."""
        if not is_saved_model(path):
            raise ModelNotFound(f"{path} holds no SavedModel ({SAVED_MODEL})")
        self._path = path
        self.facts = Facts()
        if (path / CARD_FILE).is_file():
            bundle = read_bundle(path)
            self.facts = Facts.of_card(bundle.card, bundle.labels)

    def write(self, path: Path, facts: Facts) -> Written:
        beside = {CARD_FILE, LABELS_FILE}
        with as_model_errors(f"{self._path} cannot be copied"):
            shutil.copytree(
                self._path,
                path,
                ignore=lambda folder, names: [
                    name
                    for name in names
                    if (Path(folder) / name).relative_to(self._path).as_posix() in beside
                ],
            )
        tf = load_tensorflow()
        with as_model_errors(f"{self._path} does not load"):
            _as_binary(path)
            tags = self._tags(path, facts.tags)
            session = tf.compat.v1.Session(graph=tf.Graph())
            with session.graph.as_default():
                meta = tf.compat.v1.saved_model.load(session, list(tags), str(self._path))
            ends = self._ends(session.graph, meta, facts)
            graph = SessionGraph(tf, session, ends, str(self._path))
        return Written(
            tags=tags,
            signature=ends.signature,
            input_op=ends.source.removesuffix(":0"),
            output_op=ends.target.removesuffix(":0"),
            shape=(graph.height, graph.width, graph.depth),
            takes_bytes=graph.takes_bytes,
            output_type=graph.target.op.type,
            raw=graph,
        )

    def _tags(self, path: Path, wanted: Sequence[str] | None) -> tuple[str, ...]:
        """The tags of the graph that is meant: the only one, if nothing was said."""
        held = tag_sets(self._path if (self._path / SAVED_MODEL).is_file() else path)
        if wanted is None and len(held) == 1:
            return tuple(sorted(held[0]))
        tags = tuple(wanted or ("serve",))
        if frozenset(tags) not in held:
            sets = " or ".join(repr(",".join(sorted(each))) for each in held) or "no graph at all"
            raise ModelError(
                f"{self._path} has no graph with the tags {','.join(tags)!r}", hint=f"it has {sets}"
            )
        return tags

    def _ends(self, graph: Any, meta: Any, facts: Facts) -> Ends:
        """By the signature or the operations that are said, or else by the signature it has."""
        where = str(self._path)
        names = signatures(meta)
        if facts.signature is not None:
            return by_signature(graph, meta, where, facts.signature)
        if facts.input_op is not None or facts.output_op is not None:
            return by_operations(graph, where, facts.input_op, facts.output_op)
        if DEFAULT_SIGNATURE in names or len(names) == 1:
            name = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names else names[0]
            return by_signature(graph, meta, where, name)
        if names:
            raise ModelError(
                f"{where} has {len(names)} signatures", hint=f"--signature {' or '.join(names)}"
            )
        raise ModelError(f"{where} has no signature", hint=likely(graph, OBJECTS_ALONE))


def _as_binary(path: Path) -> None:
    """A SavedModel written as text is binary in a repository, where TensorFlow Serving looks."""
    if (path / SAVED_MODEL).is_file():
        return
    from tensorflow.python.saved_model import loader_impl

    model = loader_impl.parse_saved_model(str(path))
    (path / SAVED_MODEL).write_bytes(model.SerializeToString())
    (path / "saved_model.pbtxt").unlink()
