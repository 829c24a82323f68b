"""What every command shares: errors in one line, and exit codes with a name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer

from millrace.cli.command import command, print_json
from millrace.core.errors import (
    AccessDenied,
    ExitCode,
    JobConflict,
    JobNotFound,
    MillraceError,
    MissingExtra,
    ModelError,
    RedisUnavailable,
    UsageError,
    WaitTimeout,
)


def failing(error: BaseException, *, as_json: bool = False) -> int:
    """The exit code of a command that raises `error`."""

    @command
    def fail(as_json: bool = False) -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        fail(as_json=as_json)
    return caught.value.exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("u"), ExitCode.USAGE),
        (JobNotFound("n"), ExitCode.NOT_FOUND),
        (RedisUnavailable("r"), ExitCode.UNAVAILABLE),
        (AccessDenied("a"), ExitCode.ACCESS_DENIED),
        (JobConflict("c"), ExitCode.CONFLICT),
        (ModelError("m"), ExitCode.MODEL),
        (WaitTimeout("w"), ExitCode.TIMEOUT),
        (MissingExtra("TensorFlow", "worker"), ExitCode.MISSING_EXTRA),
        (MillraceError("?"), ExitCode.INTERNAL),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_has_its_exit_code(error: BaseException, code: ExitCode) -> None:
    assert failing(error) == code


def test_an_error_is_one_line_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    failing(JobNotFound("there is no job 'x'", hint="look harder"))
    assert capsys.readouterr() == ("", "millrace: there is no job 'x'\n  look harder\n")


def test_without_a_hint_it_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    failing(JobNotFound("there is no job 'x'"))
    assert capsys.readouterr() == ("", "millrace: there is no job 'x'\n")


def test_with_json_an_error_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    failing(JobNotFound("there is no job “x”", hint="look harder"), as_json=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {
        "error": {
            "code": "job_not_found",
            "message": "there is no job “x”",
            "hint": "look harder",
        }
    }


def test_an_unexpected_error_is_a_bug_told_in_a_line_and_a_hint(
    no_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ExitCode.INTERNAL.value == 70
    assert failing(KeyError("who knows")) == ExitCode.INTERNAL
    assert capsys.readouterr() == (
        "",
        "millrace: unexpected KeyError: 'who knows'\n"
        "  this is a bug; MILLRACE_LOG_LEVEL=debug shows where\n",
    )


def test_with_json_an_unexpected_error_is_json_too(
    no_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(KeyError("who knows"), as_json=True) == ExitCode.INTERNAL
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {
        "error": {
            "code": "error",
            "message": "unexpected KeyError: 'who knows'",
            "hint": "this is a bug; MILLRACE_LOG_LEVEL=debug shows where",
        }
    }


def test_debugging_shows_where_an_unexpected_error_came_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MILLRACE_LOG_LEVEL", "debug")
    assert failing(RuntimeError("who knows")) == ExitCode.INTERNAL
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Traceback (most recent call last):\n")
    assert "in fail\n" in err
    assert "\nmillrace: unexpected RuntimeError: who knows\n" in err


@pytest.mark.parametrize("error", [typer.Exit(3), typer.Abort()], ids=["exit", "abort"])
def test_an_end_that_is_meant_passes(error: BaseException) -> None:
    @command
    def end() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        end()
    assert caught.value is error


def test_ctrl_c_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    failing(KeyboardInterrupt())
    assert capsys.readouterr().err == "millrace: interrupted\n"


def test_sigterm_does_what_ctrl_c_does(capsys: pytest.CaptureFixture[str]) -> None:
    taken_back: list[str] = []

    @command
    def half_done() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("it went on")
        finally:
            taken_back.append("files")

    with pytest.raises(typer.Exit) as ended:
        half_done()
    assert ended.value.exit_code == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == "millrace: interrupted\n"
    assert taken_back == ["files"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_a_command_returns_is_passed_on() -> None:
    @command
    def add(a: int, b: int = 1) -> int:
        return a + b

    assert add(1, b=2) == 3
    assert add.__name__ == "add"


def test_json_times_are_rfc_3339(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"at": datetime(2026, 11, 20, 17, 45, tzinfo=UTC), "who": "naïve"})
    assert capsys.readouterr().out == (
        '{\n  "at": "2026-11-20T17:45:00+00:00",\n  "who": "naïve"\n}\n'
    )


WHILE_A_STRING_IS_RUN = """
import typer
from millrace.cli.command import command

@command
def interrupted() -> None:
    exec("raise KeyboardInterrupt")

typer.run(interrupted)
"""


def test_an_interrupt_while_a_string_is_run_has_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(WHILE_A_STRING_IS_RUN)
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == ExitCode.INTERRUPTED, done
    assert done.stderr == "millrace: interrupted\n"
