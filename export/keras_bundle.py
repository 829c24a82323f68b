"""A Keras model → a bundle in a repository."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from millrace.core.bundle import compute_digest
from millrace.core.card import CARD_FILE, LABELS_FILE, Card, Channels, Normalisation
from millrace.core.errors import ModelError, UsageError
from millrace.core.settings import Settings
from millrace.core.storage import Location, Stores
from millrace.export.publish import publish

SIGNATURE = "serving_default"


def export_keras(
    model: Any,
    *,
    name: str,
    version: str,
    repository: str,
    labels: Sequence[str] = (),
    scale: str = "none",
    channels: str = "RGB",
    top_k: int = 5,
    settings: Settings | None = None,
) -> Location:
    """Write `<repository>/<name>/<version>/`; returns where it lies.

    `model` takes float32 images [n, height, width, channels] and answers probabilities
    [n, classes]. `scale` is how pixels become its input: `tf`, `caffe`, `torch`, `none` or
    `MEAN,SCALE`. A version that stands is never overwritten (Conflict). Raises UsageError,
    ModelError and the store's errors.
    """
    normalisation = Normalisation.parse(scale)
    height, width, depth = _input_shape(model)
    if channels not in set(Channels):
        raise UsageError(f"{channels!r} are no channels", hint="RGB, BGR or L")
    order = Channels.BGR if normalisation.mode == "caffe" else Channels(channels)
    if order.depth != depth:
        raise ModelError(f"the model takes {depth} channels, not {order}")
    classes = _classes(model)
    if labels and len(labels) != classes:
        raise ModelError(f"{len(labels)} labels for {classes} classes")
    if any("\n" in label or "\r" in label for label in labels):
        raise ModelError("a label is one line")
    card = Card.make(
        name=name,
        version=version,
        signature=SIGNATURE,
        height=height,
        width=width,
        channels=order,
        normalisation=normalisation,
        top_k=min(top_k, classes),
        frameworks={package: installed(package) for package in ("keras", "tensorflow")},
    )
    target = Location.parse(repository).child(name).child(version)
    with tempfile.TemporaryDirectory(prefix="millrace-export-") as scratch:
        path = Path(scratch)
        model.export(scratch, verbose=False)
        (path / LABELS_FILE).parent.mkdir(exist_ok=True)
        if labels:
            (path / LABELS_FILE).write_text("\n".join(labels) + "\n", encoding="utf-8")
        card = card.model_copy(update={"digest": compute_digest(path, card)})
        (path / CARD_FILE).write_text(card.model_dump_json(indent=2), encoding="utf-8")
        publish(Stores(settings or Settings.load()), path, target)
    return target


def _classes(model: Any) -> int:
    shape = model.output_shape
    if not (isinstance(shape, tuple) and len(shape) == 2 and isinstance(shape[1], int)):
        raise ModelError(f"expected one output of [n, classes], not {shape}")
    return shape[1]


def _input_shape(model: Any) -> tuple[int, int, int]:
    shape = model.input_shape
    if not (isinstance(shape, tuple) and len(shape) == 4 and all(shape[1:])):
        raise ModelError(f"expected one input of [n, height, width, channels], not {shape}")
    return shape[1:]
