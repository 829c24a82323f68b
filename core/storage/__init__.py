"""Object storage behind one door: `Stores(settings).open(Location.parse(url))`."""

from __future__ import annotations

from threading import Lock

from millrace.core.settings import StorageSettings
from millrace.core.storage.allowed import AllowedLocations
from millrace.core.storage.base import ObjectInfo, Store
from millrace.core.storage.location import Location

__all__ = ["Location", "ObjectInfo", "Store", "Stores"]


class Stores:
    """Opens stores and keeps them: connections and credentials are shared per bucket.

    What a job names is to be checked with `allowed` before. Raises UsageError if that setting
    makes no sense.
    """

    def __init__(self, settings: StorageSettings) -> None:
        self.allowed = AllowedLocations(settings.allowed_locations)
        self._settings = settings
        self._open: dict[tuple[str, str], Store] = {}
        self._lock = Lock()

    def open(self, location: Location) -> Store:
        """The store at `location`'s root; keys given to it start from there."""
        with self._lock:
            key = (location.scheme, location.root)
            if key not in self._open:
                self._open[key] = self._new(location)
            return self._open[key]

    def _new(self, location: Location) -> Store:
        if location.scheme == "file":
            from millrace.core.storage.local import LocalStore

            return LocalStore(location.root, self._settings)
        if location.scheme == "s3":
            from millrace.core.storage.s3 import S3Store

            return S3Store(location.root, self._settings)
        from millrace.core.storage.via_obstore import open_url

        return open_url(location.root, self._settings)
