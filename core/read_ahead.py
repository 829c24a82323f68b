"""Objects that are read before they are asked for: one request after another would take hours."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from millrace.core.log import carried
from millrace.core.sizes import MIB

READ_AHEAD = 8
READ_AHEAD_BYTES = 16 * MIB
"""So many at most, and about so many bytes: how large those ahead are is told by those before."""


def read_ahead(
    read: Callable[[int], bytes | None], numbers: Iterable[int]
) -> Iterator[bytes | None]:
    """`read` of each number, in their order. Raises what it does, in its turn."""
    with ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="read-ahead") as pool:
        pending: deque[Future[bytes | None]] = deque()
        rest = iter(numbers)
        ahead, largest = 1, 1  # until it is known how large they are
        try:
            while True:
                for number in islice(rest, max(0, ahead - len(pending))):
                    pending.append(pool.submit(carried(read), number))
                if not pending:
                    return
                body = pending.popleft().result()
                largest = max(largest, len(body or b""))
                # One small object before large ones does not let many of them come at once.
                ahead = min(2 * ahead, READ_AHEAD, max(1, READ_AHEAD_BYTES // largest))
                yield body
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
