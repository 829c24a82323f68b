"""A job's record made anew on a real Redis, of what storage was found to hold."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.bitmaps import bitmap, set_bits
from millrace.core.claims import Answer, Finish
from millrace.core.errors import JobConflict
from millrace.core.job import JobSpec, JobState
from millrace.core.restored import Restored
from millrace.core.services import Services
from millrace.core.topology import JOBS, JobKeys, QueueKeys
from tests.unit.core.support import ERROR_LINE, MODEL, NO_TIME, a_spec, a_tally, a_worker

FOUND = Restored(
    parts=1,
    chunks=5,
    total=10,
    succeeded=3,
    failed=1,
    done=[0, 3],
    with_errors=[3],
    by_code={"decode/bad_image": 1},
    samples=[ERROR_LINE],
    listing_complete=True,
)
NOTHING = Restored(
    parts=0,
    chunks=0,
    total=0,
    succeeded=0,
    failed=0,
    done=[],
    with_errors=[],
    by_code={},
    samples=[],
    listing_complete=False,
)


@pytest.fixture
def spec() -> JobSpec:
    return a_spec()


def test_the_record_says_what_storage_holds(services: Services, spec: JobSpec) -> None:
    services.jobs.restore(spec, FOUND)
    snapshot = services.jobs.snapshot("job")
    record, counts = snapshot.record, snapshot.record.counts
    assert (counts.total, counts.succeeded, counts.failed, counts.pending) == (10, 3, 1, 6)
    assert (record.parts, record.chunks, record.done, record.fed) == (1, 5, 2, 0)
    assert (record.state, record.listing_complete) == (JobState.RUNNING, True)
    assert (record.spec, record.created_at) == (spec, spec.created_at)
    assert snapshot.by_code == {"decode/bad_image": 1}
    assert [sample["key"] for sample in snapshot.samples] == ["k"]
    assert [*set_bits(services.jobs.done_bitmap("job"))] == [0, 3]
    assert [*set_bits(services.jobs.failed_bitmap("job"))] == [3]


def test_a_job_of_which_nothing_is_listed_is_queued(services: Services, spec: JobSpec) -> None:
    services.jobs.restore(spec, NOTHING)
    record = services.jobs.record("job")
    assert (record.state, record.listing_complete, record.counts.total) == ("queued", False, 0)
    assert services.jobs.publish_part("job", 0, 4, 2) == ("enqueuing", 1)


def test_what_the_spec_says_of_its_limits_holds_again(services: Services) -> None:
    spec = a_spec(deadline="1d", error_threshold="50", priority="high")
    services.jobs.create(spec)
    before = services.redis.raw.hgetall(JobKeys("job").record)
    services.redis.raw.flushdb()
    services.jobs.restore(spec, FOUND)
    after = services.redis.raw.hgetall(JobKeys("job").record)
    for name in (b"deadline_ms", b"max_failed", b"max_failed_share", b"window_factor", b"spec"):
        assert after[name] == before[name]


def test_it_is_listed_and_active_again(services: Services, spec: JobSpec) -> None:
    services.jobs.restore(spec, FOUND)
    assert services.jobs.recent_jobs(10) == ["job"]
    assert services.jobs.active_jobs(spec.queue) == ["job"]
    assert services.redis.raw.zscore(JOBS, "job") == spec.created_at.timestamp() * 1000


def test_what_was_left_of_the_lost_job_is_gone(services: Services, spec: JobSpec) -> None:
    keys = JobKeys("job")
    services.redis.raw.hset(keys.owners, "4", "dead/token")
    services.redis.raw.hset(keys.attempts, "4", "5")
    services.redis.raw.rpush(keys.samples, ERROR_LINE)
    services.redis.raw.hset(keys.errors, "fetch/not_found", 3)
    services.redis.raw.setbit(keys.done, 4, 1)
    services.jobs.restore(spec, FOUND)
    assert services.jobs.running_chunks("job") == set()
    assert [*set_bits(services.jobs.done_bitmap("job"))] == [0, 3]
    snapshot = services.jobs.snapshot("job")
    assert (snapshot.by_code, len(snapshot.samples)) == ({"decode/bad_image": 1}, 1)
    answer, lease = a_worker(services).claim(spec.queue, "job", 4, MODEL)
    assert (answer, lease.attempt) == (Answer.OK, 1)


def test_a_job_that_redis_knows_is_not_touched(services: Services, spec: JobSpec) -> None:
    services.jobs.create(spec)
    before = services.redis.raw.hgetall(JobKeys("job").record)
    with pytest.raises(JobConflict, match="Redis knows job job"):
        services.jobs.restore(spec, FOUND)
    assert services.redis.raw.hgetall(JobKeys("job").record) == before


def test_of_restorations_at_once_one_wins(services: Services, spec: JobSpec) -> None:
    outcomes: list[str] = []
    barrier = threading.Barrier(6)

    def try_it(succeeded: int) -> None:
        barrier.wait()
        try:
            services.jobs.restore(spec, replace(FOUND, succeeded=succeeded))
            outcomes.append(str(succeeded))
        except JobConflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [outcome for outcome in outcomes if outcome != "conflict"]
    assert len(outcomes) == 6
    assert services.jobs.record("job").counts.succeeded == int(winner)


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_chunk_that_ran_on_meanwhile_is_counted_once(
    services: Services, spec: JobSpec, chunk: int
) -> None:
    services.jobs.create(spec)
    services.jobs.publish_part("job", 0, 10, 5)
    worker = a_worker(services)
    _, lease = worker.claim(spec.queue, "job", chunk, MODEL)
    services.redis.raw.flushdb()
    assert worker.finish(lease, a_tally(2), NO_TIME) == (Finish.UNKNOWN, False)
    services.jobs.restore(spec, FOUND)
    assert worker.finish(lease, a_tally(2), NO_TIME) == (Finish.FIRST, False)
    assert worker.finish(lease, a_tally(2), NO_TIME) == (Finish.REPEAT, False)
    record = services.jobs.record("job")
    assert (record.counts.succeeded, record.done) == (FOUND.succeeded + 2, 3)


def test_a_chunk_that_storage_held_is_not_counted_again(services: Services, spec: JobSpec) -> None:
    services.jobs.create(spec)
    services.jobs.publish_part("job", 0, 10, 5)
    worker = a_worker(services)
    _, lease = worker.claim(spec.queue, "job", 3, MODEL)
    services.redis.raw.flushdb()
    services.jobs.restore(spec, FOUND)
    assert worker.finish(lease, a_tally(2), NO_TIME) == (Finish.REPEAT, False)
    assert worker.claim(spec.queue, "job", 3, MODEL)[0] is Answer.DONE
    assert services.jobs.record("job").counts.succeeded == FOUND.succeeded


def test_a_restored_job_ends_with_its_last_chunk(services: Services, spec: JobSpec) -> None:
    services.jobs.restore(spec, FOUND)
    worker = a_worker(services)
    ready = []
    for chunk in (4, 2, 1):
        _, lease = worker.claim(spec.queue, "job", chunk, MODEL)
        ready.append(worker.finish(lease, a_tally(1, 1), NO_TIME)[1])
    assert ready == [False, False, True]
    snapshot = services.jobs.snapshot("job")
    counts = snapshot.record.counts
    assert (counts.succeeded, counts.failed, counts.pending) == (6, 4, 0)
    assert snapshot.by_code == {"decode/bad_image": 4}
    assert [*set_bits(services.jobs.failed_bitmap("job"))] == [1, 2, 3, 4]


def test_nothing_is_left_when_it_is_deleted(services: Services, spec: JobSpec) -> None:
    services.jobs.restore(spec, FOUND)
    services.jobs.delete(spec)
    assert services.redis.raw.keys() == []
    assert services.redis.raw.smembers(QueueKeys(spec.queue).active) == set()


@given(st.sets(st.integers(0, 300)))
def test_a_bitmap_holds_the_bits_that_are_set(positions: set[int]) -> None:
    assert [*set_bits(bitmap(positions))] == sorted(positions)
