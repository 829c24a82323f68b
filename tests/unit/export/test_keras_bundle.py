"""From a Keras model to a bundle that predicts as the model does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.core.bundle import Bundle, compute_digest, read_bundle
from millrace.core.errors import Conflict, ModelError, UsageError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.core.settings import Settings
from millrace.core.storage import Location
from millrace.export import export_keras
from millrace.worker.session import Session
from tests.support import random_pixels


@pytest.fixture(scope="module")
def colour() -> Any:
    """Takes pictures of 6 × 10 in three channels and tells three classes apart."""
    load_tensorflow()
    import keras

    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [
            keras.Input((6, 10, 3)),
            keras.layers.Conv2D(4, 3, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


@pytest.fixture
def export(colour: Any, tmp_path: Path) -> Callable[..., Bundle]:
    def export_it(**facts: Any) -> Bundle:
        place = export_keras(
            colour, **({"name": "colour", "version": "1", "repository": str(tmp_path)} | facts)
        )
        return read_bundle(Path(place.root))

    return export_it


@pytest.mark.parametrize("scale", ["tf", "torch", "caffe", "none", "127,64"])
def test_the_bundle_predicts_as_the_model(
    scale: str, export: Callable[..., Bundle], colour: Any
) -> None:
    from keras.applications.imagenet_utils import preprocess_input

    bundle = export(scale=scale)
    pixels = random_pixels(9, (5, 6, 10, 3))
    floats = pixels.astype(np.float32)
    scaled: Any
    if scale == "127,64":
        scaled = (floats - 127) / 64
    elif scale == "none":
        scaled = floats
    else:
        scaled = preprocess_input(floats, mode=scale, data_format="channels_last")
    np.testing.assert_allclose(Session(bundle).predict(pixels), colour(scaled), atol=1e-4)


LABELS = ("größe", "猫", "a, b")


@pytest.fixture(scope="module")
def labelled(colour: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with everything said that can be said."""
    place = export_keras(
        colour,
        name="colour",
        version="1",
        repository=str(tmp_path_factory.mktemp("labelled")),
        labels=LABELS,
        scale="caffe",
        top_k=2,
    )
    return read_bundle(Path(place.root))


def test_the_card_says_what_the_model_is(labelled: Bundle) -> None:
    card = labelled.card
    assert (card.name, card.version, card.signature) == ("colour", "1", "serving_default")
    assert (card.height, card.width, card.channels) == (6, 10, "BGR")
    assert (card.normalisation.mode, card.top_k, card.tags) == ("caffe", 2, ("serve",))
    assert set(card.frameworks) == {"keras", "tensorflow"}
    assert card.digest == compute_digest(labelled.path, card)
    assert labelled.path.parts[-2:] == ("colour", "1")


def test_a_bundle_is_a_plain_saved_model(labelled: Bundle) -> None:
    """Whoever knows nothing of cards can load it."""
    signatures = load_tensorflow().saved_model.load(str(labelled.path)).signatures
    assert "serving_default" in signatures
    assert json.loads((labelled.path / "assets.extra" / "millrace.json").read_bytes())


def test_labels_may_be_any_text_one_a_line(labelled: Bundle) -> None:
    assert labelled.labels == LABELS
    file = labelled.path / "assets.extra" / "labels.txt"
    assert file.read_text(encoding="utf-8") == "größe\n猫\na, b\n"


def test_what_is_not_said_is_left_out(export: Callable[..., Bundle]) -> None:
    bundle = export(top_k=5)
    assert bundle.card.top_k == 3  # no more than there are classes
    assert bundle.labels == ()
    assert not (bundle.path / "assets.extra" / "labels.txt").exists()


def test_a_version_that_stands_is_a_conflict(export: Callable[..., Bundle]) -> None:
    first = export()
    before = (first.path / "saved_model.pb").read_bytes()
    with pytest.raises(Conflict):
        export(scale="tf")
    assert (first.path / "saved_model.pb").read_bytes() == before
    assert read_bundle(first.path).card == first.card


def test_a_repository_may_be_a_bucket(colour: Any, bucket: str) -> None:
    place = export_keras(
        colour,
        name="colour",
        version="1",
        repository=f"s3://{bucket}/models",
        settings=Settings.load(),
    )
    assert place == Location.parse(f"s3://{bucket}/models/colour/1")


@pytest.mark.parametrize("labels", [["a"], ["a", "b", "c", "d"]])
def test_labels_that_are_not_one_a_class_are_refused(
    labels: list[str], export: Callable[..., Bundle], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="3 classes"):
        export(labels=labels)
    assert not (tmp_path / "colour").exists()


def test_a_label_of_two_lines_is_refused(export: Callable[..., Bundle]) -> None:
    """It would be two labels in the file, and no worker would take the bundle."""
    with pytest.raises((ModelError, UsageError)):
        export(labels=["a", "b\nb", "c"])


def test_channels_the_model_does_not_take_are_refused(export: Callable[..., Bundle]) -> None:
    with pytest.raises(ModelError, match="3 channels"):
        export(channels="L")


@pytest.mark.parametrize(
    "facts",
    [
        {"channels": "rgb"},
        {"channels": "RGBA"},
        {"scale": "imagenet"},
        {"name": "a b"},
        {"name": "../up"},
        {"version": "1/2"},
        {"version": ""},
        {"top_k": 0},
        {"repository": "http://models"},
        {"repository": ""},
    ],
    ids=str,
)
def test_facts_that_make_no_sense_are_refused(
    facts: dict[str, Any], export: Callable[..., Bundle]
) -> None:
    with pytest.raises(UsageError):
        export(**facts)


def layered(*layers: str) -> Any:
    import keras

    makers = {
        "flat": lambda: keras.Input((12,)),
        "free": lambda: keras.Input((None, None, 3)),
        "square": lambda: keras.Input((4, 4, 3)),
        "pool": lambda: keras.layers.GlobalAveragePooling2D(),
        "dense": lambda: keras.layers.Dense(3),
    }
    return keras.Sequential([makers[name]() for name in layers])


@pytest.mark.parametrize("layers", [("flat", "dense"), ("free", "pool", "dense")])
def test_a_model_that_takes_no_pictures_of_one_size_is_refused(
    layers: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="height, width, channels"):
        export_keras(layered(*layers), name="m", version="1", repository=str(tmp_path))


def test_a_model_of_two_outputs_is_refused(tmp_path: Path) -> None:
    import keras

    source = keras.Input((4, 4, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(source)
    model = keras.Model(source, [keras.layers.Dense(2)(pooled), keras.layers.Dense(3)(pooled)])
    with pytest.raises(ModelError):
        export_keras(model, name="m", version="1", repository=str(tmp_path))
