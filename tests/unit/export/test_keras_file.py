"""Files that hold a Keras model, and those that do not."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.core.errors import ModelError, ModelNotFound
from millrace.core.load_tensorflow import load_tensorflow
from millrace.export import keras_file
from millrace.export.keras_file import load_keras


@pytest.fixture(scope="module")
def keras() -> Any:
    load_tensorflow()
    import keras

    return keras


@pytest.fixture(scope="module")
def model(keras: Any) -> Any:
    keras.utils.set_random_seed(6)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.layers.Conv2D(2, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


IMAGES = np.random.default_rng(1).random((2, 4, 4, 3), np.float32)


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_a_whole_model_is_loaded(name: str, model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / name)
    loaded = load_keras(tmp_path / name)
    np.testing.assert_array_equal(np.asarray(loaded(IMAGES)), np.asarray(model(IMAGES)))


@pytest.mark.parametrize("name", ["m.weights.h5", "m.h5"])
def test_weights_alone_are_told(name: str, model: Any, tmp_path: Path, keras: Any) -> None:
    if name == "m.h5":
        import h5py
        from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

        with h5py.File(tmp_path / name, "w") as file:  # as Keras 2 did
            save_weights_to_hdf5_group(file, model)
    else:
        model.save_weights(tmp_path / name)
    with pytest.raises(ModelError, match="weights and no model") as caught:
        load_keras(tmp_path / name)
    assert "--weights" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.99])
def test_a_torn_file_is_told(name: str, share: float, model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match=r"not a whole|does not load") as caught:
        load_keras(tmp_path / name)
    assert "\n" not in caught.value.message


def damaged_within(whole: bytes) -> bytes:
    """Its configuration, of all that is compressed, no longer unpacks."""
    start = whole.index(b"config.json") + len(b"config.json")
    return whole[: start + 8] + b"\xff" * 40 + whole[start + 48 :]


def encrypted(whole: bytes) -> bytes:
    """As far as what lies at the beginning of each part says."""
    local, central = b"PK\x03\x04", b"PK\x01\x02"
    flagged = bytearray(whole)
    for mark, at in ((local, 6), (central, 8)):
        position = whole.find(mark)
        while position >= 0:
            flagged[position + at] |= 1
            position = whole.find(mark, position + 1)
    return bytes(flagged)


@pytest.mark.parametrize("change", [damaged_within, encrypted])
def test_an_archive_that_does_not_unpack_is_told(
    change: Callable[[bytes], bytes], model: Any, tmp_path: Path
) -> None:
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(parts.items()):
            archive.writestr(name, content)
    (tmp_path / "m.keras").write_bytes(change((tmp_path / "m.keras").read_bytes()))
    with pytest.raises(ModelError, match=r"is not a whole \.keras file: ") as caught:
        load_keras(tmp_path / "m.keras")
    assert "\n" not in caught.value.message


def test_a_configuration_that_is_no_text_is_told(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = 5
    with pytest.raises(ModelError, match="is not a whole HDF5 file: "):
        load_keras(tmp_path / "m.h5")


def test_weights_that_are_damaged_within_are_told(model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["model.weights.h5"] = parts["model.weights.h5"][:200]
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ModelError, match="does not load"):
        load_keras(tmp_path / "m.keras")


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_layers_of_its_own_are_named(name: str, keras: Any, tmp_path: Path) -> None:
    class MyGain(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x * 2

    class MyShift(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x + 1

    image = keras.Input((4, 4, 3))
    inner = keras.Sequential([keras.Input((4, 4, 3)), MyShift()])
    answer = keras.layers.Dense(2)(keras.layers.Flatten()(inner(MyGain()(image))))
    keras.Model(image, answer).save(tmp_path / name)
    with pytest.raises(ModelError, match=r"of its own: MyGain, MyShift$") as caught:
        load_keras(tmp_path / name)
    assert "export_keras" in (caught.value.hint or "")


def test_layers_that_this_process_knows_are_no_obstacle(keras: Any, tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("test_keras_file")
    class Known(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x * 2

    keras.Sequential([keras.Input((4, 4, 3)), Known()]).save(tmp_path / "m.keras")
    loaded = load_keras(tmp_path / "m.keras")
    np.testing.assert_allclose(np.asarray(loaded(IMAGES)), IMAGES * 2)


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_python_code_in_a_file_is_not_run(name: str, keras: Any, tmp_path: Path) -> None:
    witness = str(tmp_path / "run")
    code = keras.layers.Lambda(
        lambda x, path=witness: [Path(path).write_text("run"), x][1], name="evil"
    )
    keras.Sequential([keras.Input((4, 4, 3)), code]).save(tmp_path / name)
    Path(witness).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="Lambda layer evil"):
        load_keras(tmp_path / name)
    assert not Path(witness).exists()


def with_layer(model: Any, path: Path, **said: Any) -> None:
    """Save the model with other things said of its first layer after the input."""
    model.save(path)
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        config = json.loads(parts["config.json"])
        config["config"]["layers"][1].update(said)
        parts["config.json"] = json.dumps(config).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
        return
    import h5py

    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1].update(said)
        file.attrs["model_config"] = json.dumps(config)


FOREIGN = {"name": "evil", "filepath": "s3://theirs/model", "call_endpoint": "serve"}
LAMBDA = {"class_name": "__lambda__", "config": {"code": "", "defaults": None, "closure": None}}


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"class_name": "TFSMLayer", "config": FOREIGN}, "the TFSMLayer layer evil"),
        (
            {"class_name": "layers.TFSMLayer", "module": "keras", "config": FOREIGN},
            "the TFSMLayer layer evil",
        ),
        (
            {"class_name": "Mine", "registered_name": "p>TFSMLayer", "config": FOREIGN},
            "the TFSMLayer layer evil",
        ),
        (
            {"config": {"activation": {"class_name": "function", "config": "TFSMLayer"}}},
            "the TFSMLayer layer TFSMLayer",
        ),
        (
            {"class_name": "TorchModuleWrapper", "config": {"name": "evil"}},
            "the TorchModuleWrapper layer evil",
        ),
        ({"config": {"activation": LAMBDA}}, "a lambda"),
        (
            {"class_name": "Lambda", "config": {"name": "old", "function": ["4wEA", None, None]}},
            "the Lambda layer old",
        ),
    ],
    ids=["layer", "by a path", "registered", "reference", "torch", "lambda", "of Keras 2"],
)
def test_what_runs_code_is_refused_before_keras_sees_it(
    name: str,
    said: dict[str, Any],
    told: str,
    model: Any,
    keras: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_layer(model, tmp_path / name, **said)
    seen: list[Any] = []
    monkeypatch.setattr(keras.saving, "load_model", lambda *args, **kw: seen.append(args))
    with pytest.raises(ModelError, match=f"holds code of its own in {told}, which is not run"):
        load_keras(tmp_path / name)
    assert not seen


def test_a_lambda_layer_of_a_function_of_keras_is_no_code(keras: Any, tmp_path: Path) -> None:
    layer = keras.layers.Lambda(keras.activations.relu)
    keras.Sequential([keras.Input((4, 4, 3)), layer]).save(tmp_path / "m.keras")
    loaded = load_keras(tmp_path / "m.keras")
    np.testing.assert_array_equal(np.asarray(loaded(-IMAGES)), 0 * IMAGES)


def test_a_configuration_without_end_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras_file, "MAX_KERAS_CONFIG_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", " " * 1001)
    with pytest.raises(ModelError, match=r"its config\.json is of 1\.0 kB"):
        load_keras(tmp_path / "bomb.keras")


def test_a_configuration_without_a_bottom_is_told(tmp_path: Path) -> None:
    import h5py

    deep = "[" * 50_000
    with zipfile.ZipFile(tmp_path / "deep.keras", "w") as archive:
        archive.writestr("config.json", deep)
    with h5py.File(tmp_path / "deep.h5", "w") as file:
        file.attrs["model_config"] = deep
    for name in ("deep.keras", "deep.h5"):
        with pytest.raises(ModelError, match="nested too deeply"):
            load_keras(tmp_path / name)


def test_other_archives_and_files_are_no_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({}))
    with pytest.raises(ModelError, match="without a Keras model"):
        load_keras(tmp_path / "a.keras")
    (tmp_path / "a.txt").write_text("no model")
    with pytest.raises(ModelError, match="no Keras model"):
        load_keras(tmp_path / "a.txt")
    for name in ("none.keras", "none.h5"):
        with pytest.raises(ModelNotFound):
            load_keras(tmp_path / name)
