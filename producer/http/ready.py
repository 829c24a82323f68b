"""Whether Redis and object storage answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Literal

from millrace.core.errors import MillraceError, NotFound, ServerUnavailable
from millrace.core.log import get_logger
from millrace.core.services import Services
from millrace.core.storage import Location
from millrace.producer.http.pool import Pool

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
        self._pool = Pool(2, "ready")
        self._asked: dict[str, tuple[float, Future[Word]]] = {}

    async def words(self) -> dict[str, Word]:
        """To be asked by one event loop: however many ask, no thread waits but those that ask."""
        asked = {
            "redis": self._ask("redis", self._services.redis.ping),
            "storage": self._ask("storage", self._look),
        }
        waiting = {name: asyncio.wrap_future(future) for name, future in asked.items()}
        await asyncio.wait(waiting.values(), timeout=WITHIN_S)
        return {
            name: future.result() if future.done() else "slow" for name, future in waiting.items()
        }

    def close(self) -> None:
        self._pool.close()

    def _ask(self, name: str, question: Callable[[], None]) -> Future[Word]:
        at, future = self._asked.get(name, (0.0, None))
        if future is None or (future.done() and time.monotonic() - at > FRESH_S):
            future = self._pool.submit(self._word, name, question)
            if future is None:
                raise ServerUnavailable("the server is stopping")
            self._asked[name] = (time.monotonic(), future)
        return future

    def _word(self, name: str, question: Callable[[], None]) -> Word:
        try:
            question()
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
