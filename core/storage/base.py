"""What millrace asks of object storage; every store keeps the same promises.

`create` is the one that matters: it is atomic and create-only, so of two writers exactly
one wins and the other is told (AlreadyExists). `put` is atomic and overwrites. `get` with
`if_match` returns the listed bytes or raises SourceChanged. A key is looked up verbatim:
a store never answers for `a//b.jpg` with the bytes of `a/b.jpg`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from millrace.core.errors import AlreadyExists, ObjectNotFound, ObjectTooLarge
from millrace.core.sizes import MIB

BLOCK_BYTES = MIB
DELETES_AT_ONCE = 16
DELETES_LISTED = 1000


class ObjectInfo(NamedTuple):
    """One listed object: its key from the store's root, size in bytes, and ETag."""

    key: str
    size: int
    etag: str | None


class Store(ABC):
    """One bucket or directory. Safe to use from several threads.

    Every method may raise AccessDenied, ObjectNotFound or StorageUnavailable.
    """

    ordered = False
    """Whether it lists in the order of keys (of their UTF-8 bytes), so that `after` works."""

    @abstractmethod
    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, streamed in the store's own order; of an
        `ordered` store only what comes after the key `after`."""

    @abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """The object's size and ETag."""

    @abstractmethod
    def get(self, key: str, *, if_match: str | None = None, max_bytes: int | None = None) -> bytes:
        """The object's bytes.

        Raises SourceChanged if its ETag is not `if_match`, ObjectTooLarge (before the body
        is read) if it is longer than `max_bytes`.
        """

    @abstractmethod
    def blocks(self, key: str) -> Iterator[bytes]:
        """The object's bytes in blocks of up to `BLOCK_BYTES`, each its own request.

        A slow reader holds no connection open. Raises SourceChanged if the object was
        replaced meanwhile.
        """

    @abstractmethod
    def put(self, key: str, data: bytes | Iterable[bytes]) -> None:
        """Write or overwrite. An iterable is streamed in constant memory."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> None:
        """Write unless something stands there: then raise AlreadyExists.

        A write whose answer was lost is tried again and may meet its own object.
        """

    def create_by_looking(self, key: str, data: bytes) -> None:
        """`create` in two steps, for stores that know no conditional writes: not atomic."""
        with suppress(ObjectNotFound):
            self.head(key)
            raise AlreadyExists(f"{key} already exists")
        self.put(key, data)

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; no error if there is none."""

    def delete_all(self, prefix: str, *, last: str = "") -> int:
        """Remove every object whose key starts with `prefix`, the one named `last` after the
        others; returns how many."""
        removed = 0
        keys = (item.key for item in self.list(prefix))
        with ThreadPoolExecutor(DELETES_AT_ONCE, thread_name_prefix="delete") as pool:
            while some := [*islice(keys, DELETES_LISTED)]:
                removed += len(some)
                for _ in pool.map(self.delete, (key for key in some if key != last)):
                    pass
        if last:
            self.delete(last)
        return removed

    def tidy(self, prefix: str) -> None:  # noqa: B027 (most stores have none)
        """Remove directories that hold nothing: those below `prefix`, and its own."""


def refuse_larger(key: str, size: int, max_bytes: int | None) -> None:
    """Raise ObjectTooLarge if `size` is over the limit."""
    if max_bytes is not None and size > max_bytes:
        raise ObjectTooLarge(f"{key}: {size} bytes, over the limit of {max_bytes}")
