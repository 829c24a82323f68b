"""The worker registry: who serves which queue, and how they do."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

from millrace.core.errors import CorruptRecord
from millrace.core.record import from_ms
from millrace.core.redis_client import RedisClient
from millrace.core.running import Running
from millrace.core.topology import WORKERS, worker_key

WorkerState = Literal["loading", "idle", "busy", "stopping"]

SILENT_AFTER_S = 60
FORGOTTEN_AFTER_S = 600


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One worker process as it describes itself with each heartbeat."""

    worker: str
    """`pid@host/token`"""
    model: str
    """`NAME` or `NAME:VERSION`"""
    queues: str
    state: WorkerState
    slots: int
    """Chunks it holds at once."""
    images: int
    """Images predicted since it started."""
    images_per_s: float
    """Over the last heartbeats."""
    started_ms: int
    running: Running | None = None
    """None while it loads."""

    @property
    def host(self) -> str:
        return self.worker.partition("@")[2].partition("/")[0]


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """A worker and when it was last heard of, by Redis TIME."""

    info: WorkerInfo
    last_seen: datetime
    silent_s: float

    @property
    def lost(self) -> bool:
        """It neither renewed nor said goodbye."""
        return self.silent_s > SILENT_AFTER_S


class Fleet:
    """Raises what `RedisClient.errors` raises."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    def announce(self, info: WorkerInfo) -> None:
        """Write a worker's description; it is forgotten ten minutes after its last one."""
        key = worker_key(info.worker)
        with self._redis.errors():
            now_ms = self._redis.now_ms()
            pipe = self._redis.raw.pipeline(transaction=False)
            pipe.hset(key, mapping=_written(info))
            pipe.expire(key, FORGOTTEN_AFTER_S)
            pipe.zadd(WORKERS, {info.worker: now_ms})
            pipe.execute()

    def leave(self, worker: str, fleet_member: str, fleet_keys: list[str]) -> None:
        """Say goodbye: the worker's slots no longer count."""
        with self._redis.errors():
            pipe = self._redis.raw.pipeline(transaction=False)
            pipe.delete(worker_key(worker))
            pipe.zrem(WORKERS, worker)
            for key in fleet_keys:
                pipe.zrem(key, fleet_member)
            pipe.execute()

    def workers(self) -> list[SeenWorker]:
        """Every worker heard of in the last ten minutes, by last sight, newest first."""
        with self._redis.errors():
            now_ms = self._redis.now_ms()
            self._redis.raw.zremrangebyscore(WORKERS, "-inf", now_ms - FORGOTTEN_AFTER_S * 1000)
            seen = self._redis.raw.zrange(WORKERS, 0, -1, desc=True, withscores=True)
            pipe = self._redis.raw.pipeline(transaction=False)
            for worker, _ in seen:
                pipe.hgetall(worker_key(worker.decode()))
            described = pipe.execute()
        return [
            SeenWorker(_read(fields), from_ms(int(score)), (now_ms - score) / 1000)
            for (_, score), fields in zip(seen, described, strict=True)
            if fields
        ]


def _written(info: WorkerInfo) -> dict[str, Any]:
    """As fields of a hash, whose values are strings and numbers; what is unknown is left out."""
    known = {field.name: getattr(info, field.name) for field in fields(info)}
    running = known.pop("running")
    return known if running is None else known | {"running": running.to_json()}


def _read(described: dict[bytes, bytes]) -> WorkerInfo:
    text = {name.decode(): value.decode("utf-8", "replace") for name, value in described.items()}
    try:
        return WorkerInfo(
            worker=text["worker"],
            model=text["model"],
            queues=text["queues"],
            state=text["state"],  # type: ignore[arg-type]
            slots=int(text["slots"]),
            images=int(text["images"]),
            images_per_s=float(text["images_per_s"]),
            started_ms=int(text["started_ms"]),
            running=Running.from_json(text["running"]) if "running" in text else None,
        )
    except (KeyError, ValueError) as error:
        raise CorruptRecord(f"not a worker's description: {error!r}") from error
