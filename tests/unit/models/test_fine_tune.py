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

SMALL = Base("digits", weights=None)


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
    assert model.input_shape == (None, 8, 8, 1)
    scores = np.asarray(model(np.zeros((2, 8, 8, 1), np.float32)))
    assert scores.shape == (2, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_the_base_stands_still_at_first(model: Any) -> None:
    let_learn(model, top=0)
    head = model.get_layer(INFERENCE_LAYER)
    assert [v.path for v in model.trainable_variables] == [v.path for v in head.variables]


def test_then_its_top_layers_learn_too(model: Any) -> None:
    let_learn(model, top=3)
    layers = trunk_of(model).layers
    assert [layer.trainable for layer in layers] == [False] * (len(layers) - 3) + [True] * 3
    let_learn(model, top=10_000)
    assert all(layer.trainable for layer in layers)


def test_half_of_the_epochs_are_frozen_unless_said_otherwise() -> None:
    def phases(thaw: Thaw, epochs: int) -> list[tuple[int, float]]:
        plan = fine_tuning(SMALL, thaw, Asked(epochs=epochs, learning_rate=0.01)).plan
        return [(phase.epochs, round(phase.learning_rate, 9)) for phase in plan.phases]

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
        "base": "digits",
        "weights": "none",
        "size": "8x8",
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


def test_weights_of_another_network_are_refused(digit_weights: Path) -> None:
    recipe = fine_tuning(Base("mnist_cnn", weights=str(digit_weights)))
    with pytest.raises(ModelError, match=r"digits\.weights\.h5 does not fit mnist_cnn"):
        recipe.begin(recipe.make(2))


def test_weights_that_fit_one_size_alone_are_told(digit_weights: Path) -> None:
    recipe = fine_tuning(Base("digits", weights=str(digit_weights), size=(16, 16)))
    with pytest.raises(ModelError, match="its own size alone"):
        recipe.begin(recipe.make(2))


def test_weights_nobody_publishes_are_refused() -> None:
    recipe = fine_tuning(Base("digits"))
    with pytest.raises(ModelError, match="no ImageNet weights of digits"):
        recipe.begin(recipe.make(2))


def test_an_unknown_base_is_answered_with_those_there_are() -> None:
    with pytest.raises(ModelNotFound, match="mobilnet"):
        fine_tuning(Base("mobilnet"))
