"""`millrace runs compare`: a notebook's page."""

from __future__ import annotations

import json
from pathlib import Path

from millrace.core.errors import ExitCode
from tests.unit.cli.conftest import Invoke
from tests.unit.models.test_runs import write_run


def test_runs_are_rows_and_what_differs_are_columns(run: Invoke, tmp_path: Path) -> None:
    write_run(tmp_path / "first", epochs=4, finished=True, learning_rate=0.001, base="resnet50")
    write_run(tmp_path / "second", epochs=2, learning_rate=0.01, base="resnet50")
    said = run("runs", "compare", str(tmp_path / "first"), str(tmp_path / "second"))
    assert said.code == 0, said
    head, first, second = (line.split() for line in said.out.splitlines())
    assert head == ["run", "state", "learning", "rate", "epochs", "accuracy", "loss", "time"]
    assert first[1:] == ["finished", "0.001", "4/4", "40.00%", "0.5000", "6.0", "s"]
    assert second[1:] == ["unfinished", "0.01", "2/4", "20.00%", "0.5000", "3.0", "s"]
    assert first[0] == str(tmp_path / "first")


def test_json_has_everything(run: Invoke, tmp_path: Path) -> None:
    write_run(tmp_path / "1", epochs=4, finished=True)
    write_run(tmp_path / "2", epochs=0, seed=7)
    said = run("runs", "compare", str(tmp_path / "1"), str(tmp_path / "2"), "--json")
    assert said.code == 0, said
    printed = json.loads(said.out)
    first, second = printed["runs"]
    assert printed["differing"] == ["seed"]
    assert (first["state"], second["state"]) == ("finished", "unfinished")
    assert (first["accuracy"], second["accuracy"]) == (0.4, None)
    assert first["flags"] == {"epochs": 4, "seed": 0}
    assert first["data"]["classes"] == ["a", "b"]
    assert first["created_at"].startswith("20")


def test_a_directory_without_a_run_is_not_found(run: Invoke, tmp_path: Path) -> None:
    said = run("runs", "compare", str(tmp_path))
    assert said.code == ExitCode.NOT_FOUND
    assert "holds no training run" in said.err


def test_a_damaged_record_is_one_line(run: Invoke, tmp_path: Path) -> None:
    write_run(tmp_path, epochs=1)
    (tmp_path / "run.json").write_text("{")
    said = run("runs", "compare", str(tmp_path))
    assert said.code == ExitCode.USAGE
    assert "run.json" in said.err


def test_no_runs_are_a_usage_error(run: Invoke) -> None:
    assert run("runs", "compare").code == ExitCode.USAGE
