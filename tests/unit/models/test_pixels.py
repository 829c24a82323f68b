"""Pixels become a model's input as Keras's own preprocessing has it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from millrace.core.load_tensorflow import load_tensorflow
from millrace.models import architecture
from millrace.models.pixels import depth, model_input
from tests.support import random_pixels


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_named_scales_are_those_of_keras(mode: str) -> None:
    load_tensorflow()
    from keras.applications.imagenet_utils import preprocess_input

    facts = replace(architecture("digits"), channels="RGB", scale=mode)
    pixels = random_pixels(5, (2, 4, 4, 3))
    expected = preprocess_input(pixels.astype(np.float32), mode=mode, data_format="channels_last")
    found = model_input(pixels, facts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_custom_scale_is_mean_and_scale() -> None:
    pixels = random_pixels(5, (2, 4, 4, 1))
    facts = architecture("mnist_cnn")
    np.testing.assert_allclose(model_input(pixels, facts), pixels.astype(np.float32) / 255)
    assert depth(facts) == 1
