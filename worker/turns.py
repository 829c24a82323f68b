"""Chunks share the process, except for one that must be alone in it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock many may share or one may have alone. Whoever wants it alone goes first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._alone = False
        self._waiting = 0

    @contextmanager
    def shared(self, *, wait: bool = True) -> Iterator[bool]:
        """Yields whether it is one's turn: without `wait` it may not be yet."""
        with self._changed:
            if wait:
                self._changed.wait_for(self._may_share)
            has_turn = self._may_share()
            self._sharing += has_turn
        try:
            yield has_turn
        finally:
            with self._changed:
                self._sharing -= has_turn
                self._changed.notify_all()

    def _may_share(self) -> bool:
        return not self._alone and not self._waiting

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._alone and not self._sharing)
            finally:
                self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
