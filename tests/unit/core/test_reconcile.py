"""The reconciler on a real Redis: what was lost is set going again, by one worker at a time."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from millrace.core.claims import Answer
from millrace.core.errors import RedisUnavailable
from millrace.core.job import JobSpec, JobState
from millrace.core.reconcile import Reconciler
from millrace.core.services import Services
from millrace.core.topology import JobKeys, QueueKeys
from tests.support import wait_until
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_tally, a_worker, standing_job

QUEUE = "millrace.tiny"


def a_reconciler(services: Services, every_s: float = 10, lease_s: float = 30) -> Reconciler:
    return Reconciler(
        services.jobs,
        services.queue,
        services.feeder,
        services.finalizer,
        worker="somebody",
        every_s=every_s,
        lease_s=lease_s,
    )


def tick(services: Services) -> None:
    """Tick now, however long ago the last tick was."""
    services.redis.raw.delete(QueueKeys(QUEUE).reconciler)
    assert a_reconciler(services).tick(QUEUE)


@pytest.fixture
def job(services: Services, tmp_path: Path) -> JobSpec:
    """Four chunks, fed."""
    spec = standing_job(services, a_spec(output=str(tmp_path)), rows=8)
    services.feeder.feed(spec)
    return spec


def waiting(services: Services) -> set[int]:
    return {chunk for _, chunk in services.queue.waiting(QUEUE)}


def test_only_one_of_two_reconcilers_ticks(services: Services) -> None:
    assert a_reconciler(services).tick(QUEUE)
    assert not a_reconciler(services).tick(QUEUE)
    assert a_reconciler(services).tick("millrace.other")


def test_of_many_reconcilers_at_once_one_ticks(services: Services) -> None:
    ran: list[bool] = []
    barrier = threading.Barrier(6)

    def run() -> None:
        reconciler = a_reconciler(services)
        barrier.wait()
        ran.append(reconciler.tick(QUEUE))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ran) == [False] * 5 + [True]


def test_the_next_tick_is_due_before_the_interval_is_over(services: Services) -> None:
    a_reconciler(services, every_s=1000).tick(QUEUE)
    assert 800_000 < services.redis.raw.pttl(QueueKeys(QUEUE).reconciler) <= 999_500
    reconciler = a_reconciler(services, every_s=0.6)
    services.redis.raw.delete(QueueKeys(QUEUE).reconciler)
    assert reconciler.tick(QUEUE)
    wait_until(lambda: reconciler.tick(QUEUE), 5, "the lock has expired")


def test_lost_messages_are_sent_again(services: Services, job: JobSpec) -> None:
    services.redis.raw.delete(QUEUE)
    tick(services)
    assert waiting(services) == {0, 1, 2, 3}


def test_what_waits_for_the_workers_of_a_version_is_not_sent_again(
    services: Services, job: JobSpec
) -> None:
    services.jobs.pin(job.job_id, MODEL)
    services.redis.raw.delete(QUEUE)
    services.queue.send(f"{QUEUE}:{MODEL.version}", job.job_id, [0, 2])
    tick(services)
    assert waiting(services) == {1, 3}
    tick(services)
    assert services.redis.raw.llen(QUEUE) == 2


def test_nothing_is_sent_twice_while_all_is_well(services: Services, job: JobSpec) -> None:
    tick(services)
    tick(services)
    assert services.redis.raw.llen(QUEUE) == 4


def test_the_chunk_of_a_dead_worker_runs_again(services: Services, job: JobSpec) -> None:
    services.redis.raw.delete(QUEUE)
    dead, alive = a_worker(services, "dead", lease_s=0), a_worker(services, "alive")
    dead.claim(QUEUE, "job", 0, MODEL)
    alive.claim(QUEUE, "job", 1, MODEL)
    tick(services)
    assert waiting(services) == {0, 2, 3}
    assert services.jobs.running_chunks("job") == {1}
    assert alive.claim(QUEUE, "job", 0, MODEL)[0] is Answer.OK


def test_the_window_is_topped_up(services: Services, tmp_path: Path) -> None:
    standing_job(services, a_spec(output=str(tmp_path)), rows=40)
    tick(services)
    assert waiting(services) == set(range(8))


def test_a_job_that_waits_to_be_finalized_is(services: Services, job: JobSpec) -> None:
    worker = a_worker(services)
    for chunk in range(4):
        _, lease = worker.claim(QUEUE, "job", chunk, MODEL)
        worker.finish(lease, a_tally(2), NO_TIME)
    assert services.jobs.record("job").state is JobState.FINALIZING
    tick(services)
    assert services.jobs.record("job").state is JobState.SUCCEEDED
    assert services.jobs.active_jobs(QUEUE) == []


def test_a_cancelled_job_whose_last_worker_died_is_finalized(
    services: Services, job: JobSpec
) -> None:
    a_worker(services, "dead", lease_s=0).claim(QUEUE, "job", 0, MODEL)
    assert not services.jobs.stop("job", JobState.CANCELLED, "interrupted")
    tick(services)
    record = services.jobs.record("job")
    assert (record.state, record.counts.cancelled) == (JobState.CANCELLED, 8)


def test_a_cancelled_job_nobody_works_on_any_more_is_finalized(
    services: Services, job: JobSpec
) -> None:
    """Its last lease went some way that settled nothing."""
    services.redis.raw.delete(QUEUE)
    stopped = {"state": "cancelling", "ending": "cancelled", "reason": "interrupted"}
    services.redis.raw.hset(JobKeys("job").record, mapping=stopped)
    tick(services)
    record = services.jobs.record("job")
    assert (record.state, record.reason) == (JobState.CANCELLED, "interrupted")
    assert (Path(job.directory.root) / "summary.json").is_file()
    assert services.jobs.active_jobs(QUEUE) == []
    assert waiting(services) == set()


def test_a_cancelled_job_somebody_works_on_is_left_alone(services: Services, job: JobSpec) -> None:
    services.redis.raw.delete(QUEUE)
    _, lease = a_worker(services).claim(QUEUE, "job", 0, MODEL)
    services.jobs.stop("job", JobState.CANCELLED, "interrupted")
    tick(services)
    assert services.jobs.record("job").state is JobState.CANCELLING
    assert services.jobs.running_chunks("job") == {lease.chunk}
    assert waiting(services) == set()


def test_a_job_found_past_its_deadline_is_sent_nothing_more(
    services: Services, job: JobSpec
) -> None:
    a_worker(services).claim(QUEUE, "job", 0, MODEL)
    services.redis.raw.hset(JobKeys("job").record, "deadline_ms", 1)
    services.redis.raw.delete(QUEUE)
    tick(services)
    assert services.jobs.record("job").state is JobState.CANCELLING
    assert waiting(services) == set()


def test_a_finished_job_that_was_not_settled_is_finalized(services: Services, job: JobSpec) -> None:
    worker = a_worker(services)
    for chunk in range(4):
        worker.finish(worker.claim(QUEUE, "job", chunk, MODEL)[1], a_tally(2), NO_TIME)
    services.redis.raw.hset(JobKeys("job").record, "state", "running")
    tick(services)
    assert services.jobs.record("job").state is JobState.SUCCEEDED


def test_a_paused_job_is_left_alone(services: Services, job: JobSpec) -> None:
    services.redis.raw.delete(QUEUE)
    services.redis.raw.hset(JobKeys("job").record, "state", "paused")
    tick(services)
    assert services.jobs.record("job").state is JobState.PAUSED
    assert waiting(services) == set()


@pytest.mark.parametrize("member", [b"", b"nonsense", b"job", b"job:", b"job:x", b":", b"\xff:1"])
def test_an_entry_that_is_no_lease_is_removed_and_holds_up_nobody(
    services: Services, job: JobSpec, member: bytes
) -> None:
    leases = QueueKeys(QUEUE).leases
    services.redis.raw.delete(QUEUE)
    services.redis.raw.zadd(leases, {member: 1})
    a_worker(services, "dead", lease_s=0).claim(QUEUE, "job", 0, MODEL)
    tick(services)
    assert services.redis.raw.zrange(leases, 0, -1) == []
    assert waiting(services) == {0, 1, 2, 3}


@pytest.mark.parametrize("member", ["nobody:0", "job:99", "job:-1"])
def test_the_lease_of_no_chunk_is_removed_and_holds_up_nobody(
    services: Services, job: JobSpec, member: str
) -> None:
    services.redis.raw.zadd(QueueKeys(QUEUE).leases, {member: 1})
    tick(services)
    assert services.redis.raw.zcard(QueueKeys(QUEUE).leases) == 0
    assert services.jobs.active_jobs(QUEUE) == ["job"]
    assert services.redis.raw.exists(JobKeys("nobody").record) == 0


def test_a_job_whose_record_is_gone_holds_up_nobody(
    services: Services, job: JobSpec, tmp_path: Path
) -> None:
    standing_job(services, a_spec("gone", output=str(tmp_path)), rows=2)
    services.redis.raw.delete(QUEUE, JobKeys("gone").record)
    tick(services)
    assert waiting(services) == {0, 1, 2, 3}
    assert services.jobs.active_jobs(QUEUE) == ["job"]


def test_a_job_that_cannot_be_finalized_holds_up_nobody(
    services: Services, job: JobSpec, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    services.jobs.create(a_spec("a", output=str(tmp_path / "file")))
    assert services.jobs.listing_done("a")
    services.redis.raw.delete(QUEUE)
    tick(services)
    assert waiting(services) == {0, 1, 2, 3}
    assert services.jobs.record("a").state is JobState.FINALIZING


def test_the_jobs_of_another_queue_are_left_alone(services: Services, tmp_path: Path) -> None:
    spec = a_spec(output=str(tmp_path), model={"name": "tiny", "version": "1"})
    standing_job(services, spec, rows=8)
    tick(services)
    assert services.queue.waiting(spec.queue) == set()


def check_freed(
    services: Services, reconciler: Reconciler, job: JobSpec, *, not_before: float
) -> None:
    """Chunk 0, whose lease ran out, is freed in the end, but not before that monotonic time."""

    def running() -> set[int]:
        reconciler.tick(QUEUE)
        return services.jobs.running_chunks(job.job_id)

    assert running() == {0}
    wait_until(lambda: not running(), 30, "the chunk is free")
    assert time.monotonic() >= not_before


def test_after_an_outage_leases_get_the_time_to_be_renewed(
    services: Services, job: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_worker(services, lease_s=1).claim(QUEUE, job.job_id, 0, MODEL)
    services.redis.raw.zadd(QueueKeys(QUEUE).leases, {f"{job.job_id}:0": 1})  # it ran out
    reconciler = a_reconciler(services, every_s=0.001, lease_s=1)

    def away(*_: object, **__: object) -> None:
        raise RedisUnavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(services.redis.raw, "set", away)
        with pytest.raises(RedisUnavailable):
            reconciler.tick(QUEUE)
    back = time.monotonic()

    check_freed(services, reconciler, job, not_before=back + 1)


def test_a_machine_that_slept_stood_still(
    services: Services, job: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciler = a_reconciler(services, every_s=0.001, lease_s=60)
    reconciler.tick(QUEUE)
    a_worker(services, lease_s=60).claim(QUEUE, job.job_id, 0, MODEL)
    services.redis.raw.zadd(QueueKeys(QUEUE).leases, {f"{job.job_id}:0": 1})  # it ran out
    awake = time.time
    monkeypatch.setattr(time, "time", lambda: awake() + 3600)
    reconciler.tick(QUEUE)
    assert services.jobs.running_chunks(job.job_id) == {0}


@pytest.mark.parametrize("overtaken", [False, True])
def test_after_it_stood_still_leases_get_the_time_to_be_renewed(
    services: Services, job: JobSpec, overtaken: bool
) -> None:
    reconciler = a_reconciler(services, every_s=0.001, lease_s=1)
    reconciler.tick(QUEUE)
    a_worker(services, lease_s=1).claim(QUEUE, job.job_id, 0, MODEL)
    expiry = services.redis.raw.zscore(QueueKeys(QUEUE).leases, f"{job.job_id}:0")
    wait_until(lambda: services.redis.now_ms() > expiry, 5, "it ran out")
    again = time.monotonic()
    if overtaken:
        services.redis.raw.set(QueueKeys(QUEUE).reconciler, "another")
        assert not reconciler.tick(QUEUE)
        services.redis.raw.delete(QueueKeys(QUEUE).reconciler)

    check_freed(services, reconciler, job, not_before=again + 1)


def test_the_lock_names_its_holder(services: Services) -> None:
    a_reconciler(services).tick(QUEUE)
    assert services.redis.raw.get(QueueKeys(QUEUE).reconciler) == b"somebody"
