"""TensorFlow is imported late; where it is missing, a hint says what to install."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import pytest

from millrace.core.errors import MissingExtra
from millrace.core.load_tensorflow import _standard_error_held_back, load_tensorflow


def test_a_missing_tensorflow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtra, match="TensorFlow is not installed") as caught:
        load_tensorflow()
    assert caught.value.hint == "pip install 'millrace[worker]'"


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
