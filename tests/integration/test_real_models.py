"""Trained models of others, loaded as they came, against what other runtimes answer."""

from __future__ import annotations

import gzip
import io
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from millrace.core.bundle import Bundle, read_labels
from millrace.core.card import Card, Normalisation
from millrace.core.errors import ModelError
from millrace.worker.engines import load_predictor
from millrace.worker.heads import make_head
from millrace.worker.images import ImageDecoder
from millrace.worker.options import MAX_PIXELS
from millrace.worker.predictor import Predictor
from millrace.worker.session import Session
from millrace.worker.tuning import EngineName, Tuning

BY_OPERATIONS: dict[str, Any] = {"tags": ("myTag",), "input_op": "input", "output_op": "output"}

MOBILENET: dict[str, dict[str, Any]] = {
    "mobilenet_v1_025_224/1": {"signature": "serving_default"},
    "mobilenet_v1_025_224_myTag_v1": BY_OPERATIONS,
}

ENGINES = ("tensorflow", "openvino")

Pixels = npt.NDArray[np.uint8]

LANDMARKS = "face_landmarks_68_myTag"
LANDMARK_SCALE = "122.782,117.001,104.298,255"


def bundle(real: Path, name: str, side: int, scale: str, **facts: Any) -> Bundle:
    card = Card.make(
        name="theirs",
        height=side,
        width=side,
        normalisation=Normalisation.parse(scale),
        digest="sha256:" + 64 * "0",
        **facts,
    )
    labels = read_labels(real / "imagenet" / "imagenet_labels.txt") if side == 224 else ()
    return Bundle(real / "savedmodels" / name, card, labels)


def numbers(file: Path) -> npt.NDArray[np.float64]:
    with gzip.open(file) as stream:
        return np.array(json.load(stream))


