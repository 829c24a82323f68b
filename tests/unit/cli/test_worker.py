"""`millrace worker`: nonsense is told once, before any process is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.core.errors import ExitCode
from tests.unit.cli.conftest import Invoke


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "either a model"),
        (["--model", "m", "--saved-model", "x"], "either a model"),
        (["--saved-model", "x"], "needs a name"),
        (["--saved-model", "x", "--name", "x", "--size", "8y"], "'8y' is not an input size"),
        (["--saved-model", "x", "--name", "x", "--channels", "RGBA"], "MILLRACE_CHANNELS: "),
        (["--model", "m", "--size", "8"], "stands in its card"),
        (["--model", "m", "--name", "x"], "stands in its card"),
        (["--model", "m", "--batch-size", "5000"], "MILLRACE_BATCH_SIZE: "),
        (["--model", "m", "--log-level", "loud"], "MILLRACE_LOG_LEVEL: "),
        (["--model", "m", "--redis-url", "http://x"], "MILLRACE_REDIS_URL: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_options_that_make_no_sense_are_a_usage_error(
    run: Invoke, arguments: list[str], words: str
) -> None:
    said = run("worker", *arguments)
    assert (said.code, said.out) == (ExitCode.USAGE, "")
    assert said.err.startswith("millrace: ")
    assert words in said.err


def test_a_saved_model_that_is_not_there_is_said_before_any_process_is_started(
    run: Invoke, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run("worker", "--saved-model", str(tmp_path), "--name", "x", "--size", "8")
    assert said.code == ExitCode.NOT_FOUND
    assert said.err == f"millrace: {tmp_path} holds no SavedModel (saved_model.pb)\n"
    assert capfd.readouterr() == ("", "")


def test_the_model_of_the_command_line_is_the_one_its_processes_look_for(
    run: Invoke,
    redis_url: str,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MILLRACE_SAVED_MODEL", str(repository / "tiny" / "1"))
    monkeypatch.setenv("MILLRACE_NAME", "tiny")
    said = run("worker", "--model", "huge", "--models", str(repository), redis_url=redis_url)
    assert said.code == ExitCode.NOT_FOUND
    assert "millrace worker: there is no model 'huge'" in capfd.readouterr().err
