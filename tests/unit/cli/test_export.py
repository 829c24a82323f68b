"""`millrace export`: every kind of source, and one line and an exit code for what is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.cli import export_source
from millrace.core.bundle import Bundle, read_bundle
from millrace.core.errors import ExitCode, ModelError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.models import build
from millrace.worker.session import Session
from tests.support import random_pixels
from tests.unit.cli.conftest import Invoke, Said
from tests.unit.worker.saved_models import SIDE, Workshop

LABELS = "".join(f"{n}\n" for n in range(10))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models as people have them on their disks."""
    folder = tmp_path_factory.mktemp("files")
    load_tensorflow()
    import keras

    keras.utils.set_random_seed(3)
    model = build("digits")
    model.save(folder / "mine.keras")
    model.save_weights(folder / "mine.weights.h5")
    image = keras.Input((4, 4, 3))
    flat = keras.layers.Flatten()(image)
    keras.Model([image, keras.Input((4, 4, 3))], flat).save(folder / "two-in.keras")
    keras.Model(image, [flat, keras.layers.Dense(2)(flat)]).save(folder / "two-out.keras")
    keras.Sequential([keras.Input((4, 4, 3), dtype="int32"), keras.layers.Flatten()]).save(
        folder / "whole-numbers.keras"
    )

    bytes_in = keras.Input((4, 4, 3), dtype="uint8")
    scores = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(bytes_in))
    keras.Model(bytes_in, scores).save(folder / "bytes.keras")

    class Own(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    keras.Sequential([keras.Input((4, 4, 3)), Own(), keras.layers.Flatten()]).save(
        folder / "own.keras"
    )
    whole = (folder / "mine.keras").read_bytes()
    (folder / "torn.keras").write_bytes(whole[: len(whole) // 2])
    (folder / "torn.pb").write_bytes(b"\x0a\xff\x01node")
    (folder / "note.txt").write_text("no model")
    (folder / "labels.txt").write_text(LABELS)
    (folder / "few.txt").write_text("a\nb\n")
    (folder / "empty.txt").write_text("\n")
    (folder / "latin.txt").write_bytes(b"caf\xe9\n")
    made = Workshop(folder)
    shutil.copytree(made("by_operations").path, folder / "myTag")
    torn = shutil.copytree(made("by_operations").path, folder / "torn-variables")
    (data,) = torn.glob("variables/*.data*")
    data.write_bytes(data.read_bytes()[:50])
    for name, change in (("unknown", {"colour": "blue"}), ("newer", {"schema_version": 2})):
        carded = shutil.copytree(made("scaled_by_tf").path, folder / name)
        (carded / "assets.extra").mkdir()
        card = {"name": "m", "signature": "serving_default", "height": SIDE, "width": SIDE}
        (carded / "assets.extra" / "millrace.json").write_text(json.dumps(card | change))
    return folder


BY_NAMES = ("--input-op", "input_1", "--output-op", "inferenceLayer/Softmax")


@pytest.fixture
def export(run: Invoke, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """In the directory of the files, into an empty repository."""
    monkeypatch.chdir(files)

    def invoke(*arguments: str, **how: Any) -> Said:
        return run("export", *arguments, "--to", str(tmp_path), **how)

    return invoke


def bundle(said: Said, tmp_path: Path, name: str, version: str = "1") -> Bundle:
    assert said.code == 0, said
    return read_bundle(tmp_path / name / version)


def test_an_architecture_with_weights_of_a_file(export: Invoke, tmp_path: Path) -> None:
    said = export("digits", "--weights", "mine.weights.h5", "--version", "3")
    made = bundle(said, tmp_path, "digits", "3")
    assert made.labels == tuple(str(n) for n in range(10))
    assert (made.card.height, made.card.channels) == (8, "L")
    assert "digits:3" in said.out
    assert "input_1 → probabilities/Softmax" in said.out
    import keras

    model = keras.saving.load_model("mine.keras")
    pixels = random_pixels(2, (3, 8, 8, 1))
    told = np.asarray(model(pixels.astype(np.float32) / 255))
    np.testing.assert_allclose(Session(made).predict(pixels), told, atol=1e-4)


def test_an_architecture_with_classes_of_ones_own(export: Invoke, tmp_path: Path) -> None:
    said = export("digits", "--weights", "none", "--labels", "few.txt", "--name", "pair")
    assert bundle(said, tmp_path, "pair").labels == ("a", "b")


def test_a_keras_file_under_a_tag_and_names(export: Invoke, tmp_path: Path) -> None:
    said = export(
        *("mine.keras", "--tag", "myTag", "--labels", "labels.txt", "--scale", "0,255"),
        *("--input-name", "image", "--inference-name", "out/Softmax", "--top-k", "2", "--json"),
    )
    made = bundle(said, tmp_path, "mine")
    printed = json.loads(said.out)
    assert printed["card"] == json.loads(made.card.model_dump_json())
    assert (printed["input_op"], printed["output_op"]) == ("image", "out/Softmax")
    assert (made.card.tags, made.card.top_k) == (("myTag",), 2)
    assert printed["location"] == made.path.as_uri()


def test_a_saved_model_by_its_operations(export: Invoke, tmp_path: Path) -> None:
    made = bundle(export("myTag", *BY_NAMES, "--resize", "crop"), tmp_path, "myTag")
    assert (made.card.tags, made.card.resize) == (("myTag",), "crop")
    file = bundle(export("myTag/saved_model.pb", *BY_NAMES, "--name", "b"), tmp_path, "b")
    assert file.card.input_op == "input_1"
    # A bundle is exported on, with the next version, and `1` is not what it is called.
    again = bundle(export(str(made.path), "--filter", "box"), tmp_path, "myTag", "2")
    assert (again.card.filter, again.card.resize) == ("box", "crop")


def test_versions_count_up_and_only_force_overwrites(export: Invoke, tmp_path: Path) -> None:
    mine = ("mine.keras", "--labels", "labels.txt")
    assert export(*mine).code == 0
    assert export(*mine).code == 0
    assert sorted(each.name for each in (tmp_path / "mine").iterdir()) == ["1", "2"]
    said = export(*mine, "--version", "1")
    assert said.code == ExitCode.CONFLICT
    assert "--force" in said.err
    assert export(*mine, "--version", "1", "--force", "--scale", "tf").code == 0
    assert read_bundle(tmp_path / "mine" / "1").card.normalisation.mode == "tf"


def test_the_repository_of_the_environment_is_the_default(
    run: Invoke, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("export", str(files / "mine.keras")).code == ExitCode.USAGE
    monkeypatch.setenv("MILLRACE_MODELS", str(tmp_path))
    assert run("export", str(files / "mine.keras")).code == 0
    assert (tmp_path / "mine" / "1" / "saved_model.pb").exists()


def test_a_bundle_that_disagrees_is_not_published(
    export: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command hands the check on that looks at the finished bundle."""
    from millrace.cli import model_check

    def refuse(bundle: Bundle, predict: Any) -> None:
        assert predict(random_pixels(1, (2, 8, 8, 1))).shape == (2, 10)
        raise ModelError("it disagrees")

    monkeypatch.setattr(model_check, "refuse_disagreement", refuse)
    said = export("mine.keras")
    assert (said.code, said.err) == (ExitCode.MODEL, "millrace: it disagrees\n")
    assert not [*tmp_path.iterdir()]


def test_a_version_that_stands_is_told_before_a_network_is_made(
    export: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = ("digits", "--weights", "none", "--version", "3")
    assert export(*digits).code == 0

    def laborious(*args: Any, **facts: Any) -> Any:
        raise AssertionError("it works in vain")

    monkeypatch.setattr(export_source, "find_source", laborious)
    assert export(*digits).code == ExitCode.CONFLICT


def test_weights_of_the_environment_are_of_architectures(
    export: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be meant for fine-tuning."""
    monkeypatch.setenv("MILLRACE_WEIGHTS", "none")
    assert export("mine.keras").code == 0
    assert export("digits").code == 0
    assert export("mine.keras", "--weights", "none").code == ExitCode.USAGE


def test_it_is_told_when_nobody_says_the_scale(export: Invoke) -> None:
    assert "without --scale the model gets pixels of 0 to 255" in export("mine.keras").err
    assert export("mine.keras", "--scale", "none").err == ""
    assert export("digits", "--weights", "none").err == ""
    assert export("bytes.keras").err == ""  # which would refuse --scale


@pytest.mark.parametrize(
    "source", ["faces.keras", "faces/saved_model.pb", "faces/saved_model.pbtxt", "faces.pbtxt"]
)
def test_a_model_is_called_after_its_file_or_directory(source: str) -> None:
    assert export_source.default_name(source) == "faces"


MODEL, USAGE, NOT_FOUND = ExitCode.MODEL, ExitCode.USAGE, ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["myTag", "--tags", "serve", *BY_NAMES], MODEL, "it has 'myTag'"),
        (["myTag"], MODEL, "--input-op input_1"),
        (["myTag", *BY_NAMES[:3], "Softmax"], MODEL, "perhaps inferenceLayer/Softmax"),
        (["myTag", *BY_NAMES, "--labels", "few.txt"], MODEL, "2 labels for 5 classes"),
        (["myTag", *BY_NAMES, "--size", "9"], MODEL, "8 high, not 9"),
        (["torn-variables", *BY_NAMES], MODEL, "does not load"),
        (["unknown"], MODEL, "colour"),
        (["newer"], MODEL, "schema_version"),
        (["mine.keras", "--labels", "few.txt"], MODEL, "2 labels for 10 classes"),
        (["mine.keras", "--labels", "none.txt"], NOT_FOUND, "none.txt"),
        (["mine.keras", "--labels", "empty.txt"], USAGE, "empty.txt holds no labels"),
        (["mine.keras", "--labels", "latin.txt"], MODEL, "latin.txt"),
        (["mine.keras", "--name", "../up"], USAGE, "'../up' does not name a model"),
        (["mine.keras", "--version", "../2"], USAGE, "'../2' is not a version"),
        (["mine.keras", "--version", "v2"], USAGE, "TensorFlow Serving"),
        (["mine.keras", "--scale", "half"], USAGE, "'half' is not a scale"),
        (["mine.keras", "--size", "big"], USAGE, "'big' is not an input size"),
        (["mine.keras", "--resize", "fold"], USAGE, "'fold' is none of"),
        (["mine.keras", "--logits"], USAGE, "softmax already"),
        (["mine.keras", "--signature", "s"], USAGE, "--signature"),
        (["mine.keras", "--weights", "none"], USAGE, "--weights"),
        (["mine.keras", "--checkpoint", "c"], USAGE, "--checkpoint"),
        (["mine.weights.h5"], MODEL, "--weights mine.weights.h5"),
        (["torn.keras"], MODEL, "not a whole .keras file"),
        (["torn.pb", *BY_NAMES], MODEL, "not a whole GraphDef"),
        (["own.keras"], MODEL, "a layer or function of its own: Own"),
        (["two-in.keras"], MODEL, "one input"),
        (["two-out.keras"], MODEL, "one output"),
        (["whole-numbers.keras"], MODEL, "int32"),
        (["note.txt"], MODEL, "no model that can be exported"),
        (["none.keras"], NOT_FOUND, "none.keras"),
        (["none.pb", *BY_NAMES], NOT_FOUND, "none.pb"),
        (["some/where"], NOT_FOUND, "some/where"),
        (["digit", "--weights", "none"], NOT_FOUND, "digits"),
        (["digit"], NOT_FOUND, "digits"),
        (["digits"], USAGE, "which weights"),
        (["pnasnet5_mobile", "--weights", "imagenet"], MODEL, "no ImageNet weights of pnasnet5"),
        (["digits", "--weights", "none.h5"], NOT_FOUND, "none.h5"),
        (["digits", "--weights", "torn.keras"], MODEL, "torn.keras"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_an_exit_code(
    arguments: list[str], code: ExitCode, says: str, export: Invoke, tmp_path: Path
) -> None:
    said = export(*arguments)
    assert said.code == code, said
    assert says in said.err
    lines = said.err.splitlines()
    assert lines[0].startswith("millrace: ")
    assert len(lines) == (2 if lines[1:] and lines[1].startswith("  ") else 1), said
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("to", ["http://models", "s3://bucket/a/../b", ""])
def test_a_repository_that_is_none_is_refused(to: str, run: Invoke, files: Path) -> None:
    said = run("export", str(files / "mine.keras"), "--to", to)
    assert said.code == ExitCode.USAGE, said