@pytest.fixture(scope="module")
def reference(real: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(real / "imagenet" / "mobilenet_v1_025_224.reference.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module", params=product(MOBILENET, ENGINES), ids="-".join)
def mobilenet(request: pytest.FixtureRequest, real: Path) -> tuple[Bundle, Predictor]:
    """The same classifier in both forms, loaded by both engines."""
    form, engine = request.param
    theirs = bundle(real, form, 224, "tf", **MOBILENET[form])
    return theirs, load_predictor(theirs, Tuning(engine=EngineName(engine)))


@pytest.fixture(scope="module")
def photographs(real: Path) -> list[bytes]:
    """Theirs, and for each a few parts of it."""
    found = []
    random = np.random.default_rng(0)
    for file in sorted((real / "images").iterdir()):
        if file.suffix == ".json":
            continue
        found.append(file.read_bytes())
        with Image.open(file) as opened:
            whole = opened.convert("RGB")
        for share in random.uniform(0.5, 0.95, 4):
            width, height = (int(share * side) for side in whole.size)
            left, top = random.integers(0, (whole.width - width + 1, whole.height - height + 1))
            part = io.BytesIO()
            whole.crop((left, top, left + width, top + height)).save(part, "JPEG", quality=92)
            found.append(part.getvalue())
    assert len(found) >= 150
    return found


@pytest.fixture(scope="module")
def enlarged(real: Path) -> tuple[Pixels, Pixels]:
    """Photographs so large that JPEG is read at a half, a quarter or an eighth for an input of 224:
    decoded whole, and coarsely, each uint8 [n, 224, 224, 3]."""
    card = bundle(real, next(iter(MOBILENET)), 224, "tf", signature="serving_default").card
    decoders = [ImageDecoder(card, max_pixels=MAX_PIXELS, exact=exact) for exact in (True, False)]
    pixels: list[list[npt.NDArray[np.uint8]]] = [[], []]
    for file, shorter in product(
        sorted((real / "images").glob("*.[jJ][pP]*[gG]")), (1400, 1800, 2400, 4000)
    ):
        with Image.open(file) as opened:
            photograph = opened.convert("RGB")
        ratio = shorter / min(photograph.size)
        part = io.BytesIO()
        size = [round(ratio * side) for side in photograph.size]
        photograph.resize(size).save(part, "JPEG", quality=90)
        for stack, decoder in zip(pixels, decoders, strict=True):
            stack.append(decoder.decode(part.getvalue()))
    return np.stack(pixels[0]), np.stack(pixels[1])


def test_mobilenet_answers_as_an_independent_runtime(
    mobilenet: tuple[Bundle, Predictor], reference: dict[str, npt.NDArray[Any]]
) -> None:
    _, session = mobilenet
    pixels = reference["uint8_rgb_224"]
    expected = reference["tflite_probabilities"]
    np.testing.assert_allclose(session.predict(pixels), expected, atol=1e-4)
    np.testing.assert_allclose(session.predict(pixels[:1]), expected[:1], atol=1e-4)
    assert session.output_shape == (1001,)
    assert session.batch_limit is None


@pytest.mark.parametrize(
    ("picture", "label"),
    [("test-data__cat_1080p.jpg", "Egyptian cat"), ("gildas-ai__pictures_objects_*.jpg", "laptop")],
)
def test_a_photograph_gets_its_name(
    picture: str, label: str, real: Path, mobilenet: tuple[Bundle, Predictor]
) -> None:
    """From the file to the label, through every part of ours."""
    theirs, session = mobilenet
    classify = make_head(theirs, session.output_shape)
    decoder = ImageDecoder(theirs.card, max_pixels=MAX_PIXELS)
    file = sorted((real / "images").glob(picture))[0]
    (row,) = session.predict(decoder.decode(file.read_bytes())[np.newaxis])
    assert any(label in prediction["label"] for prediction in classify(row, 3))


def test_every_photograph_gets_what_the_plain_signature_answers(
    mobilenet: tuple[Bundle, Predictor], real: Path, photographs: list[bytes]
) -> None:
    import tensorflow as tf

    theirs, session = mobilenet
    signature = real / "savedmodels" / next(iter(MOBILENET))
    plain = tf.saved_model.load(str(signature)).signatures["serving_default"]
    decoder = ImageDecoder(theirs.card, max_pixels=MAX_PIXELS)
    pixels = np.stack([decoder.decode(data) for data in photographs])
    (expected,) = plain(tf.constant((pixels - np.float32(127.5)) / np.float32(127.5))).values()
    scores = session.predict(pixels)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    # The best is the best, or one that is as good within that.
    best = np.take_along_axis(np.asarray(expected), scores.argmax(axis=1)[:, np.newaxis], axis=1)
    np.testing.assert_allclose(best[:, 0], np.max(expected, axis=1), atol=2e-4)


def test_pictures_shrunk_coarsely_first_are_what_they_are_at_full_scale(
    mobilenet: tuple[Bundle, Predictor], photographs: list[bytes]
) -> None:
    theirs, session = mobilenet
    best = []
    for exact in (False, True):
        decoder = ImageDecoder(theirs.card, max_pixels=MAX_PIXELS, exact=exact)
        scores = session.predict(np.stack([decoder.decode(data) for data in photographs]))
        best.append(scores.argmax(axis=1))
    assert np.mean(best[0] == best[1]) >= 0.99


def test_photographs_read_at_a_half_and_less_are_hardly_changed(
    mobilenet: tuple[Bundle, Predictor], enlarged: tuple[Pixels, Pixels]
) -> None:
    whole, coarse = enlarged
    assert (whole != coarse).any(axis=(1, 2, 3)).all(), "not read at a reduced scale"
    assert np.abs(whole.astype(int) - coarse).mean() < 1
    _, session = mobilenet
    expected, scores = session.predict(whole), session.predict(coarse)
    assert np.mean(scores.argmax(axis=1) == expected.argmax(axis=1)) >= 0.99


@pytest.mark.parametrize("engine", ENGINES)
def test_the_landmarks_model_runs_by_tag_and_operations(engine: str, real: Path) -> None:
    session = load_predictor(
        bundle(real, LANDMARKS, 112, LANDMARK_SCALE, **BY_OPERATIONS),
        Tuning(engine=EngineName(engine)),
    )
    assert session.batch_limit == 1
    assert session.output_shape == (136,)
    # The reference input is normalised already; undone, it is whole numbers again.
    scaled = numbers(real / "landmarks" / "input_112x112x3.json.gz").reshape(112, 112, 3)
    face = scaled * 255 + (122.782, 117.001, 104.298)
    assert np.abs(face - face.round()).max() < 1e-4
    pixels = face.round().astype(np.uint8)
    expected = numbers(real / "landmarks" / "output_136.json.gz").reshape(136)
    np.testing.assert_allclose(session.predict(pixels[np.newaxis])[0], expected, atol=1e-4)


def test_its_batch_of_one_does_not_mix_faces_up(real: Path) -> None:
    session = Session(bundle(real, LANDMARKS, 112, LANDMARK_SCALE, **BY_OPERATIONS))
    scaled = numbers(real / "landmarks" / "input_112x112x3.json.gz").reshape(112, 112, 3)
    face = (scaled * 255 + (122.782, 117.001, 104.298)).round().astype(np.uint8)
    faces = np.stack([face, face[:, ::-1], face // 2])
    together = session.predict(faces)
    assert together.shape == (3, 136)
    alone = np.concatenate([session.predict(faces[n : n + 1]) for n in range(3)])
    np.testing.assert_array_equal(together, alone)
    assert np.abs(together[0] - together[1]).max() > 0.01
    assert np.abs(together[0] - together[2]).max() > 0.001


@pytest.mark.parametrize("tags", [("serve",), ("mytag",), ("myTag", "gpu")])
def test_a_wrong_tag_is_answered_with_theirs(tags: tuple[str, ...], real: Path) -> None:
    with pytest.raises(ModelError) as caught:
        Session(bundle(real, LANDMARKS, 112, "none", **(BY_OPERATIONS | {"tags": tags})))
    assert caught.value.hint == "it has 'myTag'"
