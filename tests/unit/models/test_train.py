"""A run in its directory: begun, interrupted, gone on with, finished, and never mixed up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.core.errors import BadData, Conflict, ModelError
from millrace.models.labelled import Dataset
from millrace.models.recipes import Asked, Recipe, classifier
from millrace.models.run_directory import open_run
from millrace.models.train import Trained, train, train_in_memory
from millrace.models.training import Watch
from millrace.models.training_data import load_digits


def recipe(**asked: Any) -> Recipe:
    """That of the digits with the quickest of models, dropout in it."""
    return replace(classifier("digits", Asked(**{"epochs": 3} | asked)), make=quick)


def quick(classes: int) -> Any:
    import keras

    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )


@pytest.fixture(scope="module")
def digits() -> Dataset:
    whole = load_digits(recipe().architecture)
    return replace(
        whole, seen=whole.seen.at(np.arange(200)), unseen=whole.unseen.at(np.arange(100))
    )


def trained(place: Path, data: Dataset, chosen: Recipe, **more: Any) -> Trained:
    with open_run(place) as run:
        return train(chosen, data, run, source="test", **more)


def interrupted(place: Path, data: Dataset, chosen: Recipe, batch: int) -> None:
    told = 0

    def stop(done: int, of: int) -> None:
        nonlocal told
        told += 1
        if told == batch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(place, data, chosen, watch=Watch(batch=stop))


def test_a_finished_run_has_everything_on_record(tmp_path: Path, digits: Dataset) -> None:
    done = trained(tmp_path, digits, recipe())
    with open_run(tmp_path) as run:
        record, state, result = run.record(), run.state(), run.result()
    assert record.recipe == "digits"
    assert record.flags == {
        "epochs": 3,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "seed": 0,
        "holdout": None,
    }
    assert (record.data.seen, record.data.unseen, record.data.source) == (200, 100, "test")
    assert record.data.digest == digits.digest()
    assert set(record.versions) == {"millrace", "tensorflow", "keras", "numpy"}
    assert [epoch.number for epoch in state.epochs] == [1, 2, 3]
    assert result == done.result
    assert result is not None
    assert result.accuracy == state.epochs[-1].unseen_accuracy
    assert done.resumed_after == 0


def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path: Path, digits: Dataset) -> None:
    whole = trained(tmp_path / "whole", digits, recipe())
    # Four batches to learn from and two to judge by are an epoch.
    interrupted(tmp_path / "run", digits, recipe(), batch=8)
    again = trained(tmp_path / "run", digits, recipe())
    assert again.resumed_after == 1
    assert again.result.accuracy == whole.result.accuracy
    assert again.result.loss == whole.result.loss
    assert again.result.epochs == 3
    for one, other in zip(whole.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_interrupted_before_its_first_epoch_begins_anew(
    tmp_path: Path, digits: Dataset
) -> None:
    interrupted(tmp_path, digits, recipe(), batch=1)
    assert trained(tmp_path, digits, recipe()).resumed_after == 0


def test_a_finished_run_is_not_trained_again(tmp_path: Path, digits: Dataset) -> None:
    first = trained(tmp_path, digits, recipe())

    def never(done: int, of: int) -> None:
        raise AssertionError("it trains")

    again = trained(tmp_path, digits, recipe(), watch=Watch(batch=never))
    assert again.result == first.result
    assert again.resumed_after == 3
    for one, other in zip(first.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_killed_between_its_last_epoch_and_its_result_is_finished(
    tmp_path: Path, digits: Dataset
) -> None:
    first = trained(tmp_path, digits, recipe())
    (tmp_path / "result.json").unlink()
    again = trained(tmp_path, digits, recipe())
    assert (again.result.accuracy, again.resumed_after) == (first.result.accuracy, 3)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    """A run that was interrupted in its first epoch."""
    path = tmp_path_factory.mktemp("standing")
    interrupted(path, digits, recipe(), batch=1)
    return path


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"epochs": 4}, "epochs is 3 there and 4 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"learning_rate": 0.1, "batch_size": 8}, "batch_size is 64 .* learning_rate is 0.001"),
    ],
)
def test_other_flags_are_a_conflict(
    other: dict[str, Any], words: str, standing: Path, digits: Dataset
) -> None:
    before = (standing / "run.json").read_bytes()
    with pytest.raises(Conflict, match=words):
        trained(standing, digits, recipe(**other))
    assert (standing / "run.json").read_bytes() == before


def test_another_recipe_holdout_or_other_pictures_are_a_conflict(
    standing: Path, digits: Dataset
) -> None:
    with pytest.raises(Conflict, match="recipe is digits there and other here"):
        trained(standing, digits, replace(recipe(), name="other"))
    with pytest.raises(Conflict, match=r"holdout is None there and 0\.5 here"):
        trained(standing, digits, recipe(), holdout=0.5)
    with pytest.raises(Conflict, match="pictures were others"):
        trained(standing, replace(digits, unseen=digits.seen), recipe())


def test_a_damaged_checkpoint_is_told(tmp_path: Path, digits: Dataset) -> None:
    interrupted(tmp_path, digits, recipe(), batch=8)
    (tmp_path / "checkpoints" / "epoch-0001.weights.h5").write_bytes(b"damaged")
    with pytest.raises(BadData, match="epoch-0001"):
        trained(tmp_path, digits, recipe())


def test_the_first_weights_are_put_in_once(tmp_path: Path, digits: Dataset) -> None:
    """They may be large, or need the internet."""
    begun: list[Any] = []
    chosen = replace(recipe(), begin=begun.append)
    interrupted(tmp_path, digits, chosen, batch=8)
    trained(tmp_path, digits, chosen)
    assert len(begun) == 1


def test_a_run_whose_first_weights_cannot_be_had_has_not_begun(
    tmp_path: Path, digits: Dataset
) -> None:
    """So that it can be asked for again with others."""

    def fails(model: Any) -> None:
        raise ModelError("no internet")

    with pytest.raises(ModelError):
        trained(tmp_path, digits, replace(recipe(seed=5), begin=fails))
    assert trained(tmp_path, digits, recipe(seed=6)).resumed_after == 0


def test_training_in_memory_is_the_same_training(tmp_path: Path, digits: Dataset) -> None:
    on_record = trained(tmp_path, digits, recipe()).model
    model = train_in_memory(recipe(), digits)
    for one, other in zip(on_record.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
