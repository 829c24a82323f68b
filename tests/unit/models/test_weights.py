"""Weights from files: into the model they were saved from, and into no other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from millrace.core.errors import ModelError, ModelNotFound
from millrace.models import build
from millrace.models.weights import load_weights

PIXELS = np.random.default_rng(4).random((3, 8, 8, 1), np.float32)


@pytest.fixture(scope="module")
def trained() -> Any:
    """As good as: its answers are those of nobody else's random weights."""
    return build("digits")


def answers(model: Any) -> npt.NDArray[np.float32]:
    return np.asarray(model(PIXELS), np.float32)


def save_old_weights(model: Any, path: Path) -> None:
    """As Keras 2 saved them, and Keras 3 reads but no longer writes."""
    whole = path.with_name("whole.h5")
    model.save(whole)
    with h5py.File(whole, "r") as old, h5py.File(path, "w") as new:
        weights = old["model_weights"]
        new.attrs.update(weights.attrs)
        for name in weights:
            weights.copy(name, new)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("it.weights.h5", lambda model, path: model.save_weights(path)),
        ("it.h5", save_old_weights),
        ("old under the new name.weights.h5", save_old_weights),
        ("whole.h5", lambda model, path: model.save(path)),
        ("whole.keras", lambda model, path: model.save(path)),
    ],
)
def test_saved_weights_answer_as_they_did(
    name: str, save: Callable[[Any, Path], None], trained: Any, tmp_path: Path
) -> None:
    save(trained, tmp_path / name)
    assert not np.allclose(answers(build("digits")), answers(trained), atol=1e-3)
    for path in (tmp_path / name, str(tmp_path / name)):
        np.testing.assert_array_equal(answers(build("digits", weights=path)), answers(trained))


def test_what_a_file_holds_decides_not_its_name(trained: Any, tmp_path: Path) -> None:
    trained.save_weights(tmp_path / "it.weights.h5")
    shutil.move(tmp_path / "it.weights.h5", tmp_path / "renamed.h5")
    again = build("digits", weights=tmp_path / "renamed.h5")
    np.testing.assert_array_equal(answers(again), answers(trained))


def test_an_optimiser_in_the_file_is_passed_over(trained: Any, tmp_path: Path) -> None:
    model = build("digits")
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    model.fit(PIXELS, np.array([1, 2, 3]), verbose=0)
    model.save_weights(tmp_path / "it.weights.h5")
    again = build("digits", weights=tmp_path / "it.weights.h5")
    np.testing.assert_array_equal(answers(again), answers(model))


def refused(path: Path, *, classes: int = 10) -> str:
    with pytest.raises(ModelError) as caught:
        build("digits", num_classes=classes, weights=path)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("name", ["it.weights.h5", "it.h5", "it.keras"])
def test_another_number_of_classes_is_named(name: str, trained: Any, tmp_path: Path) -> None:
    path = tmp_path / name
    (trained.save_weights if ".weights." in name else trained.save)(path)
    message = refused(path, classes=3)
    assert message == (
        f"{path} does not fit digits: digits/probabilities/kernel is (64, 10) there, "
        "and (64, 3) in the model"
    )


def network(*widths: int) -> Any:
    """Of another make than `digits`, though it takes the same pictures."""
    import keras
    from keras import layers

    convolutions = [
        layers.Conv2D(width, 3, padding="same", activation="relu", name=f"c{number}")
        for number, width in enumerate(widths)
    ]
    head = [
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ]
    return keras.Sequential([keras.Input((8, 8, 1)), *convolutions, *head])


@pytest.mark.parametrize("old", [False, True])
def test_fewer_layers_than_the_model_has_are_refused(old: bool, tmp_path: Path) -> None:
    path = tmp_path / ("it.h5" if old else "it.weights.h5")
    model = network(32)
    model.save(path) if old else model.save_weights(path)
    told = "found 3 saved layers" if old else "expected 2 variables, but received 0"
    assert told in refused(path)


@pytest.mark.parametrize("old", [False, True])
def test_more_layers_than_the_model_has_are_refused(old: bool, tmp_path: Path) -> None:
    """Keras itself would take the first two, which fit, and pass over the third."""
    path = tmp_path / ("it.h5" if old else "it.weights.h5")
    model = network(32, 32, 32)
    model.save(path) if old else model.save_weights(path)
    told = "found 5 saved layers" if old else "holds 10 arrays of weights, and the model has 8"
    assert told in refused(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.weights.h5"
    with pytest.raises(ModelNotFound, match=f"there is no weights file {path}"):
        build("digits", weights=path)


def test_a_file_in_the_home_directory(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    trained.save_weights(tmp_path / "it.weights.h5")
    model = build("digits")
    load_weights(model, Path("~/it.weights.h5"))
    np.testing.assert_array_equal(answers(model), answers(trained))


@pytest.mark.parametrize("content", [b"", b"not weights at all\n" * 100])
def test_a_file_of_something_else(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "it.weights.h5"
    path.write_bytes(content)
    assert f"{path} holds no weights" in refused(path)


def test_a_truncated_file(trained: Any, tmp_path: Path) -> None:
    path = tmp_path / "it.weights.h5"
    trained.save_weights(path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert str(path) in refused(path)


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    archive = shutil.make_archive(str(tmp_path / "it"), "zip", tmp_path / "folder")
    assert "does not fit digits" in refused(Path(archive))
