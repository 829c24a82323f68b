"""The digit classifier: grey pictures of 8 × 8 in, probabilities out."""

from __future__ import annotations

import numpy as np

from millrace.models import build
from millrace.models.digits import HEIGHT, WIDTH


def test_it_takes_small_grey_pictures() -> None:
    assert build("digits", num_classes=10).input_shape == (None, HEIGHT, WIDTH, 1)


def test_its_answers_are_probabilities() -> None:
    model = build("digits", num_classes=7)
    pixels = np.random.default_rng(0).random((5, HEIGHT, WIDTH, 1), np.float32)
    scores = np.asarray(model(pixels))
    assert scores.shape == (5, 7)
    assert (scores >= 0).all()
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
