"""The tree of errors: every class with a word for scripts and an exit code."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator

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
from tests.support import ROOT

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


def test_classes_that_stand_elsewhere_have_codes_of_their_own() -> None:
    codes = {error.__name__: error.code for error in TREE}
    for name, code in elsewhere(set(codes)):
        assert code is not None, f"{name} shares the code of its parent"
        assert code not in codes.values(), name
        codes[name] = code


def elsewhere(known: set[str]) -> Iterator[tuple[str, str | None]]:
    """Each class outside `core/errors.py` that descends from one of the known, and the code that
    its body sets. Read, not loaded: some need an extra, or TensorFlow."""
    classes = [
        node
        for folder in ("core", "models", "export", "producer", "worker", "cli")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != ROOT / "core/errors.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    while found := [node for node in classes if known & {last_name(base) for base in node.bases}]:
        for node in found:
            yield node.name, code_in(node)
        known = {node.name for node in found}
        classes = [node for node in classes if node not in found]


def last_name(base: ast.expr) -> str:
    return ast.unparse(base).rpartition(".")[2]


def code_in(node: ast.ClassDef) -> str | None:
    for statement in node.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str(code))):
                return code
    return None


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
