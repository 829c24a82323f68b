"""Claims and leases: which worker runs which chunk, and what counts.

Celery delivers hints; these scripts decide. A chunk is run under a lease that its worker
renews; it is counted when `finish` says so for the first time, whoever delivered it twice.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum

from millrace.core.log import get_logger
from millrace.core.outcome import Tally
from millrace.core.record import TimingTotals
from millrace.core.redis_client import RedisClient
from millrace.core.topology import JobKeys, QueueKeys, lease_member, split_lease_member

log = get_logger(__name__)

CONVICTED = 1_000_000
"""Stands for the number of deaths of an image that is not tried any more."""


class Answer(StrEnum):
    """What `claim` says. Only after OK and POISON does the worker hold a lease."""

    OK = "OK"
    """Run it."""
    POISON = "POISON"
    """Claimed too often without an outcome: give its rows up, don't run it."""
    DONE = "DONE"
    """Finished, or the job has ended."""
    BUSY = "BUSY"
    """Another worker holds a lease."""
    PAUSED = "PAUSED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    WRONG_MODEL = "WRONG_MODEL"
    """The job is pinned to another version or digest of the model."""
    UNKNOWN = "UNKNOWN"
    """No such job, or it has no such chunk."""

    @property
    def holds_lease(self) -> bool:
        return self in (Answer.OK, Answer.POISON)


class Finish(StrEnum):
    """What `finish` says."""

    FIRST = "FIRST"
    """Counted now."""
    REPEAT = "REPEAT"
    """Counted before; nothing moved."""
    LATE = "LATE"
    """The job had ended without this chunk; nothing moved."""
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run one chunk, proven by its token."""

    queue: str
    job: str
    chunk: int
    token: str
    attempt: int

    @property
    def member(self) -> str:
        return lease_member(self.job, self.chunk)


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model a worker serves; empty strings where it does not know."""

    version: str
    digest: str


