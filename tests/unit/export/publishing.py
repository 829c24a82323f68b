"""What the tests of publishing share: bundles, places, and stores that are watched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from millrace.core.bundle import compute_digest, read_bundle
from millrace.core.card import CARD_FILE, LABELS_FILE, Card
from millrace.core.errors import ObjectNotFound, StorageUnavailable
from millrace.core.repository import claim_name
from millrace.core.settings import Settings
from millrace.core.storage import Location, ObjectInfo, Store, Stores

FILES = [
    "assets.extra/labels.txt",
    "assets.extra/millrace.json",
    "saved_model.pb",
    "variables/variables.data",
    "variables/variables.index",
]


def write_bundle(path: Path, *, weights: bytes = b"weights", labels: str | None = "a\nb\n") -> Path:
    """A bundle whose graph is never loaded: publishing reads none."""
    (path / "variables").mkdir(parents=True)
    (path / "assets.extra").mkdir()
    (path / "saved_model.pb").write_bytes(b"graph of " + weights)
    (path / "variables" / "variables.data").write_bytes(weights)
    (path / "variables" / "variables.index").write_bytes(b"index of " + weights)
    if labels is not None:
        (path / LABELS_FILE).write_text(labels)
    card = Card.make(name="tiny", version="1", signature="s", height=8, width=8)
    card = card.model_copy(update={"digest": compute_digest(path, card)})
    (path / CARD_FILE).write_text(card.model_dump_json())
    return path


class Watched(Store):
    """A real store, and what happens before each write of it, and after, and before a delete or
    the creation of a claim."""

    def __init__(
        self,
        store: Store,
        before_write: Callable[[str], None],
        after_write: Callable[[str], None],
        before_delete: Callable[[str], None],
        before_create: Callable[[str, bytes], None],
    ) -> None:
        self._store, self._before_write, self._after_write = store, before_write, after_write
        self._before_delete, self._before_create = before_delete, before_create

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        return self._store.list(prefix, after=after)

    def head(self, key: str) -> ObjectInfo:
        return self._store.head(key)

    def get(self, key: str, *, if_match: str | None = None, max_bytes: int | None = None) -> bytes:
        return self._store.get(key, if_match=if_match, max_bytes=max_bytes)

    def blocks(self, key: str) -> Iterator[bytes]:
        return self._store.blocks(key)

    def put(self, key: str, data: bytes | Iterable[bytes]) -> None:
        self._before_write(key)
        self._store.put(key, data)
        self._after_write(key)

    def create(self, key: str, data: bytes) -> None:
        self._before_create(key, data)
        self._store.create(key, data)

    def delete(self, key: str) -> None:
        self._before_delete(key)
        self._store.delete(key)


class WatchedStores(Stores):
    """Stores whose writes are watched."""

    def __init__(
        self,
        before_write: Callable[[str], None] = lambda key: None,
        after_write: Callable[[str], None] = lambda key: None,
        before_delete: Callable[[str], None] = lambda key: None,
        before_create: Callable[[str, bytes], None] = lambda key, data: None,
    ) -> None:
        super().__init__(Settings.load())
        self._watching = before_write, after_write, before_delete, before_create

    def open(self, location: Location) -> Store:
        return Watched(super().open(location), *self._watching)


def names(stores: Stores, place: Location) -> list[str]:
    return sorted(item.key[len(place.prefix) :] for item in stores.open(place).list(place.prefix))


def names_or_none(stores: Stores, place: Location) -> list[str]:
    """A directory that is empty is none."""
    try:
        return names(stores, place)
    except ObjectNotFound:
        return []


def content(stores: Stores, place: Location) -> dict[str, bytes]:
    store = stores.open(place)
    return {name: store.get(place.prefix + name) for name in names(stores, place)}


def local_copy(stores: Stores, place: Location, into: Path) -> Path:
    """The published bundle on this disk."""
    for name in names(stores, place):
        file = into / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(stores.open(place).get(place.prefix + name))
    return into


def is_whole(path: Path) -> bool:
    """Whether a bundle's files are those its card's digest was made of."""
    card = read_bundle(path).card
    return compute_digest(path, card) == card.digest


def interrupted_at(name: str) -> WatchedStores:
    """Stores that fail from the writing of one file on."""

    def fail(key: str) -> None:
        if key.endswith(name):
            raise StorageUnavailable(f"the line was cut at {key}")

    return WatchedStores(fail)


def replacement(tmp_path: Path) -> Path:
    """Another bundle, without labels."""
    return write_bundle(tmp_path / "new", weights=b"new weights", labels=None)


def once(ending: str) -> Callable[[Callable[[], None]], Callable[[str], None]]:
    """What happens when a key ends so, but not again: of what it does itself, neither."""

    def watching(happen: Callable[[], None]) -> Callable[[str], None]:
        happened = threading.Event()

        def watch(key: str) -> None:
            if key.endswith(ending) and not happened.is_set():
                happened.set()
                happen()

        return watch

    return watching


def claim_beside(stores: Stores, place: Location) -> tuple[Store, str]:
    """Where a version's claim lies: its store, and its key there."""
    home, version = place.split()
    return stores.open(home), home.prefix + claim_name(version)


def failing_once(at: str) -> WatchedStores:
    """Stores that fail to write one file of a version that is to be replaced, the first time."""
    failed = threading.Event()

    def fail_once(key: str) -> None:
        if key.endswith(at) and not failed.is_set():
            failed.set()
            raise StorageUnavailable(f"the line was cut at {key}")

    return WatchedStores(fail_once)
