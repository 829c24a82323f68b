"""What a model repository holds, version by version, as people and programs are told of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from millrace.core.errors import MillraceError, ModelError
from millrace.core.repository import Repository, Shelved

READ_AT_ONCE = 8
"""Cards and labels, each of which is a request to the storage."""


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One version in a repository. What its card would tell is None while `problem` says why."""

    name: str
    version: str
    bytes: int
    claimed: bool
    """Somebody publishes, replaces or removes it, or was killed at that."""
    task: str | None = None
    input: str | None = None
    labels: int | None = None
    digest: str | None = None
    problem: str | None = None


def listed(repository: Repository) -> list[ListedModel]:
    """Each version, also what is damaged: it is told of and holds up nothing."""

    def tell(shelf: Shelved) -> ListedModel:
        try:
            facts = _facts(repository, shelf)
        except MillraceError as error:
            place = repository.location.child(shelf.name).child(shelf.version)
            facts = {"problem": error.message.replace(f"{place}/", "")}
        return ListedModel(shelf.name, shelf.version, shelf.bytes, shelf.claimed, **facts)

    with ThreadPoolExecutor(READ_AT_ONCE, thread_name_prefix="card") as pool:
        return [*pool.map(tell, repository.shelves())]


def _facts(repository: Repository, shelf: Shelved) -> dict[str, Any]:
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
