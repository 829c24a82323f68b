"""One writer at a time at a version's place: a claim lies beside it, where no reader looks."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal
from uuid import uuid4

from millrace.core.bundle import SAVED_MODELS
from millrace.core.disk import writing
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

MAX_BYTES = 4000
"""Of a claim that is read; ours are far shorter."""

OLD_FILES = "; if it is gone, its old files are in "

Doing = Literal["published", "replaced", "removed"]

log = get_logger(__name__)


class ClaimLost(Conflict):
    """The claim is not ours any more."""

    code = "claim_lost"


class Claim:
    """A claim to a version's place, ours for as long as the object beside it says what we wrote:
    a token, and for people who does what."""

    def __init__(self, stores: Stores, target: Location, doing: Doing) -> None:
        """Raises StorageUnavailable if this machine has no place for what is replaced."""
        token = uuid4().hex
        home, version = target.split()
        self.address = Address.of(target)
        self.stays = False
        """Whether it is left if what is done under it fails: so that `models rm` finds what is
        left there, whatever it is, and tells where old files are."""
        self.old_files: Path | None = None
        """Where a version that is replaced is kept meanwhile."""
        self._stores, self._home = stores, stores.open(home)
        self._key = home.prefix + claim_name(version)
        text = f"{token} being {doing} by process {os.getpid()} on {os.uname().nodename}"
        if doing == "replaced":
            with writing(Path("a temporary directory")):
                self.old_files = Path(tempfile.gettempdir()) / f"millrace-old-{token}"
            text += f"{OLD_FILES}{self.old_files}"
        self._body = text.encode("utf-8", "backslashreplace")

    @contextmanager
    def held(self, *, seize: bool = False) -> Iterator[None]:
        """Hold it. Raises Conflict if another does, unless it is seized from him, who writes and
        deletes nothing any more then; and the store's errors."""
        try:
            if seize:
                # What a replacer who was killed says of the old files is not lost with his claim.
                _, known, where = self.whose().partition(OLD_FILES)
                self._body += f"{known}{where}".encode()
                self._home.put(self._key, self._body)
            else:
                self._take()
            yield
        except BaseException:
            if not self.stays:
                with suppress(MillraceError):  # what is raised already says more
                    self.release()
            raise
        try:
            self.release()
        except MillraceError as error:  # what was done is done
            log.warning("a claim could not be removed", claim=self._key, error=error.message)

    def check(self) -> None:
        """Raises ClaimLost if it is not ours any more. It is asked before every single write."""
        if self._found() != self._body:
            raise ClaimLost(
                f"{self.address.location} was claimed by another meanwhile",
                hint=f"{self.address.listing()}  tells what stands there now; if no version does,"
                f"  {self.address.removal()}  removes what is left",
            )

    def check_at_last(self) -> None:
        """Raises ClaimLost as `check` does; that it cannot be asked is no failure any more."""
        try:
            self.check()
        except ClaimLost:
            raise
        except MillraceError as error:
            log.warning("cannot read a claim again", claim=self._key, error=error.message)

    def whose(self) -> str:
        """Who does what, in the words of whoever holds it; empty if it is nobody's, or says
        nothing of the kind."""
        text = self._found().decode("utf-8", "replace")
        said = re.fullmatch(r"[0-9a-f]{32} (being \w+ by process .+)", text)
        return said[1] if said and text.isprintable() else ""

    def release(self) -> None:
        """Give it up, if it is ours."""
        if self._found() == self._body:
            self._home.delete(self._key)

    def _take(self) -> None:
        with suppress(AlreadyExists):  # it may be our own, whose answer was lost
            self._home.create(self._key, self._body)
        # Asked again, for not every store knows conditional writes.
        if self._found() != self._body:
            # A version that stands is not to go with the claim of one who was killed beside it.
            flags = ("--claim",) if self._stands() else ()
            raise Conflict(
                f"{self.address.location} was left unfinished, or is"
                f" {self.whose() or 'being published'}",
                hint="publish under the next version; if nobody is at it:"
                f"  {self.address.removal(*flags)}",
            )

    def _found(self) -> bytes:
        """What the claim says; nothing if there is none."""
        with suppress(ObjectNotFound, ObjectTooLarge):
            return self._home.get(self._key, max_bytes=MAX_BYTES)
        return b""

    def _stands(self) -> bool:
        location = self.address.location
        for name in SAVED_MODELS:
            with suppress(ObjectNotFound):
                self._stores.open(location).head(location.prefix + name)
                return True
        return False
