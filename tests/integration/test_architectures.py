"""Every architecture from Keras to a worker and back: the same answers to the same photographs.

A network whose weights are fresh dice answers nearly the same for every picture, and has nothing
in its normalisation that could get lost. So each is put into the state of a trained one first:
statistics, scales and offsets of its own in every normalisation, and a last layer that tells the
photographs apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from millrace.core.bundle import Bundle, read_bundle
from millrace.core.card import Card, Normalisation
from millrace.core.load_tensorflow import load_tensorflow
from millrace.export import export_keras
from millrace.models import architecture, architectures, build
from millrace.worker.engines import load_predictor
from millrace.worker.images import ImageDecoder
from millrace.worker.options import MAX_PIXELS
from millrace.worker.predictor import Pixels, Scores
from millrace.worker.tuning import EngineName, Tuning
from tests.unit.models.cost import multiply_adds, trainable

PHOTOGRAPHS = ("test-data__owl.jpg", "scikit-image__retina.jpg", "Pillow__flower.jpg")
TOLERANCE = 1e-4
SEED = 3
SPREAD = 2.0
"""Standard deviation of a photograph's logits: scores like those of a trained network."""

LARGE = {"nasnet_large", "pnasnet5_large"}
"""Half a minute each. They are their small namesakes with other numbers: one engine will do."""

NAMES = sorted(architectures(), key=LARGE.__contains__)
"""Those last, so that pytest sees equal numbers for equal names, and makes each but once."""

PARAMETERS = {
    "xception": 22_910_480,
    "resnet50": 25_636_712,
    "inception_v3": 23_851_784,
    "mobilenet_v2": 3_538_984,
    "nasnet_mobile": 5_326_716,
    "nasnet_large": 88_949_818,
    "efficientnet_v2_b0": 7_200_312,
    "efficientnet_v2_s": 21_612_360,
    "mnist_softmax": 28 * 28 * 10 + 10,
}
"""Of 1000 classes, as Keras publishes them; the statistics of normalisation count."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A network, its bundle, and what Keras itself answers for the photographs."""

    model: Any
    bundle: Bundle
    pixels: Pixels
    scores: Scores


@pytest.fixture(scope="module", params=NAMES)
def exported(
    request: pytest.FixtureRequest, real: Path, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    name = request.param
    found = architecture(name)
    pixels = decoded(name, real)
    given = normalised(name, pixels)
    model = build(name)
    settle(model, given)
    repository = tmp_path_factory.mktemp(name)
    export_keras(
        model,
        name=name,
        version="1",
        repository=str(repository),
        scale=found.scale,
        channels=found.channels,
    )
    bundle = read_bundle(repository / name / "1")
    return Exported(model, bundle, pixels, np.asarray(model(given), np.float32))


def decoded(name: str, real: Path) -> Pixels:
    """The photographs as a worker decodes them for this architecture."""
    found = architecture(name)
    card = Card.make(
        name=name,
        signature="any",
        height=found.height,
        width=found.width,
        channels=found.channels,
    )
    decoder = ImageDecoder(card, max_pixels=MAX_PIXELS)
    files = [real / "images" / photograph for photograph in PHOTOGRAPHS]
    return np.stack([decoder.decode(file.read_bytes()) for file in files])


def normalised(name: str, pixels: Pixels) -> npt.NDArray[np.float32]:
    """On the host, in the words of Keras's `preprocess_input`."""
    normalisation = Normalisation.parse(architecture(name).scale)
    mean, scale = (np.array(values, np.float32) for values in normalisation.mean_and_scale())
    ordered = pixels[..., ::-1] if normalisation.mode == "caffe" else pixels
    return np.asarray((ordered.astype(np.float32) - mean) / scale, np.float32)


def settle(model: Any, given: npt.NDArray[np.float32]) -> None:
    """Give the network what training leaves in one; see the top."""
    load_tensorflow()
    import keras

    dice = np.random.default_rng(SEED)
    kinds = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    for layer in kinds:
        if layer.scale:
            layer.gamma.assign(dice.uniform(0.8, 1.2, layer.gamma.shape))
        layer.beta.assign(dice.normal(0, 0.1, layer.beta.shape))
        layer.momentum = 0.0  # the next batch's statistics are the layer's
    last = model.layers[-1]
    trunk = keras.Model(model.inputs[0], last.input)
    trunk(given, training=True)
    features = np.asarray(trunk(given), np.float64)
    # What all photographs share says nothing of any of them.
    centre = features.mean(axis=0)
    kernel = dice.standard_normal((features.shape[1], last.units))
    kernel *= SPREAD / ((features - centre) @ kernel).std()
    last.set_weights([kernel.astype(np.float32), (-centre @ kernel).astype(np.float32)])


def check(exported: Exported, engine: EngineName) -> None:
    scores = load_predictor(exported.bundle, Tuning(engine=engine)).predict(exported.pixels)
    assert scores.shape == (len(PHOTOGRAPHS), exported.model.output_shape[1])
    np.testing.assert_allclose(scores, exported.scores, atol=TOLERANCE)
    np.testing.assert_array_equal(scores.argmax(axis=1), exported.scores.argmax(axis=1))


def test_a_worker_answers_as_keras_does(exported: Exported) -> None:
    check(exported, EngineName.TENSORFLOW)


@pytest.mark.parametrize("exported", NAMES[: -len(LARGE)], indirect=True)
def test_so_it_does_in_openvino(exported: Exported) -> None:
    check(exported, EngineName.OPENVINO)


def test_the_photographs_are_told_apart(exported: Exported) -> None:
    """Or the test above would prove little."""
    scores = exported.scores
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-4)
    assert len(set(scores.argmax(axis=1).tolist())) > 1
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(scores[first] - scores[second]).max() > 100 * TOLERANCE


def test_it_is_of_its_published_size(exported: Exported) -> None:
    name = exported.bundle.card.name
    if name in PARAMETERS:
        assert exported.model.count_params() == PARAMETERS[name]
    if name == "pnasnet5_large":
        # The paper says 86.1 M and 25.0 G; counted elsewhere in the same network, 86,057,668.
        assert trainable(exported.model) == 86_057_668
        assert multiply_adds(exported.model) == pytest.approx(25.0e9, rel=0.005)


def test_its_last_operation_is_a_softmax(exported: Exported) -> None:
    """So that an export can name it, and who asks by name gets probabilities."""
    import keras

    assert exported.model.layers[-1].activation is keras.activations.softmax
