"""A version's address in words: its repository, its model's name, and commands that name them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from millrace.core.storage import Location


@dataclass(frozen=True, slots=True)
class Address:
    """Where a version lies, from the repository down."""

    location: Location
    repository: Location
    name: str
    version: str

    @classmethod
    def of(cls, location: Location) -> Address:
        home, version = location.split()
        repository, name = home.split()
        return cls(location, repository, name, version)

    def listing(self) -> str:
        """The command that lists what the repository holds."""
        return shlex.join(["millrace", "models", "--models", str(self.repository)])

    def removal(self, *flags: str) -> str:
        """The command that removes the version."""
        return self._command("rm", *flags, "--models", str(self.repository))

    def push(self, source: object) -> str:
        """The command that copies it there from another repository."""
        return self._command("push", "--from", str(source), "--to", str(self.repository))

    def _command(self, verb: str, *options: str) -> str:
        return shlex.join(["millrace", "models", verb, f"{self.name}:{self.version}", *options])
