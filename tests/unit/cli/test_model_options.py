"""Options become the environment of worker processes."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from millrace.cli.main import app
from millrace.cli.model_options import worker_environment, worker_options
from millrace.core.errors import UsageError
from millrace.worker.options import WorkerOptions

pytestmark = pytest.mark.usefixtures("no_environment")

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_options_become_variables_and_those_left_out_do_not() -> None:
    options = {"batch_size": 32, "logits": False, "tags": None, "max_delay_ms": 0.5, "name": ""}
    assert worker_environment(options) == {
        "MILLRACE_BATCH_SIZE": "32",
        "MILLRACE_LOGITS": "False",
        "MILLRACE_MAX_DELAY_MS": "0.5",
        "MILLRACE_NAME": "",
    }


def test_a_worker_reads_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "saved_model": "/models/m",
        "name": "m",
        "size": "8x16",
        "scale": "0,255",
        "channels": "L",
        "logits": True,
        "batch_size": 4,
        "threads": 0,
    }
    for name, value in worker_environment(given).items():
        monkeypatch.setenv(name, value)
    options = WorkerOptions.load()
    assert {name: getattr(options, name) for name in given} == given


def given(command: str, *arguments: str) -> dict[str, Any]:
    """What the real command makes of its arguments and the environment."""
    with COMMANDS[command].make_context(command, list(arguments)) as context:
        return worker_options(context)


def test_what_is_no_option_of_a_worker_is_left_out() -> None:
    options = given("run", "photos", "--model", "m", "--out", "out", "--batch-size", "4")
    assert {name: value for name, value in options.items() if value is not None} == {
        "model": "m",
        "saved_model": "",
        "name": "",
        "batch_size": "4",
        "log_level": "warning",
    }
    options = given("worker", "--model", "m", "--redis-url", "redis://h/0", "--models", "repo")
    assert (options["redis_url"], options["models"]) == ("redis://h/0", "repo")
    assert "processes" not in options


@pytest.mark.parametrize(
    ("exported", "arguments", "meant"),
    [
        ({"MODEL": "m"}, [], ("m", None, None)),
        ({"SAVED_MODEL": "/s", "NAME": "n"}, [], (None, "/s", "n")),
        ({"MODEL": "m"}, ["--model", "other"], ("other", None, None)),
        ({"MODEL": "m"}, ["--saved-model", "/s", "--name", "n"], (None, "/s", "n")),
        ({"MODEL": "m", "NAME": "n"}, ["--saved-model", "/s"], (None, "/s", "n")),
        ({"SAVED_MODEL": "/s"}, ["--model", "m"], ("m", None, None)),
        ({"SAVED_MODEL": "/s", "NAME": "n"}, ["--model", "m"], ("m", None, None)),
        ({"NAME": "n"}, ["--model", "m"], ("m", None, None)),
        ({"NAME": "n", "MODEL": "m"}, [], ("m", None, None)),
    ],
    ids=str,
)
def test_the_command_line_wins_over_the_environment(
    exported: dict[str, str],
    arguments: list[str],
    meant: tuple[str | None, str | None, str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in exported.items():
        monkeypatch.setenv(f"MILLRACE_{name}", value)
    options = given("worker", *arguments)
    here = WorkerOptions.load(**options)
    assert (here.model, here.saved_model, here.name) == meant
    # And so in the process, which inherits our environment beneath what it is given.
    for variable, value in worker_environment(options).items():
        monkeypatch.setenv(variable, value)
    there = WorkerOptions.load()
    assert (there.model, there.saved_model, there.name) == meant


@pytest.mark.parametrize(
    ("exported", "arguments"),
    [
        ({}, ["--model", "m", "--saved-model", "/s", "--name", "n"]),
        ({"MODEL": "m", "SAVED_MODEL": "/s", "NAME": "n"}, []),
        ({"NAME": "n"}, []),
        ({}, ["--model", "m", "--name", "n"]),
        ({"SAVED_MODEL": "/s"}, ["--model", "m", "--name", "n"]),
    ],
    ids=str,
)
def test_what_is_not_to_be_decided_is_refused(
    exported: dict[str, str], arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in exported.items():
        monkeypatch.setenv(f"MILLRACE_{name}", value)
    with pytest.raises(UsageError):
        WorkerOptions.load(**given("worker", *arguments))
