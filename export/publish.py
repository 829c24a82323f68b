"""Publish a finished bundle: visible all at once, and never over another unless that is said."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from millrace.core.bundle import SAVED_MODEL, SAVED_MODELS
from millrace.core.errors import Conflict, MillraceError
from millrace.core.repository import is_of_a_model
from millrace.core.storage import Location, Stores
from millrace.export.claim import Claim, claimed, how_to_remove
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
    place = Place(stores, target)
    if not force and not place.files().keys().isdisjoint(SAVED_MODELS):
        raise stands_already(target)  # also where nothing may be written
    with claimed(stores, target) as claim:
        standing = place.files()
        if not standing:
            _write(bundle, place, claim)
        elif standing.keys().isdisjoint(SAVED_MODELS):
            raise _in_the_way(target, standing)
        elif not force:
            raise stands_already(target)
        else:
            replace(bundle, place, standing, claim)


def stands_already(target: Location) -> Conflict:
    """What is raised where a version may not be replaced."""
    return Conflict(f"{target} stands already", hint=OTHERWISE)


def _in_the_way(target: Location, names: Collection[str]) -> Conflict:
    """What is raised where files lie and no model stands."""
    if any(is_of_a_model(name) for name in names):
        return Conflict(
            f"{target} was left unfinished",
            hint=f"publish under the next version; {how_to_remove(target)}",
        )
    return Conflict(
        f"{target} is not empty",
        hint=f"no file of a model lies there: remove {target}/{min(names)}",
    )


def _write(bundle: Path, place: Place, claim: Claim) -> None:
    """Upload to an empty place; what was written is taken away again if that fails."""
    written: list[str] = []
    try:
        for name in sorted(names(bundle), key=lambda name: (name == SAVED_MODEL, name)):
            if name == SAVED_MODEL:
                claim.check()
            written.append(name)  # before it is: one that is cut short may have been carried out
            place.put(bundle, name)
    except BaseException:
        with suppress(MillraceError):
            if claim.stands():  # or else the files of these names are another's
                for name in reversed(written):
                    with suppress(MillraceError):
                        place.delete(name)
        raise
