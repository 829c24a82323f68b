"""PNASNet-5 beside what its paper and its authors' own tests say of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from millrace.models import build, pnasnet5
from tests.unit.models.cost import multiply_adds, trainable


@pytest.fixture(scope="module")
def mobile() -> Any:
    return build("pnasnet5_mobile")


def test_it_is_as_large_as_the_paper_says(mobile: Any) -> None:
    """PNASNet-5 (N = 3, F = 54): 5.1 M parameters; 588 M multiply-adds, or nearly."""
    assert round(trainable(mobile) / 1e6, 1) == 5.1
    assert multiply_adds(mobile) == pytest.approx(588e6, rel=0.005)


def test_its_cells_are_of_the_shapes_the_authors_test(mobile: Any) -> None:
    """`testAllEndPointsShapesMobileModel` of slim's `nets/nasnet/pnasnet_test.py`."""
    shapes = {"cell_stem_1": (28, 28, 135)}
    shapes |= {f"cell_{number}": (28, 28, 270) for number in range(3)}
    shapes |= {f"cell_{number}": (14, 14, 540) for number in range(3, 6)}
    shapes |= {f"cell_{number}": (7, 7, 1080) for number in range(6, 9)}
    found = {name: mobile.get_layer(f"{name}_cell_output").output.shape for name in shapes}
    assert found == {name: (None, *shape) for name, shape in shapes.items()}
    assert mobile.get_layer("global_pool").output.shape == (None, 1080)


def test_no_layer_is_there_that_the_authors_have_not(mobile: Any) -> None:
    """`testBuildNonExistingLayerMobileModel`, likewise: what has the filters needs no 1 × 1."""
    names = {layer.name for layer in mobile.layers}
    assert "cell_stem_0_1x1" in names
    assert "cell_stem_0_comb_iter_0_right_1x1" in names  # the stem's 32 filters are not 13
    assert "cell_stem_1_comb_iter_0_right_1x1" not in names


@pytest.fixture(scope="module")
def little() -> Any:
    return pnasnet5.make("little", pnasnet5.Size(3, 8, 4), side=31, num_classes=7)


def test_its_answers_are_probabilities(little: Any) -> None:
    pixels = np.random.default_rng(0).uniform(-1, 1, (3, 31, 31, 3)).astype(np.float32)
    scores = np.asarray(little(pixels))
    assert scores.shape == (3, 7)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_a_cell_halves_by_taking_every_other_pixel_on_two_paths() -> None:
    """The one path from the first pixel on, the other from the second, zeros beyond the edge."""
    import keras

    network = pnasnet5._Network()
    picture = keras.Input((5, 5, 1))
    halved = network._halved(picture, 2, "it")
    model = keras.Model(picture, halved)
    for number in (1, 2):
        model.get_layer(f"it_path{number}_conv").set_weights([np.ones((1, 1, 1, 1), np.float32)])
    pixels = np.arange(1, 26, dtype=np.float32).reshape(1, 5, 5, 1)
    scores = np.asarray(model(pixels))[0] * np.sqrt(1.001)  # less the untrained normalisation
    np.testing.assert_allclose(scores[..., 0], [[1, 3, 5], [11, 13, 15], [21, 23, 25]], rtol=1e-5)
    np.testing.assert_allclose(scores[..., 1], [[7, 9, 0], [17, 19, 0], [0, 0, 0]], rtol=1e-5)


def test_it_learns(little: Any) -> None:
    """Gradients reach every weight but the biases that normalisation makes up for."""
    import tensorflow as tf

    pixels = np.random.default_rng(0).uniform(-1, 1, (4, 31, 31, 3)).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(tf.math.log(little(pixels, training=True)[:, 3]))
    gradients = tape.gradient(loss, [weight.value for weight in little.trainable_weights])
    dead = [
        weight.path
        for weight, gradient in zip(little.trainable_weights, gradients, strict=True)
        if gradient is None or not np.asarray(gradient).any()
    ]
    assert dead == []
