"""Fine-tuning MobileNetV2: normalisation, weights without a head, other sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.core.errors import ModelError
from millrace.models import build
from millrace.models.fine_tune import Base, Thaw, fine_tuning, let_learn, trunk_of
from millrace.models.recipes import Asked
from millrace.models.run_directory import open_run
from millrace.models.train import train, train_in_memory
from millrace.models.training import Watch
from millrace.models.training_data import load_data
from tests.unit.models.idx_files import write_digit_folders

SMALL = Base("mobilenet_v2", weights=None, size=(32, 32))


@pytest.fixture(scope="module")
def model() -> Any:
    return fine_tuning(SMALL).make(3)


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
    folder = write_digit_folders(tmp_path, range(60), side=32)
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


@pytest.mark.parametrize("end", [".weights.h5", ".h5"])
def test_or_with_weights_that_have_no_head(end: str, tmp_path: Path) -> None:
    """As Keras publishes them beside the others: `…_no_top.h5`."""
    import keras

    other = keras.applications.MobileNetV2(
        include_top=False, pooling="avg", weights=None, input_shape=(96, 96, 3)
    )
    file = tmp_path / f"headless{end}"
    other.save_weights(file) if "weights" in end else other.save(file)
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


def test_pictures_too_small_for_a_base_are_told() -> None:
    with pytest.raises(ModelError, match="inception_v3 cannot be made for pictures of 8 × 8"):
        fine_tuning(Base("inception_v3", None, (8, 8))).make(2)


def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """The trunk is a model within the model, and half of it does not learn."""
    folder = write_digit_folders(tmp_path / "pictures", range(60), side=32)
    recipe = fine_tuning(SMALL, Thaw(unfreeze=6), Asked(epochs=2, batch_size=16))
    data = load_data(folder, recipe.architecture)
    batches = 0

    def stop(done: int, of: int) -> None:
        nonlocal batches
        batches += 1
        if batches == 6:
            raise KeyboardInterrupt

    with open_run(tmp_path / "whole") as run:
        whole = train(recipe, data, run, source="test")
    with open_run(tmp_path / "run") as run:
        with pytest.raises(KeyboardInterrupt):
            train(recipe, data, run, source="test", watch=Watch(batch=stop))
        again = train(recipe, data, run, source="test")
    assert again.resumed_after == 1
    for one, other in zip(whole.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
