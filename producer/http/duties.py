"""What servers have promised and not yet done, in Redis: the next one takes it up.

A `list` duty is a job whose input is to be listed; a `clear` duty one whose traces are to go.
"""

from __future__ import annotations

from typing import Literal

from millrace.core.redis_client import RedisClient
from millrace.core.topology import DUTIES

Kind = Literal["list", "clear"]


class Duties:
    """Raises what `RedisClient.errors` raises."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    def add(self, kind: Kind, job: str) -> None:
        """Promise it. Promising again is harmless, and keeps the time of the first."""
        with self._redis.errors():
            self._redis.raw.zadd(DUTIES, {f"{kind}:{job}": self._redis.now_ms()}, nx=True)

    def done(self, kind: Kind, job: str) -> None:
        with self._redis.errors():
            self._redis.raw.zrem(DUTIES, f"{kind}:{job}")

    def open(self, kind: Kind, *, older_than_s: float = 0) -> list[str]:
        """Jobs of which it was promised so long ago, the oldest first."""
        with self._redis.errors():
            until = self._redis.now_ms() - round(older_than_s * 1000)
            members = self._redis.raw.zrangebyscore(DUTIES, "-inf", until)
        found = (member.decode(errors="replace").partition(":") for member in members)
        return [job for what, _, job in found if what == kind]
