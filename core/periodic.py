"""A thread that does one thing again and again, and survives its failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from millrace.core.errors import MillraceError
from millrace.core.log import get_logger

log = get_logger(__name__)

SOON_S = 1.0
QUIET_S = 30.0
"""What keeps failing is told of this often, however often it is tried."""


class Periodic:
    """Calls `action` at once, and then `every_s` seconds after it last returned; after it failed,
    a second later if that is sooner. Logs a failure, now and then that it lasts, and its end."""

    def __init__(self, name: str, every_s: float, action: Callable[[], object]) -> None:
        self._name, self._every_s, self._action = name, every_s, action
        self._told: float | None = None
        self._due = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def soon(self) -> None:
        """Call it without waiting for its time, once more if it is under way."""
        self._due.set()

    def stop(self) -> None:
        """Wait for the action under way, and end the thread, if it was started."""
        self._stopping = True
        self._due.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            pause = min(SOON_S, self._every_s)
            try:
                self._action()
                pause = self._every_s
                self._works()
            except Exception as error:
                self._fails(error)
            self._due.wait(pause)
            self._due.clear()
            if self._stopping:
                return

    def _works(self) -> None:
        if self._told is not None:
            log.info(f"{self._name} works again")
        self._told = None

    def _fails(self, error: Exception) -> None:
        now = time.monotonic()
        if self._told is not None and now - self._told < QUIET_S:
            return
        self._told = now
        if isinstance(error, MillraceError):
            log.warning(f"{self._name} failed", error=error.message)
        else:
            log.error(f"{self._name} failed", exc_info=error)
