"""The models: Keras architectures with random weights of a fixed seed, as bundles.

An untrained network answers nearly the same for every picture, and then agreement on the top
class proves nothing. So the last layer is centred on a few pictures and sharpened: different
pictures get different classes, at no change in the work done.

`python -m benchmarks.models NAME REPOSITORY PICTURE…` makes the bundle if it is not there, and
prints its path and each picture's top class, by way of shrinking, as JSON.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.contenders import Resize
from benchmarks.inputs import KINDS, jpeg
from millrace.core.card import Normalisation
from millrace.export import Facts, export_saved_model

ARCHITECTURES = {"mobilenetv2": "MobileNetV2", "resnet50": "ResNet50"}
SIZE = 224
SCALE = "tf"
"""Pixels to [-1, 1], for both: the weights are random, and every contender does the same."""
VERSION = "1"
SEED = 20
SPREAD = 4.0
"""Standard deviation of a picture's logits: scores like those of a trained network."""
SAMPLE = range(10_000, 10_048)
"""Numbers of the pictures the last layer is centred on."""


def ensure_model(name: str, repository: Path) -> Path:
    """The bundle `<repository>/<name>/1`, made on the first call."""
    bundle = repository / name / VERSION
    if not bundle.exists():
        model = _build(ARCHITECTURES[name])
        facts = Facts(name=name, version=VERSION, scale=Normalisation.parse(SCALE), top_k=5)
        # What Keras itself writes, and the peers would have: variables behind a signature.
        with tempfile.TemporaryDirectory(prefix="millrace-bench-") as scratch:
            model.export(scratch, verbose=False)
            export_saved_model(scratch, facts, repository=str(repository))
    return bundle


def plain_signature(bundle: Path, pictures: Sequence[Path]) -> dict[Resize, list[int]]:
    """The top class of each picture, by the SavedModel's signature as it stands, float32.

    Once for each way to shrink: Pillow's bilinear filter sees every pixel, and TensorFlow's
    takes samples, which is another picture to a network.
    """
    import tensorflow as tf

    predict = tf.saved_model.load(str(bundle)).signatures["serving_default"]
    name = next(iter(predict.structured_input_signature[1]))

    def top(pixels: Any) -> int:
        (scores,) = predict(
            **{name: tf.cast(pixels, tf.float32)[tf.newaxis] / 127.5 - 1.0}
        ).values()
        return int(np.argmax(scores))

    answers: dict[Resize, list[int]] = {"filtered": [], "sampled": []}
    for picture in pictures:
        with Image.open(picture) as image:
            whole = image.convert("RGB")
        answers["filtered"].append(top(np.asarray(shrink(whole))))
        answers["sampled"].append(top(tf.image.resize(np.asarray(whole), (SIZE, SIZE))))
    return answers


def shrink(image: Image.Image) -> Image.Image:
    """A whole picture as the card says: stretched, bilinear."""
    return image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def _sample() -> npt.NDArray[np.float32]:
    """Pictures to centre the last layer on, float32 [n, 224, 224, 3]; no contender sees them."""
    pictures = [Image.open(io.BytesIO(jpeg(KINDS["small"], number))) for number in SAMPLE]
    pixels = np.stack([np.asarray(shrink(picture)) for picture in pictures])
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)


def _build(architecture: str) -> Any:
    import keras

    keras.utils.set_random_seed(SEED)
    model = getattr(keras.applications, architecture)(weights=None)
    last = model.layers[-1]
    features = keras.Model(model.input, last.input).predict(_sample(), verbose=0)
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
