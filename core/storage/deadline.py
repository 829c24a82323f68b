"""A call that is given up when it takes too long, for libraries that cannot be told to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from millrace.core.log import carried

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns or raises; TimeoutError if that takes longer.

    A call that is given up goes on in a thread of its own, which keeps no process alive.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=carried(run), name="within", daemon=True).start()
    if not wait([answer], seconds).done:
        raise TimeoutError
    return answer.result()
