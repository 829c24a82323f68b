"""Threads for what may take long: a process that is told to end does not wait for them.

Python's own pools are waited for at exit, however long their work takes. What is given to this
one has to be such that it may break off at any moment, as if the process had been killed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from millrace.core.log import carried

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """So many threads, begun by the first call."""

    def __init__(self, threads: int, name: str) -> None:
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        self._lock = threading.Lock()
        self._begun = self._closed = False

    def submit(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Future[T] | None:
        """Call it soon, its log lines about what ours are now; None once the pool is closed."""
        with self._lock:
            if self._closed:
                return None
            if not self._begun:
                self._begun = True
                for thread in self._threads:
                    thread.start()
        future = Future[T]()
        self._work.put((future, carried(partial(function, *args, **kwargs))))
        return future

    def close(self, within_s: float = 0.0) -> None:
        """Begin nothing more, and wait so long for what is under way."""
        with self._lock:
            self._closed = True
            if not self._begun:
                return
        for _ in self._threads:
            self._work.put(None)
        until = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, call = work
            if self._closed:
                future.cancel()
            elif future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)
