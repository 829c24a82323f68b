"""How long the model stood waiting for images although there was work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """The seconds one thread has spent in `with stopwatch:`; others may read it meanwhile."""

    def __init__(self) -> None:
        # One attribute, replaced at once: a reader sees a pair that belongs together.
        self._state: tuple[float, float | None] = (0.0, None)

    def __enter__(self) -> None:
        self._state = (self._state[0], time.monotonic())

    def __exit__(self, *_: object) -> None:
        self._state = (self.seconds(), None)

    def seconds(self) -> float:
        """In all, that which is under way included."""
        before, since = self._state
        return before if since is None else before + time.monotonic() - since


class Starvation:
    """Of the time a stopwatch shows, that during which a chunk was in hand."""

    def __init__(self, waited: Callable[[], float]) -> None:
        self._waited = waited
        self._seen = waited()
        self._seconds = 0.0
        self._lock = threading.Lock()
        self.chunks = 0
        """In hand now."""

    @contextmanager
    def chunk(self) -> Iterator[None]:
        """A chunk is in hand."""
        self._step(+1)
        try:
            yield
        finally:
            self._step(-1)

    def take_us(self) -> int:
        """Microseconds since this was last asked."""
        self._step(0)
        with self._lock:
            taken, self._seconds = self._seconds, 0.0
        return int(taken * 1e6)

    def _step(self, more: int) -> None:
        with self._lock:
            now = self._waited()
            if self.chunks:
                self._seconds += now - self._seen
            self._seen = now
            self.chunks += more
