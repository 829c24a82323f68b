"""Training on scikit-learn's digits, as the demo does."""

from __future__ import annotations

import numpy as np

from millrace.models.recipes import classifier
from millrace.models.train import train_in_memory
from millrace.models.training_data import load_digits


def test_it_learns_to_read_digits() -> None:
    recipe = classifier("digits")
    data = load_digits(recipe.architecture)
    model = train_in_memory(recipe, data)
    pixels = data.unseen.images.astype(np.float32) / 255
    right = np.asarray(model(pixels)).argmax(axis=1) == data.unseen.labels
    assert right.mean() > 0.95
