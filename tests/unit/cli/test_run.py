"""`millrace run`: which model is meant, before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.cli.run import _name_of, _served
from millrace.core.errors import ExitCode, ModelNotFound, UsageError
from tests.unit.cli.conftest import Invoke


@pytest.fixture
def saved_model(tmp_path: Path) -> Path:
    path = tmp_path / "resnet50" / "3"
    path.mkdir(parents=True)
    (path / "saved_model.pb").touch()
    return path


@pytest.mark.parametrize("model", ["resnet50", "resnet50:3"])
def test_a_name_is_looked_up_in_the_repository(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _served(model, "") == {"model": model, "saved_model": ""}


def test_a_directory_is_the_model_itself(saved_model: Path) -> None:
    meant = {"model": "", "saved_model": str(saved_model)}
    assert _served(str(saved_model), "") == meant | {"name": "resnet50"}
    assert _served(str(saved_model), "mine") == meant | {"name": "mine"}


def test_a_relative_directory_is_made_absolute(
    saved_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved_model.parent)
    assert _served("3", "") == {"model": "", "saved_model": str(saved_model), "name": "resnet50"}


@pytest.mark.parametrize("model", ["{0}", "{0}/nowhere", "a/b"])
def test_a_directory_without_a_model_is_not_found(model: str, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="holds no SavedModel"):
        _served(model.format(tmp_path), "")


def test_a_name_for_a_model_that_has_one_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--name"):
        _served("resnet50", "mine")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("resnet50/3", "resnet50"),
        ("my model", "my-model"),
        ("_hidden_", "hidden"),
        ("naïve/1", "na-ve"),
        ("---", "model"),
    ],
)
def test_a_queue_is_named_after_the_folder(folder: str, name: str, tmp_path: Path) -> None:
    assert _name_of(tmp_path / folder) == name


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["photos", "--model", "a/b", "--out", "out"], ExitCode.NOT_FOUND),
        (["photos", "--model", "m", "--out", "out", "--name", "x"], ExitCode.USAGE),
    ],
)
def test_a_model_that_cannot_be_meant_starts_nothing(
    run: Invoke,
    arguments: list[str],
    code: ExitCode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run("run", *arguments)
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith("millrace: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs its input size\n  for example --size 224x224\n"),
        (["--size", "8", "--channels", "XYZ"], "MILLRACE_CHANNELS: "),
        (["--size", "8", "--labels", "/nonexistent"], "there is no labels file /nonexistent\n"),
        (["--size", "8", "--scale", "loud"], "loud"),
        (["--size", "8", "--name", "a/b"], "'a/b' does not name a model\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
@pytest.mark.parametrize("by", ["option", "environment"])
def test_facts_that_make_no_sense_start_nothing(
    by: str,
    run: Invoke,
    arguments: list[str],
    words: str,
    saved_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"image")
    if by == "environment":
        monkeypatch.setenv("MILLRACE_MODEL", str(saved_model))
    else:
        arguments = ["--model", str(saved_model), *arguments]
    said = run("run", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *arguments)
    assert (said.code, said.out) == (ExitCode.USAGE, "")
    assert said.err.startswith("millrace: ")
    assert words in said.err
    assert not (tmp_path / "out").exists()


def test_facts_beside_a_model_of_the_repository_start_nothing(
    run: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run("run", "photos", "--model", "tiny", "--out", "out", "--size", "8")
    assert (said.code, said.out) == (ExitCode.USAGE, "")
    assert "stands in its card" in said.err
    assert list(tmp_path.iterdir()) == []
