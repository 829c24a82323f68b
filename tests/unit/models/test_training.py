"""Fitting, epoch by epoch: it learns, it can be repeated, it can go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.core.errors import ModelError
from millrace.models import architecture, build
from millrace.models.labelled import Dataset
from millrace.models.training import Phase, Plan, Watch, fit
from millrace.models.training_data import load_digits
from millrace.models.training_record import Epoch

FACTS = architecture("digits")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """Few enough to be quick, and not a multiple of the batch."""
    whole = load_digits(FACTS)
    return replace(
        whole, seen=whole.seen.at(np.arange(300)), unseen=whole.unseen.at(np.arange(150))
    )


def seeded(seed: int = 0) -> Any:
    """Keras, whose next weights are the same each time."""
    from millrace.core.load_tensorflow import load_tensorflow

    load_tensorflow()
    import keras

    keras.utils.set_random_seed(seed)
    return keras


def new(seed: int = 0) -> Any:
    """With dropout, which draws random numbers of its own."""
    keras = seeded(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def trained(model: Any, data: Dataset, plan: Plan, **more: Any) -> list[Epoch]:
    return list(fit(model, data, FACTS, plan, **more))


def assert_equal(one: Any, other: Any) -> None:
    for left, right in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_it_learns(digits: Dataset) -> None:
    seeded()
    model = build("digits")
    epochs = trained(model, digits, Plan((Phase(6, 5e-3),), batch_size=32))
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].loss < epochs[0].loss
    assert epochs[-1].unseen_accuracy > 0.8
    pixels = digits.unseen.images.astype(np.float32) / 255
    right = np.asarray(model(pixels)).argmax(axis=1) == digits.unseen.labels
    assert right.mean() == pytest.approx(epochs[-1].unseen_accuracy, abs=1e-5)


TWO_PHASES = Plan((Phase(2, 1e-3), Phase(2, 1e-4)), batch_size=64)


@dataclass(frozen=True)
class Whole:
    """A run that nothing stopped, and its weights after each epoch."""

    model: Any
    epochs: list[Epoch]
    weights: Path


@pytest.fixture(scope="module")
def whole(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    model, epochs, path = new(), [], tmp_path_factory.mktemp("weights")
    for epoch in fit(model, digits, FACTS, TWO_PHASES):
        model.save_weights(path / f"{epoch.number}.weights.h5")
        epochs.append(epoch)
    return Whole(model, epochs, path)


@pytest.mark.parametrize("done", [1, 2, 3, 4])
def test_going_on_is_as_if_it_had_not_stopped(done: int, digits: Dataset, whole: Whole) -> None:
    """Whether it stopped within a phase, between two, or at the end."""
    model, file = new(seed=99), whole.weights / f"{done}.weights.h5"
    rest = trained(
        model, digits, TWO_PHASES, done=done, restore=lambda model: model.load_weights(file)
    )
    assert_equal(whole.model, model)
    assert [epoch.number for epoch in rest] == list(range(done + 1, 5))
    assert [(e.loss, e.unseen_accuracy) for e in rest] == [
        (e.loss, e.unseen_accuracy) for e in whole.epochs[done:]
    ]


def test_the_same_seed_trains_the_same_model_and_another_does_not(
    digits: Dataset, whole: Whole
) -> None:
    one, other = new(), new()
    first = replace(TWO_PHASES, phases=TWO_PHASES.phases[:1])
    trained(one, digits, first)
    trained(other, digits, replace(first, seed=4))
    same = new(seed=5)
    same.load_weights(whole.weights / "2.weights.h5")
    assert_equal(one, same)
    assert not np.array_equal(one.get_weights()[0], other.get_weights()[0])


def test_phases_follow_one_another_each_with_its_rate(digits: Dataset) -> None:
    seen: list[float] = []
    prepared: list[str] = []
    model = new()
    plan = Plan(
        (
            Phase(1, 1e-3, lambda model: prepared.append("first")),
            Phase(0, 1.0, lambda model: prepared.append("never")),
            Phase(1, 1e-4, lambda model: prepared.append("second")),
        )
    )
    watch = Watch(epoch=lambda epoch: seen.append(float(model.optimizer.learning_rate)))
    trained(model, digits, plan, watch=watch)
    assert prepared == ["first", "second"]
    assert seen == pytest.approx([1e-3, 1e-4])


def test_who_watches_is_told_of_every_batch_and_may_stop_it(digits: Dataset) -> None:
    told: list[tuple[int, int]] = []

    def batch(done: int, of: int) -> None:
        told.append((done, of))
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(new(), digits, Plan((Phase(1, 1e-3),)), watch=Watch(batch=batch))
    assert told == [(1, 5), (2, 5), (3, 5)]


def test_a_model_that_diverges_is_told(digits: Dataset) -> None:
    model = new()
    weights = model.get_weights()
    weights[0][:] = np.inf
    model.set_weights(weights)
    with pytest.raises(ModelError, match="after epoch 1 the model is no numbers") as caught:
        trained(model, digits, Plan((Phase(2, 1e-3),)))
    assert "--learning-rate" in (caught.value.hint or "")
