"""A Keras model from a file somebody saved, or one line about why not."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from millrace.core.engine_errors import telling_line
from millrace.core.errors import MissingExtra, ModelError, ModelNotFound
from millrace.core.load_tensorflow import load_tensorflow

SUFFIXES = (".keras", ".h5", ".hdf5")

IN_PYTHON = "load it in Python, where its code is, and call millrace.export.export_keras"


def load_keras(path: Path | str) -> Any:
    """The `keras.Model` in a `.keras` or `.h5` file, not compiled.

    No code of the file is run. Raises ModelNotFound; ModelError, which says what it is if the
    file holds weights alone, needs classes that are not Keras's own, or is torn.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelNotFound(f"there is no file {path}")
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{path} is no Keras model", hint=f"one ends in {' or '.join(SUFFIXES)}")
    load_tensorflow()  # before keras, which would load it with all its greetings
    config = _zip_config(path) if path.suffix == ".keras" else _h5_config(path)
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises nearly anything for a file it cannot read
        if lambdas := [*_layers_of_class(config, "Lambda")]:
            raise ModelError(
                f"{path} holds Python code in the Lambda layer {', '.join(lambdas)}, "
                "which is not run",
                hint=IN_PYTHON,
            ) from error
        if custom := sorted(set(_custom(config))):
            what = "layers or functions" if len(custom) > 1 else "a layer or function"
            raise ModelError(
                f"{path} needs {what} of its own: {', '.join(custom)}", hint=IN_PYTHON
            ) from error
        raise ModelError(f"{path} does not load: {telling_line(error)}") from error


def _zip_config(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if "config.json" not in names:
                raise ModelError(f"{path} is a zip archive without a Keras model")
            return json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not a whole .keras file: {telling_line(error)}") from error


def _h5_config(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("h5py", "worker") from error
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            config = None if text is None else json.loads(text)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not a whole HDF5 file: {telling_line(error)}") from error
    if config is None:
        raise ModelError(
            f"{path} holds weights and no model",
            hint=f"name the architecture: millrace export NAME --weights {path}",
        )
    return config


def _layers_of_class(config: Any, wanted: str) -> Iterator[str]:
    for each in _objects(config):
        if each["class_name"] == wanted:
            inner = each.get("config")
            yield str(inner.get("name", wanted) if isinstance(inner, dict) else wanted)


def _custom(config: Any) -> Iterator[str]:
    """Names of the classes and functions that neither Keras nor this process knows.

    What `.keras` files say of an object is its module; `.h5` files of before Keras 3 do not, and
    there an object is known by its name alone.
    """
    import keras

    for each in _objects(config):
        name, module = str(each["class_name"]), each.get("module")
        if name == "function":
            name = str(each.get("config"))
        registered = each.get("registered_name") or name
        if keras.saving.get_registered_object(str(registered)) is not None:
            continue
        if name.startswith("__") or name == "Functional":  # tensors, types; Keras hides this class
            continue
        if isinstance(module, str):
            known = module.partition(".")[0] in ("keras", "builtins")
        else:
            known = "module" not in each and any(hasattr(home, name) for home in _homes())
        if not known:
            yield name


def _homes() -> tuple[Any, ...]:
    import keras

    return (
        keras,
        *(keras.layers, keras.models, keras.activations),
        *(keras.initializers, keras.regularizers, keras.constraints),
    )


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every serialised object in a model's configuration."""
    if isinstance(config, dict):
        if "class_name" in config and "config" in config:
            yield config
        for value in config.values():
            yield from _objects(value)
    elif isinstance(config, list):
        for value in config:
            yield from _objects(value)
