"""OpenVINO's engine: it answers as TensorFlow does, or says that it cannot."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from millrace.core.errors import ModelError
from millrace.worker.openvino_model import OpenVINOModel
from millrace.worker.tuning import EngineName, Precision, Tuning
from tests.support import capture_logs, random_pixels
from tests.unit.worker.saved_models import ALONE, CLASSES, FORMS, SIDE, SavedModel, Workshop

pytest.importorskip("openvino")

PIXELS = random_pixels(5, (11, SIDE, SIDE, 3))


@pytest.mark.parametrize("form", [*FORMS, *ALONE])
def test_it_answers_as_tensorflow(form: str, made: Workshop) -> None:
    model = made(form)
    loaded = OpenVINOModel(model.bundle(), Tuning(threads=1))
    scores = loaded.predict(PIXELS)
    assert scores.dtype == np.float32
    assert scores.shape == (len(PIXELS), CLASSES)
    assert loaded.output_shape == (CLASSES,)
    expected = model.direct(PIXELS)
    assert np.ptp(expected) > 0.01  # a model that answers the same to all would prove nothing
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_an_answer_outlives_the_next(made: Workshop) -> None:
    loaded = OpenVINOModel(made("scaled_by_tf").bundle())
    first = loaded.predict(PIXELS[:1])
    before = first.copy()
    loaded.predict(PIXELS[1:2])
    np.testing.assert_array_equal(first, before)


def test_low_precision_answers_nearly_the_same(made: Workshop) -> None:
    model = made("scaled_by_tf")
    low = OpenVINOModel(model.bundle(), Tuning(precision=Precision.BFLOAT16))
    np.testing.assert_allclose(low.predict(PIXELS), model.direct(PIXELS), atol=0.05)


@pytest.mark.parametrize(("form", "limit"), [("of_one_image", 1), ("of_four_images", 4)])
def test_a_fixed_batch_size_is_known_and_said(form: str, limit: int, made: Workshop) -> None:
    with capture_logs() as logs:
        loaded = OpenVINOModel(made(form).bundle())
    assert loaded.batch_limit == limit
    assert [entry["batch_size"] for entry in logs if "fixed" in entry["event"]] == [limit]


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ("of_a_hidden_one", "incompatible with input shape"),
        ("answering_one_row", "2 images in, output of"),
        ("mixing_images", "otherwise than alone"),
    ],
)
def test_a_model_that_needs_its_images_alone_gets_them_and_it_is_said(
    form: str, why: str, made: Workshop
) -> None:
    with capture_logs() as logs:
        loaded = OpenVINOModel(made(form).bundle())
    assert loaded.batch_limit == 1
    (entry,) = [entry for entry in logs if "fixed" in entry["event"]]
    assert entry["batch_size"] == 1
    assert why in entry["why"]


@pytest.mark.parametrize(
    ("form", "facts"), [("of_any_size", {"height": 7, "width": 9}), ("of_a_well_hidden_one", {})]
)
def test_a_model_that_is_refused_has_no_size_of_batch_but_a_hint(
    form: str, facts: dict[str, object], made: Workshop
) -> None:
    with capture_logs() as logs, pytest.raises(ModelError) as caught:
        OpenVINOModel(made(form).bundle(**facts))
    assert logs == []
    assert "--engine tensorflow" in (caught.value.hint or "")


def refused(model: SavedModel, **facts: object) -> str:
    with pytest.raises(ModelError) as caught:
        OpenVINOModel(model.bundle(**facts)).predict(PIXELS[:2])
    return caught.value.message


@pytest.mark.parametrize(
    ("form", "facts", "said"),
    [
        ("by_operations", {"tags": ("serve",)}, "'serve'"),
        ("by_operations", {"tags": ("myTag", "gpu")}, "'myTag,gpu'"),
        ("by_operations", {"input_op": "nowhere"}, "'nowhere'"),
        ("by_operations", {"output_op": "nowhere"}, "'nowhere'"),
        ("by_operations", {"height": 9}, "the card says"),
        ("by_operations", {"channels": "L"}, "the card says"),
        ("by_operations", {"input_op": "unrelated"}, ""),
        ("by_operations", {"input_op": "inferenceLayer/Softmax", "output_op": "input_1"}, ""),
        ("scaled_by_tf", {"signature": "predict"}, "'predict'"),
        ("of_two_outputs", {"signature": "both", "input_op": None, "output_op": None}, "'both'"),
        ("of_a_well_hidden_one", {}, "OpenVINO cannot use"),
        ("of_two_outputs", {}, "does not depend"),
        ("of_a_loss_besides", {}, "1 inputs and 0 outputs"),
        ("of_any_size", {"height": 7, "width": 9}, ""),
        ("of_doubles", {}, "input of"),
        ("of_vectors", {}, "the card says"),
    ],
)
def test_what_it_cannot_take_is_refused(
    form: str, facts: dict[str, object], said: str, made: Workshop
) -> None:
    assert said in refused(made(form), **facts)


@pytest.mark.parametrize("file", ["saved_model.pb", "variables"])
@pytest.mark.parametrize("keep", [0, 100])
def test_what_is_damaged_is_refused(file: str, keep: int, made: Workshop, tmp_path: Path) -> None:
    whole = made("by_operations")
    path = tmp_path / "model"
    shutil.copytree(whole.path, path)
    (target,) = (path / "variables").glob("*.data-*") if file == "variables" else [path / file]
    target.write_bytes(target.read_bytes()[:keep])
    assert str(path) in refused(SavedModel(path, whole.facts, whole.direct))


SIGNAL_STACK = """
import ctypes, sys
from pathlib import Path
from millrace.core.bundle import Bundle
from millrace.core.card import Card
from millrace.worker.openvino_model import OpenVINOModel

class Stack(ctypes.Structure):  # stack_t of <signal.h>
    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

def signal_stack():
    found = Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found.sp

card = Card.model_validate_json(sys.argv[2])
before = signal_stack()
model = OpenVINOModel(Bundle(Path(sys.argv[1]), card, ()))
model.predict(model.zeros(3))
assert signal_stack() == before
"""


def test_signals_are_handled_in_memory_that_outlives_the_model(made: Workshop) -> None:
    """In a process without pytest's fault handler, which has a stack of its own."""
    model = made("scaled_by_tf").bundle()
    command = [sys.executable, "-c", SIGNAL_STACK, str(model.path), model.card.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("tuning", "words"),
    [
        (Tuning(engine=EngineName.OPENVINO, xla=True), "XLA is TensorFlow's"),
        (Tuning(engine=EngineName.OPENVINO, device="gpu"), "on CPUs here"),
    ],
)
def test_what_it_cannot_do_is_refused_and_not_passed_over(
    tuning: Tuning, words: str, made: Workshop
) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        OpenVINOModel(made("scaled_by_tf").bundle(), tuning)
    assert "--engine tensorflow" in (caught.value.hint or "")
