"""A version's place in a repository: its files, named as in a bundle, and the claim to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from millrace.core.errors import ObjectNotFound
from millrace.core.storage import Location, ObjectInfo, Stores
from millrace.core.storage.base import BLOCK_BYTES
from millrace.export.claim import Claim, Doing


class Place:
    """Where a version lies. Raises the store's errors; `put` and `delete` raise ClaimLost if the
    claim is not ours any more."""

    def __init__(self, stores: Stores, location: Location, doing: Doing) -> None:
        self.location = location
        self.store = stores.open(location)
        self.claim = Claim(stores, location, doing)

    def files(self) -> dict[str, ObjectInfo]:
        """What lies there, by name."""
        try:
            listed = [*self.store.list(self.location.prefix)]
        except ObjectNotFound:  # not even a directory
            return {}
        named = {item.key[len(self.location.prefix) :]: item for item in listed}
        # Some tools make an object that stands for a folder.
        return {name: item for name, item in named.items() if name and not name.endswith("/")}

    def put(self, folder: Path, name: str) -> None:
        """Write one file as it is in `folder`."""
        self.claim.check()
        self.store.put(self.location.prefix + name, _blocks(folder / name))

    def delete(self, name: str) -> None:
        self.claim.check()
        self.store.delete(self.location.prefix + name)


def names(folder: Path) -> set[str]:
    """The names of a bundle's files."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            yield block
