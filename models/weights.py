"""Weights that Keras saved, into a model made for them."""

from __future__ import annotations

import re
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

from millrace.core.errors import ModelError, ModelNotFound
from millrace.core.load_tensorflow import load_tensorflow

LONGEST = 300

_SHAPES = (
    re.compile(
        r"variable\.shape=(?P<model>\(.*?\)), Received: value\.shape=(?P<file>\(.*?\))\. "
        r"Target variable: <Variable path=(?P<name>[^,]+),"
    ),
    re.compile(
        r"for weight (?P<name>\S+?)\. Weight expects shape (?P<model>\(.*?\))\. "
        r"Received saved weight with shape (?P<file>\(.*?\))"
    ),
)
"""How Keras says that a shape does not fit: of its own format, and of the old one."""

_BESIDES = ("optimizer", "seed_generator", "metrics")
"""What a file may hold of a model that is no weight of it."""


def weights_file(named: str | Path) -> Path:
    """The file that is meant. Raises ModelNotFound."""
    path = Path(named).expanduser()
    if not path.is_file():
        raise ModelNotFound(
            f"there is no weights file {path}",
            hint="--weights FILE, imagenet (published ones) or none (random)",
        )
    return path


def load_weights(model: Any, path: Path) -> None:
    """Load `.weights.h5`, the old `.h5`, or the weights of a whole saved model, `.h5` or `.keras`.

    What the file holds decides, not its name. Raises ModelNotFound if there is none, ModelError
    for one that is something else or does not fit; the model is of no use then.
    """
    path = weights_file(path)
    load_tensorflow()
    suffix = _suffix(path)
    with tempfile.TemporaryDirectory(prefix="millrace-weights-") as scratch:
        # Keras goes by the name; Keras 2 gave files of the old format the new one's.
        named = Path(scratch) / f"model{suffix}"
        named.symlink_to(path.resolve())
        try:
            with warnings.catch_warnings():
                # Of containers that it passes over, before it raises, and of optimisers.
                warnings.simplefilter("ignore", UserWarning)
                model.load_weights(named)
        except Exception as error:  # Keras raises nearly anything for a file that does not fit
            why = _telling(str(error) or type(error).__name__)
            raise ModelError(f"{path} does not fit {model.name}: {why}") from error
    if suffix == ".weights.h5":
        _refuse_more(model, path)


def _suffix(path: Path) -> str:
    """By which Keras tells the format."""
    import h5py

    if zipfile.is_zipfile(path):
        return ".keras"
    try:
        with h5py.File(path, "r") as file:
            old = "layer_names" in file.attrs or "model_weights" in file
            return ".h5" if old else ".weights.h5"
    except OSError as error:
        raise ModelError(
            f"{path} holds no weights: {str(error).splitlines()[0]}",
            hint="what model.save_weights of Keras writes: .weights.h5 or .h5",
        ) from error


def _telling(text: str) -> str:
    """What Keras says, in one line: which weight has another shape, if that is it."""
    for pattern in _SHAPES:
        if found := pattern.search(text):
            return "{name} is {file} there, and {model} in the model".format(**found.groupdict())
    # "A total of 3 objects could not be loaded. Example error message for object <…>:", and then
    # the message itself.
    _, _, example = text.partition("Example error message for object ")
    _, _, message = example.partition("\n\n")
    return " ".join((message.partition("\n\n")[0] or text).split())[:LONGEST]


def _refuse_more(model: Any, path: Path) -> None:
    """Keras passes over layers that only the file has, as another network's would be."""
    import h5py

    stored: list[str] = []

    def note(name: str, what: Any) -> None:
        parts = name.split("/")
        if isinstance(what, h5py.Dataset) and not set(_BESIDES) & set(parts):
            stored.append(name)

    with h5py.File(path, "r") as file:
        file.visititems(note)
    if len(stored) > len(model.weights):
        raise ModelError(
            f"{path} does not fit {model.name}: it holds {len(stored)} arrays of weights, "
            f"and the model has {len(model.weights)}"
        )
