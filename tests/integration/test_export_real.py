"""SavedModels of others, exported by the command, run through the worker's own session."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from millrace.core.bundle import Bundle, read_bundle
from millrace.worker.engines import load_predictor
from millrace.worker.heads import make_head
from millrace.worker.session import Session
from millrace.worker.tuning import EngineName, Tuning
from tests.support import millrace, millrace_json

BY_NAMES = ("--input-op", "input", "--output-op", "output")


def exported(source: Path, into: Path, *facts: str) -> Bundle:
    said = millrace_json("export", str(source), "--to", str(into), *facts, env={})
    card = said["card"]
    bundle = read_bundle(into / card["name"] / card["version"])
    assert bundle.card.digest == card["digest"]
    return bundle


@pytest.mark.parametrize(
    ("model", "name", "facts"),
    [
        ("mobilenet_v1_025_224/1", "mobilenet_v1_025_224", ()),
        ("mobilenet_v1_025_224_myTag_v1", "mobilenet_v1_025_224_myTag_v1", BY_NAMES),
    ],
)
def test_a_classifier_answers_as_tf_lite(
    model: str, name: str, facts: tuple[str, ...], real: Path, tmp_path: Path
) -> None:
    bundle = exported(
        real / "savedmodels" / model,
        tmp_path,
        *("--scale", "tf", "--labels", str(real / "imagenet" / "imagenet_labels.txt"), *facts),
    )
    assert bundle.card.name == name
    assert bundle.card.tags == (("myTag",) if facts else ("serve",))
    assert len(bundle.labels) == 1001
    with np.load(real / "imagenet" / "mobilenet_v1_025_224.reference.npz") as reference:
        pixels, told = reference["uint8_rgb_224"], reference["tflite_probabilities"]
    session = Session(bundle)
    scores = session.predict(pixels)
    np.testing.assert_allclose(scores, told, atol=1e-4)
    best = make_head(bundle, session.output_shape)(scores[0], 1)[0]
    assert best["label"] == bundle.labels[int(told[0].argmax())]


def numbers(file: Path) -> npt.NDArray[np.float64]:
    with gzip.open(file) as stream:
        return np.array(json.load(stream))


@pytest.mark.parametrize("engine", [EngineName.TENSORFLOW, EngineName.OPENVINO])
def test_landmarks_of_one_image_at_a_time(engine: EngineName, real: Path, tmp_path: Path) -> None:
    mean, divisor = (122.782, 117.001, 104.298), 255.0
    bundle = exported(
        real / "savedmodels" / "face_landmarks_68_myTag",
        tmp_path,
        *(*BY_NAMES, "--name", "faces", "--scale", "122.782,117.001,104.298,255"),
    )
    assert (bundle.card.height, bundle.card.width, bundle.card.channels) == (112, 112, "RGB")
    given = numbers(real / "landmarks" / "input_112x112x3.json.gz").reshape(1, 112, 112, 3)
    told = numbers(real / "landmarks" / "output_136.json.gz").reshape(1, 136)
    # The reference input is normalised already; undone, it is whole numbers again.
    pixels: Any = np.rint(given * divisor + np.array(mean)).astype(np.uint8)
    predictor = load_predictor(bundle, Tuning(engine=engine))
    scores = predictor.predict(np.concatenate([pixels, pixels[:, ::-1], pixels]))
    np.testing.assert_allclose(scores[[0, 2]], np.concatenate([told, told]), atol=1e-4)
    assert predictor.batch_limit == 1


def test_tags_and_names_that_are_not_there(real: Path, tmp_path: Path) -> None:
    model = str(real / "savedmodels" / "face_landmarks_68_myTag")
    to = ("--to", str(tmp_path))
    wrong = millrace("export", model, "--tags", "serve", *BY_NAMES, *to, env={})
    assert wrong.returncode == 8
    assert wrong.stderr.endswith("it has 'myTag'\n")
    unnamed = millrace("export", model, *to, env={})
    assert unnamed.returncode == 8
    assert "--input-op input --output-op output" in unnamed.stderr
    assert not [*tmp_path.iterdir()]
