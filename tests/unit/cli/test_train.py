"""`millrace train`: from pictures to a bundle, and one line for what cannot be."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from millrace.cli import training
from millrace.core.bundle import Bundle, read_bundle
from millrace.core.errors import ExitCode, ModelError
from tests.support import random_pixels, write_png
from tests.unit.cli.conftest import Invoke
from tests.unit.models.idx_files import write_digit_folders, write_pair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A hundred digits, a folder for each."""
    return write_digit_folders(tmp_path / "pictures", range(100))


def test_a_run_ends_with_its_accuracy_and_a_bundle(
    run: Invoke, folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "run"
    asked = ("train", "digits", "--data", str(folder), "--run", str(place), "--epochs", "2")
    (folder / "3" / "notes.txt").write_text("no picture")
    (folder / "7" / "broken.png").write_bytes(b"\x89PNG")
    told = run(*asked)
    assert told.code == 0, told
    lines = told.err.splitlines()
    assert lines[0] == "millrace: skipped 2 files that are no pictures: 3/notes.txt …"
    assert [line.partition(":")[0] for line in lines[1:]] == ["epoch 1/2", "epoch 2/2"]
    bundle = read_bundle(place / "bundle" / "digits" / "1")
    assert bundle.labels == tuple("0123456789")
    assert (bundle.card.height, bundle.card.channels) == (8, "L")
    assert bundle.card.normalisation.scale == (255,)

    # Again: nothing is trained, and what is said is the same, for scripts now.
    said = run(*asked, "--json")
    assert said.code == 0, said
    assert said.err == ""
    report = json.loads(said.out)
    assert report["recipe"] == "digits"
    assert f"{report['accuracy']:.2%} of 19 unseen pictures" in told.out
    assert (report["epochs"], report["resumed_after"]) == (2, 2)
    assert (report["seen"], report["unseen"], report["skipped"]) == (81, 19, 2)
    assert report["bundle"] == str(place / "bundle" / "digits" / "1")
    assert read_bundle(place / "bundle" / "digits" / "1").labels == bundle.labels

    # Another run is not begun in its place.
    before = (place / "run.json").read_bytes()
    said = run(*asked, "--seed", "3", "--json")
    assert said.code == ExitCode.CONFLICT
    error = json.loads(said.err)["error"]
    assert error["code"] == "conflict"
    assert "seed is 0 there and 3 here" in error["message"]
    assert (place / "run.json").read_bytes() == before


def test_the_bundle_goes_where_and_by_the_name_it_is_told(run: Invoke, tmp_path: Path) -> None:
    write_pair(tmp_path / "idx", "train", 60, side=28, end=".gz")
    asked = (
        *("train", "mnist-softmax", "--data", str(tmp_path / "idx")),
        *("--run", str(tmp_path / "run"), "--epochs", "1", "--holdout", "0.25"),
        *("--name", "scans", "--version", "7", "--to", str(tmp_path / "repository")),
        *("--tag", "myTag", "--json"),
    )
    said = run(*asked)
    assert said.code == 0, said
    assert json.loads(said.out)["unseen"] == 15
    card = read_bundle(tmp_path / "repository" / "scans" / "7").card
    assert (card.name, card.version, card.tags) == ("scans", "7", ("myTag",))
    assert not (tmp_path / "run" / "bundle").exists()

    said = run(*asked)
    assert said.code == ExitCode.CONFLICT
    assert "stands already" in said.err


def test_a_bundle_that_disagrees_is_not_published(
    run: Invoke, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(bundle: Bundle, predict: Any) -> None:
        assert predict(random_pixels(1, (2, 8, 8, 1))).shape == (2, 10)
        raise ModelError("it disagrees")

    monkeypatch.setattr(training, "refuse_disagreement", refuse)
    said = run(
        *("train", "digits", "--data", str(folder), "--run", str(tmp_path / "run")),
        *("--epochs", "1", "--to", str(tmp_path / "repository"), "--json"),
    )
    assert said.code == ExitCode.MODEL, said
    assert "it disagrees" in said.err
    assert not (tmp_path / "repository").exists()


def test_the_bundle_of_before_stays_until_there_is_another(
    run: Invoke, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(bundle: Bundle, predict: Any) -> None:
        raise ModelError("it disagrees")

    place = tmp_path / "run"
    asked = ("train", "digits", "--data", str(folder), "--run", str(place), "--epochs", "1")
    assert run(*asked).code == 0
    before = read_bundle(place / "bundle" / "digits" / "1").digest
    with monkeypatch.context() as patched:
        patched.setattr(training, "refuse_disagreement", refuse)
        assert run(*asked).code == ExitCode.MODEL
    assert read_bundle(place / "bundle" / "digits" / "1").digest == before
    said = run(*asked, "--name", "scans", "--json")
    assert json.loads(said.out)["bundle"] == str(place / "bundle" / "scans" / "1")
    assert [path.name for path in (place / "bundle").iterdir()] == ["scans"]
    assert not (place / ".unfinished-bundle").exists()


def test_the_environment_may_say_it_all(
    run: Invoke, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said_there = {"DATA": str(folder), "RUN": str(tmp_path / "run"), "EPOCHS": "1", "JSON": "1"}
    # Meant for fine-tuning, and for workers, on the same machine.
    said_there |= {"SIZE": "224", "BATCH_SIZE": "auto", "WEIGHTS": "imagenet"}
    for name, value in said_there.items():
        monkeypatch.setenv(f"MILLRACE_{name}", value)
    said = run("train", "digits")
    assert said.code == 0, said
    assert json.loads(said.out)["epochs"] == 1


GOOD = ("--epochs", "1")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("frobnicate", "--data", "in", *GOOD), ExitCode.USAGE, "no recipe 'frobnicate'"),
        (("mnist-cnn", *GOOD), ExitCode.USAGE, "mnist-cnn needs pictures"),
        (("digits", "--epochs", "0"), ExitCode.USAGE, "epochs"),
        (("digits", "--epochs", "-3"), ExitCode.USAGE, "epochs"),
        (("digits", "--batch-size", "0"), ExitCode.USAGE, "batch-size"),
        (("digits", "--learning-rate", "0"), ExitCode.USAGE, "--learning-rate"),
        (("digits", "--learning-rate", "nan"), ExitCode.USAGE, "--learning-rate"),
        (("digits", "--holdout", "1"), ExitCode.USAGE, "between 0 and 1"),
        (("digits", "--unfreeze", "3"), ExitCode.USAGE, "--unfreeze goes with fine-tune"),
        (("digits", "--name", "a/b"), ExitCode.USAGE, "name"),
        (("digits", "--version", "../1"), ExitCode.USAGE, "version"),
        (("digits", "--tag", ""), ExitCode.USAGE, "tag"),
        (("digits", "--to", "ftp//:x?", "--to", ""), ExitCode.USAGE, "not a place"),
        (("digits", "--to", "s3://b/x/../y"), ExitCode.USAGE, "holds no '.' or '..'"),
        (("digits", "--to", "idx/train-images-idx3-ubyte"), ExitCode.NOT_FOUND, "no model repos"),
        (("digits", "--resume"), ExitCode.NOT_FOUND, "no training run to go on with"),
        (("digits", "--data", "nowhere", *GOOD), ExitCode.NOT_FOUND, "nowhere"),
        (("mnist-cnn", "--data", "empty", *GOOD), ExitCode.USAGE, "neither idx files nor"),
        (("mnist-cnn", "--data", "one", *GOOD), ExitCode.USAGE, "one class alone, 'cat'"),
        (("mnist-cnn", "--data", "idx", *GOOD), ExitCode.USAGE, "no idx file"),
        (("digits", "--run", "foreign", *GOOD), ExitCode.CONFLICT, "holds something else"),
        (("fine-tune", "--data", "in", "--base", "resnet"), ExitCode.NOT_FOUND, "'resnet'"),
        (("fine-tune", "--data", "in", "--size", "8y"), ExitCode.USAGE, "'8y'"),
        (("fine-tune", "--data", "in", "--weights", "no.h5"), ExitCode.NOT_FOUND, "no.h5"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_is_one_line_and_a_code(
    arguments: tuple[str, ...],
    code: ExitCode,
    words: str,
    run: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for number in range(4):
        write_png(tmp_path / "one" / "cat" / f"{number}.png", random_pixels(number, (8, 8)))
    (tmp_path / "idx").mkdir()
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (tmp_path / "idx" / name).write_bytes(b"\x89PNG, which it is not")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("mine")
    where = () if "--run" in arguments else ("--run", "run")
    said = run("train", *arguments, *where)
    assert said.code == code, said
    assert words in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert not (tmp_path / "run" / "run.json").exists()


def test_without_tensorflow_it_says_what_to_install(
    run: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    said = run("train", "digits", "--run", str(tmp_path / "run"))
    assert said.code == ExitCode.MISSING_EXTRA
    assert "pip install 'millrace[worker]'" in said.err


def test_without_scikit_learn_it_says_what_to_install(
    run: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    said = run("train", "digits", "--run", str(tmp_path / "run"))
    assert said.code == ExitCode.MISSING_EXTRA
    assert "pip install 'millrace[demo]'" in said.err
