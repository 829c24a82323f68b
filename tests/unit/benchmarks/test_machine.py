"""What a rate belongs to: the machine, the versions, the commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.contenders import CORES
from benchmarks.machine import commit, this_machine, versions


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of one commit."""
    (tmp_path / "benchmarks").mkdir()
    for name in ("code.py", "benchmarks/results.json", "benchmarks/RESULTS.md"):
        (tmp_path / name).write_text("as committed")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "all")
    return tmp_path


def git(root: Path, *arguments: str) -> str:
    me = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", root, *me, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_a_commit_is_named_by_its_digest(checkout: Path) -> None:
    assert git(checkout, "rev-parse", "HEAD").startswith(commit(checkout))
    assert len(commit(checkout)) >= 7


def test_changed_files_are_told_by_a_plus(checkout: Path) -> None:
    clean = commit(checkout)
    (checkout / "code.py").write_text("changed")
    assert commit(checkout) == f"{clean}+"


def test_the_results_that_a_run_writes_change_nothing(checkout: Path) -> None:
    clean = commit(checkout)
    for name in ("results.json", "RESULTS.md"):
        (checkout / "benchmarks" / name).write_text("of the table before")
    (checkout / "notes").write_text("nobody asked git to keep")
    assert commit(checkout) == clean


def test_without_a_repository_the_commit_is_unknown(tmp_path: Path) -> None:
    assert commit(tmp_path) == "unknown"


def test_this_machine_has_cores_and_versions_and_is_the_same_twice() -> None:
    assert this_machine() == this_machine()
    assert this_machine().cores == CORES
    assert versions().keys() >= {"millrace", "tensorflow", "pillow"}
