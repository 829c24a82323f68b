"""`millrace models`, `pull`, `push` and `rm`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from millrace.cli.models import models_app
from millrace.core.card import CARD_FILE
from millrace.core.errors import ExitCode
from tests.unit.cli.conftest import Invoke
from tests.unit.cli.test_control import on_a_terminal
from tests.unit.worker.bundles import write_bundle


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A repository with `tiny:1`, `tiny:10` and `other:1`."""
    path = tmp_path / "shelf"
    for version in ("1", "10"):
        write_bundle(path / "tiny" / version, version=version, labels="a\nb\nc\n")
    write_bundle(path / "other" / "1", name="other", height=9, width=5, channels="L")
    return path


def listed(run: Invoke, shelf: Path | str) -> dict[str, dict[str, Any]]:
    said = run("models", "--models", str(shelf), "--json")
    assert said.code == 0, said
    return {f"{row['name']}:{row['version']}": row for row in json.loads(said.out)}


def test_each_version_is_listed_with_its_facts(run: Invoke, shelf: Path) -> None:
    rows = listed(run, shelf)
    assert list(rows) == ["other:1", "tiny:1", "tiny:10"]
    files = [file for file in (shelf / "tiny" / "10").rglob("*") if file.is_file()]
    card = json.loads((shelf / "tiny" / "10" / CARD_FILE).read_text())
    assert rows["tiny:10"] == {
        "name": "tiny",
        "version": "10",
        "bytes": sum(file.stat().st_size for file in files),
        "claimed": False,
        "task": "classification",
        "input": "8x8 RGB",
        "labels": 3,
        "digest": card["digest"],
        "problem": None,
    }
    assert (rows["other:1"]["input"], rows["other:1"]["labels"]) == ("9x5 L", 0)


def test_people_see_a_table(run: Invoke, shelf: Path) -> None:
    said = run("models", "--models", str(shelf))
    header, other, *_ = said.out.splitlines()
    assert header.split() == ["model", "task", "input", "labels", "size", "digest"]
    assert other.split()[:5] == ["other:1", "classification", "9x5", "L", "0"]


def test_a_bucket_is_a_repository_too(run: Invoke, shelf: Path, bucket: str) -> None:
    place = f"s3://{bucket}/models"
    for model in ("tiny:1", "tiny"):
        assert run("models", "push", model, "--to", place, "--models", str(shelf)).code == 0
    assert list(listed(run, place)) == ["tiny:1", "tiny:10"]


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        (CARD_FILE, None, "is missing: not a millrace bundle"),
        (CARD_FILE, "{", "Invalid JSON"),
        (CARD_FILE, {"schema_version": 2}, "schema_version"),
        (CARD_FILE, {"colour": "blue"}, "colour"),
        (CARD_FILE, {"name": "huge"}, "the card is of 'huge'"),
        ("saved_model.pb", None, "left unfinished"),
        ("assets.extra/labels.txt", b"\xff\xfe", "labels.txt"),
    ],
)
def test_what_is_damaged_is_told_and_holds_up_nothing(
    file: str, content: Any, problem: str, run: Invoke, shelf: Path
) -> None:
    path = shelf / "tiny" / "1" / file
    if content is None:
        path.unlink()
    elif isinstance(content, dict):
        path.write_text(json.dumps(json.loads(path.read_text()) | content))
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    rows = listed(run, shelf)
    assert problem in rows["tiny:1"]["problem"]
    assert rows["tiny:1"]["digest"] is None
    assert rows["tiny:10"]["problem"] is None
    assert problem in run("models", "--models", str(shelf)).out


def test_an_empty_repository_says_so_and_a_missing_one_is_not_found(
    run: Invoke, tmp_path: Path
) -> None:
    said = run("models", "--models", str(tmp_path))
    assert (said.code, said.out) == (0, "no models\n")
    assert run("models", "--models", str(tmp_path / "nowhere")).code == ExitCode.NOT_FOUND
    assert run("models").code == ExitCode.USAGE


def test_a_model_is_pulled_from_another_repository(
    run: Invoke, shelf: Path, tmp_path: Path
) -> None:
    ours = str(tmp_path / "ours")
    said = run("models", "pull", "tiny", "--from", str(shelf), "--models", ours, "--json")
    assert said.code == 0, said
    done = json.loads(said.out)
    assert (done["name"], done["version"], done["copied"]) == ("tiny", "10", True)
    assert done["digest"] == listed(run, shelf)["tiny:10"]["digest"]
    assert list(listed(run, ours)) == ["tiny:10"]
    again = run("models", "pull", "tiny:10", "--from", str(shelf), "--to", ours)
    assert (again.code, "stands already" in again.out) == (0, True)


