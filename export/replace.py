"""Put a bundle in the place of one that stands; if that fails, the old one is back, or kept."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from millrace.core.bundle import SAVED_MODEL, SAVED_MODELS, compute_digest, read_bundle
from millrace.core.disk import writing
from millrace.core.errors import MillraceError, StorageUnavailable
from millrace.core.repository import fetch_files
from millrace.core.storage import ObjectInfo
from millrace.export.claim import ClaimLost
from millrace.export.place import Place, names


def replace(bundle: Path, place: Place, old: dict[str, ObjectInfo]) -> None:
    """Make a version, whose files are `old`, what `bundle` is.

    No store changes several objects at once, so the version is gone from the repository from
    when its graph is taken away until the new one is written, last of all. Whoever fetches
    meanwhile finds no version, or files that do not match the digest of the card it read. If it
    fails, the old files are put back; if that fails as well, they are kept on this machine.
    Raises ClaimLost if the claim is taken away meanwhile, and the store's errors.
    """
    with _kept(place) as kept:
        fetch_files(place.store, place.location, kept, old.values())
        back = _way_back(place, kept)
        place.claim.stays = True
        try:
            _swap(place, old.keys() | names(bundle), bundle)
        except BaseException:
            _put_back(place, old, kept, back)
            place.claim.stays = False
            raise
        place.claim.stays = False


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
    place.claim.check_at_last()  # or a part of it may have been removed


def _put_back(place: Place, old: dict[str, ObjectInfo], kept: Path, back: str) -> None:
    """Undo what was changed, and no more: a full disk has no room for the others again."""
    where = f"its old files are kept in {kept}"
    address = place.claim.address
    try:
        now = place.files()
        same = {name for name, item in now.items() if item == old.get(name) and item.etag}
        if changed := (old.keys() | now.keys()) - same:
            _swap(place, changed, kept)
    except ClaimLost as error:
        again = f"if no version stands there:  {address.removal()};  then  {back}"
        raise ClaimLost(error.message, hint=f"{where};  {address.listing()};  {again}") from error
    except BaseException as error:  # a second signal, too
        raise StorageUnavailable(
            f"{address.location} could be neither replaced nor put back:"
            f" {str(error) or 'interrupted'}",
            hint=f"{where};  {address.removal()};  then  {back}",
        ) from error


def _way_back(place: Place, kept: Path) -> str:
    """What brings a version back from where it is kept: a command, if it would be taken."""
    address = place.claim.address
    try:
        card = read_bundle(kept).card
        whole = (kept / SAVED_MODEL).is_file() and card.name == address.name
        if whole and card.digest in (None, compute_digest(kept, card)):
            return address.push(kept.parents[1])
    except MillraceError:
        pass
    return f"copy them to {address.location}"


@contextmanager
def _kept(place: Place) -> Iterator[Path]:
    """A directory of this machine for the old files: a version in a repository of its own. It
    stays as the claim does: while its files may be the only ones there are."""
    repository, address = place.claim.old_files, place.claim.address
    assert repository is not None
    with writing(repository):
        repository.mkdir(mode=0o700)
    try:
        yield repository / address.name / address.version
    finally:
        if not place.claim.stays:
            shutil.rmtree(repository, ignore_errors=True)
