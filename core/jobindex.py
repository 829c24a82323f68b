"""The index of jobs by creation time, newest first, and the little of each that filters need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from redis.exceptions import RedisError

from millrace.core.errors import CorruptRecord
from millrace.core.job import JobSpec, JobState
from millrace.core.redis_client import RedisClient
from millrace.core.topology import JOBS, JobKeys

AT_ONCE = 200


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a job stands in the index: newer ones are larger."""

    created_ms: int
    job: str


@dataclass(frozen=True, slots=True)
class Brief:
    """What a job is about and where it stands, without its counts."""

    place: Place
    spec: JobSpec
    state: JobState


class JobIndex:
    """Raises what `RedisClient.errors` raises."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    def before(self, place: Place | None) -> Iterator[Place]:
        """The places of all jobs older than that one, or of all, newest first; a few at a time."""
        while batch := self._some_before(place):
            yield from batch
            place = batch[-1]

    def _some_before(self, place: Place | None) -> list[Place]:
        newest = "+inf" if place is None else place.created_ms
        offset = 0
        while True:
            with self._redis.errors():
                found = self._redis.raw.zrevrangebyscore(
                    JOBS, newest, "-inf", start=offset, num=AT_ONCE, withscores=True
                )
            places = [Place(int(ms), job.decode(errors="replace")) for job, ms in found]
            # Of one millisecond there may be several, of which some were seen.
            older = [one for one in places if place is None or one < place]
            if older or not places:
                return older
            offset += len(places)

    def briefs(self, places: Sequence[Place]) -> list[Brief]:
        """Of each job, in one round trip; those that are gone or corrupt are left out."""
        with self._redis.errors():
            pipe = self._redis.raw.pipeline(transaction=False)
            for place in places:
                pipe.hmget(JobKeys(place.job).record, "spec", "state")
            answers = pipe.execute(raise_on_error=False)
        found = []
        for place, answer in zip(places, answers, strict=True):
            if isinstance(answer, RedisError) or None in answer:
                continue
            spec, state = answer
            with suppress(CorruptRecord, ValueError):
                found.append(Brief(place, JobSpec.from_json(spec), JobState(state.decode())))
        return found
