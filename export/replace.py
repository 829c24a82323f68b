"""Put a bundle in the place of one that stands; if that fails, the old one is back, or kept."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from millrace.core.bundle import SAVED_MODELS, compute_digest, read_bundle
from millrace.core.disk import writing
from millrace.core.errors import Conflict, MillraceError, StorageUnavailable
from millrace.core.repository import fetch_files
from millrace.core.storage import ObjectInfo
from millrace.export.place import Place, names


def replace(bundle: Path, place: Place, old: dict[str, ObjectInfo]) -> None:
    """Make a version, whose files are `old`, what `bundle` is.

    No store changes several objects at once, so the version is gone from the repository from
    when its graph is taken away until the new one is written, last of all. Whoever fetches
    meanwhile finds no version, or files that do not match the digest of the card it read. If it
    fails, the old files are put back; if that fails as well, they are kept on this machine.
    Raises Conflict if the claim is taken away meanwhile, and the store's errors.
    """
    with _kept(place) as kept:
        fetch_files(place.store, place.location, kept, old.values())
        try:
            _swap(place, old.keys() | names(bundle), bundle)
        except BaseException:
            _put_back(place, old, kept)
            raise


def _swap(place: Place, changed: Collection[str], folder: Path) -> None:
    """Make the files of these names what they are in `folder`, or gone if it has none; a graph
    goes away first and comes back last."""
    for name in SAVED_MODELS:
        if name in changed:
            place.delete(name)
    for name in sorted(changed, key=lambda name: (name in SAVED_MODELS, name)):
        if (folder / name).is_file():
            place.put(folder, name)
        elif name not in SAVED_MODELS:
            place.delete(name)
    place.claim.check()  # or a part of it may have been removed


class _TakenOver(Conflict):
    """Another has the place, and the old files are on this machine alone."""


class _NotPutBack(StorageUnavailable):
    """The old files are on this machine alone."""


def _put_back(place: Place, old: dict[str, ObjectInfo], kept: Path) -> None:
    """Undo what was changed, and no more: a full disk has no room for the others again."""
    where = f"its old files are kept in {kept}"
    try:
        now = place.files()
        same = {name for name, item in now.items() if item == old.get(name) and item.etag}
        _swap(place, (old.keys() | now.keys()) - same, kept)
    except Conflict as error:
        raise _TakenOver(error.message, hint=f"{where}; {error.hint}") from error
    except BaseException as error:  # a second signal, too
        address = place.claim.address
        back = f"copy them to {address.location}"
        if _is_whole(kept):
            back = address.push(kept.parents[1])
        raise _NotPutBack(
            f"{address.location} could be neither replaced nor put back:"
            f" {str(error) or 'interrupted'}",
            hint=f"{where}; if files are left there:  {address.removal()};  then  {back}",
        ) from error


def _is_whole(kept: Path) -> bool:
    """Whether it is a bundle that may be pushed."""
    try:
        card = read_bundle(kept).card
        return card.digest in (None, compute_digest(kept, card))
    except MillraceError:
        return False


@contextmanager
def _kept(place: Place) -> Iterator[Path]:
    """A directory of this machine for the old files: a version in a repository of its own, which
    stays if they could not be put back. One who is killed leaves it, named as the claim is."""
    repository = Path(tempfile.gettempdir()) / f"millrace-old-{place.claim.token}"
    with writing(repository):
        repository.mkdir(mode=0o700)
    try:
        yield repository / place.claim.address.name / place.claim.address.version
    except (_TakenOver, _NotPutBack):
        raise
    except BaseException:
        shutil.rmtree(repository, ignore_errors=True)
        raise
    shutil.rmtree(repository, ignore_errors=True)
