"""The models: Keras architectures with random weights of a fixed seed, as bundles.

An untrained network answers nearly the same for every picture, and then agreement on the top
class proves nothing. So the last layer is centred on a few pictures and sharpened: different
pictures get different classes, at no change in the work done.

`python -m benchmarks.models NAME REPOSITORY PICTURE…` makes the bundle if it is not there, and
prints its path and each picture's top class as JSON.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.inputs import KINDS, jpeg
from millrace.export import export_keras

ARCHITECTURES = {"mobilenetv2": "MobileNetV2", "resnet50": "ResNet50"}
SIZE = 224
SCALE = "tf"
"""Pixels to [-1, 1], for both: the weights are random, and every contender does the same."""
VERSION = "1"
SEED = 20
SPREAD = 4.0
"""Standard deviation of a picture's logits: scores like those of a trained network."""
SAMPLE = range(10_000, 10_048)
"""Numbers of the pictures the last layer is centred on; no contender sees them."""


def ensure_model(name: str, repository: Path) -> Path:
    """The bundle `<repository>/<name>/1`, made on the first call."""
    bundle = repository / name / VERSION
    if not bundle.exists():
        model = _build(ARCHITECTURES[name])
        export_keras(
            model, name=name, version=VERSION, repository=str(repository), scale=SCALE, top_k=5
        )
    return bundle


def plain_signature(bundle: Path, pictures: Sequence[Path]) -> list[int]:
    """The top class of each picture, by the SavedModel's signature as it stands, float32."""
    import tensorflow as tf

    predict = tf.saved_model.load(str(bundle)).signatures["serving_default"]
    name = next(iter(predict.structured_input_signature[1]))
    top: list[int] = []
    for start in range(0, len(pictures), 16):
        pixels = as_input(pictures[start : start + 16])
        scores = next(iter(predict(**{name: tf.constant(pixels)}).values()))
        top += np.argmax(scores, axis=1).tolist()
    return top


def as_input(pictures: Sequence[Path | IO[bytes]]) -> npt.NDArray[np.float32]:
    """Pictures decoded whole and resized as the card says: float32 [n, 224, 224, 3], -1 to 1."""
    pixels = np.empty((len(pictures), SIZE, SIZE, 3), np.float32)
    for row, picture in zip(pixels, pictures, strict=True):
        with Image.open(picture) as image:
            small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        row[:] = np.asarray(small)
    return pixels / np.float32(127.5) - np.float32(1)


def _build(architecture: str) -> Any:
    import keras

    keras.utils.set_random_seed(SEED)
    model = getattr(keras.applications, architecture)(weights=None)
    last = model.layers[-1]
    sample = as_input([io.BytesIO(jpeg(KINDS["small"], number)) for number in SAMPLE])
    features = keras.Model(model.input, last.input).predict(sample, verbose=0)
    # What all pictures share says nothing of any of them.
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-12
    dice = np.random.default_rng(SEED)
    kernel = dice.standard_normal((features.shape[1], last.units)) / spread[:, np.newaxis]
    kernel *= SPREAD / ((features - centre) @ kernel).std()
    last.set_weights([kernel.astype(np.float32), (-centre @ kernel).astype(np.float32)])
    return model


def main() -> None:
    name, repository, *pictures = sys.argv[1:]
    bundle = ensure_model(name, Path(repository))
    top = plain_signature(bundle, [Path(picture) for picture in pictures])
    print(json.dumps({"bundle": str(bundle), "top": top}))


if __name__ == "__main__":
    main()
