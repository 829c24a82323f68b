"""Job records in Redis: create, publish the manifest, read, give up, conclude."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import WatchError

from millrace.core.bitmaps import bitmap
from millrace.core.claims import ModelIdentity
from millrace.core.errors import CorruptRecord, JobConflict, JobNotFound
from millrace.core.job import JobSpec, JobState, Priority
from millrace.core.outcome import decode_outcome
from millrace.core.record import (
    JobRecord,
    from_ms,
    initial_fields,
    no_job,
    record_of,
    spec_of,
    to_ms,
)
from millrace.core.redis_client import RedisClient
from millrace.core.restored import Restored
from millrace.core.topology import JOBS, NOTIFICATIONS, JobKeys, QueueKeys, lease_member


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a status needs, read in one round trip."""

    record: JobRecord
    by_code: dict[str, int]
    samples: list[dict[str, Any]]
    pace: list[tuple[int, int]]
    """Recent completions, newest first: (milliseconds of Redis TIME, images)."""
    now_ms: int
    owners: list[str]
    """`worker/token` of each lease."""
    live_workers: int
    """Worker processes alive that serve its model, in its version if that is known."""
    has_producer: bool = True
    """Some process is listing the input."""

    @property
    def needs_care(self) -> bool:
        """It waits for its end, or is past its deadline: any reader may move it on."""
        record = self.record
        overdue = record.deadline is not None and from_ms(self.now_ms) > record.deadline
        return record.state in (JobState.CANCELLING, JobState.FINALIZING) or (
            overdue and not record.state.terminal
        )


