"""The model repository as it was listed a moment ago."""

from __future__ import annotations

import threading
import time

from anyio import CapacityLimiter

from millrace.core.services import Services
from millrace.core.shelf import ListedModel, listed

FRESH_S = 10.0
READERS = 4


class Shelf:
    """One request lists it. The others are told what was listed before, or else wait for it."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.limiter = CapacityLimiter(READERS)
        """Of those who ask on an event loop: the storage may be slow, and has no other thread."""
        self._lock = threading.Lock()
        self._listed: list[ListedModel] = []
        self._listed_at: float | None = None

    def models(self) -> list[ListedModel]:
        """Empty without a repository. Raises the store's errors."""
        if not self._services.settings.models:
            return []
        if self._lock.acquire(blocking=self._listed_at is None):
            try:
                now = time.monotonic()
                if self._listed_at is None or now - self._listed_at > FRESH_S:
                    self._listed = listed(self._services.repository())
                    self._listed_at = now
            finally:
                self._lock.release()
        return self._listed
