"""A directory as a store: the twin of a bucket, with the same promises.

Reading is the operating system's own, for file names may hold what object paths may not;
writing goes through obstore, which writes aside and links into place.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from obstore.store import LocalStore as ObstoreLocal

from millrace.core.errors import (
    AccessDenied,
    ObjectNotFound,
    OutsideRoot,
    SourceChanged,
    StorageUnavailable,
)
from millrace.core.settings import StorageSettings
from millrace.core.storage.base import BLOCK_BYTES, ObjectInfo, Store, refuse_larger
from millrace.core.storage.via_obstore import ObstoreStore


class LocalStore(Store):
    """Files below one directory. The ETag is the modification time and size.

    Reading follows links, which whoever owns the directory has placed; nothing is written or
    deleted through one that leads out of it (OutsideRoot). The directory itself may be a link.

    A file name that is not UTF-8 is listed with its bytes escaped (`\\xff`); it cannot be
    fetched under that key, so it ends as a `not_found` error line instead of being dropped.
    """

    def __init__(self, root: str, settings: StorageSettings) -> None:
        self._root = root
        self._settings = settings
        self._writer: ObstoreStore | None = None

    def __repr__(self) -> str:
        return f"LocalStore({self._root!r})"

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        if not os.path.isdir(self._root):
            raise ObjectNotFound(f"{self._root} is not a directory")
        start = prefix.rpartition("/")[0]
        if "/" in prefix and not _names_a_file(start):
            return
        pending = [start]
        while pending:
            directory = pending.pop()
            with _translated(os.path.join(self._root, directory)):
                try:
                    entries = os.scandir(os.path.join(self._root, directory))
                except (FileNotFoundError, NotADirectoryError):
                    continue
                with entries:
                    for entry in entries:
                        key = f"{directory}/{entry.name}" if directory else entry.name
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(key)
                        elif key.startswith(prefix) and entry.is_file():
                            with suppress(FileNotFoundError):
                                info = entry.stat()
                                yield ObjectInfo(_as_text(key), info.st_size, _etag(info))

    def head(self, key: str) -> ObjectInfo:
        path = self._path(key)
        with _translated(path):
            info = os.stat(path)
        _must_be_file(path, info)
        return ObjectInfo(key, info.st_size, _etag(info))

    def get(self, key: str, *, if_match: str | None = None, max_bytes: int | None = None) -> bytes:
        path = self._path(key)
        with _opened(path) as (file, before):
            refuse_larger(key, before.st_size, max_bytes)
            # No more than it is said to hold: there are files without an end.
            data = file.read(before.st_size)
            changed = _etag(os.fstat(file.fileno())) != _etag(before)
        if changed or len(data) < before.st_size or if_match not in (None, _etag(before)):
            raise SourceChanged(f"{path} is no longer the file that was listed")
        return data

    def blocks(self, key: str) -> Iterator[bytes]:
        path = self._path(key)
        with _opened(path) as (file, before):
            for start in range(0, before.st_size, BLOCK_BYTES):
                yield file.read(min(BLOCK_BYTES, before.st_size - start))
            if _etag(os.stat(path)) != _etag(before):
                raise SourceChanged(f"{path} was changed while it was read")

    def put(self, key: str, data: bytes | Iterable[bytes]) -> None:
        self._writing(key).put(key, data)

    def create(self, key: str, data: bytes) -> None:
        self._writing(key).create(key, data)

    def delete(self, key: str) -> None:
        if not _names_a_file(key):
            return
        with suppress(ObjectNotFound), _translated(key):
            self._check_folder(key)
            os.unlink(os.path.join(self._root, key))

    def _check_folder(self, key: str) -> None:
        """Writing and deleting act on a link itself, but follow those of its folders."""
        folder = os.path.realpath(os.path.dirname(os.path.join(self._root, key)))
        if not os.path.join(folder, "").startswith(os.path.join(os.path.realpath(self._root), "")):
            raise OutsideRoot(f"{self._root}: {key!r} lies behind a link that leads out of it")

    def delete_all(self, prefix: str, *, last: str = "") -> int:
        removed = super().delete_all(prefix, last=last) if os.path.isdir(self._root) else 0
        self.tidy(prefix)
        return removed

    def tidy(self, prefix: str) -> None:
        top = os.path.join(self._root, prefix.rpartition("/")[0])
        for folder, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):  # something else is in it
                os.rmdir(folder)

    def _path(self, key: str) -> str:
        """The file `key` names. Raises ObjectNotFound if the key itself leads out of the root."""
        if not _names_a_file(key):
            raise ObjectNotFound(f"{key!r} names no file below {self._root}")
        return os.path.join(self._root, key)

    def _writing(self, key: str) -> ObstoreStore:
        if _names_a_file(key):
            self._check_folder(key)
        if self._writer is None:
            with _translated(self._root):
                os.makedirs(self._root, exist_ok=True)
                self._writer = ObstoreStore(ObstoreLocal(self._root), self._root, self._settings)
        return self._writer


def stream(path: str) -> Iterator[bytes]:
    """The blocks of a file that a user names, or of a pipe, whose writer is waited for.

    Raises what `blocks` of a store does.
    """
    with _translated(path), open(path, "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        while block := file.read(BLOCK_BYTES):
            yield block
        if stat.S_ISREG(before.st_mode) and _etag(os.stat(path)) != _etag(before):
            raise SourceChanged(f"{path} was changed while it was read")


def _names_a_file(key: str) -> bool:
    """Whether a key is a path below the root, taken as it stands."""
    return "\x00" not in key and all(part not in ("", ".", "..") for part in key.split("/"))


@contextmanager
def _opened(path: str) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """A file to read, and what it was when it was opened.

    Whoever places files may place a FIFO or a link to a device, also after the listing: they
    are opened without waiting, and ObjectNotFound.
    """
    with _translated(path), open(path, "rb", opener=_without_waiting) as file:
        info = os.fstat(file.fileno())
        _must_be_file(path, info)
        yield file, info


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _must_be_file(path: str, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise ObjectNotFound(f"{path} is not a file")


def _etag(info: os.stat_result) -> str:
    return f'"{info.st_mtime_ns:x}-{info.st_size:x}"'


def _as_text(name: str) -> str:
    """`name` as valid Unicode: undecodable bytes, which Python smuggles, are spelled out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ObjectNotFound(f"{what} does not exist") from error
    except PermissionError as error:
        raise AccessDenied(f"{what}: permission denied") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ObjectNotFound(f"{what[:80]}… does not exist") from error
        if error.errno == errno.ENXIO:  # a socket, or a device that is not there
            raise ObjectNotFound(f"{what} is not a file") from error
        raise StorageUnavailable(f"{what}: {error.strerror or error}") from error
