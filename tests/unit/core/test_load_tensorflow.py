"""TensorFlow is imported late; where it is missing, a hint says what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from millrace.core.errors import MissingExtra
from millrace.core.load_tensorflow import _standard_error_held_back, load_tensorflow


def test_a_missing_tensorflow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtra, match="TensorFlow is not installed") as caught:
        load_tensorflow()
    assert caught.value.hint == "pip install 'millrace[worker]'"


@pytest.mark.parametrize(
    ("broken", "cause"),
    [
        ("raise ImportError('libcudart.so.12: cannot open')", "libcudart.so.12: cannot open"),
        ("import a_wheel_that_was_removed", "No module named 'a_wheel_that_was_removed'"),
        ("from tensorflow import python", "cannot import name 'python'"),
    ],
)
@pytest.mark.parametrize("log_level", ["0", "3"], ids=["outspoken", "quiet"])
def test_a_broken_tensorflow_is_not_a_missing_one(
    tmp_path: Path, broken: str, cause: str, log_level: str
) -> None:
    (tmp_path / "tensorflow.py").write_text(broken)
    program = """
from millrace.core.errors import ModelError
from millrace.core.load_tensorflow import load_tensorflow
try:
    load_tensorflow()
except ModelError as error:
    print(error.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": log_level},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("TensorFlow does not load: ")
    assert cause in done.stdout


def test_native_greetings_are_held_back(capfd: pytest.CaptureFixture[str]) -> None:
    with _standard_error_held_back():
        os.write(2, b"greetings from C++")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_what_was_said_before_a_failure_is_let_out(capfd: pytest.CaptureFixture[str]) -> None:
    with suppress(RuntimeError), _standard_error_held_back():
        os.write(2, b"last words")
        raise RuntimeError
    assert capfd.readouterr().err == "last words"
