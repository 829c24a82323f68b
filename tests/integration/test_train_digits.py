"""Training on scikit-learn's digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from millrace.models.train_digits import Digits, load_digits, train


@pytest.fixture(scope="module")
def digits() -> tuple[Digits, Digits]:
    return load_digits()


def scores(model: Any, data: Digits) -> npt.NDArray[np.float32]:
    pixels = data.images[..., np.newaxis].astype(np.float32) / 255
    return np.asarray(model(pixels), np.float32)


def test_a_third_is_held_out(digits: tuple[Digits, Digits]) -> None:
    seen, unseen = digits
    assert len(seen.images) + len(unseen.images) == 1797
    assert len(unseen.images) == 1797 // 3
    for data in digits:
        assert data.images.dtype == np.uint8
        assert data.images.shape[1:] == (8, 8)
        assert (data.images.min(), data.images.max()) == (0, 255)
        assert data.labels.shape == (len(data.images),)
        assert set(data.labels.tolist()) == set(range(10))


def test_every_digit_is_seen_as_often_as_held_out(digits: tuple[Digits, Digits]) -> None:
    seen, unseen = (np.bincount(data.labels) / len(data.labels) for data in digits)
    np.testing.assert_allclose(seen, unseen, atol=0.01)


def test_the_split_is_always_the_same(digits: tuple[Digits, Digits]) -> None:
    for data, again in zip(digits, load_digits(), strict=True):
        np.testing.assert_array_equal(data.images, again.images)
        np.testing.assert_array_equal(data.labels, again.labels)


def test_it_learns_to_read_digits(digits: tuple[Digits, Digits]) -> None:
    seen, unseen = digits
    right = scores(train(seen), unseen).argmax(axis=1) == unseen.labels
    assert right.mean() > 0.95


def test_the_same_seed_trains_the_same_model(digits: tuple[Digits, Digits]) -> None:
    seen, unseen = digits
    few = Digits(seen.images[:256], seen.labels[:256])
    one, same = (scores(train(few, epochs=1, seed=3), unseen) for _ in range(2))
    np.testing.assert_allclose(one, same, atol=1e-6)
