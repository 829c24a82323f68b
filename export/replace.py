"""Put a bundle in the place of one that stands; if that fails, the old one is back, or kept."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from millrace.core.bundle import SAVED_MODELS
from millrace.core.card import CARD_FILE
from millrace.core.disk import writing
from millrace.core.errors import StorageUnavailable
from millrace.core.repository import fetch_files
from millrace.core.storage import Location, ObjectInfo
from millrace.export.claim import Claim, how_to_remove
from millrace.export.place import Place, names


def replace(bundle: Path, place: Place, old: dict[str, ObjectInfo], claim: Claim) -> None:
    """Make a version, whose files are `old`, what `bundle` is.

    No store changes several objects at once, so the version is gone from the repository from
    when its graph is taken away until the new one is written, last of all. Whoever fetches
    meanwhile finds no version, or files that do not match the digest of the card it read. If it
    fails, the old files are put back; if that fails as well, they are kept on this machine.
    Raises Conflict if the claim is taken away meanwhile, and the store's errors.
    """
    with _kept(place.location) as kept:
        fetch_files(place.store, place.location, kept, old.values())
        try:
            _swap(place, old.keys() | names(bundle), bundle, claim)
        except BaseException:
            _put_back(place, old, kept, claim)
            raise


def _swap(place: Place, changed: Collection[str], folder: Path, claim: Claim) -> None:
    """Make the files of these names what they are in `folder`, or gone if it has none; a graph
    goes away first and comes back last."""
    for name in SAVED_MODELS:
        if name in changed:
            place.delete(name)
    for name in sorted(changed, key=lambda name: (name in SAVED_MODELS, name)):
        if (folder / name).is_file():
            if name in SAVED_MODELS:
                claim.check()
            place.put(folder, name)
        elif name not in SAVED_MODELS:
            place.delete(name)


class _NotPutBack(StorageUnavailable):
    """The old files are on this machine alone."""


def _put_back(place: Place, old: dict[str, ObjectInfo], kept: Path, claim: Claim) -> None:
    """Undo what was changed, and no more: a full disk has no room for the others again. Nothing
    if the claim has gone: whoever took it removed the version."""
    try:
        if not claim.stands():
            return
        now = place.files()
        same = {name for name, item in now.items() if item == old.get(name) and item.etag}
        _swap(place, (old.keys() | now.keys()) - same, kept, claim)
    except BaseException as error:  # a second signal, too
        repository, name, version = _address(place.location)
        back = f"copy them to {place.location}"
        if CARD_FILE in old:
            back = f"millrace models push {name}:{version} --from {kept.parents[1]}"
            back += f" --to {repository}"
        raise _NotPutBack(
            f"{place.location} could be neither replaced nor put back:"
            f" {str(error) or 'interrupted'}",
            hint=f"its old files are kept in {kept}; {how_to_remove(place.location)}, then  {back}",
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


def _address(target: Location) -> tuple[Location, str, str]:
    """The repository a version lies in, its model's name and its own."""
    home, version = target.split()
    repository, name = home.split()
    return repository, name, version
