"""Receivers that did not take what they were told rest, and no thread is spent on them."""

from __future__ import annotations

import threading
import time

from millrace.core.notify.target import Target


class Rests:
    """Of this process alone: others find out for themselves. Safe to use from several threads."""

    def __init__(self) -> None:
        self._until: dict[str | Target, float] = {}
        self._lock = threading.Lock()

    def begin(self, target: Target, for_s: float, *, all_of_it: bool) -> None:
        """Leave one URL alone for a while, or `all_of_it`, whatever has its scheme, host and port:
        many a host takes the notifications of many who have nothing to do with each other."""
        now = time.monotonic()
        with self._lock:
            self._until = {whose: until for whose, until in self._until.items() if until > now}
            self._until[target.origin if all_of_it else target] = now + for_s

    def __contains__(self, target: Target) -> bool:
        until = self._until
        if not until:
            return False
        return time.monotonic() < max(until.get(target, 0.0), until.get(target.origin, 0.0))
