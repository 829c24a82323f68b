"""Feeding on a real Redis: a window of each job, and what was lost once more."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace.core.chunk_queue import ChunkQueue
from millrace.core.feed import Feeder
from millrace.core.job import JobSpec
from millrace.core.services import Services
from millrace.core.topology import JobKeys, QueueKeys
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_tally, a_worker, standing_job

QUEUE = "millrace.tiny"


def a_job(services: Services, chunks: int, job_id: str = "job", **fields: object) -> JobSpec:
    return standing_job(services, a_spec(job_id, **fields), rows=2 * chunks)


def waiting(queue: ChunkQueue, job: str = "job") -> set[int]:
    return {chunk for name, chunk in queue.waiting(QUEUE) if name == job}


def take(services: Services, chunk: int, *, job: str = "job", finish: bool = False) -> None:
    """What a worker does with a message: off the queue, claimed, perhaps finished."""
    services.redis.raw.rpop(QUEUE)
    worker = a_worker(services)
    _, lease = worker.claim(QUEUE, job, chunk, MODEL)
    if finish:
        worker.finish(lease, a_tally(2), NO_TIME)


def join_fleet(services: Services, *slots: int) -> None:
    for number, count in enumerate(slots):
        services.redis.raw.zadd(QueueKeys(QUEUE).fleet, {f"{count}|w{number}": 2**50})


def lose_all_messages(services: Services) -> None:
    services.redis.raw.delete(QUEUE)


def test_a_window_of_chunks_is_sent_and_no_more(services: Services) -> None:
    spec = a_job(services, 100)
    assert services.feeder.feed(spec) == 8
    assert services.feeder.feed(spec) == 0
    assert waiting(services.queue) == set(range(8))
    assert services.jobs.record("job").fed == 8


@pytest.mark.parametrize(
    ("priority", "slots", "window"),
    [
        ("normal", (), 8),
        ("high", (), 32),
        ("low", (), 2),
        ("normal", (4,), 8),
        ("normal", (3, 2), 10),
        ("normal", (12, 8), 40),
        ("high", (5,), 40),
        ("low", (5,), 3),
        ("low", (50,), 25),
    ],
)
def test_the_window_follows_the_fleet_and_the_priority(
    services: Services, priority: str, slots: tuple[int, ...], window: int
) -> None:
    join_fleet(services, *slots)
    assert services.feeder.feed(a_job(services, 200, priority=priority)) == window


def test_the_slots_of_the_dead_do_not_count(services: Services) -> None:
    join_fleet(services, 5)
    services.redis.raw.zadd(QueueKeys(QUEUE).fleet, {"100|dead": 1})
    assert services.feeder.feed(a_job(services, 200)) == 10


def test_the_fleet_of_another_queue_does_not_count(services: Services) -> None:
    join_fleet(services, 50)
    spec = a_job(services, 200, model={"name": "tiny", "version": "1"})
    assert services.feeder.feed(spec) == 8
    assert len(services.queue.waiting(f"{QUEUE}:1")) == 8


def test_the_least_window_is_a_setting(services: Services) -> None:
    feeder = Feeder(services.jobs, services.queue, window=3)
    assert feeder.feed(a_job(services, 100)) == 3


@pytest.mark.parametrize("finish", [False, True])
def test_a_claimed_chunk_makes_room_for_one_more(services: Services, finish: bool) -> None:
    spec = a_job(services, 100)
    services.feeder.feed(spec)
    take(services, 0, finish=finish)
    assert services.feeder.feed(spec) == 1
    assert waiting(services.queue) == set(range(1, 9))


def test_the_end_of_the_job_is_the_end_of_the_feed(services: Services) -> None:
    spec = a_job(services, 10)
    assert services.feeder.feed(spec) == 8
    for chunk in range(8):
        take(services, chunk, finish=True)
    assert services.feeder.feed(spec) == 2
    assert services.feeder.feed(spec) == 0


def test_chunks_are_fed_as_parts_are_published(services: Services) -> None:
    spec = a_spec()
    services.jobs.create(spec)
    assert services.feeder.feed(spec) == 0
    services.jobs.publish_part("job", 0, 6, 3)
    assert services.feeder.feed(spec) == 3
    services.jobs.publish_part("job", 1, 2, 1)
    assert services.feeder.feed(spec) == 1
    assert waiting(services.queue) == {0, 1, 2, 3}


@pytest.mark.parametrize("state", ["paused", "cancelling", "finalizing", "failed", "succeeded"])
def test_a_job_that_takes_no_work_is_not_fed(services: Services, state: str) -> None:
    spec = a_job(services, 10)
    services.redis.raw.hset(JobKeys("job").record, "state", state)
    assert services.feeder.feed(spec) == 0


def test_no_job_is_not_fed(services: Services) -> None:
    assert services.feeder.feed(a_spec("nobody")) == 0
    assert services.redis.raw.keys() == []


def test_a_small_job_is_not_stuck_behind_a_large_one(services: Services) -> None:
    large, small = a_job(services, 1000, "large"), a_job(services, 3, "small")
    services.feeder.feed(large)
    services.feeder.feed(small)
    order = []
    for _ in range(11):
        before = services.queue.waiting(QUEUE)
        services.redis.raw.rpop(QUEUE)
        ((job, _chunk),) = before - services.queue.waiting(QUEUE)
        order.append(job)
    assert order == ["large"] * 8 + ["small"] * 3


def test_two_jobs_share_a_queue_by_their_windows(services: Services) -> None:
    specs = [a_job(services, 100, "one"), a_job(services, 100, "other", priority="low")]
    for _ in range(3):
        for spec in specs:
            services.feeder.feed(spec)
    counts = [len(waiting(services.queue, spec.job_id)) for spec in specs]
    assert counts == [8, 2]


def test_what_waits_is_not_sent_again(services: Services) -> None:
    spec = a_job(services, 100)
    services.feeder.feed(spec)
    assert services.feeder.feed_missing(spec, services.queue.waiting(QUEUE)) == 0


def test_lost_messages_are_sent_again_but_for_what_is_done_or_in_hand(services: Services) -> None:
    spec = a_job(services, 100)
    services.feeder.feed(spec)
    take(services, 0, finish=True)
    take(services, 1)
    lose_all_messages(services)
    services.queue.send(QUEUE, "job", [5])
    assert services.feeder.feed_missing(spec, services.queue.waiting(QUEUE)) == 5
    assert waiting(services.queue) == {2, 3, 4, 5, 6, 7}
    assert services.jobs.record("job").fed == 8


def test_the_messages_of_another_job_do_not_stand_in_for_ours(services: Services) -> None:
    spec, other = a_job(services, 2), a_job(services, 2, "other")
    services.feeder.feed(spec)
    lose_all_messages(services)
    services.feeder.feed(other)
    assert services.feeder.feed_missing(spec, services.queue.waiting(QUEUE)) == 2


def test_a_feed_pointer_that_moved_without_its_messages_is_made_up_for(
    services: Services,
) -> None:
    spec = a_job(services, 10)
    services.redis.raw.hset(JobKeys("job").record, "fed", 4)
    assert services.feeder.feed_missing(spec, set()) == 4
    assert waiting(services.queue) == {0, 1, 2, 3}


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_nothing_is_sent_again_for_a_job_that_ended(services: Services, state: str) -> None:
    spec = a_job(services, 10)
    services.feeder.feed(spec)
    lose_all_messages(services)
    services.redis.raw.hset(JobKeys("job").record, "state", state)
    assert services.feeder.feed_missing(spec, set()) == 0


stands = st.lists(st.sampled_from(["done", "leased", "waiting", "lost"]), min_size=1, max_size=12)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stands)
def test_exactly_what_is_neither_done_nor_leased_nor_waiting_is_sent_again(
    services: Services, chunks: list[str]
) -> None:
    services.redis.raw.flushdb()
    spec = a_job(services, len(chunks) + 1)
    services.redis.raw.hset(JobKeys("job").record, "fed", len(chunks))
    for chunk, how in enumerate(chunks):
        if how == "waiting":
            services.queue.send(QUEUE, "job", [chunk])
    for chunk, how in enumerate(chunks):
        if how in ("done", "leased"):
            worker = a_worker(services)
            _, lease = worker.claim(QUEUE, "job", chunk, MODEL)
            if how == "done":
                worker.finish(lease, a_tally(2), NO_TIME)
    lost = {chunk for chunk, how in enumerate(chunks) if how == "lost"}
    before = waiting(services.queue)
    assert services.feeder.feed_missing(spec, services.queue.waiting(QUEUE)) == len(lost)
    assert waiting(services.queue) - before == lost
