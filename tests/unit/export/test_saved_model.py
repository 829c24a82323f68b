"""SavedModels of others become bundles as they are, or one line says why not."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.core.bundle import Bundle, read_bundle
from millrace.core.card import CARD_FILE, Normalisation
from millrace.core.errors import MissingExtra, ModelError, ModelNotFound, UsageError
from millrace.export import Facts, Predict, export_saved_model
from millrace.worker.session import Session
from tests.support import random_pixels
from tests.unit.worker.saved_models import CLASSES, SIDE, Workshop

SIZE: dict[str, Any] = {"height": SIDE, "width": SIDE}
BY_NAMES: dict[str, Any] = {"input_op": "input_1", "output_op": "inferenceLayer/Softmax"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("saved-models"))


def exported(path: Path, into: Path, **facts: Any) -> Bundle:
    """`path` as a bundle; its source is asked beside it on the way."""
    seen = []

    def look(bundle: Bundle, predict: Predict) -> None:
        card = bundle.card
        pixels = random_pixels(8, (3, card.height, card.width, card.channels.depth))
        np.testing.assert_allclose(Session(bundle).predict(pixels), predict(pixels), atol=1e-4)
        seen.append(bundle.card.digest)

    said = Facts(**({"name": "m"} | facts))
    place = export_saved_model(path, said, repository=str(into), check=look)
    bundle = read_bundle(Path(place.root))
    assert seen == [bundle.card.digest]
    return bundle


def files(path: Path) -> dict[str, bytes]:
    return {
        each.relative_to(path).as_posix(): each.read_bytes()
        for each in path.rglob("*")
        if each.is_file() and each.parent.name != "assets.extra"
    }


@pytest.mark.parametrize("form", ["scaled_by_tf", "of_bytes", "with_a_table", "with_a_loop"])
def test_one_with_a_signature_is_copied_as_it_is(form: str, made: Workshop, tmp_path: Path) -> None:
    model = made(form)
    bundle = exported(model.path, tmp_path, scale=Normalisation.parse("none"))
    assert files(bundle.path) == files(model.path)
    assert (bundle.card.signature, bundle.card.tags) == ("serving_default", ("serve",))
    assert (bundle.card.height, bundle.card.width) == (SIDE, SIDE)
    pixels = random_pixels(3, (4, SIDE, SIDE, 3))
    if form != "scaled_by_tf":
        np.testing.assert_allclose(Session(bundle).predict(pixels), model.direct(pixels), atol=1e-4)


@pytest.mark.parametrize("form", ["by_operations", "of_one_image", "of_four_images"])
def test_one_without_a_signature_is_used_by_its_operations(
    form: str, made: Workshop, tmp_path: Path
) -> None:
    model = made(form)
    bundle = exported(model.path, tmp_path, **BY_NAMES)
    assert files(bundle.path) == files(model.path)
    card = bundle.card
    assert (card.signature, card.tags) == (None, ("myTag",))  # the only graph there is
    assert (card.input_op, card.output_op) == ("input_1", "inferenceLayer/Softmax")
    pixels = random_pixels(3, (6, SIDE, SIDE, 3))
    np.testing.assert_allclose(Session(bundle).predict(pixels), model.direct(pixels), atol=1e-4)


def test_a_size_that_is_free_has_to_be_said(made: Workshop, tmp_path: Path) -> None:
    path = made("of_any_size").path
    with pytest.raises(UsageError, match="size"):
        exported(path, tmp_path)
    assert exported(path, tmp_path, **SIZE).card.height == SIDE


def test_a_size_that_is_another_is_refused(made: Workshop, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="8 high, not 9"):
        exported(made("scaled_by_tf").path, tmp_path, height=9, width=8)
    with pytest.raises(ModelError, match="3 channels, not L"):
        exported(made("scaled_by_tf").path, tmp_path, channels="L")


def test_a_card_says_what_is_not_said(made: Workshop, tmp_path: Path) -> None:
    first = exported(
        made("by_operations").path,
        tmp_path / "a",
        name="first",
        labels=tuple("abcde"),
        scale=Normalisation.parse("tf"),
        top_k=2,
        **BY_NAMES,
    )
    said = Facts(name=None, resize="crop")
    place = export_saved_model(first.path, said, repository=str(tmp_path / "b"))
    second = read_bundle(Path(place.root))
    same = {"digest", "resize"}
    assert second.card.model_dump(exclude=same) == first.card.model_dump(exclude=same)
    assert (second.labels, second.card.resize) == (first.labels, "crop")
    # Operations that are said put a card's signature aside, and the other way round.
    with pytest.raises(ModelError, match="no signature 'serving_default'"):
        exported(first.path, tmp_path / "c", signature="serving_default")


def refused(made: Workshop, form: str, tmp_path: Path, **facts: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        exported(made(form).path, tmp_path, **facts)
    assert not [*tmp_path.iterdir()]
    assert "\n" not in caught.value.message + (caught.value.hint or "")
    return caught.value


def test_a_wrong_tag_is_told_those_there_are(made: Workshop, tmp_path: Path) -> None:
    error = refused(made, "by_operations", tmp_path, tags=("serve",), **BY_NAMES)
    assert "no graph with the tags 'serve'" in error.message
    assert error.hint == "it has 'myTag'"


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("input1", "input_1"),
        ("Input_1", "input_1"),
        ("Softmax", "inferenceLayer/Softmax"),
        ("inferencelayer/softmax", "inferenceLayer/Softmax"),
    ],
)
def test_a_missing_operation_is_told_near_ones(
    asked: str, hint: str, made: Workshop, tmp_path: Path
) -> None:
    which = "input_op" if "nput" in asked else "output_op"
    error = refused(made, "by_operations", tmp_path, **(BY_NAMES | {which: asked}))
    assert f"no operation {asked!r}" in error.message
    assert hint in (error.hint or "")


def test_a_missing_output_of_an_operation_is_told(made: Workshop, tmp_path: Path) -> None:
    error = refused(
        made, "by_operations", tmp_path, input_op="input_1", output_op="inferenceLayer/Softmax:1"
    )
    assert "no output" in error.message


def test_without_a_signature_the_likely_operations_are_told(made: Workshop, tmp_path: Path) -> None:
    error = refused(made, "by_operations", tmp_path)
    assert "--input-op input_1" in (error.hint or "")
    assert "--output-op inferenceLayer/Softmax" in (error.hint or "")
    assert "save/" not in (error.hint or ""), "what saves and restores variables is no output"
    half = refused(made, "by_operations", tmp_path, input_op="input_1")
    assert "which is the output operation" in half.message


def test_a_signature_that_is_not_there_is_told(made: Workshop, tmp_path: Path) -> None:
    error = refused(made, "scaled_by_tf", tmp_path, signature="predict")
    assert error.hint is not None
    assert "serving_default" in error.hint


def test_two_outputs_are_refused_and_may_be_named(made: Workshop, tmp_path: Path) -> None:
    error = refused(made, "of_two_outputs", tmp_path)
    assert "1 input and 2 outputs" in error.message
    assert "--output-op" in (error.hint or "")
    assert exported(made("of_two_outputs").path, tmp_path, **BY_NAMES).card.signature is None


def test_an_input_of_another_kind_is_refused(made: Workshop, tmp_path: Path) -> None:
    assert "float64" in refused(made, "of_doubles", tmp_path, **SIZE).message
    vectors = refused(made, "of_vectors", tmp_path, **SIZE)
    assert "[n, height, width, channels]" in vectors.message


@pytest.mark.parametrize(("count", "offset"), [(CLASSES + 1, 0), (CLASSES, 1), (CLASSES - 1, 0)])
def test_labels_that_do_not_fit_are_refused(
    count: int, offset: int, made: Workshop, tmp_path: Path
) -> None:
    labels = tuple(str(n) for n in range(count))
    error = refused(made, "scaled_by_tf", tmp_path, labels=labels, label_offset=offset)
    assert f"{count} labels" in error.message
    assert f"{CLASSES} classes" in error.message


def test_labels_from_an_offset_on_fit(made: Workshop, tmp_path: Path) -> None:
    labels = tuple(str(n) for n in range(CLASSES - 1))
    bundle = exported(made("scaled_by_tf").path, tmp_path, labels=labels, label_offset=1)
    assert (bundle.labels, bundle.card.label_offset) == (labels, 1)


@pytest.mark.parametrize(
    "torn", ["saved_model.pb", "variables.data-00000-of-00001", "variables.index"]
)
def test_a_torn_one_is_refused(torn: str, made: Workshop, tmp_path: Path) -> None:
    copy = shutil.copytree(made("by_operations").path, tmp_path / "copy")
    (file,) = copy.rglob(torn)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ModelError) as caught:
        exported(copy, tmp_path / "into", **BY_NAMES)
    words = "is damaged or cut short" if torn == "saved_model.pb" else "does not load"
    assert caught.value.message.startswith(str(copy)), "not of a copy in a temporary directory"
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert not (tmp_path / "into").exists()


def test_one_without_its_variables_is_refused(made: Workshop, tmp_path: Path) -> None:
    copy = shutil.copytree(made("by_operations").path, tmp_path / "copy")
    shutil.rmtree(copy / "variables")
    with pytest.raises(ModelError):
        exported(copy, tmp_path / "into", **BY_NAMES)


@pytest.mark.parametrize(
    ("field", "value"), [("schema_version", 2), ("colour", "blue"), ("height", "tall")]
)
def test_a_card_that_is_not_ours_is_refused(
    field: str, value: object, made: Workshop, tmp_path: Path
) -> None:
    bundle = exported(made("by_operations").path, tmp_path / "a", **BY_NAMES)
    card = json.loads((bundle.path / CARD_FILE).read_bytes())
    (bundle.path / CARD_FILE).write_text(json.dumps(card | {field: value}))
    with pytest.raises(ModelError, match=field):
        exported(bundle.path, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        exported(tmp_path, tmp_path / "into")


def test_one_as_text_becomes_binary(made: Workshop, tmp_path: Path) -> None:
    from google.protobuf import text_format
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    copy = shutil.copytree(made("by_operations").path, tmp_path / "copy")
    saved = SavedModel.FromString((copy / "saved_model.pb").read_bytes())
    (copy / "saved_model.pbtxt").write_text(text_format.MessageToString(saved))
    (copy / "saved_model.pb").unlink()
    bundle = exported(copy, tmp_path / "into", **BY_NAMES)
    assert not (bundle.path / "saved_model.pbtxt").exists()


def test_a_refusal_publishes_nothing(made: Workshop, tmp_path: Path) -> None:
    def refuse(bundle: Bundle, predict: Predict) -> None:
        raise ModelError("it disagrees")

    with pytest.raises(ModelError, match="it disagrees"):
        export_saved_model(
            made("scaled_by_tf").path,
            Facts(name="m"),
            repository=str(tmp_path / "into"),
            check=refuse,
        )
    assert not (tmp_path / "into").exists()


def test_without_tensorflow_it_is_told_what_to_install(
    made: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made("by_operations").path
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtra):
        export_saved_model(path, Facts(name="m", **BY_NAMES), repository=str(tmp_path))


def test_one_that_cannot_be_copied_is_one_line(made: Workshop, tmp_path: Path) -> None:
    path = shutil.copytree(made("by_operations").path, tmp_path / "theirs")
    (path / "assets").mkdir(exist_ok=True)
    (path / "assets" / "words.txt").symlink_to(tmp_path / "gone")
    with pytest.raises(ModelError, match="cannot be copied"):
        exported(path, tmp_path, **BY_NAMES)
