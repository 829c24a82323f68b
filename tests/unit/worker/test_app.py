"""The Celery entry, in a process of its own: importing it builds the app."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from millrace.core.errors import ExitCode
from tests.support import ROOT

pytestmark = pytest.mark.usefixtures("no_environment")

DESCRIBE = """
import json, sys
from millrace.worker.app import app
print(json.dumps({
    "tasks": sorted(app.tasks),
    "queues": sorted(app.amqp.queues),
    "accept": app.conf.accept_content,
    "slots": app.conf.worker_concurrency,
    "tensorflow": "tensorflow" in sys.modules,
}))
"""


def imported(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DESCRIBE],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_knows_one_task_and_its_models_queues(repository: Path) -> None:
    done = imported(MILLRACE_MODELS=str(repository), MILLRACE_MODEL="tiny", MILLRACE_SLOTS="5")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "tasks": ["millrace.predict_chunk"],
        "queues": ["millrace.tiny", "millrace.tiny:1"],
        "accept": ["json"],
        "slots": 5,
        "tensorflow": False,
    }


@pytest.mark.parametrize(
    ("environment", "code", "line"),
    [
        ({}, ExitCode.USAGE, "a model of the repository or a saved model"),
        (
            {"MILLRACE_MODEL": "large", "MILLRACE_MODELS": "{repository}"},
            ExitCode.NOT_FOUND,
            "there is no model 'large'",
        ),
        ({"MILLRACE_MODEL": "tiny", "MILLRACE_CREW": "many"}, ExitCode.USAGE, "MILLRACE_CREW: "),
    ],
    ids=["nothing", "no such model", "no such crew"],
)
def test_what_keeps_it_from_starting_is_one_line_and_a_code(
    environment: dict[str, str], code: ExitCode, line: str, repository: Path
) -> None:
    done = imported(
        **{name: text.format(repository=repository) for name, text in environment.items()}
    )
    assert done.returncode == code
    assert line in done.stderr
    assert done.stderr.startswith("millrace worker: ")
    assert "Traceback" not in done.stderr
