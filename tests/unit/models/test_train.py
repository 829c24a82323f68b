"""A run in its directory: begun, interrupted, gone on with, finished, and never mixed up."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
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
    return replace(classifier("digits", Asked(**{"epochs": 2} | asked)), make=quick)


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


@dataclass(frozen=True)
class Stood:
    """A run's directory, and what came of it."""

    path: Path
    done: Trained

    def copy(self, to: Path) -> Path:
        return shutil.copytree(self.path, to / "run")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Stood:
    """A run that nothing stopped."""
    path = tmp_path_factory.mktemp("whole")
    return Stood(path, trained(path, digits, recipe()))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    """The same run, interrupted in its second epoch: four batches to learn from and two to
    judge by are one."""
    path = tmp_path_factory.mktemp("stopped")
    interrupted(path, digits, recipe(), batch=8)
    return path


def assert_equal(one: Any, other: Any) -> None:
    for left, right in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_finished_run_has_everything_on_record(whole: Stood, digits: Dataset) -> None:
    with open_run(whole.path) as run:
        record, state, result = run.record(), run.state(), run.result()
    assert record.recipe == "digits"
    assert record.flags == {
        "epochs": 2,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "seed": 0,
        "holdout": None,
    }
    assert (record.data.seen, record.data.unseen, record.data.source) == (200, 100, "test")
    assert record.data.digest == digits.digest()
    assert set(record.versions) == {"millrace", "tensorflow", "keras", "numpy"}
    assert [epoch.number for epoch in state.epochs] == [1, 2]
    assert result == whole.done.result
    assert result is not None
    assert result.accuracy == state.epochs[-1].unseen_accuracy
    assert whole.done.resumed_after == 0


def test_an_interrupted_run_ends_as_one_that_was_not(
    tmp_path: Path, whole: Stood, stopped: Path, digits: Dataset
) -> None:
    def never(model: Any) -> None:
        raise AssertionError("first weights may be large, or need the internet")

    place = shutil.copytree(stopped, tmp_path / "run")
    again = trained(place, digits, replace(recipe(), begin=never))
    assert again.resumed_after == 1
    assert again.result.accuracy == whole.done.result.accuracy
    assert again.result.loss == whole.done.result.loss
    assert again.result.epochs == 2
    assert_equal(whole.done.model, again.model)


def test_a_run_interrupted_before_its_first_epoch_begins_anew(
    tmp_path: Path, whole: Stood, digits: Dataset
) -> None:
    begun: list[Any] = []
    chosen = replace(recipe(), begin=begun.append)
    interrupted(tmp_path, digits, chosen, batch=1)
    again = trained(tmp_path, digits, chosen)
    assert again.resumed_after == 0
    assert again.result.loss == whole.done.result.loss
    assert len(begun) == 2


def test_a_finished_run_is_not_trained_again(tmp_path: Path, whole: Stood, digits: Dataset) -> None:
    def never(done: int, of: int) -> None:
        raise AssertionError("it trains")

    again = trained(whole.copy(tmp_path), digits, recipe(), watch=Watch(batch=never))
    assert again.result == whole.done.result
    assert again.resumed_after == 2
    assert_equal(whole.done.model, again.model)


def test_a_run_killed_between_its_last_epoch_and_its_result_is_finished(
    tmp_path: Path, whole: Stood, digits: Dataset
) -> None:
    place = whole.copy(tmp_path)
    (place / "result.json").unlink()
    again = trained(place, digits, recipe())
    assert (again.result.accuracy, again.resumed_after) == (whole.done.result.accuracy, 2)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    """A run that was interrupted in its first epoch."""
    path = tmp_path_factory.mktemp("standing")
    interrupted(path, digits, recipe(), batch=1)
    return path


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"epochs": 4}, "epochs is 2 there and 4 here"),
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


def test_a_damaged_checkpoint_is_told(tmp_path: Path, stopped: Path, digits: Dataset) -> None:
    place = shutil.copytree(stopped, tmp_path / "run")
    (place / "checkpoints" / "epoch-0001.weights.h5").write_bytes(b"damaged")
    with pytest.raises(BadData, match="epoch-0001"):
        trained(place, digits, recipe())


def test_a_run_whose_first_weights_cannot_be_had_has_not_begun(
    tmp_path: Path, digits: Dataset
) -> None:
    """So that it can be asked for again with others."""

    def fails(model: Any) -> None:
        raise ModelError("no internet")

    with pytest.raises(ModelError):
        trained(tmp_path, digits, replace(recipe(seed=5), begin=fails))
    assert not (tmp_path / "run.json").exists()
    interrupted(tmp_path, digits, recipe(seed=6), batch=1)


def test_training_in_memory_is_the_same_training(whole: Stood, digits: Dataset) -> None:
    assert_equal(whole.done.model, train_in_memory(recipe(), digits))
