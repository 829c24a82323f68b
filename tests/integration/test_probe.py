"""The probe as `--processes auto` starts it: a process with two lines to say."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from millrace.core.errors import ExitCode
from millrace.worker.probe import SECONDS
from millrace.worker.split import READY

pytestmark = pytest.mark.usefixtures("no_environment")

EARLY_S = 1.0
"""What a probe that waits for no line would be ahead by."""


def started(repository: Path, model: str = "tiny:1") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "millrace.worker.probe"],
        env={**os.environ, "MILLRACE_MODELS": str(repository), "MILLRACE_MODEL": model},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_says_that_it_is_ready_waits_for_a_line_and_says_a_rate(repository: Path) -> None:
    with started(repository) as probe:
        assert probe.stdin is not None
        assert probe.stdout is not None
        assert probe.stdout.readline() == f"{READY}\n"
        said, _, _ = select.select([probe.stdout], [], [], EARLY_S)
        assert not said
        told = time.monotonic()
        probe.stdin.write("\n")
        probe.stdin.flush()
        rate = probe.stdout.readline()
        assert time.monotonic() - told >= SECONDS
        assert float(rate) > 0
        assert probe.stdout.read() == ""
    assert probe.returncode == ExitCode.OK


def test_a_model_that_is_not_there_is_named(repository: Path) -> None:
    with started(repository, "tiny:2") as probe:
        said = probe.communicate(timeout=60)
    assert probe.returncode == ExitCode.NOT_FOUND
    assert said == (
        "",
        f"millrace worker: there is no version 2 of 'tiny' in {repository.as_uri()}\n"
        "  it holds 1\n",
    )


def test_a_model_that_does_not_load_is_one_line(repository: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "tiny" / "1"
    shutil.copytree(repository / "tiny" / "1", damaged)
    (damaged / "saved_model.pb").write_bytes(b"not a graph")
    with started(tmp_path) as probe:
        said, why = probe.communicate(timeout=60)
    assert probe.returncode == ExitCode.MODEL
    assert said == ""
    (line,) = why.splitlines()
    assert line.startswith(f"millrace worker: {damaged} does not load: ")
