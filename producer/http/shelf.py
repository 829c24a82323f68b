"""The model repository as it was listed a moment ago."""

from __future__ import annotations

import threading
import time

from millrace.core.services import Services
from millrace.core.shelf import ListedModel, listed

FRESH_S = 10.0


class Shelf:
    """One request lists it, the others wait for that."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._listed: list[ListedModel] = []
        self._listed_at: float | None = None

    def models(self) -> list[ListedModel]:
        """Empty without a repository. Raises the store's errors."""
        if not self._services.settings.models:
            return []
        with self._lock:
            now = time.monotonic()
            if self._listed_at is None or now - self._listed_at > FRESH_S:
                self._listed = [*listed(self._services.stores, self._services.repository())]
                self._listed_at = now
            return self._listed
