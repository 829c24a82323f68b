"""Who alone lists a job's input, who alone finalizes it, who alone makes its record anew: locks in
Redis that expire."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from redis.exceptions import LockNotOwnedError, RedisError

from millrace.core.errors import JobConflict
from millrace.core.periodic import Periodic
from millrace.core.redis_client import RedisClient
from millrace.core.topology import JobKeys

FINALIZER_LOCK_S = 60.0
PRODUCER_LOCK_S = 60.0
DIED = "if that one died, its lock runs out within a minute: try again then"

_LETTING_GO_S = 1.0
"""A finalizer holds its lock for a moment longer than its job is under way."""


@contextmanager
def producing(redis: RedisClient, job: str) -> Iterator[Callable[[], bool]]:
    """Be the one who lists the input; yields what tells whether this still holds. Raises
    JobConflict if another process does.

    The lock is kept by a thread, and expires if this process dies.
    """
    lock = redis.raw.lock(JobKeys(job).producer, timeout=PRODUCER_LOCK_S, thread_local=False)
    with redis.errors():
        if not lock.acquire(blocking=False):
            raise JobConflict(
                f"the input of job {job} is being listed by another process", hint=DIED
            )
    with _kept(redis, lock, "producer lock", PRODUCER_LOCK_S) as still_ours:
        yield still_ours


@contextmanager
def rebuilding(redis: RedisClient, job: str) -> Iterator[Callable[[], bool]]:
    """Be the one who makes the record anew of what storage holds: nobody else does, nobody
    finalizes the job, and a paused one is not resumed. Yields and raises as `producing` does.

    It is the finalizer's lock: both write what the objects say, and must not do so at once.
    """
    lock = redis.raw.lock(JobKeys(job).finalizer, timeout=FINALIZER_LOCK_S, thread_local=False)
    with redis.errors():
        if not lock.acquire(blocking_timeout=_LETTING_GO_S):
            raise JobConflict(f"job {job} is being repaired or ended by another process", hint=DIED)
    with _kept(redis, lock, "repair lock", FINALIZER_LOCK_S) as still_ours:
        yield still_ours


@contextmanager
def _kept(redis: RedisClient, lock: Any, name: str, lasts_s: float) -> Iterator[Callable[[], bool]]:
    """Keep a lock by a thread, and give it back."""

    def keep() -> None:
        with redis.errors():
            lock.reacquire()

    keeper = Periodic(name, lasts_s / 4, keep)
    keeper.start()

    def still_ours() -> bool:
        with redis.errors():
            return bool(lock.owned())

    try:
        yield still_ours
    finally:
        keeper.stop()
        with suppress(RedisError):  # it expires by itself
            lock.release()


@contextmanager
def finalizing(redis: RedisClient, job: str) -> Iterator[Callable[[], None] | None]:
    """Hold the finalizer's lock; None if another process has it, else what keeps it.

    That is to be called more often than the lock expires.
    """
    lock = redis.raw.lock(JobKeys(job).finalizer, timeout=FINALIZER_LOCK_S, thread_local=False)

    def keep() -> None:
        # Held too long without it, and somebody else's: what is written is the same.
        with redis.errors(), suppress(LockNotOwnedError):
            lock.reacquire()

    with redis.errors():
        held = lock.acquire(blocking=False)
    try:
        yield keep if held else None
    finally:
        if held:
            with redis.errors(), suppress(LockNotOwnedError):
                lock.release()
