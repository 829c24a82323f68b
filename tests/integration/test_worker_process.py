"""One worker process, told to end before it works, and told why it cannot."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from millrace.core.errors import ExitCode
from millrace.worker.supervisor import PARENT_FD

pytestmark = pytest.mark.usefixtures("no_environment")

PROCESS = [sys.executable, "-m", "millrace.worker.process"]
AS_IN_A_SCRIPT = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
"""What a shell's script starts with `&` ignores SIGINT."""


@pytest.mark.parametrize("library", ["numpy", "PIL"])
def test_a_library_that_is_missing_is_one_line_and_what_to_install(
    library: str, repository: Path, tmp_path: Path
) -> None:
    missing = f"raise ModuleNotFoundError('No module named {library}', name={library!r})\n"
    (tmp_path / f"{library}.py").write_text(missing)
    done = subprocess.run(
        PROCESS,
        env={
            **os.environ,
            "PYTHONPATH": str(tmp_path),
            "MILLRACE_MODELS": str(repository),
            "MILLRACE_MODEL": "tiny",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == ExitCode.MISSING_EXTRA
    assert done.stderr == (
        f"millrace worker: {library} is not installed\n  pip install 'millrace[worker]'\n"
    )
    assert done.stdout == ""


def test_a_module_of_our_own_that_is_missing_is_a_bug_and_shown_as_one(tmp_path: Path) -> None:
    missing = "raise ModuleNotFoundError('no such module', name='millrace.core.nowhere')\n"
    (tmp_path / "numpy.py").write_text(missing)
    done = subprocess.run(
        PROCESS,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "MILLRACE_MODEL": "tiny"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@contextmanager
def looking_for_its_model(
    *started_by: str, parent_fd: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process that has asked an endpoint for its model and gets no answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        process = subprocess.Popen(
            [*started_by, *PROCESS],
            env={
                **os.environ,
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
                "AWS_ACCESS_KEY_ID": "somebody",
                "AWS_SECRET_ACCESS_KEY": "something",
                "AWS_DEFAULT_REGION": "us-east-1",
                "MILLRACE_MODELS": "s3://bucket/models",
                "MILLRACE_MODEL": "tiny",
                **({} if parent_fd is None else {PARENT_FD: str(parent_fd)}),
            },
            pass_fds=[] if parent_fd is None else [parent_fd],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            asked, _ = silent.accept()
            with asked:
                assert asked.recv(8).startswith(b"GET ")
                yield process
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("started_by", [[], AS_IN_A_SCRIPT], ids=["directly", "with &"])
def test_a_signal_before_the_model_is_found_ends_it_quietly(
    number: signal.Signals, started_by: list[str]
) -> None:
    with looking_for_its_model(*started_by) as process:
        process.send_signal(number)
        assert process.communicate(timeout=20) == ("", "")
        assert process.returncode == ExitCode.OK


def test_it_ends_with_its_supervisor_before_the_model_is_found() -> None:
    theirs, ours = os.pipe()
    try:
        with looking_for_its_model(parent_fd=theirs) as process:
            os.close(ours)
            assert process.communicate(timeout=20) == ("", "")
            assert process.returncode == ExitCode.OK
    finally:
        os.close(theirs)
