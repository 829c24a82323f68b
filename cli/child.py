"""A server of our own as a child process: started, waited for, and always stopped."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path


class Child:
    """A child process that does not outlive its parent."""

    def __init__(self, command: Sequence[str], *, stdin: bytes = b"", log: Path) -> None:
        """Start it; what it prints goes to the file `log`."""
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for us; we stop it when its users are gone
                preexec_fn=_end_with_parent(),
            )
        self._log = log
        assert self._process.stdin is not None
        with self._process.stdin as pipe:
            pipe.write(stdin)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until(self, answers: Callable[[], bool], within_s: float) -> str | None:
        """Poll until it answers; None if it does in time, else its last words."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and self._process.poll() is None:
            if answers():
                return None
            time.sleep(0.02)
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def stop(self) -> None:
        """End it, by force if it does not go within five seconds."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also when a second Ctrl-C cuts the wait short
            self._process.kill()
            self._process.wait()


def _end_with_parent() -> Callable[[], None] | None:
    """Ask Linux to end the child when this process dies without stopping it."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    set_parent_death_signal = 1

    def arrange() -> None:
        prctl(set_parent_death_signal, signal.SIGTERM)

    return arrange
