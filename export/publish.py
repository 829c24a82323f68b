"""Publish a finished bundle: visible all at once, and never over another unless that is said."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from millrace.core.bundle import SAVED_MODEL, SAVED_MODELS
from millrace.core.errors import Conflict, MillraceError
from millrace.core.repository import is_of_a_model
from millrace.core.storage import Location, Stores
from millrace.export.place import Place, names
from millrace.export.replace import replace

OTHERWISE = "publish it under the next version; `millrace export --force` replaces one"
"""What to do about a version that stands."""


def publish(stores: Stores, bundle: Path, target: Location, *, force: bool = False) -> None:
    """Upload a bundle's files. Raises Conflict if the version stands, and the store's errors.

    A claim is laid beside the version first, create-only: of two publishers one wins, and their
    files never mix. `saved_model.pb` goes last: a repository lists only versions that hold one,
    so a half-uploaded bundle does not exist. A publisher that fails takes its files away again,
    while the claim is its own. With `force` a version that stands is replaced, also one that
    others put there without a card.
    """
    place = Place(stores, target, "replaced" if force else "published")
    if not force and not place.files().keys().isdisjoint(SAVED_MODELS):
        raise stands_already(target)  # also where nothing may be written
    with place.claim.held():
        standing = place.files()
        if not standing:
            _write(bundle, place)
        elif standing.keys().isdisjoint(SAVED_MODELS):
            raise _in_the_way(place, standing)
        elif not force:
            raise stands_already(target)
        else:
            replace(bundle, place, standing)


class StandsAlready(Conflict):
    """A version that may not be replaced."""

    code = "version_stands"


def stands_already(target: Location) -> StandsAlready:
    """What is raised where a version may not be replaced."""
    return StandsAlready(f"{target} stands already", hint=OTHERWISE)


def _in_the_way(place: Place, names: Collection[str]) -> Conflict:
    """What is raised where files lie and no model stands."""
    if any(is_of_a_model(name) for name in names):
        return Conflict(
            f"{place.location} was left unfinished",
            hint="publish under the next version; if nobody is at it:"
            f"  {place.claim.address.removal()}",
        )
    return Conflict(
        f"{place.location} is not empty",
        hint=f"no file of a model lies there: remove {place.location}/{min(names)}",
    )


def _write(bundle: Path, place: Place) -> None:
    """Upload to an empty place; what was written is taken away again if that fails."""
    written: list[str] = []
    try:
        for name in sorted(names(bundle), key=lambda name: (name == SAVED_MODEL, name)):
            written.append(name)  # before it is: one that is cut short may have been carried out
            place.put(bundle, name)
        place.claim.check_at_last()  # or a part of it may have been removed
    except BaseException:
        for name in reversed(written):
            try:
                place.delete(name)
            except MillraceError:
                place.claim.stays = True
        raise
