"""This machine's own disk, beside the stores: what the system says of it becomes our errors."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from millrace.core.errors import AccessDenied, StorageUnavailable


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """The system's errors as ours: AccessDenied, or StorageUnavailable if the disk is full."""
    try:
        yield
    except OSError as error:
        kind = AccessDenied if isinstance(error, PermissionError) else StorageUnavailable
        raise kind(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def scratch(what: str) -> Iterator[Path]:
    """A directory that is gone afterwards, `millrace-WHAT-…`. Raises as `writing` does."""
    with writing(Path("a temporary directory")):
        made = tempfile.TemporaryDirectory(prefix=f"millrace-{what}-")
    with made as path:
        yield Path(path)
