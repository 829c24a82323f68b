"""From Python, too, a bundle is compared with its model before it is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.core.bundle import read_bundle
from millrace.core.errors import ModelError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.export import export_keras
from millrace.export.check import refuse_disagreement
from millrace.export.predict import keras_predict


def network(seed: int) -> Any:
    load_tensorflow()
    import keras

    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            keras.layers.Conv2D(4, 3, activation="tanh"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


@pytest.mark.parametrize("scale", ["tf", "caffe"])
def test_a_bundle_is_told_from_that_of_another_model(scale: str, tmp_path: Path) -> None:
    place = export_keras(network(1), name="m", repository=str(tmp_path), scale=scale)
    bundle = read_bundle(Path(place.root))
    refuse_disagreement(bundle, keras_predict(network(1), bundle.card))
    with pytest.raises(ModelError, match="does not answer as the model it was made of: 8 images"):
        refuse_disagreement(bundle, keras_predict(network(2), bundle.card))


def test_what_answers_no_numbers_is_not_published_and_nobody_has_to_ask(tmp_path: Path) -> None:
    model = network(1)
    model.layers[-1].bias.assign(np.full(3, np.nan, np.float32))
    with pytest.raises(ModelError, match="answers NaN or infinity"):
        export_keras(model, name="m", repository=str(tmp_path))
    assert not [*tmp_path.iterdir()]
    export_keras(model, name="m", repository=str(tmp_path), check=None)