class JobStore:
    """The record half of the job store. Raises what `RedisClient.errors` raises."""

    def __init__(self, redis: RedisClient) -> None:
        self.redis = redis

    def create(self, spec: JobSpec) -> str | None:
        """Make the job's record; None, or the digest of the spec already standing there."""
        keys = JobKeys(spec.job_id)
        fields = [part for pair in initial_fields(spec).items() for part in pair]
        with self.redis.errors():
            standing = self.redis.script("create")(
                keys=[keys.record, JOBS, QueueKeys(spec.queue).active],
                args=[spec.job_id, secrets.token_hex(8), *fields],
            )
        return standing.decode() or None

    def publish_part(self, job: str, part: int, rows: int, chunks: int) -> tuple[str, int]:
        """Count a written manifest part in; returns the job's state, empty if there is no such
        job, and how many parts are counted."""
        with self.redis.errors():
            state, parts = self.redis.script("publish")(
                keys=[JobKeys(job).record], args=[part, rows, chunks]
            )
        return state.decode(), parts

    def listing_done(self, job: str) -> bool:
        """The total is final. True if the job is thereby ready to be finalized."""
        keys = JobKeys(job)
        with self.redis.errors():
            return bool(self.redis.script("listed")(keys=[keys.record, keys.owners]))

    def stop(self, job: str, ending: JobState, reason: str) -> bool:
        """Give the job up. True if it is thereby ready to be finalized."""
        keys = JobKeys(job)
        with self.redis.errors():
            _, ready = self.redis.script("stop")(
                keys=[keys.record, keys.owners], args=[ending, reason]
            )
        return bool(ready)

    def pause(self, job: str) -> JobState:
        """Let nothing new be claimed. The state afterwards. Raises JobNotFound."""
        return self._run("pause", job, [JobKeys(job).record])

    def unpause(self, job: str, *, rebuilding: bool = False) -> JobState:
        """Let a paused job go on. The state afterwards: still paused while its record is made
        anew, unless by the caller, who is `rebuilding` it. Raises JobNotFound."""
        keys = JobKeys(job)
        return self._run("unpause", job, [keys.record, keys.finalizer], int(rebuilding))

    def set_priority(self, job: str, priority: Priority) -> JobState:
        """Change the window of a job that is under way. Its state. Raises JobNotFound."""
        return self._run("priority", job, [JobKeys(job).record], priority.window_factor)

    def _run(self, script: str, job: str, keys: list[str], *args: float) -> JobState:
        with self.redis.errors():
            state = self.redis.script(script)(keys=keys, args=[*args]).decode()
        if not state:
            raise no_job(job)
        return JobState(state)

    def pin(self, job: str, model: ModelIdentity) -> None:
        """Let a job that is under way go on with this model, and with no other."""
        with self.redis.errors():
            self.redis.script("pin")(keys=[JobKeys(job).record], args=[model.version, model.digest])

    def delete(self, spec: JobSpec) -> None:
        """Forget a job: all its keys, and its leases."""
        leased = self.running_chunks(spec.job_id)
        with self.redis.errors():
            pipe = self.redis.raw.pipeline(transaction=True)
            _forget(pipe, spec, JobKeys(spec.job_id).all, leased)
            pipe.execute()

    def settle(self, record: JobRecord) -> bool:
        """Move a job that waits for nothing more to finalizing. True if that was so."""
        keys = JobKeys(record.spec.job_id)
        with self.redis.errors():
            return bool(self.redis.script("settle")(keys=[keys.record, keys.owners]))

    def conclude(self, ended: JobRecord) -> bool:
        """Move a job from finalizing to its end. False if it was not finalizing any more."""
        job, when = ended.spec.job_id, ended.completed_at
        assert when is not None
        with self.redis.errors():
            return bool(
                self.redis.script("conclude")(
                    keys=[JobKeys(job).record, QueueKeys(ended.spec.queue).active, NOTIFICATIONS],
                    args=[
                        job,
                        ended.state,
                        ended.reason or "",
                        ended.counts.cancelled,
                        to_ms(when),
                        int(ended.spec.notify is not None),
                    ],
                )
            )

    def restore(
        self,
        spec: JobSpec,
        found: Restored,
        *,
        instead_of: JobRecord | None = None,
        paused: bool = False,
    ) -> None:
        """Make the record anew of what storage holds, `paused` or to go on at once. Raises
        JobConflict if there is one, unless it is the very one it is to stand `instead_of`: then
        its priority and its model are kept, and leases are given back.
        """
        job, fields = spec.job_id, found.fields(spec)
        if paused:
            fields["state"] = JobState.PAUSED
        keys = JobKeys(job)
        with self.redis.errors(), self.redis.raw.pipeline(transaction=True) as pipe:
            try:
                pipe.watch(keys.record, keys.owners)
                standing = pipe.hgetall(keys.record)
                if standing and instead_of is None:
                    raise JobConflict(f"Redis knows job {job}")
                if instead_of is not None:
                    if not standing or record_of(job, standing) != instead_of:
                        raise _changed(job)
                    kept = ("window_factor", "version", "digest")
                    fields |= {name: standing[name.encode()] for name in kept}
                leased = self.running_chunks(job)
                pipe.multi()
                _forget(pipe, spec, keys.contents, leased)
                pipe.hset(keys.record, mapping=fields)
                pipe.set(keys.done, bitmap(found.done))
                pipe.set(keys.failed, bitmap(found.with_errors))
                if found.by_code:
                    pipe.hset(keys.errors, mapping=dict(found.by_code))
                if found.samples:
                    pipe.rpush(keys.samples, *found.samples)
                pipe.zadd(JOBS, {job: fields["created_ms"]})
                if "completed_ms" not in found.said:
                    pipe.sadd(QueueKeys(spec.queue).active, job)
                elif spec.notify is not None:
                    # Whether it was told before is lost; twice is better than not at all.
                    due = found.said["completed_ms"]
                    pipe.zadd(NOTIFICATIONS, {job: due})
                    pipe.hset(
                        keys.record, mapping={"notify_state": "waiting", "notify_due_ms": due}
                    )
                pipe.execute()
            except WatchError:
                raise _changed(job) from None

    def record(self, job: str) -> JobRecord:
        """The job's record. Raises JobNotFound."""
        with self.redis.errors():
            fields = self.redis.raw.hgetall(JobKeys(job).record)
        return record_of(job, fields)

    def spec(self, job: str) -> JobSpec:
        """The job's spec alone. Raises JobNotFound."""
        with self.redis.errors():
            text = self.redis.raw.hget(JobKeys(job).record, "spec")
        return spec_of(job, text)

    def specs(self, jobs: Sequence[str]) -> list[JobSpec | JobNotFound | CorruptRecord]:
        """Those of several jobs, in one round trip; of each that there is not, why."""
        with self.redis.errors():
            pipe = self.redis.raw.pipeline(transaction=False)
            for job in jobs:
                pipe.hget(JobKeys(job).record, "spec")
            texts = pipe.execute(raise_on_error=False)
        found: list[JobSpec | JobNotFound | CorruptRecord] = []
        for job, text in zip(jobs, texts, strict=True):
            try:
                with self.redis.errors():
                    if isinstance(text, Exception):
                        raise text
                found.append(spec_of(job, text))
            except (JobNotFound, CorruptRecord) as error:
                found.append(error)
        return found

    def snapshot(self, job: str) -> Snapshot:
        """The record and all that is told beside it, the record first. Raises JobNotFound."""
        keys = JobKeys(job)
        with self.redis.errors():
            # Not in MULTI, which a full Redis refuses even to those who only read.
            pipe = self.redis.raw.pipeline(transaction=False)
            pipe.exists(keys.producer)
            pipe.hgetall(keys.record)
            pipe.hgetall(keys.errors)
            pipe.lrange(keys.samples, 0, -1)
            pipe.lrange(keys.pace, 0, -1)
            pipe.hvals(keys.owners)
            pipe.time()
            has_producer, fields, errors, samples, pace, owners, now = pipe.execute()
            record = record_of(job, fields)
            now_ms = now[0] * 1000 + now[1] // 1000
            live = self.redis.raw.zcount(QueueKeys(record.queue).fleet, now_ms, "+inf")
        try:
            return Snapshot(
                record=record,
                by_code={code.decode(): int(images) for code, images in errors.items()},
                samples=[decode_outcome(line) for line in samples],
                pace=[_pace_entry(entry) for entry in pace],
                now_ms=now_ms,
                owners=[owner.decode() for owner in owners],
                live_workers=live,
                has_producer=bool(has_producer),
            )
        except ValueError as error:
            raise CorruptRecord(f"job {job}: {error}") from error

    def recent_jobs(self, limit: int) -> list[str]:
        """Ids of the newest jobs, newest first."""
        if limit < 1:
            return []
        with self.redis.errors():
            ids: list[Any] = self.redis.raw.zrange(JOBS, 0, limit - 1, desc=True)
        return [job.decode(errors="replace") for job in ids]

    def active_jobs(self, queue: str) -> list[str]:
        """Ids of the jobs on a queue that have not ended."""
        with self.redis.errors():
            ids: set[bytes] = self.redis.raw.smembers(QueueKeys(queue).active)
        return sorted(job.decode(errors="replace") for job in ids)

    def forget_active(self, queue: str, job: str) -> None:
        """Drop a job that no longer exists from the queue's index."""
        with self.redis.errors():
            self.redis.raw.srem(QueueKeys(queue).active, job)

    def done_bitmap(self, job: str) -> bytes:
        """Bit n (most significant first within a byte) is set if chunk n is finished."""
        with self.redis.errors():
            return self.redis.raw.get(JobKeys(job).done) or b""

    def failed_bitmap(self, job: str) -> bytes:
        """Bit n is set if chunk n is finished and holds an error line."""
        with self.redis.errors():
            return self.redis.raw.get(JobKeys(job).failed) or b""

    def running_chunks(self, job: str) -> set[int]:
        """Chunks somebody holds a lease on."""
        with self.redis.errors():
            return {int(chunk) for chunk in self.redis.raw.hkeys(JobKeys(job).owners)}


def _forget(pipe: Any, spec: JobSpec, keys: tuple[str, ...], leased: set[int]) -> None:
    """Let a transaction remove a job: these keys of it, its leases on these chunks, its places."""
    job, queue = spec.job_id, QueueKeys(spec.queue)
    pipe.unlink(*keys)
    pipe.zrem(JOBS, job)
    pipe.zrem(NOTIFICATIONS, job)
    pipe.srem(queue.active, job)
    if leased:
        pipe.zrem(queue.leases, *(lease_member(job, chunk) for chunk in leased))


def _changed(job: str) -> JobConflict:
    return JobConflict(f"job {job} was changed meanwhile; nothing was done", hint="try again")


def _pace_entry(entry: bytes) -> tuple[int, int]:
    ms, _, images = entry.partition(b" ")
    return int(ms), int(images)
