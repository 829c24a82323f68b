"""Real trained models over real photographs and difficult files, all written by others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.job_checks import check_job
from tests.support import millrace, millrace_json, running_worker

SIGNATURE = ("--size", "224", "--scale", "tf")
OPERATIONS = (*SIGNATURE, "--tags", "myTag", "--input-op", "input", "--output-op", "output")
FORMS = {
    "signature": ("mobilenet_v1_025_224/1", SIGNATURE),
    "operations": ("mobilenet_v1_025_224_myTag_v1", OPERATIONS),
}


def predict(
    real: Path, source: Path, out: Path, form: str, code: int = 0
) -> dict[str, dict[str, Any]]:
    """Run a job with MobileNet; returns key → outcome."""
    model, facts = FORMS[form]
    done = millrace(
        *("run", str(source), "--model", str(real / "savedmodels" / model)),
        *("--labels", str(real / "imagenet" / "imagenet_labels.txt"), *facts),
        *("--out", str(out), "--exclude", "LIST.json", "--chunk-size", "16", "--json"),
        env={},
        within_s=300,
    )
    assert done.returncode == code, done.stderr
    status = json.loads(done.stdout)
    return {o["key"]: o for o in check_job(f"{out}/{status['job_id']}", status)}


@pytest.mark.parametrize("form", FORMS)
def test_every_photograph_is_classified(form: str, real: Path, tmp_path: Path) -> None:
    outcomes = predict(real, real / "images", tmp_path / "out", form)
    assert len(outcomes) == len(json.loads((real / "images" / "LIST.json").read_text()))
    assert outcomes["test-data__cat_1080p.jpg"]["predictions"][0]["label"] == "Egyptian cat"
    assert all(len(outcome["predictions"]) == 5 for outcome in outcomes.values())


@pytest.mark.parametrize("form", FORMS)
def test_probabilities_agree_with_an_independent_runtime(
    form: str, real: Path, tmp_path: Path
) -> None:
    reference = np.load(real / "imagenet" / "mobilenet_v1_025_224.reference.npz")
    (tmp_path / "in").mkdir()
    for name, pixels in zip(reference["pictures"], reference["uint8_rgb_224"], strict=True):
        Image.fromarray(pixels).save(tmp_path / "in" / f"{Path(str(name)).name}.png")
    model, facts = FORMS[form]
    done = millrace(
        *("run", str(tmp_path / "in"), "--model", str(real / "savedmodels" / model), *facts),
        *("--out", str(tmp_path / "out"), "--top-k", "1001", "--json"),
        env={},
    )
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    outcomes = {o["key"]: o for o in check_job(f"{tmp_path}/out/{status['job_id']}", status)}
    for name, expected in zip(
        reference["pictures"], reference["tflite_probabilities"], strict=True
    ):
        answered = np.zeros(1001, np.float32)
        for prediction in outcomes[f"{Path(str(name)).name}.png"]["predictions"]:
            answered[prediction["index"]] = prediction["score"]
        assert np.abs(answered - expected).max() < 1e-5


def test_every_nasty_file_is_a_prediction_or_a_typed_error(real: Path, tmp_path: Path) -> None:
    outcomes = predict(real, real / "nasty", tmp_path / "out", "signature", code=3)
    listed = json.loads((real / "nasty" / "LIST.json").read_text())
    assert set(outcomes) == {entry["file"] for entry in listed}
    known = {"not_an_image", "truncated", "corrupt", "decompression_bomb", "empty"}
    for entry in listed:
        outcome = outcomes[entry["file"]]
        if entry["pillow"] == "ok":
            assert "predictions" in outcome, outcome
        else:
            assert outcome["error"]["stage"] == "decode"
            assert outcome["error"]["code"] in known
            assert outcome["error"]["message"]


ROTATED = (
    "exif-samples__jpg_orientation_landscape_",
    "exif-samples__jpg_orientation_portrait_",
    "Pillow__hopper_orientation_",
)


def test_pictures_stored_rotated_get_the_answer_of_the_upright_picture(
    real: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    rotated = [f for f in (real / "nasty").glob("*.jpg") if f.name.startswith(ROTATED)]
    for file in rotated:
        shutil.copy(file, tmp_path / "in")
        with Image.open(file) as picture:
            ImageOps.exif_transpose(picture).save(tmp_path / "in" / f"{file.stem}.upright.png")
    outcomes = predict(real, tmp_path / "in", tmp_path / "out", "signature")
    assert len(outcomes) == 2 * len(rotated) == 46
    best = {key: outcome["predictions"][0]["index"] for key, outcome in outcomes.items()}
    for file in rotated:
        assert best[file.name] == best[f"{file.stem}.upright.png"], file.name
    # The landscapes have their number painted on, which is enough to sway this small model;
    # the other two families are the same picture to it.
    for family in ROTATED[1:]:
        assert len({best[file.name] for file in rotated if file.name.startswith(family)}) == 1


def test_the_worker_outlives_the_nasty_files(
    real: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    facts = ["--saved-model", str(real / "savedmodels" / "mobilenet_v1_025_224" / "1")]
    env = {"MILLRACE_REDIS_URL": env["MILLRACE_REDIS_URL"]}
    log = tmp_path / "worker.log"
    with running_worker(*facts, "--name", "mobilenet", *SIGNATURE, env=env, log=log) as worker:
        (before,) = millrace_json("workers", env=env)
        done = millrace(
            *("enqueue", str(real / "nasty"), "--model", "mobilenet"),
            *("--out", str(tmp_path / "out"), "--wait", "--json"),
            env=env,
        )
        assert done.returncode == 3, done.stderr
        (after,) = millrace_json("workers", env=env)
        assert after["worker"] == before["worker"]
        assert "restarting" not in worker.log
