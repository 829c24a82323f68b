"""The model repository: `<name>/<version>/` bundles in a directory or a storage URL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from millrace.core.bundle import SAVED_MODELS, parse_labels
from millrace.core.card import CARD_FILE, LABELS_FILE, Card
from millrace.core.disk import writing
from millrace.core.errors import (
    ModelError,
    ModelNotFound,
    ObjectNotFound,
    StorageUnavailable,
    UsageError,
)
from millrace.core.model_ref import ModelRef
from millrace.core.sizes import MAX_CARD_BYTES, MAX_LABELS_BYTES
from millrace.core.storage import Location, ObjectInfo, Stores
from millrace.core.storage.base import Store
from millrace.core.topology import MODEL_NAME_PATTERN, VERSION_PATTERN

_CLAIM = re.compile(r"\.(?P<version>.+)\.claim")


@dataclass(frozen=True, slots=True)
class StoredBundle:
    """One version of a model in a repository."""

    name: str
    version: str
    location: Location
    card: Card


@dataclass(slots=True)
class Shelved:
    """What lies at one version's place, whether it is a bundle or not."""

    name: str
    version: str
    files: list[ObjectInfo] = field(default_factory=list)
    """Their keys begin at the version's place."""
    claimed: bool = False
    """Somebody is publishing it, replacing it or removing it, or was killed at that."""

    @property
    def bytes(self) -> int:
        return sum(item.size for item in self.files)

    @property
    def complete(self) -> bool:
        """It has a SavedModel, which is written last: without one it does not exist yet."""
        return any(item.key in SAVED_MODELS for item in self.files)


class Repository:
    """Finds bundles. Raises the store's errors, ModelNotFound and ModelError."""

    def __init__(self, stores: Stores, location: Location) -> None:
        """Raises UsageError: in a bucket `..` is a name like any other, and nobody means it."""
        if any(part in (".", "..") for part in location.prefix.split("/")):
            raise UsageError(f"{location}: a repository's name holds no '.' or '..'")
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
        return StoredBundle(
            ref.name,
            version,
            self.location.child(ref.name).child(version),
            self.card(ref.name, version),
        )

    def files(self, bundle: StoredBundle) -> Iterable[ObjectInfo]:
        """The bundle's objects."""
        return self._stores.open(bundle.location).list(bundle.location.prefix)

    def shelves(self, name: str = "") -> list[Shelved]:
        """Every version's place that is claimed or holds anything a model is made of, by name and
        version; of one model alone if it is named."""
        found: dict[tuple[str, str], Shelved] = {}

        def shelf(name: str, version: str) -> Shelved:
            return found.setdefault((name, version), Shelved(name, version))

        for path, item in self._listed(f"{name}/" if name else ""):
            if len(path) >= 3 and _names_a_bundle(path):
                shelf(*path[:2]).files.append(item._replace(key="/".join(path[2:])))
            elif len(path) == 2 and (claim := _CLAIM.fullmatch(path[1])):
                claimed = [path[0], claim["version"]]
                if _names_a_bundle(claimed):
                    shelf(*claimed).claimed = True
        of_models = (
            each
            for each in found.values()
            if each.claimed or any(is_of_a_model(item.key) for item in each.files)
        )
        return sorted(of_models, key=lambda each: (each.name, _version_order(each.version)))

    def fetch(
        self, bundle: StoredBundle, into: Path, files: Iterable[ObjectInfo] | None = None
    ) -> None:
        """Copy the bundle's objects, or those `files` of it, into a directory of this machine.

        Raises ModelError if one's name leads out of it.
        """
        store = self._stores.open(bundle.location)
        fetch_files(store, bundle.location, into, self.files(bundle) if files is None else files)

    def card(self, name: str, version: str) -> Card:
        """A version's card."""
        location = self.location.child(name).child(version)
        where = f"{location}/{CARD_FILE}"
        try:
            text = self._stores.open(location).get(
                location.prefix + CARD_FILE, max_bytes=MAX_CARD_BYTES
            )
        except ObjectNotFound:
            raise ModelError(f"{where} is missing: not a millrace bundle") from None
        return Card.read(text, where)

    def labels(self, shelf: Shelved) -> tuple[str, ...]:
        """A version's labels; empty if it has none."""
        if not any(item.key == LABELS_FILE for item in shelf.files):
            return ()
        location = self.location.child(shelf.name).child(shelf.version)
        where = location.prefix + LABELS_FILE
        text = self._stores.open(location).get(where, max_bytes=MAX_LABELS_BYTES)
        return parse_labels(text, f"{location}/{LABELS_FILE}")

    def _saved_models(self, below: str) -> list[tuple[str, str]]:
        """(name, version) of every SavedModel under a prefix."""
        return [
            (path[0], path[1])
            for path, _ in self._listed(below)
            if len(path) == 3 and path[2] in SAVED_MODELS and _names_a_bundle(path)
        ]

    def _listed(self, below: str) -> Iterable[tuple[list[str], ObjectInfo]]:
        """Every object under a prefix, with its path in the repository."""
        prefix = self.location.prefix
        try:
            for item in self._store.list(prefix + below):
                yield item.key.removeprefix(prefix).split("/"), item
        except ObjectNotFound:
            raise ModelNotFound(f"there is no model repository at {self.location}") from None


def claim_name(version: str) -> str:
    """The object beside a version's place that says somebody writes there; no version bears its
    name, nor does any reader look at it."""
    return f".{version}.claim"


def is_of_a_model(name: str) -> bool:
    """Whether a file at a version's place is one that models are made of, by its name.

    `assets/` would be, too, but there are too many of other making, which nobody wants removed.
    """
    return name in (*SAVED_MODELS, "fingerprint.pb") or name.startswith(
        ("variables/", "assets.extra/")
    )


def _names_a_bundle(path: list[str]) -> bool:
    named = re.fullmatch(MODEL_NAME_PATTERN, path[0]) and re.fullmatch(VERSION_PATTERN, path[1])
    return named is not None


def fetch_files(store: Store, place: Location, into: Path, files: Iterable[ObjectInfo]) -> None:
    """Copy objects that lie below `place` into a directory of this machine.

    Raises ModelError if one's name leads out of it, and what `writing` does of the disk.
    """
    for item in files:
        name = item.key[len(place.prefix) :]
        if not name or name.endswith("/"):
            continue  # an object that stands for a folder
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise ModelError(f"{place}: {name!r} is no path within a bundle")
        file = into / name
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as out:
                for block in store.blocks(item.key):
                    out.write(block)
                came = out.tell()
        if came != item.size:
            raise StorageUnavailable(f"{place}: {came} of the {item.size} bytes of {name} came")


def local_path(location: Location) -> Path | None:
    """The directory a location is, if it is on this machine."""
    return Path(location.root) if location.scheme == "file" else None


def _version_order(version: str) -> tuple[int, int, str]:
    numeric = version.isascii() and version.isdigit()
    return (1, int(version), "") if numeric else (0, 0, version)
