"""Commands run in this process: what they change of it is put back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
import structlog
from typer.testing import CliRunner

from millrace.cli.main import app

Invoke = Callable[..., "Said"]


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    def __repr__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def run(no_environment: None, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command of `millrace`; an error it does not handle is raised here.

    `typed` is what a person answers.
    """
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str, redis_url: str | None = None, typed: str | None = None) -> Said:
        environment = {"MILLRACE_REDIS_URL": redis_url} if redis_url else {}
        result = CliRunner().invoke(
            app, arguments, input=typed, env=environment, catch_exceptions=False
        )
        return Said(result.exit_code, result.stdout, result.stderr)

    return invoke
