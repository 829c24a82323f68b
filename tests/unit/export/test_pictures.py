"""Pixels that resemble photographs."""

from __future__ import annotations

import numpy as np
import pytest

from millrace.export.pictures import pictures


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (224, 224, 3), (33, 65, 3), (1, 1, 3)])
def test_they_are_of_the_shape_that_is_asked_for(shape: tuple[int, int, int]) -> None:
    made = pictures(3, *shape)
    assert made.shape == (3, *shape)
    assert made.dtype == np.uint8


def test_the_same_seed_makes_the_same_and_another_others() -> None:
    assert np.array_equal(pictures(2, 16, 16, 3, seed=1), pictures(2, 16, 16, 3, seed=1))
    assert not np.array_equal(pictures(2, 16, 16, 3, seed=1), pictures(2, 16, 16, 3, seed=2))


def test_neighbours_go_together_and_so_do_channels_as_in_photographs() -> None:
    made = pictures(8, 96, 96, 3).astype(np.float64)
    noise = np.random.default_rng(0).uniform(0, 255, made.shape)

    def beside(images: np.ndarray) -> float:
        return float(np.corrcoef(images[:, :, :-1].ravel(), images[:, :, 1:].ravel())[0, 1])

    def channels(images: np.ndarray) -> float:
        return float(np.corrcoef(images[..., 0].ravel(), images[..., 2].ravel())[0, 1])

    assert beside(made) > 0.8 > beside(noise)
    assert 0.98 > channels(made) > 0.3 > channels(noise)


def test_they_use_the_range_and_differ_in_brightness() -> None:
    made = pictures(16, 64, 64, 3)
    assert made.min() == 0
    assert made.max() == 255
    assert np.std(made.mean(axis=(1, 2, 3))) > 5
