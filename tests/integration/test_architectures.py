"""Every architecture from Keras to a worker and back: the same answers to the same photographs.

A network whose weights are fresh dice answers nearly the same for every picture, and has nothing
in its normalisation that could get lost. So each is put into the state of a trained one first:
statistics, scales and offsets of its own in every normalisation, and a last layer that gives
each photograph a class of its own.

Each has a process of its own, for together they would fill the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import pytest

from millrace.core.bundle import read_bundle
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

P = ParamSpec("P")
R = TypeVar("R")

PHOTOGRAPHS = ("test-data__owl.jpg", "scikit-image__retina.jpg", "Pillow__flower.jpg")
TOLERANCE = 1e-4
SEED = 3
SPREAD = 2.0
"""Standard deviation of a photograph's logits: scores like those of a trained network."""
CLEAR = 2.4 * SPREAD
"""How far the logit of a photograph's own class lies above those of the others' classes, for each
unit of the largest that so many dice throw: √(2 ln n) of their deviation."""

ENGINES = (EngineName.TENSORFLOW, EngineName.OPENVINO)
LARGE = ("nasnet_large", "pnasnet5_large")
"""A minute each, and but their small namesakes with other numbers: they are counted, and travel
where it is asked for (`pytest -m large`)."""

TRAVELLERS = [
    pytest.param(name, marks=[pytest.mark.large] if name in LARGE else [])
    for name in architectures()
]

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
class Counted:
    """What there is to know of a network before it has answered."""

    parameters: int
    trainable: int
    multiply_adds: float
    ends_in_softmax: bool

    @classmethod
    def of(cls, model: Any) -> Counted:
        import keras

        return cls(
            model.count_params(),
            trainable(model),
            multiply_adds(model),
            model.layers[-1].activation is keras.activations.softmax,
        )


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """What Keras answers for the photographs, and what each engine does from the bundle."""

    keras: Scores
    engines: Mapping[EngineName, Scores]
    counted: Counted


def in_a_process(task: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(task, *args, **kwargs).result()


def count(name: str) -> Counted:
    load_tensorflow()
    return Counted.of(build(name))


def travel(name: str, real: Path) -> RoundTrip:
    """Build, export, load and predict."""
    load_tensorflow()
    found, pixels = architecture(name), decoded(name, real)
    given = normalised(name, pixels)
    model = build(name)
    settle(model, given)
    with TemporaryDirectory() as repository:
        export_keras(
            model,
            name=name,
            version="1",
            repository=repository,
            scale=found.scale,
            channels=found.channels,
            # It is settled on these photographs; what others answer is chance, and grows with it.
            check=None,
        )
        bundle = read_bundle(Path(repository) / name / "1")
        answers = {
            engine: load_predictor(bundle, Tuning(engine=engine)).predict(pixels)
            for engine in ENGINES
        }
    return RoundTrip(np.asarray(model(given), np.float32), answers, Counted.of(model))


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
    own = features - centre
    kernel = dice.standard_normal((features.shape[1], last.units))
    kernel *= SPREAD / (own @ kernel).std()
    # Dice may tie, and rounding, another on each machine, would choose: one class a photograph.
    # What they have of their own sums to nothing; `rcond` leaves that direction out.
    clear = CLEAR * np.sqrt(2 * np.log(last.units))
    kernel[:, : len(own)] = np.linalg.pinv(own, rcond=1e-6) * clear
    last.set_weights([kernel.astype(np.float32), (-centre @ kernel).astype(np.float32)])


@pytest.mark.parametrize("name", TRAVELLERS)
def test_a_worker_answers_as_keras_does(name: str, real: Path) -> None:
    trip = in_a_process(travel, name, real)
    check_answers(trip)
    check_counts(name, trip.counted)


@pytest.mark.parametrize("name", LARGE)
def test_a_large_one_is_what_was_published(name: str) -> None:
    check_counts(name, in_a_process(count, name))


def check_counts(name: str, counted: Counted) -> None:
    if name in PARAMETERS:
        assert counted.parameters == PARAMETERS[name]
    if name == "pnasnet5_large":
        # The paper says 86.1 M and 25.0 G; counted elsewhere in the same network, 86,057,668.
        assert counted.trainable == 86_057_668
        assert counted.multiply_adds == pytest.approx(25.0e9, rel=0.005)
    # An export can name it, and who asks by name gets probabilities.
    assert counted.ends_in_softmax


def check_answers(trip: RoundTrip) -> None:
    for scores in trip.engines.values():
        assert scores.shape == trip.keras.shape
        np.testing.assert_allclose(scores, trip.keras, atol=TOLERANCE)
        np.testing.assert_array_equal(scores.argmax(axis=1), trip.keras.argmax(axis=1))
    scores = trip.keras
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-4)
    # What is the same for all photographs would prove little, and a near tie less.
    assert scores.argmax(axis=1).tolist() == [0, 1, 2]
    second, best = np.sort(scores, axis=1)[:, -2:].T
    assert (best - second).min() > 100 * TOLERANCE
