"""The notifications that are due, in Redis: of many senders one tries each, at a time."""

from __future__ import annotations

from typing import NamedTuple

from millrace.core.notify.delivery import DeliveryState
from millrace.core.redis_client import RedisClient
from millrace.core.topology import NOTIFICATIONS, JobKeys


class Due(NamedTuple):
    """A job whose notification is to be tried, and since when, by the clock of Redis."""

    job: str
    at_ms: float


class Outbox:
    """Filled by the very script that ends a job. Raises what `RedisClient.errors` raises."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    def now_ms(self) -> int:
        """What Redis takes for now."""
        return self._redis.now_ms()

    def due(self, now_ms: int, most: int) -> list[Due]:
        """Jobs whose notification is to be tried by then, the longest due first."""
        with self._redis.errors():
            found = self._redis.raw.zrange(
                NOTIFICATIONS, "-inf", now_ms, byscore=True, offset=0, num=most, withscores=True
            )
        return [Due(job.decode(errors="replace"), at_ms) for job, at_ms in found]

    def take(self, job: str, lease_s: float) -> int:
        """Be the one who tries it; which try it is, or 0 if another does, or there is none.

        Others try it when the lease is over, unless it is settled before.
        """
        with self._redis.errors():
            attempt: int = self._redis.script("notify_take")(
                keys=[NOTIFICATIONS, JobKeys(job).record], args=[job, int(lease_s * 1000)]
            )
        return attempt

    def settle(
        self, job: str, state: DeliveryState, error: str = "", *, again_in_s: float = 0
    ) -> None:
        """Note what came of a try; a WAITING one is tried again."""
        with self._redis.errors():
            self._redis.script("notify_settle")(
                keys=[NOTIFICATIONS, JobKeys(job).record],
                args=[job, state, error, int(again_in_s * 1000)],
            )

    def forget(self, job: str) -> None:
        """Drop what is no job's."""
        with self._redis.errors():
            self._redis.raw.zrem(NOTIFICATIONS, job)
