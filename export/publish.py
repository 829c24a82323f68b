"""Publish a finished bundle: visible all at once, and never over another unless that is said."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from millrace.core.bundle import SAVED_MODEL, SAVED_MODELS
from millrace.core.card import CARD_FILE
from millrace.core.disk import writing
from millrace.core.errors import (
    AlreadyExists,
    Conflict,
    MillraceError,
    ObjectNotFound,
    StorageUnavailable,
)
from millrace.core.repository import fetch_files, is_of_a_model
from millrace.core.storage import Location, ObjectInfo, Stores
from millrace.core.storage.base import BLOCK_BYTES, Store

OTHERWISE = "publish it under the next version; `millrace export --force` replaces one"
"""What to do about a version that stands."""


def publish(stores: Stores, bundle: Path, target: Location, *, force: bool = False) -> None:
    """Upload a bundle's files. Raises Conflict if the version stands, and the store's errors.

    The card goes first and create-only: it claims the version, so of two publishers one wins
    and their files never mix. `saved_model.pb` goes last: a repository lists only versions
    that hold one, so a half-uploaded bundle does not exist. A publisher that fails takes its
    files away again, while the claim is its own. With `force` a version that stands is replaced,
    also one that others put there without a card. A claim whose answer was lost is met as
    another's, and stays.
    """
    store = stores.open(target)
    if not force and not _lying(store, target).keys().isdisjoint(SAVED_MODELS):
        raise stands_already(target)  # and nothing of ours was there for a moment
    written: list[str] = []
    try:
        if _claimed(store, bundle, target):
            written.append(CARD_FILE)
        standing = _lying(store, target, but=written)
        if written and not standing:
            _write(store, bundle, target, written)
        elif standing.keys().isdisjoint(SAVED_MODELS):
            raise Conflict(
                f"{target} is being published, or was left unfinished",
                hint=f"publish under the next version; {_how_to_remove(target, standing)}",
            )
        elif not force:
            raise stands_already(target)
        else:
            _replace(stores, bundle, target, written)
    except BaseException:
        _take_away(store, bundle, target, written)
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
        raise Conflict(
            f"{target} was removed while it was published",
            hint="`millrace models` tells what stands there now",
        )
    written.append(SAVED_MODEL)
    store.put(target.prefix + SAVED_MODEL, _blocks(bundle / SAVED_MODEL))


def _take_away(store: Store, bundle: Path, target: Location, written: list[str]) -> None:
    """Remove what was written; nothing if the claim has gone, for another may have come since,
    whose files have the same names.

    Whose claim it is, the card's bytes tell. Two who publish the same bundle cannot be told apart
    by them; only where a graph lies that was not ours to write yet, the other one is known.
    """
    with suppress(MillraceError):
        uploading = len(written) > 1  # more than the claim
        by_another = uploading and SAVED_MODEL in _lying(store, target, but=written)
        if written and _is_ours(store, bundle, target) and not by_another:
            for name in reversed(written):  # the claim goes last
                with suppress(MillraceError):
                    store.delete(target.prefix + name)


def _is_ours(store: Store, bundle: Path, target: Location) -> bool:
    """Whether the claim still stands: one that was left unfinished may be removed."""
    try:
        return store.get(target.prefix + CARD_FILE) == (bundle / CARD_FILE).read_bytes()
    except ObjectNotFound:
        return False


def _replace(stores: Stores, bundle: Path, target: Location, written: list[str]) -> None:
    """Put a bundle in the place of one that stands, with a card of its own or the one that claims.

    No store changes several objects at once, so the version is gone from the repository from
    when its graph is taken away until the new one is written, last of all; the card is replaced
    in place, so that it keeps claiming the version. Whoever fetches meanwhile finds no version,
    or files that do not match the digest of the card it read. If it fails, the old files are
    put back; if that fails as well, they are kept on this machine.
    """
    store = stores.open(target)
    with _replacing(stores, target), _kept(target) as kept:
        old = _lying(store, target, but=written)
        fetch_files(store, target, kept, old.values())
        try:
            _swap(store, target, old.keys() | _names(bundle), bundle)
            written.clear()  # the claim has become the new version's own card
        except BaseException:
            _put_back(store, target, old, kept)
            raise


def _swap(store: Store, target: Location, names: Collection[str], bundle: Path) -> None:
    """Make the files of these names what they are in `bundle`, or gone if it has none; a graph
    goes away first and comes back last, and a claim that is to go stays until then."""
    for name in SAVED_MODELS:
        if name in names:
            store.delete(target.prefix + name)

    def late(name: str) -> tuple[bool, bool, str]:
        claim_goes = name == CARD_FILE and not (bundle / name).is_file()
        return claim_goes, name in SAVED_MODELS, name

    for name in sorted(names, key=late):
        if (bundle / name).is_file():
            store.put(target.prefix + name, _blocks(bundle / name))
        else:
            store.delete(target.prefix + name)


class _NotPutBack(StorageUnavailable):
    """The old files are on this machine alone."""


def _put_back(store: Store, target: Location, old: dict[str, ObjectInfo], kept: Path) -> None:
    """Undo what was changed, and no more: a full disk has no room for the others again."""
    try:
        now = _lying(store, target)
        same = {name for name, item in now.items() if item == old.get(name) and item.etag}
        _swap(store, target, (old.keys() | now.keys()) - same, kept)
    except BaseException as error:  # a second signal, too
        repository, name, version = _address(target)
        back = f"copy them to {target}"
        if CARD_FILE in old:
            back = f"millrace models push {name}:{version} --from {kept.parents[1]}"
            back += f" --to {repository}"
        raise _NotPutBack(
            f"{target} could be neither replaced nor put back: {str(error) or 'interrupted'}",
            hint=f"its old files are kept in {kept}; {_how_to_remove(target, old)}, then  {back}",
        ) from error


@contextmanager
def _kept(target: Location) -> Iterator[Path]:
    """A directory of this machine for the old files: a version in a repository of its own, which
    stays if they could not be put back."""
    _, name, version = _address(target)
    with writing(Path("a temporary directory")):
        repository = Path(tempfile.mkdtemp(prefix="millrace-old-"))
    try:
        yield repository / name / version
    except _NotPutBack:
        raise
    except BaseException:
        shutil.rmtree(repository, ignore_errors=True)
        raise
    shutil.rmtree(repository, ignore_errors=True)


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
    except BaseException:
        with suppress(MillraceError):  # what is raised already says more
            store.delete(key)
        raise
    store.delete(key)


def _split(target: Location) -> tuple[Location, str]:
    """A version's parent and its own name."""
    if target.scheme == "file":
        path = Path(target.root)
        return Location("file", str(path.parent)), path.name
    parent, _, name = target.prefix.rstrip("/").rpartition("/")
    return Location(target.scheme, target.root, f"{parent}/" if parent else ""), name


def _address(target: Location) -> tuple[Location, str, str]:
    """The repository a version lies in, its model's name and its own."""
    home, version = _split(target)
    repository, name = _split(home)
    return repository, name, version


def _how_to_remove(target: Location, names: Collection[str]) -> str:
    """What takes these files away from a version's place."""
    if names and not any(is_of_a_model(name) for name in names):
        return f"no file of a model lies there: remove {target}/{min(names)}"
    repository, name, version = _address(target)
    return f"if nobody is at it:  millrace models rm {name}:{version} --models {repository}"


def _lying(store: Store, target: Location, *, but: Collection[str] = ()) -> dict[str, ObjectInfo]:
    """The files at a version's place, by name, but for some."""
    try:
        listed = {item.key[len(target.prefix) :]: item for item in store.list(target.prefix)}
    except ObjectNotFound:  # not even a directory
        return {}
    for name in [*listed]:
        if name in but or not name or name.endswith("/"):  # one that stands for a folder
            del listed[name]
    return listed


def _names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            yield block
