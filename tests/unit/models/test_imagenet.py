"""What Keras publishes: the preprocessing it says, and what is said where it cannot be fetched."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import numpy as np
import pytest

from millrace.core.card import Normalisation
from millrace.core.errors import ModelError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.models import architecture, architectures, build
from millrace.models.imagenet import CLASSES, labels
from tests.support import random_pixels

PUBLISHED = {
    "xception": "xception",
    "resnet50": "resnet50",
    "inception_v3": "inception_v3",
    "mobilenet_v2": "mobilenet_v2",
    "nasnet_mobile": "nasnet",
    "nasnet_large": "nasnet",
    "efficientnet_v2_b0": "efficientnet_v2",
    "efficientnet_v2_s": "efficientnet_v2",
}
"""Our names, and the modules of `keras.applications`."""


def test_all_that_keras_publishes_is_here() -> None:
    assert set(PUBLISHED) == {name for name in architectures() if architecture(name).imagenet}


@pytest.mark.parametrize("name", PUBLISHED)
def test_pixels_are_normalised_as_keras_does_it(name: str) -> None:
    load_tensorflow()
    import keras

    rgb = random_pixels(1, (2, 5, 5, 3)).astype(np.float32)
    expected = getattr(keras.applications, PUBLISHED[name]).preprocess_input(rgb.copy())
    normalisation = Normalisation.parse(architecture(name).scale)
    ordered = rgb[..., ::-1] if normalisation.mode == "caffe" else rgb
    mean, scale = normalisation.mean_and_scale()
    np.testing.assert_allclose((ordered - np.array(mean)) / np.array(scale), expected, atol=1e-4)


def test_labels_stand_in_the_order_of_the_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As from an index that Keras has loaded already, whose entries are in no order."""
    load_tensorflow()
    from keras.src.applications import imagenet_utils

    order = np.random.default_rng(0).permutation(CLASSES)
    index = {str(number): [f"n{number:08d}", f"name {number}"] for number in order}
    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", index)
    assert labels() == tuple(f"name {number}" for number in range(CLASSES))


def test_without_internet_it_says_what_to_give_instead(
    tmp_path: Path,
    dead_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    load_tensorflow()
    from keras.src.utils import file_utils

    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{dead_port}")
    # urllib looks for proxies once in a process.
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    with pytest.raises(
        ModelError, match=r"^the ImageNet weights of mobilenet_v2 cannot be"
    ) as lost:
        build("mobilenet_v2", weights="imagenet")
    assert "fetched: URL fetch" in lost.value.message
    assert lost.value.hint == "without internet, give a file: --weights FILE"
    with pytest.raises(ModelError, match=r"^the names of ImageNet's classes cannot be") as lost:
        architecture("xception").labels()
    assert "fetched: URL fetch" in lost.value.message
    assert lost.value.hint == "without internet, give them: --labels FILE"
    assert capfd.readouterr().out == ""  # of Keras's own remarks
    assert [*tmp_path.iterdir()]  # where it would have kept them
