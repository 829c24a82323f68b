"""Runs side by side."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from millrace.core.errors import BadData, ObjectNotFound
from millrace.models.run_directory import RunDirectory, open_run
from millrace.models.runs import RunState, differing, read_run, said
from millrace.models.training_record import DataSummary, Epoch, Flag, Result, RunRecord


def write_run(place: Path, *, epochs: int, finished: bool = False, **flags: Flag) -> RunDirectory:
    """A run on record, its accuracy after n epochs n tenths."""
    data = DataSummary(
        source="s", seen=5, unseen=5, classes=("a", "b"), skipped=0, digest="sha256:" + "a" * 64
    )
    record = RunRecord(
        recipe="digits",
        flags={"epochs": 4, "seed": 0, **flags},
        data=data,
        versions={"keras": "3"},
        created_at=datetime.now(UTC),
    )
    with open_run(place) as run:
        run.begin(record)
        for number in range(1, epochs + 1):
            epoch = Epoch(
                number=number,
                loss=1,
                accuracy=1,
                unseen_loss=0.5,
                unseen_accuracy=number / 10,
                seconds=1.5,
            )
            run.commit(epoch, Path.touch)
        if finished:
            now = datetime.now(UTC)
            run.finish(
                Result(accuracy=0.1 * epochs, loss=0.5, epochs=epochs, seconds=2, finished_at=now)
            )
    return run


def test_a_finished_run_is_told_by_its_last_epoch(tmp_path: Path) -> None:
    write_run(tmp_path, epochs=4, finished=True)
    run = read_run(tmp_path)
    assert (run.state, run.epochs_done, run.epochs) == (RunState.FINISHED, 4, 4)
    assert (run.accuracy, run.loss, run.seconds) == (0.4, 0.5, 6.0)


def test_an_unfinished_run_is_told_as_far_as_it_came(tmp_path: Path) -> None:
    write_run(tmp_path / "some", epochs=2)
    run = read_run(tmp_path / "some")
    assert (run.state, run.accuracy) == (RunState.UNFINISHED, 0.2)
    write_run(tmp_path / "none", epochs=0)
    run = read_run(tmp_path / "none")
    assert (run.accuracy, run.loss, run.seconds) == (None, None, 0)
    with open_run(tmp_path / "some"):
        assert read_run(tmp_path / "some").state is RunState.RUNNING


def test_what_differs_is_what_two_runs_say_differently(tmp_path: Path) -> None:
    write_run(tmp_path / "1", epochs=1)
    write_run(tmp_path / "2", epochs=1, seed=3, base="resnet50")
    runs = [read_run(tmp_path / name) for name in "12"]
    assert differing(runs) == ["seed", "base"]
    assert differing(runs[:1]) == []
    assert [said(run, "base") for run in runs] == [None, "resnet50"]


def test_a_directory_without_a_run_is_not_found(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ObjectNotFound, match="no training run"):
            read_run(place)


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    write_run(tmp_path, epochs=1)
    (tmp_path / "state.json").write_text('{"epochs": [{}]}')
    with pytest.raises(BadData, match=r"state\.json"):
        read_run(tmp_path)
