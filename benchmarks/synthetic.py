"""An input that exists nowhere: a listing of any length, every object the same few bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from millrace.core.errors import AccessDenied, ObjectNotFound
from millrace.core.settings import StorageSettings
from millrace.core.storage import Location, ObjectInfo, Store, Stores

SOURCE = "memory://synthetic/photos"
"""Where the images seem to lie. Nothing is asked of obstore's memory store."""

_BODY = b"pixels"


class SyntheticStore(Store):
    """Lists `images` objects as S3 would: keys in order, quoted MD5-like ETags, sizes."""

    ordered = True

    def __init__(self, images: int = 0) -> None:
        self._images = images

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        for number in range(self._images):
            key = f"{prefix}2026/camera-7/IMG_{number:09d}.jpg"
            if key > after:
                yield ObjectInfo(key, 100_000 + number % 9973, f'"{number:032x}"')

    def head(self, key: str) -> ObjectInfo:
        raise ObjectNotFound(key)

    def get(self, key: str, *, if_match: str | None = None, max_bytes: int | None = None) -> bytes:
        return _BODY

    def blocks(self, key: str) -> Iterator[bytes]:
        yield _BODY

    def put(self, key: str, data: bytes | Iterable[bytes]) -> None:
        raise AccessDenied(key)

    def create(self, key: str, data: bytes) -> None:
        raise AccessDenied(key)

    def delete(self, key: str) -> None:
        raise AccessDenied(key)


class SyntheticStores(Stores):
    """Real stores for every place but `SOURCE`."""

    def __init__(self, settings: StorageSettings, images: int = 0) -> None:
        super().__init__(settings)
        self._root = Location.parse(SOURCE).root
        self._synthetic = SyntheticStore(images)

    def open(self, location: Location) -> Store:
        return self._synthetic if location.root == self._root else super().open(location)