class Claims:
    """The chunk half of the job store. Raises what `RedisClient.errors` raises."""

    def __init__(
        self, redis: RedisClient, *, worker: str, lease_s: float, max_attempts: int
    ) -> None:
        self._redis = redis
        self._worker = worker
        self._lease_ms = int(lease_s * 1000)
        self._max_attempts = max_attempts

    def claim(self, queue: str, job: str, chunk: int, model: ModelIdentity) -> tuple[Answer, Lease]:
        """Ask to run a chunk. The lease is held only if `answer.holds_lease`."""
        keys = JobKeys(job)
        token = f"{self._worker}/{secrets.token_hex(8)}"
        with self._redis.errors():
            answer, attempt = self._redis.script("claim")(
                keys=[keys.record, keys.done, keys.attempts, keys.owners, QueueKeys(queue).leases],
                args=[
                    chunk,
                    lease_member(job, chunk),
                    token,
                    self._lease_ms,
                    self._max_attempts,
                    model.version,
                    model.digest,
                ],
            )
        return Answer(answer.decode()), Lease(queue, job, chunk, token, attempt)

    def finish(self, lease: Lease, tally: Tally, timing: TimingTotals) -> tuple[Finish, bool]:
        """Count a committed chunk. True beside the answer: the job is ready to be finalized."""
        keys = JobKeys(lease.job)
        codes = [part for pair in tally.by_code.items() for part in pair]
        times = [part for pair in timing.fields().items() for part in pair]
        with self._redis.errors():
            answer, ready = self._redis.script("finish")(
                keys=[
                    keys.record,
                    keys.done,
                    keys.owners,
                    QueueKeys(lease.queue).leases,
                    keys.errors,
                    keys.samples,
                    keys.pace,
                    keys.failed,
                    keys.attempts,
                ],
                args=[
                    lease.chunk,
                    lease.member,
                    tally.succeeded,
                    tally.failed,
                    len(times) // 2,
                    *times,
                    len(codes) // 2,
                    *codes,
                    *tally.samples,
                ],
            )
        return Finish(answer.decode()), bool(ready)

    def release(self, lease: Lease, *, forget_attempt: bool = False) -> bool:
        """Give a lease back unfinished. True: the job is ready to be finalized.

        `forget_attempt` is for what is not the chunk's fault: a worker that is told to stop,
        storage that is away.
        """
        return _release(
            self._redis, lease.queue, lease.job, lease.chunk, lease.token, forget_attempt
        )

    def count_attempt(self, lease: Lease, by: int) -> None:
        """Correct how often the chunk was attempted."""
        with self._redis.errors():
            self._redis.raw.hincrby(JobKeys(lease.job).attempts, lease.chunk, by)

    def suspects(self, lease: Lease) -> dict[int, int]:
        """Of the chunk's rows, which were alone in flight when a process died, and how often."""
        prefix = f"{lease.chunk}:"
        with self._redis.errors():
            noted = self._redis.raw.hgetall(JobKeys(lease.job).suspects)
        return {
            int(name.decode().removeprefix(prefix)): int(times)
            for name, times in noted.items()
            if name.decode().startswith(prefix)
        }

    def suspect(self, lease: Lease, row: int, deaths: int) -> None:
        """Note how many deaths are this image's, counting that of this process if it is in flight.

        Set, not counted up: a command whose answer was lost is sent twice.
        """
        with self._redis.errors():
            self._redis.raw.hset(JobKeys(lease.job).suspects, f"{lease.chunk}:{row}", deaths)

    def acquit(self, lease: Lease, row: int) -> None:
        """The process has survived the image.

        If no attempt came so far before, the chunk counts as tried once: a night on which workers
        die or are cut off must not condemn what they held.
        """
        keys, furthest = JobKeys(lease.job), f"{lease.chunk}:survived"
        with self._redis.errors():
            before = self._redis.raw.hget(keys.attempts, furthest)
            pipe = self._redis.raw.pipeline(transaction=True)
            pipe.hdel(keys.suspects, f"{lease.chunk}:{row}")
            if before is None or int(before) < row:
                pipe.hset(keys.attempts, mapping={str(lease.chunk): 1, furthest: row})
            pipe.execute()

    def convict(self, lease: Lease, row: int) -> None:
        """The image is named for good. The chunk counts as tried once, for it may hold others
        and this one will not be tried again."""
        keys = JobKeys(lease.job)
        with self._redis.errors():
            pipe = self._redis.raw.pipeline(transaction=True)
            pipe.hset(keys.suspects, f"{lease.chunk}:{row}", CONVICTED)
            pipe.hset(keys.attempts, lease.chunk, 1)
            pipe.execute()

    def renew(self, queue: str, fleet_member: str, leases: list[Lease]) -> None:
        """Extend the leases this process holds on a queue, and its place in the fleet."""
        keys = QueueKeys(queue)
        with self._redis.errors():
            self._redis.script("renew")(
                keys=[keys.leases, keys.fleet, *(JobKeys(lease.job).owners for lease in leases)],
                args=[
                    self._lease_ms,
                    fleet_member,
                    *(part for held in leases for part in (held.member, held.chunk, held.token)),
                ],
            )


def free_expired(redis: RedisClient, queue: str) -> None:
    """Free the chunks of a queue whose leases ran out; they may be claimed again."""
    with redis.errors():
        members = redis.script("expired")(keys=[QueueKeys(queue).leases], args=[1000])
    for member in members:
        try:
            job, chunk = split_lease_member(member.decode())
        except ValueError:
            with redis.errors():
                redis.raw.zrem(QueueKeys(queue).leases, member)
            continue
        log.warning("a lease expired; its chunk runs again", job=job, chunk=chunk)
        release_expired(redis, queue, job, chunk)


def release_expired(redis: RedisClient, queue: str, job: str, chunk: int) -> bool:
    """Free a chunk whose lease ran out. True: the job is ready to be finalized."""
    return _release(redis, queue, job, chunk, "", False)


def _release(
    redis: RedisClient, queue: str, job: str, chunk: int, token: str, forget: bool
) -> bool:
    keys = JobKeys(job)
    with redis.errors():
        _, ready = redis.script("release")(
            keys=[keys.record, keys.owners, QueueKeys(queue).leases, keys.attempts],
            args=[chunk, lease_member(job, chunk), token, int(forget)],
        )
    return bool(ready)
