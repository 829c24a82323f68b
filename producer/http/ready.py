"""Whether Redis and object storage answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

from millrace.core.errors import MillraceError, NotFound
from millrace.core.log import get_logger
from millrace.core.services import Services
from millrace.core.storage import Location

log = get_logger(__name__)

FRESH_S = 5.0
WITHIN_S = 4.0

Word = Literal["ok", "unavailable", "slow"]


class ReadyChecks:
    """Asks Redis and storage, at most every few seconds, and waits a few seconds at most: what
    takes longer goes on, and is not asked again meanwhile."""

    def __init__(self, services: Services, places: list[Location]) -> None:
        self._services = services
        self._places = places
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="ready")
        self._asked: dict[str, tuple[float, Future[None]]] = {}
        self._lock = threading.Lock()

    def words(self) -> dict[str, Word]:
        until = time.monotonic() + WITHIN_S
        asked = {
            "redis": self._ask("redis", self._services.redis.ping),
            "storage": self._ask("storage", self._look),
        }
        return {name: self._word(name, future, until) for name, future in asked.items()}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, name: str, question: Callable[[], None]) -> Future[None]:
        with self._lock:
            at, future = self._asked.get(name, (0.0, None))
            if future is None or (future.done() and time.monotonic() - at > FRESH_S):
                future = self._pool.submit(question)
                self._asked[name] = (time.monotonic(), future)
            return future

    def _word(self, name: str, future: Future[None], until: float) -> Word:
        try:
            future.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            return "slow"
        except MillraceError as error:
            log.warning(f"{name} is not ready", error=error.message)
            return "unavailable"
        return "ok"

    def _look(self) -> None:
        """One request to each place. What is not there was at least looked up."""
        for place in self._places:
            try:
                next(self._services.stores.open(place).list(place.prefix), None)
            except NotFound:
                continue
