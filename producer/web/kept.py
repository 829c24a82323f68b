"""A bounded store of what takes time to make; each value is made once, whoever asks meanwhile."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """The values used last, at most `most` of them. Safe to use from several threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._values: OrderedDict[K, Future[V]] = OrderedDict()

    def peek(self, key: K) -> V | None:
        """The value kept for `key`, if it is there already."""
        with self._lock:
            standing = self._values.get(key)
            if standing is not None:
                self._values.move_to_end(key)
        done = standing is not None and standing.done() and standing.exception() is None
        return standing.result() if standing is not None and done else None

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value kept for `key`, or what `make` makes of it; if that fails nothing is kept."""
        with self._lock:
            standing = self._values.get(key)
            if standing is not None:
                self._values.move_to_end(key)
            else:
                ours = self._values[key] = Future[V]()
                if len(self._values) > self._most:
                    self._values.popitem(last=False)
        if standing is not None:
            return standing.result()
        try:
            ours.set_result(make())
        except BaseException as error:
            with self._lock:
                if self._values.get(key) is ours:
                    del self._values[key]
            ours.set_exception(error)
        return ours.result()
