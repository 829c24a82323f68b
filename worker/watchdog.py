"""The watchdog: a process that does not move any more ends, so that its supervisor starts it anew.

Its leases would be renewed for ever, and its chunks never run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from millrace.core.errors import ExitCode, MillraceError
from millrace.core.log import get_logger
from millrace.core.periodic import Periodic

log = get_logger(__name__)

LOOKS_PER_LIMIT = 6


class Beat:
    """When something last showed that it moves."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def touch(self) -> None:
        self._last = time.monotonic()

    def age(self) -> float:
        """Seconds since the last touch."""
        return time.monotonic() - self._last


@dataclass(frozen=True, slots=True)
class Watched:
    """Something that has stood still for `age()` seconds, and may for `limit_s`."""

    name: str
    age: Callable[[], float]
    limit_s: float


class Watchdog:
    """Looks now and then; ends the process when something stood still beyond its limit.

    While Redis is away everything may stand still: only the time since it answers counts.
    """

    def __init__(
        self,
        watched: list[Watched],
        ping: Callable[[], object],
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self._watched, self._ping, self._leave = watched, ping, leave
        self._answers_since = time.monotonic()
        every_s = min(each.limit_s for each in watched) / LOOKS_PER_LIMIT
        self._thread = Periodic("watchdog", every_s, self.look)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def look(self) -> None:
        """Look once."""
        try:
            self._ping()
        except MillraceError:
            self._answers_since = time.monotonic()
            return
        answering = time.monotonic() - self._answers_since
        for each in self._watched:
            if min(each.age(), answering) > each.limit_s:
                log.error("wedged; ending the process", what=each.name, limit_s=each.limit_s)
                self._leave(ExitCode.WEDGED)
