"""The model repository: `<name>/<version>/` bundles in a directory or a storage URL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from millrace.core.card import CARD_FILE, Card
from millrace.core.errors import ModelError, ModelNotFound, ObjectNotFound
from millrace.core.model_ref import ModelRef
from millrace.core.sizes import MAX_CARD_BYTES
from millrace.core.storage import Location, ObjectInfo, Stores
from millrace.core.topology import MODEL_NAME_PATTERN, VERSION_PATTERN


@dataclass(frozen=True, slots=True)
class StoredBundle:
    """One version of a model in a repository."""

    name: str
    version: str
    location: Location
    card: Card


class Repository:
    """Finds bundles. Raises the store's errors, ModelNotFound and ModelError."""

    def __init__(self, stores: Stores, location: Location) -> None:
        self.location = location
        self._store = stores.open(location)
        self._stores = stores

    def names(self) -> list[str]:
        """The models it holds."""
        return sorted({parts[0] for parts in self._saved_models("")})

    def versions(self, name: str) -> list[str]:
        """A model's versions, oldest first; numbers compare as numbers."""
        return sorted({parts[1] for parts in self._saved_models(f"{name}/")}, key=_version_order)

    def resolve(self, ref: ModelRef) -> StoredBundle:
        """The bundle a reference names: the highest version unless it pins one."""
        versions = self.versions(ref.name)
        if not versions:
            held = ", ".join(self.names()) or "no models"
            raise ModelNotFound(
                f"there is no model {ref.name!r} in {self.location}", hint=f"it holds {held}"
            )
        version = ref.version or versions[-1]
        if version not in versions:
            raise ModelNotFound(
                f"there is no version {version} of {ref.name!r} in {self.location}",
                hint=f"it holds {', '.join(versions)}",
            )
        location = self.location.child(ref.name).child(version)
        return StoredBundle(ref.name, version, location, self._card(location))

    def files(self, bundle: StoredBundle) -> Iterable[ObjectInfo]:
        """The bundle's objects."""
        return self._stores.open(bundle.location).list(bundle.location.prefix)

    def _card(self, location: Location) -> Card:
        where = f"{location}/{CARD_FILE}"
        try:
            text = self._stores.open(location).get(
                location.prefix + CARD_FILE, max_bytes=MAX_CARD_BYTES
            )
        except ObjectNotFound:
            raise ModelError(f"{where} is missing: not a millrace bundle") from None
        return Card.read(text, where)

    def _saved_models(self, below: str) -> list[tuple[str, str]]:
        """(name, version) of every SavedModel under a prefix."""
        prefix = self.location.prefix
        try:
            keys = [item.key for item in self._store.list(prefix + below)]
        except ObjectNotFound:
            raise ModelNotFound(f"there is no model repository at {self.location}") from None
        paths = (key.removeprefix(prefix).split("/") for key in keys)
        return [
            (path[0], path[1])
            for path in paths
            if len(path) == 3
            and path[2] in ("saved_model.pb", "saved_model.pbtxt")
            and re.fullmatch(MODEL_NAME_PATTERN, path[0])
            and re.fullmatch(VERSION_PATTERN, path[1])
        ]


def local_path(location: Location) -> Path | None:
    """The directory a location is, if it is on this machine."""
    return Path(location.root) if location.scheme == "file" else None


def _version_order(version: str) -> tuple[int, int, str]:
    numeric = version.isascii() and version.isdigit()
    return (1, int(version), "") if numeric else (0, 0, version)
