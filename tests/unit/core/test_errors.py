"""The tree of errors: every class with a word for scripts and an exit code."""

from __future__ import annotations

import inspect
import re

import pytest

from millrace.core import errors
from millrace.core.errors import (
    BadManifest,
    ExitCode,
    ItemError,
    MillraceError,
    MissingExtra,
    Stage,
)

TREE = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, MillraceError)
]


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_the_docstring_draws_every_class_where_it_stands(error: type[MillraceError]) -> None:
    drawn = errors.__doc__ or ""
    depth = len(error.__mro__) - len(MillraceError.__mro__)
    column = 4 * depth + 4
    assert re.search(rf"^(?=.{{{column}}}\w).*\b{error.__name__}\b", drawn, re.MULTILINE)


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_every_class_says_what_it_means(error: type[MillraceError]) -> None:
    assert (error.__doc__ or "").strip().endswith((".", "line."))
    assert isinstance(error.exit_code, ExitCode)


def test_no_two_classes_share_a_code() -> None:
    codes = [error.code for error in TREE if error is not ItemError]
    assert len(set(codes)) == len(codes)


def test_no_error_exits_as_success() -> None:
    assert all(error.exit_code is not ExitCode.OK for error in TREE)


def test_an_error_carries_its_message_and_a_hint() -> None:
    error = MillraceError("it broke", hint="mend it")
    assert (str(error), error.message, error.hint) == ("it broke", "it broke", "mend it")
    assert MillraceError("it broke").hint is None


def test_a_bad_manifest_names_the_line() -> None:
    error = BadManifest("list.txt", 7, "not UTF-8")
    assert (str(error), error.line) == ("list.txt, line 7: not UTF-8", 7)


def test_a_missing_extra_says_how_to_install_it() -> None:
    error = MissingExtra("TensorFlow", "worker")
    assert error.hint == "pip install 'millrace[worker]'"


def test_an_item_error_carries_stage_code_and_whether_to_retry() -> None:
    error = ItemError(Stage.FETCH, "timeout", "too slow", retryable=True)
    assert (error.stage, error.code, error.retryable) == ("fetch", "timeout", True)
    assert not ItemError(Stage.DECODE, "bad_image", "no image").retryable


def test_the_stages_are_the_five_verbs() -> None:
    assert list(Stage) == ["fetch", "decode", "preprocess", "infer", "write"]
