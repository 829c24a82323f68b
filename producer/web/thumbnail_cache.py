"""Thumbnails on disk: at most so many bytes of them, those looked at last."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Lock

LEAVE = 0.9
"""How full it is left when it was too full."""


class ThumbnailCache:
    """Files named by what they were made from. A time of access is kept by touching them."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._bytes: int | None = None

    def get(self, name: str) -> bytes | None:
        path = self._folder / name
        try:
            data = path.read_bytes()
        except OSError:
            return None
        with suppress(OSError):
            os.utime(path)
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keep it, if that works: a full or read-only disk costs speed alone."""
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, unfinished = tempfile.mkstemp(dir=self._folder, prefix=".")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                os.replace(unfinished, self._folder / name)
            except BaseException:
                with suppress(OSError):
                    os.unlink(unfinished)
                raise
            with self._lock:
                if self._bytes is None:
                    self._bytes = sum(size for _, size, _ in self._files())
                else:
                    self._bytes += len(data)
                if self._bytes > self._max_bytes:
                    self._bytes = self._shrink()

    def _shrink(self) -> int:
        """Remove those that nobody looked at for longest; how many bytes are left."""
        files = sorted(self._files())
        left = sum(size for _, size, _ in files)
        for _, size, path in files:
            if left <= self._max_bytes * LEAVE:
                break
            with suppress(OSError):
                path.unlink()
                left -= size
        return left

    def _files(self) -> list[tuple[int, int, Path]]:
        """(last use, bytes, path) of each."""
        found = []
        for path in self._folder.iterdir():
            with suppress(OSError):
                said = path.stat()
                found.append((said.st_mtime_ns, said.st_size, path))
        return found
