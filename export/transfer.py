"""Bundles from one repository into another, and out of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from millrace.core.bundle import SAVED_MODEL, SAVED_MODELS, compute_digest, read_bundle
from millrace.core.disk import scratch
from millrace.core.errors import AccessDenied, Conflict, ModelError, ModelNotFound, UsageError
from millrace.core.model_ref import ModelRef
from millrace.core.repository import Repository, Shelved, StoredBundle
from millrace.core.storage import Location, Stores
from millrace.export.address import Address
from millrace.export.claim import ClaimLost
from millrace.export.place import Place
from millrace.export.publish import StandsAlready, publish


@dataclass(frozen=True, slots=True)
class Copied:
    """One version in another repository. `new` is False if this very bundle stood there."""

    name: str
    version: str
    digest: str
    location: Location
    new: bool


def copy(stores: Stores, ref: ModelRef, source: Repository, target: Repository) -> Copied:
    """Copy a bundle, its highest version unless `ref` pins one. All of it or nothing.

    What is copied is what its card's digest was made of. Raises ModelNotFound; ModelError if its
    files are not; Conflict if another bundle of that version stands in the target; the stores'
    errors.
    """
    found = source.resolve(ref)
    if found.card.name != found.name:
        raise ModelError(f"{found.location}: the card is of {found.card.name!r}")
    place = target.location.child(found.name).child(found.version)
    with scratch("copy") as path:
        source.fetch(found, path)
        digest = _verified(path, found)
        try:
            publish(stores, path, place)
        except ClaimLost:
            raise
        except Conflict as error:
            if not _stands(target, found, digest):
                if isinstance(error, StandsAlready):
                    removal = Address.of(place).removal()
                    error = Conflict(error.message, hint=f"to replace it, first:  {removal}")
                raise error from None
            return Copied(found.name, found.version, digest, place, new=False)
    return Copied(found.name, found.version, digest, place, new=True)


def remove(stores: Stores, ref: ModelRef, repository: Repository) -> int:
    """Remove one version, also one that was left unfinished; returns how many objects.

    First what makes it a model, so that nobody finds half of one. Whoever is publishing it loses
    the claim, and nobody gets it before all is gone. Raises as `removable` does, Conflict if
    another begins to remove it, and the store's errors; the same again removes the rest.
    """
    claimed = removable(ref, repository).claimed
    place = _place(stores, ref, repository)
    place.claim.stays = claimed
    removed = 0
    with place.claim.held(seize=True):
        found = [item.key for item in removable(ref, repository).files]
        place.claim.stays = True
        try:
            for name in sorted(found, key=lambda name: name not in SAVED_MODELS):
                place.delete(name)
                removed += 1
        except AccessDenied:
            place.claim.stays = claimed or removed > 0  # or nothing was done
            raise
        place.store.tidy(place.location.prefix)
    return removed + claimed


def remove_claim(stores: Stores, ref: ModelRef, repository: Repository) -> None:
    """Remove the claim to a version that was left by who was killed, and leave what lies there.

    Whoever is at it after all ends in a ClaimLost. Raises as `removable` does, and the store's
    errors.
    """
    removable(ref, repository, claim=True)
    claim = _place(stores, ref, repository).claim
    with claim.held(seize=True):
        claim.release()


def claimant(stores: Stores, ref: ModelRef, repository: Repository) -> str:
    """Who claims a version and for what, in his own words; empty if nobody says so."""
    return _place(stores, ref, repository).claim.whose()


def _place(stores: Stores, ref: ModelRef, repository: Repository) -> Place:
    location = repository.location.child(ref.name).child(ref.version or "")
    return Place(stores, location, "removed")


def removable(ref: ModelRef, repository: Repository, *, claim: bool = False) -> Shelved:
    """What lies at one version's place.

    Raises UsageError if `ref` names none, ModelNotFound; of a claim alone, also Conflict if
    without it what was left unfinished might be taken for no model's.
    """
    shelves = repository.shelves(ref.name)
    held = ", ".join(shelf.version for shelf in shelves) or "no version"
    if ref.version is None:
        raise UsageError(
            f"which version of {ref.name}?",
            hint=f"NAME:VERSION; {repository.location} holds {held}",
        )
    found = next((shelf for shelf in shelves if shelf.version == ref.version), None)
    if found is None:
        raise ModelNotFound(
            f"there is no {ref} in {repository.location}", hint=f"of {ref.name} it holds {held}"
        )
    if claim and not found.claimed:
        raise ModelNotFound(f"nobody claims {ref} in {repository.location}")
    if claim and found.files and not found.complete:
        address = Address.of(repository.location.child(ref.name).child(ref.version))
        raise Conflict(f"{address.location} was left unfinished", hint=address.removal())
    return found


def _verified(path: Path, found: StoredBundle) -> str:
    """The digest of a fetched bundle, which must be its card's."""
    if not (path / SAVED_MODEL).is_file():
        raise ModelError(f"{found.location} is a SavedModel in text; only binary ones are copied")
    digest = compute_digest(path, read_bundle(path).card)
    if found.card.digest not in (None, digest):
        raise ModelError(
            f"{found.location}: its files do not match the card's digest",
            hint="it is damaged, or was changed after it was exported; nothing was copied",
        )
    return digest


def _stands(target: Repository, found: StoredBundle, digest: str) -> bool:
    """Whether the very bundle, whole, stands in the target already."""
    try:
        stored = target.resolve(ModelRef(found.name, found.version))
        if stored.card != found.card:
            return False
        with scratch("copy") as path:
            target.fetch(stored, path)
            return compute_digest(path, read_bundle(path).card) == digest
    except (ModelError, ModelNotFound):  # no card, or another's making, or not finished
        return False
