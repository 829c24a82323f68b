"""Which engine runs a model, and that the log says why."""

from __future__ import annotations

import numpy as np
import pytest

from millrace.core.errors import ModelError
from millrace.worker import engines, session
from millrace.worker.engines import load_predictor
from millrace.worker.predictor import Predictor
from millrace.worker.session import Session, session_config
from millrace.worker.tuning import EngineName, Precision, Tuning
from tests.support import capture_logs, random_pixels
from tests.unit.worker.saved_models import SIDE, Workshop

AUTO = Tuning()


def said(made: Workshop, form: str, tuning: Tuning, **facts: object) -> tuple[Predictor, str]:
    """What is loaded, and why."""
    with capture_logs() as logs:
        model = load_predictor(made(form).bundle(**facts), tuning)
    (why,) = [entry["why"] for entry in logs if entry["event"].startswith("the engine is")]
    return model, why


def test_openvino_is_taken_where_it_can_be(made: Workshop) -> None:
    model, why = said(made, "scaled_by_tf", AUTO)
    assert (model.engine, why) == (EngineName.OPENVINO, "it is installed, and takes the model")


def test_tensorflow_takes_what_openvino_does_not(made: Workshop) -> None:
    model, why = said(made, "of_two_outputs", AUTO)
    assert model.engine is EngineName.TENSORFLOW
    assert "does not depend" in why


@pytest.mark.parametrize(
    ("tuning", "reason"),
    [
        (Tuning(engine=EngineName.TENSORFLOW), "asked for"),
        (Tuning(xla=True), "XLA"),
    ],
)
def test_tensorflow_is_taken_for_a_reason(tuning: Tuning, reason: str, made: Workshop) -> None:
    model, why = said(made, "scaled_by_tf", tuning)
    assert model.engine is EngineName.TENSORFLOW
    assert reason in why


@pytest.mark.parametrize(
    ("device", "reason"), [("gpu", "a GPU was asked for"), ("auto:1", "the model runs on a GPU")]
)
def test_a_gpu_is_for_tensorflow(
    device: str, reason: str, made: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "usable_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    model, why = said(made, "scaled_by_tf", Tuning(device=device))
    assert (model.engine, why) == (EngineName.TENSORFLOW, reason)


@pytest.mark.parametrize("engine", [EngineName.AUTO, EngineName.TENSORFLOW])
@pytest.mark.parametrize("device", ["gpu", "gpu:3"])
def test_a_gpu_that_is_not_there_is_refused(
    device: str, engine: EngineName, made: Workshop
) -> None:
    with pytest.raises(ModelError) as caught:
        load_predictor(made("scaled_by_tf").bundle(), Tuning(device=device, engine=engine))
    assert caught.value.message == f"there is no device {device}: TensorFlow sees no GPUs"
    assert "--device cpu" in (caught.value.hint or "")


def test_a_gpu_beyond_those_there_are_is_refused(
    made: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "usable_gpus", lambda: 1)
    with pytest.raises(ModelError, match=r"no device gpu:1: TensorFlow sees 1 GPU$"):
        load_predictor(made("scaled_by_tf").bundle(), Tuning(device="gpu:1"))


def test_a_gpu_that_tensorflow_cannot_use_costs_nobody_openvino(
    made: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with capture_logs() as logs:
        model = load_predictor(made("scaled_by_tf").bundle(), Tuning(device="auto:1"))
    assert model.engine is EngineName.OPENVINO
    (warned,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert "TensorFlow cannot use it" in warned["event"]
    assert "millrace[gpu]" in warned["hint"]


def test_a_gpu_does_not_pass_over_bfloat16(made: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "usable_gpus", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(ModelError, match="bfloat16 is for CPUs"):
        load_predictor(made("scaled_by_tf").bundle(), Tuning(precision=Precision.BFLOAT16))
    low = Tuning(precision=Precision.BFLOAT16, device="cpu")
    assert load_predictor(made("scaled_by_tf").bundle(), low).engine is EngineName.OPENVINO


def test_without_openvino_there_is_tensorflow(
    made: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    model, why = said(made, "scaled_by_tf", AUTO)
    assert (model.engine, why) == (EngineName.TENSORFLOW, "OpenVINO is not installed")


def test_an_engine_that_was_asked_for_is_not_replaced(made: Workshop) -> None:
    with pytest.raises(ModelError):
        load_predictor(made("of_doubles").bundle(), Tuning(engine=EngineName.OPENVINO))


def test_what_no_engine_takes_is_told_by_tensorflow(made: Workshop) -> None:
    with pytest.raises(ModelError) as caught:
        load_predictor(made("by_operations").bundle(tags=("serve",)), AUTO)
    assert caught.value.hint == "it has 'myTag'"


def test_how_tensorflow_is_told(made: Workshop) -> None:
    import tensorflow as tf

    config = session_config(tf, Tuning(threads=3, device="gpu:1", gpu_memory=0.5, xla=True))
    assert config.intra_op_parallelism_threads == 3
    assert config.gpu_options.visible_device_list == "1"
    assert config.gpu_options.per_process_gpu_memory_fraction == 0.5
    assert not config.gpu_options.allow_growth
    assert config.graph_options.optimizer_options.global_jit_level == 1
    assert session_config(tf, Tuning(device="cpu")).device_count["GPU"] == 0
    assert session_config(tf, AUTO).gpu_options.allow_growth


@pytest.mark.parametrize(
    "tuning", [Tuning(xla=True), Tuning(precision=Precision.BFLOAT16)], ids=["xla", "bfloat16"]
)
def test_tensorflow_answers_nearly_the_same_in_every_way(tuning: Tuning, made: Workshop) -> None:
    model = made("scaled_by_tf")
    pixels = random_pixels(9, (8, SIDE, SIDE, 3))
    scores = Session(model.bundle(), tuning).predict(pixels)
    np.testing.assert_allclose(scores, model.direct(pixels), atol=0.05)
