"""What a model repository holds, version by version, as people and programs are told of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from millrace.core.errors import MillraceError, ModelError
from millrace.core.repository import Repository, Shelved
from millrace.core.storage import Stores


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One version in a repository. What its card would tell is None while `problem` says why."""

    name: str
    version: str
    bytes: int
    task: str | None = None
    input: str | None = None
    labels: int | None = None
    digest: str | None = None
    problem: str | None = None


def listed(stores: Stores, repository: Repository) -> Iterator[ListedModel]:
    """Each version, also what is damaged: it is told of and holds up nothing."""
    for shelf in repository.shelves():
        try:
            facts = _facts(stores, repository, shelf)
        except MillraceError as error:
            place = repository.location.child(shelf.name).child(shelf.version)
            facts = {"problem": error.message.replace(f"{place}/", "")}
        yield ListedModel(shelf.name, shelf.version, shelf.bytes, **facts)


def _facts(stores: Stores, repository: Repository, shelf: Shelved) -> dict[str, Any]:
    if not shelf.complete:
        raise ModelError("saved_model.pb is missing: it is being published, or was left unfinished")
    card = repository.card(shelf.name, shelf.version)
    if card.name != shelf.name:
        raise ModelError(f"the card is of {card.name!r}")
    return {
        "task": str(card.task),
        "input": f"{card.height}x{card.width} {card.channels}",
        "labels": len(repository.labels(shelf)),
        "digest": card.digest,
    }
