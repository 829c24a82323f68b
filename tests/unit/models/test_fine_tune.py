"""Fine-tuning: what learns when, and what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.core.errors import ModelError, ModelNotFound, UsageError
from millrace.models import build
from millrace.models.fine_tune import (
    INFERENCE_LAYER,
    Base,
    Thaw,
    fine_tuning,
    let_learn,
    trunk_of,
)
from millrace.models.recipes import Asked
from millrace.models.train import train_in_memory
from millrace.models.training import Watch
from millrace.models.training_data import load_data
from tests.unit.models.idx_files import write_digit_folders

SMALL = Base("mobilenet_v2", weights=None, size=(32, 32))


@pytest.fixture(scope="module")
def model() -> Any:
    return fine_tuning(SMALL).make(3)


@pytest.fixture(scope="module")
def digit_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "digits.weights.h5"
    build("digits").save_weights(path)
    return path


def test_the_head_is_a_softmax_named_for_whoever_loads_the_graph(model: Any) -> None:
    assert model.layers[-1].name == INFERENCE_LAYER == "inferenceLayer"
    assert model.input_shape == (None, 32, 32, 3)
    scores = np.asarray(model(np.zeros((2, 32, 32, 3), np.float32)))
    assert scores.shape == (2, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_the_base_stands_still_at_first(model: Any) -> None:
    let_learn(model, top=0)
    head = model.get_layer(INFERENCE_LAYER)
    assert [v.path for v in model.trainable_variables] == [v.path for v in head.variables]


def test_then_its_top_layers_learn_but_for_normalisation(model: Any) -> None:
    let_learn(model, top=20)
    layers = trunk_of(model).layers
    learning = [layer for layer in layers if layer.trainable]
    assert set(learning) <= set(layers[-20:])
    kinds = {type(layer).__name__ for layer in learning}
    assert "Conv2D" in kinds
    assert "BatchNormalization" not in kinds
    assert len(model.trainable_variables) == 2 + sum(len(layer.weights) for layer in learning)
    let_learn(model, top=10_000)
    assert trunk_of(model).layers[1].trainable


def test_training_moves_what_learns_and_nothing_else(tmp_path: Path) -> None:
    folder = write_digit_folders(tmp_path, 60, side=32)
    recipe = fine_tuning(SMALL, Thaw(unfreeze=6), Asked(epochs=2, batch_size=16))
    data = load_data(folder, recipe.architecture)
    begun: list[Any] = []
    after: list[Any] = []
    recipe_model = recipe.make

    def keep(classes: int) -> Any:
        model = recipe_model(classes)
        begun.append(model)
        after.append(trunk_of(model).get_weights())
        return model

    watch = Watch(epoch=lambda epoch: after.append(trunk_of(begun[0]).get_weights()))
    from dataclasses import replace

    model = train_in_memory(replace(recipe, make=keep), data, watch)
    before, frozen, thawed = after
    for one, other in zip(before, frozen, strict=True):
        np.testing.assert_array_equal(one, other)
    trunk = trunk_of(model)
    moved = {
        v.path
        for v, one, other in zip(trunk.weights, frozen, thawed, strict=True)
        if not np.array_equal(one, other)
    }
    top = {v.path for layer in trunk.layers[-6:] for v in layer.weights}
    normalising = {v.path for v in trunk.weights if "_BN" in v.path or "bn" in v.path}
    assert moved
    assert moved <= top - normalising


def test_half_of_the_epochs_are_frozen_unless_said_otherwise() -> None:
    def phases(thaw: Thaw, epochs: int) -> list[tuple[int, float]]:
        plan = fine_tuning(SMALL, thaw, Asked(epochs=epochs, learning_rate=0.01)).plan
        return [(phase.epochs, pytest.approx(phase.learning_rate)) for phase in plan.phases]

    assert phases(Thaw(), 3) == [(2, 0.01), (1, 0.001)]
    assert phases(Thaw(), 1) == [(1, 0.01), (0, 0.001)]
    assert phases(Thaw(unfreeze=0), 3)[0] == (3, 0.01)
    assert phases(Thaw(frozen_epochs=0), 3)[1] == (3, 0.001)
    with pytest.raises(UsageError, match="--frozen-epochs 4 of 3 epochs"):
        phases(Thaw(frozen_epochs=4), 3)


def test_the_flags_tell_two_runs_apart() -> None:
    flags = fine_tuning(SMALL, Thaw(5), Asked(epochs=4)).flags
    assert flags == {
        "epochs": 4,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "seed": 0,
        "base": "mobilenet_v2",
        "weights": "none",
        "size": "32x32",
        "unfreeze": 5,
        "frozen_epochs": 2,
    }


def test_the_base_begins_with_the_weights_of_a_classifier(digit_weights: Path) -> None:
    recipe = fine_tuning(Base("digits", weights=str(digit_weights)))
    model = recipe.make(2)
    recipe.begin(model)
    source = build("digits", weights=digit_weights)
    found = trunk_of(model).get_weights()
    for one, other in zip(found, source.get_weights()[: len(found)], strict=True):
        np.testing.assert_array_equal(one, other)


def test_or_with_weights_that_have_no_head(tmp_path: Path) -> None:
    """As Keras publishes them beside the others: `…_no_top.h5`."""
    import keras

    other = keras.applications.MobileNetV2(
        include_top=False, pooling="avg", weights=None, input_shape=(96, 96, 3)
    )
    for name in ("headless.weights.h5", "headless.h5"):
        other.save_weights(tmp_path / "x.weights.h5") if "weights" in name else other.save(
            tmp_path / name
        )
        file = tmp_path / ("x.weights.h5" if "weights" in name else name)
        recipe = fine_tuning(Base("mobilenet_v2", weights=str(file), size=(32, 32)))
        model = recipe.make(2)
        recipe.begin(model)
        for one, kept in zip(trunk_of(model).get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(one, kept)


def test_a_base_of_another_size_has_the_weights_of_its_own(tmp_path: Path) -> None:
    source = build("mobilenet_v2")
    source.save_weights(tmp_path / "own.weights.h5")
    recipe = fine_tuning(Base("mobilenet_v2", str(tmp_path / "own.weights.h5"), (32, 48)))
    model = recipe.make(2)
    recipe.begin(model)
    assert model.input_shape == (None, 32, 48, 3)
    for one, other in zip(trunk_of(model).get_weights(), source.get_weights(), strict=False):
        np.testing.assert_array_equal(one, other)


def test_weights_of_another_network_are_refused(digit_weights: Path) -> None:
    recipe = fine_tuning(Base("mobilenet_v2", weights=str(digit_weights), size=(32, 32)))
    with pytest.raises(ModelError, match=r"digits\.weights\.h5 does not fit mobilenet"):
        recipe.begin(recipe.make(2))


def test_weights_that_fit_one_size_alone_are_told(digit_weights: Path) -> None:
    recipe = fine_tuning(Base("digits", weights=str(digit_weights), size=(16, 16)))
    with pytest.raises(ModelError, match="its own size alone"):
        recipe.begin(recipe.make(2))


def test_weights_nobody_publishes_are_refused() -> None:
    recipe = fine_tuning(Base("digits"))
    with pytest.raises(ModelError, match="no ImageNet weights of digits"):
        recipe.begin(recipe.make(2))


def test_pictures_too_small_for_a_base_are_told() -> None:
    with pytest.raises(ModelError, match="inception_v3 cannot be made for pictures of 8 × 8"):
        fine_tuning(Base("inception_v3", None, (8, 8))).make(2)


def test_an_unknown_base_is_answered_with_those_there_are() -> None:
    with pytest.raises(ModelNotFound, match="mobilnet"):
        fine_tuning(Base("mobilnet"))
