"""`millrace train`, interrupted for real: the run goes on as if it had not been."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support import MILLRACE, millrace, millrace_json, wait_until
from tests.unit.models.idx_files import write_pair


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("idx")
    write_pair(path, "train", 1000, side=28, end=".gz")
    return path


def command(data: Path, run: Path, epochs: int = 6) -> tuple[str, ...]:
    return (
        *("train", "mnist-cnn", "--data", str(data), "--run", str(run)),
        *("--epochs", str(epochs)),
    )


def epochs(run: Path) -> list[dict[str, float]]:
    found: list[dict[str, float]] = json.loads((run / "state.json").read_text())["epochs"]
    return found


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing disturbed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    millrace_json(*command(data, run), env={})
    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_ends_as_one_that_was_not(
    number: signal.Signals, data: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen([*MILLRACE, *command(data, run)], stderr=subprocess.PIPE, text=True)
    wait_until(lambda: (run / "state.json").exists(), 90, "an epoch is finished")
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    finished = len(epochs(run))
    assert 1 <= finished < 6
    assert not (run / "result.json").exists()
    assert "Traceback" not in said
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        assert f"keeps {finished} of 6 epochs" in said

    (unfinished,) = millrace_json("runs", "compare", str(run), env={})["runs"]
    assert (unfinished["state"], unfinished["epochs_done"]) == ("unfinished", finished)
    report = millrace_json(*command(data, run), "--resume", env={})
    assert (report["epochs"], report["resumed_after"]) == (6, finished)
    names = ("number", "loss", "accuracy", "unseen_loss", "unseen_accuracy")
    for one, other in zip(epochs(whole), epochs(run), strict=True):
        np.testing.assert_allclose(
            # Both were rounded to a millionth.
            [one[name] for name in names],
            [other[name] for name in names],
            rtol=1e-5,
            atol=2e-6,
        )
    result = json.loads((whole / "result.json").read_text())
    assert report["accuracy"] == pytest.approx(result["accuracy"], abs=1e-6)


def test_two_commands_do_not_train_in_one_run(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with subprocess.Popen(
        [*MILLRACE, *command(data, run, 1000)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as process:
        wait_until(lambda: (run / "run.json").exists(), 90, "it trains")
        done = millrace(*command(data, run, 1000), env={})
        assert done.returncode == 7, done.stderr
        assert "another process is training in" in done.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
