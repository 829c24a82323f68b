"""What Redis is asked and holds does not grow with the job: 10 chunks cost what 100,000 do."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from millrace.core.bitmaps import bitmap
from millrace.core.job import JobSpec
from millrace.core.services import Services
from millrace.core.topology import JobKeys
from millrace.producer.job import Job
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_tally, a_worker, standing_job

QUEUE = "millrace.tiny"
FEW, MANY = 10, 100_000
DIGITS = 1.1
"""The same answers, with longer numbers in them."""


def half_done(services: Services, chunks: int, lost: int | None = None) -> JobSpec:
    """A job whose first half is fed, and finished but for one `lost` chunk."""
    spec = standing_job(services, a_spec(f"job-of-{chunks:06d}"), rows=2 * chunks)
    keys = JobKeys(spec.job_id)
    done = [chunk for chunk in range(chunks // 2) if chunk != lost]
    counts = {"fed": chunks // 2, "done": len(done), "succeeded": 2 * len(done)}
    services.redis.raw.hset(keys.record, mapping=counts)
    services.redis.raw.set(keys.done, bitmap(done))
    return spec


def cost(services: Services, action: Callable[[], object]) -> tuple[int, int]:
    """The commands an action takes, those of scripts included, and the bytes Redis answers."""

    def so_far() -> tuple[int, int]:
        stats = services.redis.raw.info("stats")
        return stats["total_commands_processed"], stats["total_net_output_bytes"]

    action()  # scripts are loaded, connections opened
    start, before = so_far(), so_far()
    action()
    after = so_far()
    commands, sent = (c - b - (b - a) for a, b, c in zip(start, before, after, strict=True))
    return commands, sent


def test_a_status_costs_the_same_for_any_number_of_chunks(services: Services) -> None:
    few, many = half_done(services, FEW), half_done(services, MANY)
    commands, sent = cost(services, Job(services, few.job_id).status)
    many_commands, many_sent = cost(services, Job(services, many.job_id).status)
    assert many_commands == commands
    assert many_sent <= DIGITS * sent


def test_a_chunk_costs_the_same_for_any_number_of_chunks(services: Services) -> None:
    def run(spec: JobSpec, chunks: int) -> tuple[int, int]:
        worker, numbers = a_worker(services), count(chunks // 2)

        def run_next() -> None:
            _, lease = worker.claim(QUEUE, spec.job_id, next(numbers), MODEL)
            worker.finish(lease, a_tally(2), NO_TIME)
            services.feeder.feed(spec)

        services.feeder.feed(spec)
        return cost(services, run_next)

    commands, sent = run(half_done(services, 100), 100)
    many_commands, many_sent = run(half_done(services, MANY), MANY)
    assert many_commands == commands
    assert many_sent <= DIGITS * sent


def test_a_lost_chunk_is_found_without_asking_for_each(services: Services) -> None:
    few, many = half_done(services, FEW, lost=3), half_done(services, MANY, lost=31_234)
    commands, _ = cost(services, lambda: services.feeder.feed_missing(few, set()))
    services.redis.raw.delete(QUEUE)
    many_commands, sent = cost(services, lambda: services.feeder.feed_missing(many, set()))
    assert {chunk for _, chunk in services.queue.waiting(QUEUE)} == {31_234}
    assert many_commands == commands
    assert sent < MANY / 8 + 4096


def test_a_finished_beginning_is_passed_over_at_once(services: Services) -> None:
    """As after a restoration, when nothing is fed, but nearly everything stands."""
    spec = half_done(services, MANY)
    services.redis.raw.hset(JobKeys(spec.job_id).record, mapping={"fed": 0, "ahead": MANY // 2})
    before = services.redis.raw.info("stats")["total_commands_processed"]
    assert services.feeder.feed(spec) == 8
    assert services.redis.raw.info("stats")["total_commands_processed"] - before < 100
    assert {chunk for _, chunk in services.queue.waiting(QUEUE)} == {
        MANY // 2 + number for number in range(8)
    }


def test_redis_holds_no_more_of_a_large_job_than_its_bitmap(services: Services) -> None:
    def memory(spec: JobSpec) -> int:
        services.feeder.feed(spec)
        usage = services.redis.raw.memory_usage
        return sum(usage(key) or 0 for key in JobKeys(spec.job_id).all)

    few, many = half_done(services, FEW), half_done(services, MANY)
    assert memory(many) - memory(few) < MANY / 8
