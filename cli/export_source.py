"""What `millrace export SOURCE` means: a name, a file or a directory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from millrace.core.bundle import SAVED_MODELS, is_saved_model
from millrace.core.card import Normalisation
from millrace.core.errors import ModelError, ModelNotFound, UsageError
from millrace.export.facts import Facts
from millrace.export.graph_file import SUFFIXES as GRAPHS
from millrace.export.graph_file import GraphSource
from millrace.export.keras_bundle import KerasSource
from millrace.export.keras_file import SUFFIXES as KERAS_FILES
from millrace.export.keras_file import load_keras
from millrace.export.saved_model import SavedModelSource
from millrace.models import architecture, architectures, build, imagenet

if TYPE_CHECKING:
    from millrace.export.source import Source

RANDOM, PUBLISHED = "none", "imagenet"


def default_name(source: str) -> str | None:
    """What a model is called that got no name: `faces/3` and `faces.keras` are `faces`."""
    path = Path(source).expanduser()
    if source in architectures():
        return source
    if path.name == "saved_model.pb":
        path = path.parent
    if path.name.isdecimal() and path.is_dir():
        return path.resolve().parent.name
    name = path.resolve().name
    return re.sub(r"(\.weights)?\.(keras|h5|hdf5|pb|pbtxt|pbtext)$", "", name) or None


def find_source(
    source: str, said: Facts, *, weights: str | None = None, checkpoint: str | None = None
) -> Source:
    """The model that is meant; an architecture goes before a path, and `./NAME` is a path.

    Raises ModelNotFound, ModelError, UsageError.
    """
    path = Path(source).expanduser()
    if source in architectures():
        _refuse(checkpoint, "--checkpoint", "a graph in a .pb or .pbtxt file")
        return _architecture(source, said, weights)
    if not path.exists() and path.name == source and path.suffix not in (*KERAS_FILES, *GRAPHS):
        architecture(source)  # raises, with the names that there are
    _refuse(weights, "--weights", "an architecture by name")
    if path.suffix in GRAPHS and path.name not in SAVED_MODELS:
        return GraphSource(path, Path(checkpoint).expanduser() if checkpoint else None)
    _refuse(checkpoint, "--checkpoint", "a graph in a .pb or .pbtxt file")
    if path.suffix in KERAS_FILES:
        return KerasSource(load_keras(path))
    if path.name in SAVED_MODELS:
        path = path.parent
    if path.is_dir():
        if not is_saved_model(path):
            raise ModelNotFound(
                f"{path} holds no SavedModel (saved_model.pb)", hint=_versions(path)
            )
        return SavedModelSource(path)
    if path.exists():
        raise ModelError(
            f"{path} is no model that can be exported",
            hint=f"one is a directory or ends in {', '.join((*KERAS_FILES, *GRAPHS))}",
        )
    raise ModelNotFound(f"there is no model {source}")


def _architecture(name: str, said: Facts, weights: str | None) -> Source:
    """An architecture with weights; as many classes as there are labels, if any are given."""
    if weights is None:
        raise UsageError(
            f"{name} with which weights?",
            hint="--weights FILE, imagenet (published ones) or none (random)",
        )
    known = architecture(name)
    published = weights == PUBLISHED
    classes = (said.label_offset or 0) + len(said.labels) if said.labels else known.classes
    given = None if weights == RANDOM else weights
    model = build(name, num_classes=classes, weights=given)
    # ImageNet's labels have to be fetched, and a file's weights may be of other classes.
    own = published or known.labels is not imagenet.labels
    labels = tuple(known.labels()) if own and said.labels is None else None
    return KerasSource(
        model,
        Facts(
            name=name,
            height=known.height,
            width=known.width,
            scale=Normalisation.parse(known.scale),
            channels=known.channels,
            labels=labels,
        ),
    )


def _refuse(value: str | None, option: str, what: str) -> None:
    if value is not None:
        raise UsageError(f"{option} goes with {what}")


def _versions(path: Path) -> str | None:
    """A hint to the versions below a directory that holds no SavedModel itself."""
    held = sorted(each.name for each in path.iterdir() if is_saved_model(each))
    return f"there is one in {' and '.join(held)} below it" if held else None
