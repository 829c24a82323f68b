"""The loaded model: it answers as TensorFlow does, or says what is wrong with it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.core.bundle import read_bundle
from millrace.core.errors import ItemError, ModelError
from millrace.worker.batch_size import warm_up
from millrace.worker.batcher import BatchLimits, MicroBatcher
from millrace.worker.heads import make_head
from millrace.worker.predictor import OutOfMemoryError
from millrace.worker.session import Session
from millrace.worker.tuning import Tuning
from tests.support import capture_logs, random_pixels
from tests.unit.worker.saved_models import ALONE, CLASSES, FORMS, SIDE, SavedModel, Workshop

PIXELS = random_pixels(5, (11, SIDE, SIDE, 3))


SESSIONS_OWN = (
    "of_a_hidden_one",
    "of_two_outputs",
    "of_a_loss_besides",
    "with_a_counter",
    "with_an_old_counter",
)


@pytest.mark.parametrize("form", [*FORMS, *SESSIONS_OWN])
def test_it_answers_as_tensorflow_itself(form: str, made: Workshop) -> None:
    model = made(form)
    session = Session(model.bundle())
    scores = session.predict(PIXELS)
    assert scores.dtype == np.float32
    assert scores.shape == (len(PIXELS), CLASSES)
    assert session.output_shape == (CLASSES,)
    assert session.input_shape == (SIDE, SIDE, 3)
    expected = model.direct(PIXELS)
    assert np.ptp(expected) > 0.01  # a model that answers the same to all would prove nothing
    np.testing.assert_allclose(scores, expected, atol=1e-4)


@pytest.mark.parametrize(
    "form", ["scaled_by_tf", "by_operations", "of_one_image", "of_four_images"]
)
def test_a_row_is_the_same_alone_and_in_any_batch(form: str, made: Workshop) -> None:
    session = Session(made(form).bundle())
    alone = np.concatenate([session.predict(PIXELS[i : i + 1]) for i in range(len(PIXELS))])
    for size in (1, 2, 3, 4, 5, 8, 11):
        np.testing.assert_allclose(session.predict(PIXELS[:size]), alone[:size], atol=1e-4)
    np.testing.assert_allclose(session.predict(PIXELS[::-1]), alone[::-1], atol=1e-4)


def test_one_channel_of_luminance(repository: Path, made: Workshop) -> None:
    bundle = read_bundle(repository / "tiny" / "1")
    grey = random_pixels(1, (3, 8, 8, 1))
    direct = made.tf.saved_model.load(str(bundle.path)).signatures["serving_default"]
    (expected,) = direct(made.tf.constant(grey, made.tf.float32) / 255).values()
    np.testing.assert_allclose(Session(bundle).predict(grey), expected, atol=1e-4)


def test_bounding_the_threads_changes_no_answer(made: Workshop) -> None:
    bundle = made("scaled_by_tf").bundle()
    one, free = Session(bundle, Tuning(threads=1)), Session(bundle)
    np.testing.assert_allclose(one.predict(PIXELS), free.predict(PIXELS), atol=1e-4)


@pytest.mark.parametrize(("form", "limit"), [("of_one_image", 1), ("of_four_images", 4)])
def test_a_fixed_batch_size_is_known_and_said(form: str, limit: int, made: Workshop) -> None:
    with capture_logs() as logs:
        session = Session(made(form).bundle())
    assert session.batch_limit == limit
    assert [entry["batch_size"] for entry in logs if "fixed" in entry["event"]] == [limit]


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ("with_a_table", "table"),
        ("with_a_loop_that_writes", "assignvariable"),
        ("with_a_counter", "cannot be frozen"),
        ("with_an_old_counter", "cannot be frozen"),
    ],
)
def test_a_model_that_cannot_be_frozen_runs_as_it_is_and_says_so(
    form: str, why: str, made: Workshop
) -> None:
    with capture_logs() as logged:
        Session(made(form).bundle())
    (entry,) = [entry for entry in logged if entry["log_level"] == "warning"]
    assert entry["event"] == "the model runs unfrozen, which is slower"
    assert why in entry["why"].lower(), entry


@pytest.mark.parametrize(
    ("form", "operations"),
    [
        ("with_a_branch", {"If"}),
        ("with_a_loop", {"While"}),
        ("image_by_image", {"While", "TensorListFromTensor"}),
        ("of_old_control_flow", {"Enter", "Exit", "Switch", "Merge"}),
    ],
)
def test_control_flow_is_frozen_like_the_rest(
    form: str, operations: set[str], made: Workshop
) -> None:
    model = made(form)
    # What TensorFlow 2 calls stateless differs in the name alone.
    assert operations <= {name.removeprefix("Stateless") for name in model.operations()}
    with capture_logs() as logged:
        Session(model.bundle())
    assert [entry for entry in logged if entry["log_level"] == "warning"] == []


def test_tensorflow_2_itself_rejects_a_model_that_is_taken(made: Workshop) -> None:
    """It answers like `direct` all the same, as the test of all forms shows."""
    model = made("of_a_loss_besides")
    with pytest.raises(Exception, match="depends on a placeholder which is not an input"):
        made.tf.saved_model.load(str(model.path), tags=["myTag"])


@pytest.mark.parametrize("form", ["by_operations", "of_one_image", "of_four_images"])
def test_warm_up_takes_any_batch_size(form: str, made: Workshop) -> None:
    session = Session(made(form).bundle())
    assert warm_up(session, 6) == 6
    assert session.predict(PIXELS).shape == (len(PIXELS), CLASSES)


def test_an_operation_may_name_its_output(made: Workshop) -> None:
    model = made("by_operations")
    bundle = model.bundle(input_op="input_1:0", output_op="inferenceLayer/Softmax:0")
    np.testing.assert_allclose(Session(bundle).predict(PIXELS), model.direct(PIXELS), atol=1e-4)


def refused(model: SavedModel, **facts: object) -> ModelError:
    """The error of a session that loads, or else warms up, a model it must refuse."""
    with pytest.raises(ModelError) as caught:
        warm_up(Session(model.bundle(**facts)), 2)
    return caught.value


def test_a_wrong_tag_is_answered_with_those_there_are(made: Workshop) -> None:
    error = refused(made("by_operations"), tags=("serve", "gpu"))
    assert "'serve,gpu'" in error.message
    assert error.hint == "it has 'myTag'"


def test_a_wrong_signature_is_answered_with_those_there_are(made: Workshop) -> None:
    error = refused(made("scaled_by_tf"), signature="predict")
    assert "'predict'" in error.message
    assert "serving_default" in (error.hint or "")


def test_a_model_without_signatures_asks_for_operations(made: Workshop) -> None:
    error = refused(
        made("by_operations"), signature="serving_default", input_op=None, output_op=None
    )
    assert "name the operations" in (error.hint or "")


def test_a_signature_of_two_outputs_asks_for_operations(made: Workshop) -> None:
    error = refused(made("of_two_outputs"), signature="both", input_op=None, output_op=None)
    assert "2 outputs" in error.message
    assert "--output-op" in (error.hint or "")


@pytest.mark.parametrize("fact", ["input_op", "output_op"])
@pytest.mark.parametrize("name", ["nowhere", "inferenceLayer/Softmax:7", "a:b", "init"])
def test_an_operation_that_is_not_there_is_named(fact: str, name: str, made: Workshop) -> None:
    assert repr(name) in refused(made("by_operations"), **{fact: name}).message


def test_names_near_the_one_that_is_not_there_are_told(made: Workshop) -> None:
    error = refused(made("by_operations"), output_op="inferenceLayer/Sofmax")
    assert "inferenceLayer/Softmax" in (error.hint or "")


def test_an_input_the_output_does_not_depend_on_is_refused(made: Workshop) -> None:
    refused(made("by_operations"), input_op="unrelated")


def test_exchanged_operations_are_refused(made: Workshop) -> None:
    refused(made("by_operations"), input_op="inferenceLayer/Softmax", output_op="input_1")


@pytest.mark.parametrize(
    "facts", [{"height": 9}, {"width": 7}, {"channels": "L"}], ids=["height", "width", "channels"]
)
def test_an_input_of_another_shape_is_refused(facts: dict[str, object], made: Workshop) -> None:
    message = refused(made("by_operations"), **facts).message
    assert "[None, 8, 8, 3]" in message
    assert "the card says" in message


@pytest.mark.parametrize("size", [(7, 9), (16, 16), (4, 8)])
def test_a_size_the_weights_do_not_take_is_refused(size: tuple[int, int], made: Workshop) -> None:
    refused(made("of_any_size"), height=size[0], width=size[1])


def test_an_input_of_another_type_is_refused(made: Workshop) -> None:
    assert "float64" in refused(made("of_doubles")).message


def test_an_input_that_is_no_picture_is_refused(made: Workshop) -> None:
    assert "[None, 192]" in refused(made("of_vectors")).message


@pytest.mark.parametrize("form", [*ALONE, "of_a_well_hidden_one"])
def test_a_model_that_needs_its_images_alone_gets_them_and_it_is_said(
    form: str, made: Workshop
) -> None:
    with capture_logs() as logs:
        session = Session(made(form).bundle())
    assert session.batch_limit == 1
    (entry,) = [entry for entry in logs if "fixed" in entry["event"]]
    assert entry["batch_size"] == 1
    assert entry["why"]


def damaged(made: Workshop, into: Path) -> SavedModel:
    model = made("by_operations")
    shutil.copytree(model.path, into)
    return SavedModel(into, model.facts, model.direct)


@pytest.mark.parametrize("keep", [0, 100])
def test_truncated_variables_do_not_load(keep: int, made: Workshop, tmp_path: Path) -> None:
    model = damaged(made, tmp_path / "model")
    (data,) = (model.path / "variables").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:keep])
    assert str(model.path) in refused(model).message


def test_missing_variables_do_not_load(made: Workshop, tmp_path: Path) -> None:
    model = damaged(made, tmp_path / "model")
    shutil.rmtree(model.path / "variables")
    assert "variables" in refused(model).message


@pytest.mark.parametrize("content", [b"", b"not a protocol buffer"], ids=["empty", "text"])
def test_a_broken_graph_does_not_load(content: bytes, made: Workshop, tmp_path: Path) -> None:
    model = damaged(made, tmp_path / "model")
    (model.path / "saved_model.pb").write_bytes(content)
    assert str(model.path) in refused(model).message


def test_a_cut_graph_does_not_load(made: Workshop, tmp_path: Path) -> None:
    model = damaged(made, tmp_path / "model")
    graph = model.path / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:300])
    assert str(model.path) in refused(model).message


def test_nan_reaches_the_head_which_says_so(made: Workshop) -> None:
    bundle = made("answering_nan").bundle()
    session = Session(bundle)
    (row,) = session.predict(PIXELS[:1])
    with pytest.raises(ItemError) as caught:
        make_head(bundle, session.output_shape)(row, None)
    assert caught.value.code == "not_finite"


def test_out_of_memory_has_an_error_of_its_own(made: Workshop) -> None:
    model = made("of_great_appetite")
    session = Session(model.bundle())
    with pytest.raises(OutOfMemoryError):
        session.predict(PIXELS)
    np.testing.assert_allclose(session.predict(PIXELS[:2]), model.direct(PIXELS[:2]), atol=1e-4)


def test_warm_up_outlives_a_batch_that_does_not_fit(made: Workshop) -> None:
    session = Session(made("of_great_appetite").bundle())
    with capture_logs() as logs:
        warm_up(session, 4)
    assert 4 in [entry.get("batch_size") for entry in logs]


def test_the_batcher_halves_what_does_not_fit(made: Workshop) -> None:
    model = made("of_great_appetite")
    batcher = MicroBatcher(
        Session(model.bundle()).predict, BatchLimits(8, 0.05), out_of_memory=OutOfMemoryError
    )
    answers: dict[int, Any] = {}
    for n, image in enumerate(PIXELS):
        batcher.submit(image, lambda row, us, n=n: answers.update({n: row}))  # type: ignore[misc]
    batcher.start()
    batcher.stop()
    expected = np.concatenate([model.direct(image[np.newaxis]) for image in PIXELS])
    np.testing.assert_allclose([answers[n] for n in range(len(PIXELS))], expected, atol=1e-4)
