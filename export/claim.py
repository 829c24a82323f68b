"""One writer at a time at a version's place: a claim lies beside it, where no reader looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from millrace.core.errors import (
    AlreadyExists,
    Conflict,
    MillraceError,
    ObjectNotFound,
    ObjectTooLarge,
)
from millrace.core.repository import claim_name
from millrace.core.storage import Location, Stores


class Claim:
    """A claim to a version's place, ours for as long as the object beside it holds our token."""

    def __init__(self, stores: Stores, target: Location) -> None:
        self._target = target
        home, version = target.split()
        self._store = stores.open(home)
        self._key = home.prefix + claim_name(version)
        self._token = uuid4().hex.encode()

    def take(self) -> None:
        """Raises Conflict if another holds it, and the store's errors."""
        try:
            self._store.create(self._key, self._token)
        except AlreadyExists:
            if not self.stands():  # it may be our own, whose answer was lost
                raise Conflict(
                    f"{self._target} is being published, or was left unfinished",
                    hint=f"publish under the next version; {how_to_remove(self._target)}",
                ) from None

    def take_over(self) -> None:
        """Take it from whoever holds it, who writes no graph and cleans nothing up any more."""
        self._store.put(self._key, self._token)

    def stands(self) -> bool:
        """Whether it is ours."""
        with suppress(ObjectNotFound, ObjectTooLarge):
            return self._store.get(self._key, max_bytes=len(self._token)) == self._token
        return False

    def check(self) -> None:
        """Raises Conflict if it is not ours any more."""
        if not self.stands():
            raise Conflict(
                f"{self._target} was removed while it was published",
                hint="`millrace models` tells what stands there now",
            )

    def release(self) -> None:
        """Give it up, if it is ours."""
        if self.stands():
            self._store.delete(self._key)


@contextmanager
def claimed(stores: Stores, target: Location, *, from_others: bool = False) -> Iterator[Claim]:
    """Hold the claim to a version's place. Raises Conflict unless it is taken `from_others` too,
    and the store's errors."""
    claim = Claim(stores, target)
    try:
        if from_others:
            claim.take_over()
        else:
            claim.take()
        yield claim
    except BaseException:
        with suppress(MillraceError):  # what is raised already says more
            claim.release()
        raise
    claim.release()


def how_to_remove(target: Location) -> str:
    """What makes room at a version's place."""
    home, version = target.split()
    repository, name = home.split()
    return f"if nobody is at it:  millrace models rm {name}:{version} --models {repository}"
