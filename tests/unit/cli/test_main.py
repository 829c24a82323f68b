"""The command as a whole: quick to answer, every option explained, every exit code told."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from typing import Any

import pytest
import typer

from millrace.cli.main import EPILOG, app
from millrace.core.errors import ExitCode
from tests.support import MILLRACE
from tests.unit.cli.conftest import Invoke

TOP: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COMMANDS: dict[str, Any] = {
    f"{name} {inner}".strip(): command
    for name, found in TOP.items()
    for inner, command in getattr(found, "commands", {"": found}).items()
}
"""Those within a group under both names: `runs compare`."""
HEAVY = {"tensorflow", "keras", "pydantic", "boto3", "celery", "numpy", "obstore", "redis", "PIL"}

every_command = pytest.mark.parametrize("name", COMMANDS)


def test_help_answers_at_once() -> None:
    # Processor time, which is all it takes on an idle machine, and hardly more on a busy one.
    best_s = float("inf")
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*MILLRACE, "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best_s = min(best_s, spent_s)
        if best_s < 0.3:
            break
    assert best_s < 0.3


def loaded_by(*arguments: str) -> set[str]:
    """The modules a command has loaded by the time it has answered."""
    code = (
        "import sys\n"
        "from millrace.cli.main import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    return set(done.stderr.split())


def test_help_loads_no_subsystem() -> None:
    loaded = loaded_by("--help")
    assert not HEAVY & loaded
    assert not [name for name in loaded if name.startswith("millrace.core")]


def test_the_help_of_a_command_loads_no_subsystem_either() -> None:
    # typer itself takes pydantic to read a command's options.
    loaded = loaded_by("worker", "--help")
    assert not (HEAVY - {"pydantic"}) & loaded
    assert not [name for name in loaded if name.startswith("millrace.core")]


def test_the_exit_codes_of_the_help_are_those_of_the_code() -> None:
    told = {int(code): meaning for code, meaning in re.findall(r"(\d+) ([a-z ]+?)[,.]", EPILOG)}
    assert told == {int(code): code.name.lower().replace("_", " ") for code in ExitCode}


def test_the_exit_codes_are_in_the_help(run: Invoke) -> None:
    said = run("--help")
    assert said.code == 0
    assert "130 interrupted" in said.out


def test_every_command_is_in_the_help_with_a_sentence(run: Invoke) -> None:
    shown = run("--help").out
    for name, command in TOP.items():
        assert f" {name} " in shown
        assert command.help.rstrip().endswith(".")


@every_command
def test_every_option_names_its_variable_in_the_help(run: Invoke, name: str) -> None:
    shown = run(*name.split(), "--help").out
    for option in COMMANDS[name].params:
        if option.param_type_name == "argument" or "--help" in option.opts:
            continue
        assert option.envvar, f"{name} {option.opts[0]} has no variable"
        assert option.envvar.startswith("MILLRACE_")
        assert option.envvar in shown


@every_command
def test_every_option_and_argument_is_explained(run: Invoke, name: str) -> None:
    for option in COMMANDS[name].params:
        assert option.help, f"{name} {option.opts[0]} has no help"


def test_a_variable_means_the_same_to_every_command() -> None:
    meanings: dict[str, set[tuple[str, ...]]] = {}
    for command in COMMANDS.values():
        for option in command.params:
            if option.envvar:
                meanings.setdefault(option.envvar, set()).add(tuple(option.opts))
    assert {name: opts for name, opts in meanings.items() if len(opts) > 1} == {}


def test_no_arguments_show_the_help(run: Invoke) -> None:
    said = run()
    assert "Usage:" in said.out + said.err


def test_an_unknown_command_is_a_usage_error(run: Invoke) -> None:
    assert run("frobnicate").code == ExitCode.USAGE


@pytest.mark.parametrize(
    "arguments",
    [
        ["enqueue"],
        ["enqueue", "photos", "--model", "m"],
        ["enqueue", "photos", "--model", "m", "--out", "o", "--chunk-size", "0"],
        ["enqueue", "photos", "--model", "m", "--out", "o", "--chunk-size", "many"],
        ["status"],
        ["jobs", "--limit", "0"],
        ["worker", "--processes", "0"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_a_usage_error(run: Invoke, arguments: list[str]) -> None:
    assert run(*arguments).code == ExitCode.USAGE


def test_the_version_is_that_of_the_package(run: Invoke) -> None:
    from importlib.metadata import version

    said = run("--version")
    assert (said.code, said.out) == (0, version("millrace") + "\n")


def test_the_console_script_is_installed() -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="millrace")
    assert script.value == "millrace.cli.main:main"
