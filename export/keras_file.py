"""A Keras model from a file somebody saved, or one line about why not."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from millrace.core.engine_errors import as_model_errors, telling_line
from millrace.core.errors import MissingExtra, ModelError, ModelNotFound
from millrace.core.load_tensorflow import load_tensorflow
from millrace.core.sizes import MAX_KERAS_CONFIG_BYTES, shown_bytes

SUFFIXES = (".keras", ".h5", ".hdf5")

IN_PYTHON = "load it in Python, where its code is, and call millrace.export.export_keras"

FOREIGN = frozenset({"TFSMLayer", "TorchModuleWrapper"})
"""Layers that run what lies in another file, or in this one as a pickle."""

LAMBDA = "__lambda__"


def load_keras(path: Path | str) -> Any:
    """The `keras.Model` in a `.keras` or `.h5` file, not compiled.

    No code of the file is run: what Keras would run is refused before Keras sees it, which
    refuses it as well. Raises ModelNotFound; ModelError, which says what it is if the file holds
    weights alone, needs classes that are not Keras's own, or is torn.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelNotFound(f"there is no file {path}")
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{path} is no Keras model", hint=f"one ends in {' or '.join(SUFFIXES)}")
    load_tensorflow()  # before keras, which would load it with all its greetings
    config = _zip_config(path) if path.suffix == ".keras" else _h5_config(path)
    if code := _code(config):
        raise ModelError(
            f"{path} holds code of its own in {', '.join(code)}, which is not run", hint=IN_PYTHON
        )
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises nearly anything for a file it cannot read
        if custom := sorted(set(_custom(config))):
            what = "layers or functions" if len(custom) > 1 else "a layer or function"
            raise ModelError(
                f"{path} needs {what} of its own: {', '.join(custom)}", hint=IN_PYTHON
            ) from error
        raise ModelError(f"{path} does not load: {telling_line(error)}") from error


def _zip_config(path: Path) -> Any:
    # A damaged, encrypted or foreign archive may raise nearly anything.
    with as_model_errors(f"{path} is not a whole .keras file"):
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if "config.json" not in names:
                raise ModelError(f"{path} is a zip archive without a Keras model")
            size = archive.getinfo("config.json").file_size
            if size > MAX_KERAS_CONFIG_BYTES:
                raise ModelError(f"{path}: its config.json is of {shown_bytes(size)}")
            text = archive.read("config.json")
        return _parsed(text, path)


def _h5_config(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("h5py", "worker") from error
    with as_model_errors(f"{path} is not a whole HDF5 file"):
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
        config = None if text is None else _parsed(text, path)
    if config is None:
        raise ModelError(
            f"{path} holds weights and no model",
            hint=f"name the architecture: millrace export NAME --weights {path}",
        )
    return config


def _parsed(text: bytes | str, path: Path) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ModelError(f"{path}: its configuration is nested too deeply") from error


def _code(config: Any) -> list[str]:
    """What of a model would run code that comes with it: `the Lambda layer NAME`."""
    found = []
    for each in _objects(config):
        names, inner = _names(each), each["config"]
        runs = FOREIGN | {"Lambda"} if _is_lambda(inner) else FOREIGN
        for kind in names & runs:
            called = inner.get("name", kind) if isinstance(inner, dict) else kind
            found.append(f"the {kind} layer {called}")
    if not found and any(LAMBDA in _names(each) for each in _objects(config)):
        found.append("a lambda")
    return found


def _is_lambda(config: Any) -> bool:
    """Whether a Lambda layer's function is code: a list of it in the old format."""
    function = config.get("function") if isinstance(config, dict) else None
    if isinstance(function, dict):
        return LAMBDA in _names(function)
    return isinstance(function, list)


def _names(each: dict[str, Any]) -> set[str]:
    """What an object may be looked up by: `layers.Lambda` and `package>Lambda` are `Lambda`."""
    said = (each.get(key) for key in ("class_name", "registered_name", "spec_name", "config"))
    return {re.split(r"[.>]", name)[-1] for name in said if isinstance(name, str)}


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
    """Every serialised object in a model's configuration, in order; however deep it is."""
    left = [config]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            if "class_name" in each and "config" in each:
                yield each
            left.extend(reversed(each.values()))
        elif isinstance(each, list):
            left.extend(reversed(each))
