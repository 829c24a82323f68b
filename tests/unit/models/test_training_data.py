"""What a directory of training data holds, and which of it is unseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from millrace.core.errors import BadData, ObjectNotFound, UsageError
from millrace.models import architecture
from millrace.models.training_data import load_data, load_digits
from tests.unit.models.idx_files import (
    digit_scans,
    write_digit_folders,
    write_idx,
    write_pair,
)

MNIST, DIGITS = architecture("mnist_cnn"), architecture("digits")


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_test_set_is_the_unseen_half(tmp_path: Path, end: str) -> None:
    write_pair(tmp_path, "train", 60, end=end)
    write_pair(tmp_path, "t10k", 30, end=end)
    data = load_data(tmp_path, DIGITS)
    images, labels = digit_scans(60)
    np.testing.assert_array_equal(data.seen.images[..., 0], images)
    np.testing.assert_array_equal(data.seen.labels, labels)
    np.testing.assert_array_equal(data.unseen.images[..., 0], images[:30])
    assert data.classes == tuple("0123456789")


@pytest.mark.parametrize("name", ["train", "t10k"])
def test_one_pair_alone_is_split(tmp_path: Path, name: str) -> None:
    write_pair(tmp_path, name, 100, side=28)
    data = load_data(tmp_path, MNIST)
    assert (len(data.seen), len(data.unseen)) == (50, 50)
    assert data.seen.images.shape == (50, 28, 28, 1)
    assert len(load_data(tmp_path, MNIST, 0.2).unseen) == 20
    # The same halves, however often they are asked for.
    assert data.digest() == load_data(tmp_path, MNIST).digest()


def test_pictures_become_as_large_as_the_input(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", 40, side=28)
    assert load_data(tmp_path, DIGITS).seen.images.shape == (20, 8, 8, 1)


def test_any_numbers_may_be_labels(tmp_path: Path) -> None:
    """Letters are numbered from 1 in EMNIST."""
    images, labels = digit_scans(40)
    write_idx(tmp_path / "train-images-idx3-ubyte", images)
    write_idx(tmp_path / "train-labels-idx1-ubyte", labels % 3 + 1)
    data = load_data(tmp_path, DIGITS)
    assert data.classes == ("1", "2", "3")
    assert set(data.seen.labels.tolist()) == {0, 1, 2}


def test_without_idx_files_folders_are_classes(tmp_path: Path) -> None:
    write_digit_folders(tmp_path, range(100))
    data = load_data(tmp_path, MNIST)
    assert data.classes == tuple("0123456789")
    assert data.seen.images.shape == (80, 28, 28, 1)


def test_a_share_of_a_test_set_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", 60)
    write_pair(tmp_path, "t10k", 30)
    with pytest.raises(UsageError, match="leave out --holdout"):
        load_data(tmp_path, DIGITS, 0.5)


def test_a_place_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound):
        load_data(tmp_path / "nowhere", DIGITS)


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        (LABELS, None, "holds no train-labels-idx1-ubyte"),
        (IMAGES, None, "holds no train-images-idx3-ubyte"),
        (LABELS, np.zeros(19, np.uint8), "20 pictures and 19 labels"),
        (LABELS, np.zeros((20, 1), np.uint8), "holds no labels"),
        (LABELS, np.zeros(20, np.int32), "holds no labels: int32"),
        (IMAGES, np.zeros(20, np.uint8), "holds no pictures"),
        (IMAGES, np.zeros((20, 8, 8), np.float32), "holds no pictures: float32"),
        (IMAGES, np.zeros((20, 0, 8), np.uint8), "holds no pictures"),
        (IMAGES, np.zeros((0, 8, 8), np.uint8), "holds no pictures"),
        (LABELS, np.zeros(20, np.uint8), "one class alone, '0'"),
    ],
)
def test_files_that_do_not_go_together_are_refused(
    name: str,
    values: npt.NDArray[Any] | None,
    words: str,
    tmp_path: Path,
) -> None:
    write_pair(tmp_path, "train", 20)
    (tmp_path / name).unlink()
    if values is not None:
        write_idx(tmp_path / name, values)
    with pytest.raises(BadData, match=words):
        load_data(tmp_path, DIGITS)


def test_idx_files_under_other_names_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "emnist-letters-train", 20)
    with pytest.raises(BadData, match="none of train-images-idx3-ubyte"):
        load_data(tmp_path, DIGITS)


def test_a_third_of_the_digits_is_held_out() -> None:
    data = load_digits(DIGITS)
    assert len(data.seen) + len(data.unseen) == 1797
    assert len(data.unseen) == 1797 // 3
    for part in (data.seen, data.unseen):
        assert part.images.dtype == np.uint8
        assert part.images.shape[1:] == (8, 8, 1)
        assert (part.images.min(), part.images.max()) == (0, 255)
    seen, unseen = (np.bincount(part.labels) / len(part) for part in (data.seen, data.unseen))
    np.testing.assert_allclose(seen, unseen, atol=0.01)
