"""A run's directory: what is on record is whole, and one process writes it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from millrace.core.errors import BadData, Conflict, ObjectNotFound, StorageUnavailable
from millrace.models.run_directory import KEPT, LOCK, RunDirectory, open_run
from millrace.models.training_record import DataSummary, Epoch, Result, RunRecord, State


def record() -> RunRecord:
    data = DataSummary(source="s", seen=1, unseen=1, classes=("a",), skipped=0, digest="sha256:0")
    return RunRecord(
        recipe="digits",
        flags={"epochs": 9},
        data=data,
        versions={},
        created_at=datetime.now(UTC),
    )


def epoch(number: int) -> Epoch:
    return Epoch(number=number, loss=1, accuracy=0.5, unseen_loss=1, unseen_accuracy=0.5, seconds=1)


def saves(file: Path) -> None:
    file.write_text("w")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    with open_run(tmp_path / "new" / "run") as run:
        with pytest.raises(ObjectNotFound, match="no training run"):
            run.record()
        assert run.state() == State()
        assert run.checkpoint() is None
        begun = record()
        run.begin(begun)
        run.commit(epoch(1), saves)
        assert run.record() == begun
        assert run.state().epochs == (epoch(1),)
        checkpoint = run.checkpoint()
        assert checkpoint is not None
        assert checkpoint.read_text() == "w"
        assert run.result() is None
        result = Result(accuracy=1, loss=0, epochs=1, seconds=1, finished_at=datetime.now(UTC))
        run.finish(result)
        assert run.result() == result


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        for number in range(1, 7):
            run.commit(epoch(number), saves)
    names = sorted(os.listdir(tmp_path / "checkpoints"))
    assert names == [f"epoch-{number:04d}.weights.h5" for number in range(7 - KEPT, 7)]


def test_the_last_are_kept_of_ten_thousand_too(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        for number in range(9_998, 10_002):
            run.commit(epoch(number), saves)
            assert run.checkpoint() is not None
    names = os.listdir(tmp_path / "checkpoints")
    assert set(names) == {f"epoch-{number}.weights.h5" for number in (9999, 10000, 10001)}


def test_who_only_looks_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run(tmp_path):
        pass
    looking = os.open(tmp_path / LOCK, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr("time.sleep", lambda seconds: os.close(looking))
    with open_run(tmp_path):
        pass


def test_an_epoch_whose_weights_cannot_be_saved_does_not_count(tmp_path: Path) -> None:
    def fails(file: Path) -> None:
        file.write_text("half")
        raise OSError("no space left")

    with open_run(tmp_path) as run:
        run.commit(epoch(1), saves)
        with pytest.raises(StorageUnavailable, match="no space"):
            run.commit(epoch(2), fails)
        assert len(run.state().epochs) == 1
        run.commit(epoch(2), saves)
    assert not list((tmp_path / "checkpoints").glob(".*"))


def made(path: Path, what: str) -> Path:
    path.mkdir()
    (path / what).touch()
    return path


def test_a_bundle_takes_the_place_of_the_last(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for what in ("first", "second"):
        run.put_bundle(made(tmp_path / "new", what))
        assert [file.name for file in run.bundle.iterdir()] == [what]
    assert [*tmp_path.iterdir()] == [run.bundle]


def test_the_last_bundle_is_back_where_the_new_one_cannot_be_put(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.put_bundle(made(tmp_path / "new", "first"))
    with pytest.raises(StorageUnavailable):
        run.put_bundle(tmp_path / "never made")
    assert [file.name for file in run.bundle.iterdir()] == ["first"]


def test_a_bundle_that_was_put_aside_when_the_run_was_killed_is_not_lost(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    made(tmp_path / ".old-bundle", "first")
    with pytest.raises(StorageUnavailable):
        run.put_bundle(tmp_path / "never made")
    assert [file.name for file in run.bundle.iterdir()] == ["first"]


def test_two_processes_do_not_work_on_one_run(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from millrace.models.run_directory import open_run\n"
        "with open_run(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        assert RunDirectory(tmp_path).running()
        with pytest.raises(Conflict, match="another process"), open_run(tmp_path):
            pass
        other.kill()
        other.wait()
    assert not RunDirectory(tmp_path).running()
    with open_run(tmp_path):
        pass


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(Conflict, match=r"something else: thesis\.tex"), open_run(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(Conflict, match="is a file"), open_run(place):
            pass


def test_a_place_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(StorageUnavailable), open_run(Path("/proc/run")):
        pass


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"schema_version": 2}', "\x00", '{"epochs": "many"}']
)
@pytest.mark.parametrize("name", ["run.json", "state.json", "result.json"])
def test_files_of_others_are_refused(name: str, content: str, tmp_path: Path) -> None:
    if (name, content) == ("state.json", "{}"):
        return  # which is a run without an epoch
    (tmp_path / name).write_text(content)
    run = RunDirectory(tmp_path)
    read = {"run.json": run.record, "state.json": run.state, "result.json": run.result}[name]
    with pytest.raises(BadData, match=name):
        read()


def test_a_checkpoint_that_has_gone_is_told(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.commit(epoch(1), saves)
        (tmp_path / "checkpoints" / "epoch-0001.weights.h5").unlink()
        with pytest.raises(BadData, match="missing"):
            run.checkpoint()
