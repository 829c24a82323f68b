"""The docs name what there is: settings, exit codes, error codes, commands."""

from __future__ import annotations

import re

import pytest
from typer.main import get_command

from millrace.cli.main import app
from millrace.core.errors import ExitCode
from millrace.core.job import JobState, Reason
from millrace.core.settings import Settings
from millrace.producer.http.settings import HttpSettings
from millrace.worker.options import WorkerOptions
from tests.support import ROOT

DOCS = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
CONFIGURATION = DOCS["configuration.md"]


def test_every_setting_is_documented_and_no_other() -> None:
    fields = {*Settings.model_fields, *HttpSettings.model_fields, *WorkerOptions.model_fields}
    documented = set(re.findall(r"`MILLRACE_(\w+)`", CONFIGURATION))
    assert documented == {field.upper() for field in fields}


def test_documented_defaults_are_the_defaults() -> None:
    rows = re.findall(r"^\| `MILLRACE_(\w+)` \| `?([\w.:/]+?)`? \|", CONFIGURATION, re.MULTILINE)
    fields = {**Settings.model_fields, **HttpSettings.model_fields, **WorkerOptions.model_fields}
    checked = 0
    for name, written in rows:
        default = fields[name.lower()].default
        if isinstance(default, bool):
            assert written == str(default).lower(), name
        elif isinstance(default, int | float):
            assert float(written) == float(default), name
        elif isinstance(default, str):
            assert written == default, name
        else:
            continue
        checked += 1
    assert checked >= 20


@pytest.mark.parametrize("page", ["reliability.md", "security.md"])
def test_the_tests_that_prove_a_promise_exist(page: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCS[page])
    assert len(named) > 10
    for file, function in named:
        assert f"def {function}(" in (ROOT / file).read_text(), function


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \| ([a-z ]+) \|", DOCS["cli.md"], re.MULTILINE)
    written = {int(code): name for code, name in rows}
    assert written == {code.value: code.name.lower().replace("_", " ") for code in ExitCode}


def test_every_command_is_documented() -> None:
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert f"`millrace {name}" in DOCS["cli.md"], name


@pytest.mark.parametrize("words", [JobState, Reason])
def test_states_and_reasons_are_documented(words: type[JobState] | type[Reason]) -> None:
    for word in words:
        assert str(word) in DOCS["architecture.md"], word


def test_links_between_the_docs_lead_somewhere() -> None:
    for file in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name}: {target}"
