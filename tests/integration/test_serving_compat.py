"""Bundles are for everybody: TensorFlow 2, TensorFlow 1 by tag and names, and the C API.

The C API is what the Go binding calls, and so what a Go program gets.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from millrace.core.bundle import Bundle, read_bundle
from millrace.core.load_tensorflow import load_tensorflow
from millrace.export import Facts, export_keras, export_saved_model
from tests.integration.c_api import libraries
from tests.support import ROOT, random_pixels

TAG, INPUT, OUTPUT = "myTag", "input_1", "inferenceLayer/Softmax"
LABELS = ("cat", "dog", "fish")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Case:
    """A bundle, images as it takes them, and what the Keras model answers."""

    bundle: Bundle
    images: Floats
    told: Floats


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A network with a layer for inference of one's own naming."""
    load_tensorflow()
    import keras

    keras.utils.set_random_seed(4)
    image = keras.Input((96, 96, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, use_bias=False)(image)
    x = keras.layers.ReLU(6)(keras.layers.BatchNormalization(name="norm")(x))
    x = keras.layers.SeparableConv2D(8, 3, strides=2, activation="relu")(x)
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    answer = keras.layers.Dense(len(LABELS), activation="softmax", name="inferenceLayer")(x)
    model = keras.Model(image, answer)
    gamma, beta = np.linspace(0.5, 2, 8), np.linspace(-1, 1, 8)
    mean, variance = np.linspace(-0.2, 0.2, 8), np.linspace(0.5, 3, 8)
    model.get_layer("norm").set_weights([gamma, beta, mean, variance])
    place = export_keras(
        model,
        name="pets",
        repository=str(tmp_path_factory.mktemp("bundles")),
        labels=LABELS,
        scale="tf",
        tag=TAG,
    )
    images = random_pixels(1, (5, 96, 96, 3)).astype(np.float32) / np.float32(127.5) - 1
    told = np.asarray(model(images, training=False))
    assert told.std(axis=0).max() > 0.01, "images are told apart"
    return Case(read_bundle(Path(place.root)), images, told)


def c_api(path: Path, images: Floats, scratch: Path, *names: str) -> tuple[str, Floats | None]:
    """What it prints, and the answers, of a process of its own without Python's TensorFlow."""
    np.save(scratch / "in.npy", images)
    answers = scratch / "out.npy"
    answers.unlink(missing_ok=True)
    program = [sys.executable, "-m", "tests.integration.c_api"]
    done = subprocess.run(
        [*program, str(path), *names, str(scratch / "in.npy"), str(answers)],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return done.stdout.strip(), np.load(answers)
    return done.stderr, None


needs_c_api = pytest.mark.skipif(
    libraries() is None, reason="the TensorFlow wheel carries no C library here"
)


def test_tensorflow_2_loads_it_by_its_signature(case: Case) -> None:
    tf = load_tensorflow()
    loaded = tf.saved_model.load(str(case.bundle.path), tags=[TAG])
    (scores,) = loaded.signatures["serving_default"](images=tf.constant(case.images)).values()
    np.testing.assert_allclose(np.asarray(scores), case.told, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_tensorflow_1_loads_it_by_tag_and_runs_it_by_names(case: Case, count: int) -> None:
    tf = load_tensorflow()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, [TAG], str(case.bundle.path))
        scores = session.run(f"{OUTPUT}:0", {f"{INPUT}:0": case.images[:count]})
    np.testing.assert_allclose(scores, case.told[:count], atol=1e-4)


@needs_c_api
def test_the_c_api_answers_as_keras(case: Case, tmp_path: Path) -> None:
    kinds, scores = c_api(case.bundle.path, case.images, tmp_path, TAG, INPUT, OUTPUT)
    assert kinds == "Placeholder Softmax"
    assert scores is not None
    np.testing.assert_allclose(scores, case.told, atol=1e-4)


@needs_c_api
@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("serve", INPUT, OUTPUT), "serve"),
        ((TAG, "input_2", OUTPUT), "no operation 'input_2'"),
    ],
)
def test_the_c_api_refuses_what_is_not_there(
    names: tuple[str, str, str], says: str, case: Case, tmp_path: Path
) -> None:
    said, scores = c_api(case.bundle.path, case.images, tmp_path, *names)
    assert scores is None
    assert says in said


def test_labels_and_card_lie_where_serving_passes_them_over(case: Case) -> None:
    assert sorted(each.name for each in case.bundle.path.iterdir()) == [
        "assets.extra",
        "saved_model.pb",
    ]
    assert case.bundle.path.name == "1"
    assert case.bundle.labels == LABELS


MOBILENET = "mobilenet_v1_025_224_myTag_v1"


@pytest.fixture(scope="module")
def theirs(real: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Any]:
    """A model of others with variables, by its tag and names, and what TF Lite answers."""
    place = export_saved_model(
        real / "savedmodels" / MOBILENET,
        Facts(name="theirs", input_op="input", output_op="output"),
        repository=str(tmp_path_factory.mktemp("theirs")),
    )
    reference = np.load(real / "imagenet" / "mobilenet_v1_025_224.reference.npz")
    return read_bundle(Path(place.root)), reference


@needs_c_api
def test_the_c_api_takes_a_bundle_with_variables(
    theirs: tuple[Bundle, Any], tmp_path: Path
) -> None:
    bundle, reference = theirs
    pixels, told = reference["uint8_rgb_224"], reference["tflite_probabilities"]
    images = (pixels.astype(np.float32) - np.float32(127.5)) / np.float32(127.5)
    _, scores = c_api(bundle.path, images, tmp_path, "myTag", "input", "output")
    assert scores is not None
    np.testing.assert_allclose(scores, told, atol=1e-4)
