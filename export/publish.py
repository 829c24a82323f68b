"""Publish a finished bundle: visible all at once, and never over another unless that is said."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from millrace.core.bundle import SAVED_MODEL, SAVED_MODELS
from millrace.core.card import CARD_FILE
from millrace.core.errors import AlreadyExists, Conflict, MillraceError, ObjectNotFound
from millrace.core.repository import fetch_files
from millrace.core.storage import Location, Stores
from millrace.core.storage.base import BLOCK_BYTES, Store

OTHERWISE = "publish it under the next version; `millrace export --force` replaces one"
"""What to do about a version that stands."""


def publish(stores: Stores, bundle: Path, target: Location, *, force: bool = False) -> None:
    """Upload a bundle's files. Raises Conflict if the version stands, and the store's errors.

    The card goes first and create-only: it claims the version, so of two publishers one wins
    and their files never mix. `saved_model.pb` goes last: a repository lists only versions
    that hold one, so a half-uploaded bundle does not exist. A publisher that fails takes its
    files away again. With `force` a version that stands is replaced, also one that others put
    there without a card. A claim whose answer was lost is met as another's, and stays.
    """
    store = stores.open(target)
    if not force and _lying(store, target).intersection(SAVED_MODELS):
        raise stands_already(target)  # and nothing of ours was there for a moment
    written: list[str] = []
    try:
        if _claimed(store, bundle, target):
            written.append(CARD_FILE)
        standing = _lying(store, target) - set(written)
        if written and not standing:
            _write(store, bundle, target, written)
        elif not standing.intersection(SAVED_MODELS):
            raise Conflict(
                f"{target} is being published, or was left unfinished",
                hint=f"publish under the next version; {_how_to_remove(target)}",
            )
        elif not force:
            raise stands_already(target)
        else:
            _replace(stores, bundle, target)
    except BaseException:
        for name in reversed(written):  # the claim goes last
            with suppress(MillraceError):
                store.delete(target.prefix + name)
        raise


def stands_already(target: Location) -> Conflict:
    """What is raised where a version may not be replaced."""
    return Conflict(f"{target} stands already", hint=OTHERWISE)


def _claimed(store: Store, bundle: Path, target: Location) -> bool:
    """Whether the version has become ours; not if a card stands there."""
    try:
        store.create(target.prefix + CARD_FILE, (bundle / CARD_FILE).read_bytes())
    except AlreadyExists:
        return False
    return True


def _write(store: Store, bundle: Path, target: Location, written: list[str]) -> None:
    """Upload what a claimed version lacks, and note in `written` what may be there: before it is
    put, for one that is cut short may have been carried out."""
    for name in sorted(_names(bundle) - {CARD_FILE, SAVED_MODEL}):
        written.append(name)
        store.put(target.prefix + name, _blocks(bundle / name))
    if not _is_ours(store, bundle, target):
        raise Conflict(f"{target} was removed while it was published")
    written.append(SAVED_MODEL)
    store.put(target.prefix + SAVED_MODEL, _blocks(bundle / SAVED_MODEL))


def _is_ours(store: Store, bundle: Path, target: Location) -> bool:
    """Whether the claim still stands: one that was left unfinished may be removed."""
    try:
        return store.get(target.prefix + CARD_FILE) == (bundle / CARD_FILE).read_bytes()
    except ObjectNotFound:
        return False


def _replace(stores: Stores, bundle: Path, target: Location) -> None:
    """Put a bundle in the place of one that stands, with a card of its own or the one that claims.

    No store changes several objects at once, so the version is gone from the repository from
    when its graph is taken away until the new one is written, last of all; the card is replaced
    in place, so that it keeps claiming the version. Whoever fetches meanwhile finds no version,
    or files that do not match the digest of the card it read. If it fails, the old files are
    put back.
    """
    store = stores.open(target)
    with _replacing(stores, target), tempfile.TemporaryDirectory(prefix="millrace-old-") as kept:
        old = Path(kept)
        fetch_files(store, target, old, store.list(target.prefix))
        try:
            _swap(store, target, _names(old), bundle)
        except BaseException:
            _swap(store, target, _names(old) | _names(bundle), old)
            raise


def _swap(store: Store, target: Location, standing: set[str], bundle: Path) -> None:
    """Replace what may be standing by the files of `bundle`, its graph away first and back last."""
    for name in SAVED_MODELS:
        store.delete(target.prefix + name)
    store.put(target.prefix + CARD_FILE, _blocks(bundle / CARD_FILE))
    names, apart = _names(bundle), {CARD_FILE, *SAVED_MODELS}
    for name in sorted(standing - names - apart):
        store.delete(target.prefix + name)
    for name in [*sorted(names - apart), *sorted(names.intersection(SAVED_MODELS))]:
        store.put(target.prefix + name, _blocks(bundle / name))


@contextmanager
def _replacing(stores: Stores, target: Location) -> Iterator[None]:
    """Hold the mark that says a version is being replaced: beside it, where no reader looks."""
    home, version = _split(target)
    store, key = stores.open(home), f"{home.prefix}.{version}.replacing"
    try:
        store.create(key, b"")
    except AlreadyExists:
        raise Conflict(
            f"{target} is being replaced, or was left so by one who was killed",
            hint=f"if nobody is at it, remove {home}/.{version}.replacing and the version",
        ) from None
    try:
        yield
    finally:
        store.delete(key)


def _split(target: Location) -> tuple[Location, str]:
    """A version's parent and its own name."""
    if target.scheme == "file":
        path = Path(target.root)
        return Location("file", str(path.parent)), path.name
    parent, _, name = target.prefix.rstrip("/").rpartition("/")
    return Location(target.scheme, target.root, f"{parent}/" if parent else ""), name


def _how_to_remove(target: Location) -> str:
    home, version = _split(target)
    repository, name = _split(home)
    return f"if nobody is at it:  millrace models rm {name}:{version} --models {repository}"


def _lying(store: Store, target: Location) -> set[str]:
    """The names of the files at a version's place."""
    try:
        names = [item.key[len(target.prefix) :] for item in store.list(target.prefix)]
    except ObjectNotFound:  # not even a directory
        return set()
    return {name for name in names if name and not name.endswith("/")}  # of folders, in a bucket


def _names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            yield block
