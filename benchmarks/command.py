"""A command run to its end: the JSON it prints, or its last words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any


class Failed(Exception):
    """A command ended in an error, or without an answer; its last words."""


def run_json(
    command: Sequence[str], environment: Mapping[str, str], within_s: float | None = None
) -> Any:
    """The JSON a command prints, alone or as its last line. Raises Failed.

    All that it started and left behind is ended with it.
    """
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that all it started can be ended with it
    )
    try:
        said, complaint = process.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        raise Failed(f"not done within {within_s} s") from None
    finally:
        with suppress(ProcessLookupError):  # nothing is left of it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        raise Failed(_last_line(complaint) or f"exit code {process.returncode}")
    # millrace prints its status over several lines, others one line at the end.
    answer = said if said.lstrip().startswith("{") else _last_line(said)
    try:
        return json.loads(answer)
    except ValueError:
        raise Failed(f"it printed no JSON but {answer!r}") from None


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
