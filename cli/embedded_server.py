"""A server of our own on a free loopback port: what the embedded ones have in common."""

from __future__ import annotations

import shutil
import socket
import tempfile
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from types import TracebackType
from typing import Self

from millrace.cli.child import Child
from millrace.core.errors import Unavailable


class EmbeddedServer(ABC):
    """Started on entering, with a directory of its own; both are gone on leaving."""

    name: str
    unavailable: type[Unavailable]
    starts_within_s: float

    def __init__(self) -> None:
        self.port = 0
        self._directory = Path()
        self._server: Child | None = None

    def __enter__(self) -> Self:
        """Start it and wait until it answers. Raises MissingExtra, Unavailable."""
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix=f"millrace-{type(self).__name__.lower()}-"))
        try:
            self._server = self._start(self._directory)
            problem = self._server.wait_until(self._answers, self.starts_within_s)
            if problem:
                raise self.unavailable(f"{self.name} did not start: {problem}")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    @abstractmethod
    def _start(self, directory: Path) -> Child:
        """Start it on `self.port`. Raises MissingExtra."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it serves."""

    def _stop(self) -> None:
        try:
            if self._server is not None:
                self._server.stop()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)


def free_port() -> int:
    """A loopback port nobody listens on at this moment.

    It lies below those that the system gives to outgoing connections (from 32768 on Linux, from
    49152 elsewhere), one of which could take it before a server does.
    """
    # Two processes with the same seed would look for the same ones.
    for port in SystemRandom().sample(range(20_000, 32_768), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")
