"""Bundles from storage on this machine's disk: fetched once, whole or not at all, and verified.

An entry is named by the bundle's digest. Whoever starts shares the entry's lock while it looks, and
has it alone while it fetches, so that of several processes one fetches and the others wait. Each
checks the digest of what it finds, for a disk may fill up, be tidied or go bad after a model was
fetched. Hashing costs some milliseconds per ten megabytes, far less than loading them.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from millrace.core.bundle import compute_digest, read_bundle
from millrace.core.card import Card
from millrace.core.errors import MillraceError, ModelError
from millrace.core.log import get_logger
from millrace.core.repository import Repository, StoredBundle
from millrace.core.storage import ObjectInfo

log = get_logger(__name__)


def cached_bundle(repository: Repository, stored: StoredBundle, cache: Path) -> Path:
    """The directory below `cache` that holds the bundle, fetched if it has to be.

    Raises ModelError if its files do not match the card's digest, and the store's errors.
    """
    files = None if stored.card.digest else list(repository.files(stored))
    identity = stored.card.digest or _identity(stored, files or ())
    target = cache / "models" / identity.removeprefix("sha256:")
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{target}.lock", "a+") as lock:  # NFS shares no lock of a file opened to write only
        for kind in (fcntl.LOCK_SH, fcntl.LOCK_EX):  # another one may fetch it between the two
            fcntl.flock(lock, kind)
            if _is_intact(target, stored.card, stored.card.digest or _noted(target)):
                return target
        if target.exists():
            log.warning("a cached model is damaged; fetching it again", path=str(target))
            shutil.rmtree(target)
        _fetch(repository, stored, files, target)
    return target


def _fetch(
    repository: Repository,
    stored: StoredBundle,
    files: Iterable[ObjectInfo] | None,
    target: Path,
) -> None:
    """Fetch into a directory beside `target`, which becomes it when everything is right."""
    log.info("fetching the model", model=stored.name, version=stored.version)
    prefix = f".{target.name}-"
    for left in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)  # of a process that was killed: we have its lock
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))
    try:
        repository.fetch(stored, scratch, files)
        digest = compute_digest(scratch, read_bundle(scratch).card)
        if stored.card.digest is None:
            _note(target).write_text(digest)
        elif digest != stored.card.digest:
            raise ModelError(f"{stored.location}: its files do not match the card's digest")
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _is_intact(path: Path, card: Card, digest: str | None) -> bool:
    try:
        return read_bundle(path).card == card and compute_digest(path, card) == digest
    except (MillraceError, OSError):
        return False


def _identity(stored: StoredBundle, files: Iterable[ObjectInfo]) -> str:
    """Names a bundle whose card has no digest: its place, and what is listed there now."""
    listed = "\n".join(f"{item.key}\0{item.size}\0{item.etag}" for item in files)
    return hashlib.sha256(f"{stored.location.uri}\n{listed}".encode()).hexdigest()


def _note(target: Path) -> Path:
    """Where the digest is kept of what was fetched, if the card has none."""
    return target.with_suffix(".digest")


def _noted(target: Path) -> str | None:
    note = _note(target)
    return note.read_text() if note.is_file() else None
