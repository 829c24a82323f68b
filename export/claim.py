"""One writer at a time at a version's place: a claim lies beside it, where no reader looks."""

from __future__ import annotations

import os
import re
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
from millrace.core.log import get_logger
from millrace.core.repository import claim_name
from millrace.core.storage import Location, Stores
from millrace.export.address import Address

MAX_BYTES = 1000
"""Of a claim that is read; ours are far shorter."""

log = get_logger(__name__)


class Claim:
    """A claim to a version's place, ours for as long as the object beside it says what we wrote."""

    def __init__(self, stores: Stores, target: Location) -> None:
        self.address = Address.of(target)
        self.token = uuid4().hex
        home, version = target.split()
        self._store = stores.open(home)
        self._key = home.prefix + claim_name(version)
        self._body = f"{self.token} process {os.getpid()} on {os.uname().nodename}".encode()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it. Raises Conflict if another does, and the store's errors."""
        try:
            self._take()
            yield
        except BaseException:
            with suppress(MillraceError):  # what is raised already says more
                self._release()
            raise
        self._done()

    @contextmanager
    def seized(self) -> Iterator[None]:
        """Take it from whoever holds it, who writes and deletes nothing any more then. Who fails
        leaves it: it says that something may be left to remove. Raises the store's errors."""
        self._store.put(self._key, self._body)
        yield
        self._done()

    def check(self) -> None:
        """Raises Conflict if it is not ours any more. It is asked before every single write."""
        if self._found() != self._body:
            raise Conflict(
                f"{self.address.location} was taken over by somebody who removes it, or did",
                hint="`millrace models` tells what stands there now",
            )

    def _take(self) -> None:
        with suppress(AlreadyExists):  # it may be our own, whose answer was lost
            self._store.create(self._key, self._body)
        # Asked again, for not every store knows conditional writes.
        found = self._found()
        if found != self._body:
            raise Conflict(
                f"{self.address.location} is being published{_by(found)}, or was left unfinished",
                hint="publish under the next version; if nobody is at it:"
                f"  {self.address.removal('--claim')}",
            )

    def _found(self) -> bytes:
        """What the claim says; nothing if there is none."""
        with suppress(ObjectNotFound, ObjectTooLarge):
            return self._store.get(self._key, max_bytes=MAX_BYTES)
        return b""

    def _done(self) -> None:
        """What was done is done, also where the claim cannot be removed."""
        try:
            self._release()
        except MillraceError as error:
            log.warning("a claim could not be removed", claim=self._key, error=error.message)

    def _release(self) -> None:
        if self._found() == self._body:
            self._store.delete(self._key)


def _by(found: bytes) -> str:
    """Whose a claim is, if it says so."""
    said = re.fullmatch(rb"[0-9a-f]{32} (process \d+ on [\w.-]{1,255})", found)
    return f" by {said[1].decode()}" if said else ""
