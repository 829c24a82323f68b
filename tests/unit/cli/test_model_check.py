"""Whether a bundle answers as the model it was made of, through the worker's own session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from millrace.cli.model_check import compare_with, refuse_disagreement
from millrace.core.errors import ModelError
from millrace.export.pictures import pictures
from millrace.export.predict import Predict
from millrace.export.unfrozen import unfrozen_predict
from tests.unit.worker.saved_models import CLASSES, SIDE, SavedModel, Workshop


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("checked"))


def source_of(model: SavedModel) -> Predict:
    """TensorFlow alone on the same pixels; its answers take RGB, what is checked the card's."""

    def predict(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        assert len(pixels) <= 8
        return model.direct(pixels[..., ::-1] if in_bgr(model) else pixels)

    return predict


def in_bgr(model: SavedModel) -> bool:
    return model.facts.get("channels") == "BGR"


@pytest.mark.parametrize(
    "form",
    ["scaled_by_tf", "scaled_by_caffe", "of_bytes", "of_logits", "by_operations", "of_one_image"],
)
def test_a_bundle_that_answers_alike_is_let_pass(form: str, made: Workshop) -> None:
    model = made(form)
    refuse_disagreement(model.bundle(), source_of(model))


@pytest.mark.parametrize(
    "wrong",
    [{"normalisation": {"mode": "torch"}}, {"scores": "logits"}],
    ids=["scale", "logits"],
)
def test_a_card_that_says_otherwise_is_refused(wrong: dict[str, Any], made: Workshop) -> None:
    model = made("scaled_by_tf")
    with pytest.raises(ModelError, match="does not answer as the model it was made of: 8 images"):
        refuse_disagreement(model.bundle(**wrong), source_of(model))


def test_a_source_of_another_shape_is_refused(made: Workshop) -> None:
    model = made("scaled_by_tf")
    with pytest.raises(ModelError, match=r"0\.0% have the same best answer"):
        refuse_disagreement(model.bundle(), lambda pixels: model.direct(pixels)[:, 1:])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_answers_no_numbers_is_refused(value: float, made: Workshop) -> None:
    """Both may well agree on it, and each image would be an error."""
    with pytest.raises(ModelError, match="answers NaN or infinity"):
        refuse_disagreement(
            made("scaled_by_tf").bundle(),
            lambda pixels: np.full((len(pixels), CLASSES), value, np.float32),
        )


@pytest.mark.parametrize(
    "form",
    [
        "scaled_by_torch",
        "scaled_by_caffe",
        "scaled_by_numbers",
        "of_bytes",
        "of_logits",
        "of_one_image",
        "of_four_images",
        "with_a_table",
        "with_a_branch",
    ],
)
def test_freezing_changes_nothing(form: str, made: Workshop) -> None:
    bundle = made(form).bundle()
    pixels = pictures(5, SIDE, SIDE, 3)
    agreement = compare_with(bundle, unfrozen_predict(bundle), pixels)
    assert (agreement.images, agreement.ok) == (5, True)


def test_the_graph_unfrozen_is_the_one_that_was_saved(made: Workshop) -> None:
    model = made("scaled_by_torch")
    pixels = pictures(3, SIDE, SIDE, 3)
    assert np.allclose(unfrozen_predict(model.bundle())(pixels), model.direct(pixels), atol=1e-4)


def test_a_graph_that_does_not_load_is_one_line(made: Workshop, tmp_path: Path) -> None:
    model = made("scaled_by_tf")
    with pytest.raises(ModelError, match="does not load") as caught:
        unfrozen_predict(model.bundle(tags=("none",)))
    assert "\n" not in caught.value.message


def test_another_signature_is_refused_with_those_there_are(made: Workshop) -> None:
    with pytest.raises(ModelError, match="has no signature 'other'") as caught:
        unfrozen_predict(made("scaled_by_tf").bundle(signature="other"))
    assert caught.value.hint == "it has serve, serving_default"
