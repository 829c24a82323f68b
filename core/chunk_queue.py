"""The queue of chunk references: send some, and see which are waiting."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import orjson
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from millrace.core.celery_app import queue
from millrace.core.errors import BadMessage, RedisUnavailable
from millrace.core.message import ChunkMessage
from millrace.core.redis_client import RedisClient, translate
from millrace.core.topology import PREDICT_CHUNK


class ChunkQueue:
    """Messages go out through Celery; what waits is read from the Redis list itself."""

    def __init__(self, app: Celery, redis: RedisClient, key: bytes | None = None) -> None:
        """With a `key`, messages are signed, and unsigned ones are none of ours."""
        self._app = app
        self._redis = redis
        self._key = key

    def send(self, name: str, job: str, chunks: Iterable[int]) -> int:
        """Put chunks on the queue `name`; returns how many. Raises RedisUnavailable.

        Sending twice is harmless: a chunk is counted once, whatever is delivered.
        """
        sent = 0
        try:
            with self._app.producer_pool.acquire(block=True) as producer:
                for chunk in chunks:
                    self._app.send_task(
                        PREDICT_CHUNK,
                        kwargs=ChunkMessage(job=job, chunk=chunk).fields(self._key),
                        queue=queue(name),
                        producer=producer,
                        kwargsrepr="-",
                        argsrepr="-",
                    )
                    sent += 1
        except OperationalError as error:
            if isinstance(error.__cause__, RedisError):
                raise translate(error.__cause__, self._redis.display) from error
            raise RedisUnavailable(
                f"cannot put messages on Redis at {self._redis.display}: {error}"
            ) from error
        return sent

    def waiting(self, name: str) -> set[tuple[str, int]]:
        """The (job, chunk) pairs standing in the queue; entries not ours are passed over.

        Costs about 1 KB per waiting message, of which there are at most a window per job.
        """
        with self._redis.errors():
            entries: list[bytes] = self._redis.raw.lrange(name, 0, -1)
        found = set()
        for entry in entries:
            try:
                message = ChunkMessage.read(_keyword_arguments(entry), self._key)
            except BadMessage:
                continue
            found.add((message.job, message.chunk))
        return found

    def hurry(self, name: str, job: str) -> None:
        """Let what waits of a job be taken next: copies stand at the front, and whichever message
        comes second is dropped."""
        with self._redis.errors():
            entries: list[bytes] = self._redis.raw.lrange(name, 0, -1)
            mine = [entry for entry in entries if self._job_of(entry) == job]
            if mine:
                self._redis.raw.rpush(name, *mine)

    def _job_of(self, entry: bytes) -> str | None:
        try:
            return ChunkMessage.read(_keyword_arguments(entry), self._key).job
        except BadMessage:
            return None


def _keyword_arguments(entry: bytes) -> Any:
    """The task's keyword arguments inside kombu's envelope. Raises BadMessage."""
    try:
        _, arguments, _ = orjson.loads(base64.b64decode(orjson.loads(entry)["body"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BadMessage("not a Celery message") from error
    return arguments
