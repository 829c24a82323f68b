"""How many encoded bytes may be held at once, whatever the size of pictures."""

from __future__ import annotations

import threading


class ByteBudget:
    """Bytes that are taken before they are read, and given back when they are decoded.

    What is larger than the whole budget passes alone. Those who wait pass one after the other,
    so that a large one is not overtaken for ever.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._changed = threading.Condition()
        self._turn = threading.Lock()

    def take(self, size: int) -> None:
        """Wait until there is room for so many bytes, and hold them."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + size <= self._limit)
            self._held += size

    def correct(self, taken: int, size: int) -> None:
        """It turned out to be another size than was taken; this waits for nothing."""
        with self._changed:
            self._held += size - taken
            self._changed.notify_all()

    def give_back(self, size: int) -> None:
        self.correct(size, 0)