def test_what_is_said_on_the_command_line_goes_before_a_variable(
    run: Invoke, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third, ours = str(tmp_path / "third"), str(tmp_path / "ours")
    monkeypatch.setenv("MILLRACE_TO", third)
    monkeypatch.setenv("MILLRACE_FROM", str(tmp_path / "nowhere"))
    assert run("models", "pull", "tiny", "--from", str(shelf), "--models", ours).code == 0
    assert list(listed(run, ours)) == ["tiny:10"]
    assert run("models", "push", "tiny", "--models", ours).code == 0
    assert list(listed(run, third)) == ["tiny:10"]


def test_another_model_under_the_same_version_is_a_conflict(
    run: Invoke, shelf: Path, tmp_path: Path
) -> None:
    ours = tmp_path / "ours"
    write_bundle(ours / "tiny" / "10", version="10", labels="x\ny\nz\n")
    before = listed(run, ours)
    said = run("models", "pull", "tiny:10", "--from", str(shelf), "--to", str(ours))
    assert said.code == ExitCode.CONFLICT
    assert listed(run, ours) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("pull", "../tiny", "--from", "{0}"),
        ("pull", "tiny:../10", "--from", "{0}"),
        ("pull", "tiny:", "--from", "{0}"),
        ("pull", "/etc/passwd", "--from", "{0}"),
        ("pull", "tiny/10", "--from", "{0}"),
        ("pull", "tiny"),
        ("push", "tiny"),
        ("push", "tiny", "--to", "{0}"),
        ("push", "..", "--to", "{0}x"),
        ("rm", "tiny", "--yes"),
        ("rm", "..", "--yes"),
        ("rm", "tiny:..", "--yes"),
        ("rm", "tiny:10/../1", "--yes"),
        ("rm", "tiny:10"),
        ("rm", "tiny:10", "--json"),
        ("--models", "{0}", "rm", "tiny:10", "--yes"),
        ("--json", "rm", "tiny:10", "--yes"),
    ],
    ids=" ".join,
)
def test_what_names_nothing_is_refused_and_changes_nothing(
    arguments: tuple[str, ...], run: Invoke, shelf: Path
) -> None:
    before = listed(run, shelf)
    given = [argument.format(shelf) for argument in arguments]
    assert run("models", *given, "--models", str(shelf)).code == ExitCode.USAGE
    assert listed(run, shelf) == before
    assert not shelf.with_name("shelfx").exists()


def test_a_version_that_is_not_there_is_not_found(run: Invoke, shelf: Path) -> None:
    said = run("models", "rm", "tiny:2", "--yes", "--models", str(shelf))
    assert said.code == ExitCode.NOT_FOUND
    assert "it holds 1, 10" in said.err
    missing = run("models", "push", "huge", "--to", f"{shelf}x", "--models", str(shelf))
    assert missing.code == ExitCode.NOT_FOUND


def test_one_version_is_removed(run: Invoke, shelf: Path) -> None:
    said = run("models", "rm", "tiny:1", "--yes", "--models", str(shelf), "--json")
    assert json.loads(said.out) == {"name": "tiny", "version": "1", "objects_removed": 4}
    assert list(listed(run, shelf)) == ["other:1", "tiny:10"]
    assert not (shelf / "tiny" / "1").exists()


@pytest.mark.parametrize(("typed", "stays"), [(b"n\n", True), (b"y\n", False)])
def test_a_person_is_asked(typed: bytes, stays: bool, shelf: Path, redis_url: str) -> None:
    arguments = ("models", "rm", "tiny:1", "--models", str(shelf))
    code, shown = on_a_terminal(*arguments, redis_url=redis_url, typed=typed)
    assert code == (ExitCode.INTERRUPTED if stays else 0)
    assert "Remove tiny:1" in shown
    assert (shelf / "tiny" / "1").exists() is stays


def test_a_damaged_bundle_is_not_copied(run: Invoke, shelf: Path, tmp_path: Path) -> None:
    shutil.copy(shelf / "tiny" / "1" / CARD_FILE, shelf / "tiny" / "10" / CARD_FILE)
    (shelf / "tiny" / "10" / "saved_model.pb").write_bytes(b"something else")
    to = tmp_path / "ours"
    said = run("models", "push", "tiny", "--to", str(to), "--models", str(shelf))
    assert said.code == ExitCode.MODEL
    assert "digest" in said.err
    assert not to.exists()


def test_every_option_of_each_is_explained_and_names_its_variable(run: Invoke) -> None:
    names = [getattr(each.callback, "__name__", "") for each in models_app.registered_commands]
    assert sorted(names) == ["pull", "push", "rm"]
    for name in names:
        shown = run("models", name, "--help").out
        for word in ("MILLRACE_MODELS", "MILLRACE_JSON"):
            assert word in shown
    assert "MILLRACE_FROM" in run("models", "pull", "--help").out


def test_the_claim_of_one_who_was_killed_is_told_and_removed(run: Invoke, shelf: Path) -> None:
    claim = shelf / "tiny" / ".10.claim"
    claim.touch()
    before = listed(run, shelf)
    assert [name for name, row in before.items() if row["claimed"]] == ["tiny:10"]
    table = run("models", "--models", str(shelf)).out.splitlines()
    assert [line.split()[0] for line in table if line.endswith("claimed")] == ["tiny:10"]
    removed = run("models", "rm", "tiny:10", "--claim", "--models", str(shelf), "--yes", "--json")
    assert json.loads(removed.out)["objects_removed"] == 1
    assert not claim.exists()
    after = listed(run, shelf)
    assert after["tiny:10"] == before["tiny:10"] | {"claimed": False}
    again = run("models", "rm", "tiny:10", "--claim", "--models", str(shelf), "--yes")
    assert again.code == ExitCode.NOT_FOUND
