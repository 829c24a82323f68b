"""Publish a finished bundle: visible all at once, and never over another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from millrace.core.bundle import SAVED_MODEL
from millrace.core.card import CARD_FILE
from millrace.core.errors import AlreadyExists, Conflict, MillraceError, ObjectNotFound
from millrace.core.storage import Location, Stores
from millrace.core.storage.base import BLOCK_BYTES


def publish(stores: Stores, bundle: Path, target: Location) -> None:
    """Upload a bundle's files. Raises Conflict if the version stands, and the store's errors.

    The card goes first and create-only: it claims the version, so of two publishers one wins
    and their files never mix. `saved_model.pb` goes last: a repository lists only versions
    that hold one, so a half-uploaded bundle does not exist. A publisher that fails takes its
    files away again.
    """
    store = stores.open(target)
    try:
        store.create(target.prefix + CARD_FILE, (bundle / CARD_FILE).read_bytes())
    except AlreadyExists:
        raise _conflict(stores, target) from None
    files = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    written = [CARD_FILE]
    try:
        for name in [*sorted(files - {CARD_FILE, SAVED_MODEL}), SAVED_MODEL]:
            store.put(target.prefix + name, _blocks(bundle / name))
            written.append(name)
    except BaseException:
        for name in reversed(written):  # the claim goes last
            with suppress(MillraceError):
                store.delete(target.prefix + name)
        raise


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            yield block


def _conflict(stores: Stores, target: Location) -> Conflict:
    try:
        stores.open(target).head(target.prefix + SAVED_MODEL)
    except ObjectNotFound:
        return Conflict(
            f"{target} is being published, or was left unfinished",
            hint="remove it, or publish under the next version",
        )
    return Conflict(f"{target} stands already", hint="publish it under the next version")
