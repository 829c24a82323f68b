"""Job records on a real Redis: made once, published in order, ended once."""

from __future__ import annotations

import secrets
import threading
from dataclasses import replace
from typing import Any

import pytest

from millrace.core.bitmaps import set_bits
from millrace.core.claims import ModelIdentity
from millrace.core.errors import CorruptRecord, JobNotFound
from millrace.core.job import TRANSITIONS, JobState, Reason
from millrace.core.jobstore import JobStore
from millrace.core.outcome import decode_outcome
from millrace.core.record import JobRecord, from_ms
from millrace.core.services import Services
from millrace.core.topology import JobKeys, QueueKeys
from tests.unit.core.support import (
    ERROR_LINE,
    MODEL,
    NO_TIME,
    a_spec,
    a_tally,
    a_worker,
    standing_job,
)

QUEUE = "millrace.tiny"


@pytest.fixture
def jobs(services: Services) -> JobStore:
    return services.jobs


def put_state(services: Services, state: str) -> None:
    services.redis.raw.hset(JobKeys("job").record, "state", state)


def test_a_job_is_made_once(jobs: JobStore) -> None:
    assert jobs.create(a_spec()) is None
    record = jobs.record("job")
    assert record.spec == a_spec() == jobs.spec("job")
    assert record.state is JobState.QUEUED
    assert record.created_at == record.updated_at


def test_making_it_again_answers_with_the_digest_that_stands(jobs: JobStore) -> None:
    jobs.create(a_spec())
    jobs.publish_part("job", 0, 4, 2)
    assert jobs.create(a_spec(chunk_size=7)) == a_spec().digest
    assert jobs.record("job").spec == a_spec()
    assert jobs.record("job").counts.total == 4


def test_a_retried_call_that_made_it_is_answered_as_the_first_time(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost answer makes redis-py send the same call, with the same submission token, again."""
    monkeypatch.setattr(secrets, "token_hex", lambda size: "this submission")
    assert services.jobs.create(a_spec()) is None
    services.jobs.publish_part("job", 0, 4, 2)
    assert services.jobs.create(a_spec()) is None
    assert services.jobs.record("job").counts.total == 4
    monkeypatch.setattr(secrets, "token_hex", lambda size: "another submission")
    assert services.jobs.create(a_spec()) == a_spec().digest


def test_of_many_that_make_it_at_once_one_does(services: Services) -> None:
    made: list[str | None] = []
    barrier = threading.Barrier(6)

    def run() -> None:
        barrier.wait()
        made.append(services.jobs.create(a_spec()))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made, key=str) == [None] + [a_spec().digest] * 5


@pytest.mark.parametrize("ask", ["record", "spec", "snapshot"])
def test_a_job_that_is_not_there_is_not_found(jobs: JobStore, ask: str) -> None:
    with pytest.raises(JobNotFound, match="there is no job 'nobody'") as caught:
        getattr(jobs, ask)("nobody")
    assert "millrace jobs" in (caught.value.hint or "")


def test_a_record_that_is_not_ours_is_corrupt(services: Services) -> None:
    services.redis.raw.set(JobKeys("job").record, "a string")
    with pytest.raises(CorruptRecord):
        services.jobs.record("job")
    services.redis.raw.delete(JobKeys("job").record)
    services.redis.raw.hset(JobKeys("job").record, "spec", "{}")
    for ask in (services.jobs.record, services.jobs.spec, services.jobs.snapshot):
        with pytest.raises(CorruptRecord):
            ask("job")


@pytest.mark.parametrize("damage", [("errors", "decode/x"), ("pace", "now 2"), ("samples", "?")])
def test_what_belongs_to_a_record_and_is_not_ours_is_corrupt(
    services: Services, damage: tuple[str, str]
) -> None:
    services.jobs.create(a_spec())
    where, what = damage
    key = getattr(JobKeys("job"), where)
    if where == "errors":
        services.redis.raw.hset(key, what, "many")
    else:
        services.redis.raw.lpush(key, what)
    with pytest.raises(CorruptRecord):
        services.jobs.snapshot("job")


def test_what_storage_says_a_job_began_with_replaces_a_pin(jobs: JobStore) -> None:
    jobs.pin("job", MODEL)
    with pytest.raises(JobNotFound):
        jobs.record("job")
    jobs.create(a_spec())
    for model in (ModelIdentity("2", "sha256:def"), MODEL):
        jobs.pin("job", model)
        record = jobs.record("job")
        assert (record.version, record.digest) == (model.version, model.digest)
    jobs.stop("job", JobState.CANCELLED, Reason.REQUESTED)
    jobs.pin("job", ModelIdentity("2", "sha256:def"))
    assert jobs.record("job").version == MODEL.version


def test_workers_of_another_version_than_a_job_began_with_do_not_count(
    services: Services, jobs: JobStore
) -> None:
    jobs.create(a_spec())
    for queues in (("millrace.tiny", "millrace.tiny:2"), ("millrace.tiny", "millrace.tiny:1")):
        for queue in queues:
            a_worker(services).renew(queue, f"3|{queues[1]}", [])
    assert jobs.snapshot("job").live_workers == 2
    jobs.pin("job", MODEL)
    assert jobs.record("job").queue == "millrace.tiny:1"
    assert jobs.snapshot("job").live_workers == 1
    jobs.pin("job", ModelIdentity("", "sha256:of-a-saved-model"))
    assert jobs.snapshot("job").live_workers == 2


def test_the_first_part_starts_the_enqueuing(jobs: JobStore) -> None:
    jobs.create(a_spec())
    assert jobs.publish_part("job", 0, 5, 3) == ("enqueuing", 1)
    record = jobs.record("job")
    assert record.state is JobState.ENQUEUING
    assert (record.counts.total, record.chunks, record.parts) == (5, 3, 1)


def test_a_part_published_twice_counts_once(jobs: JobStore) -> None:
    jobs.create(a_spec())
    for part in (0, 0, 1, 0, 1):
        jobs.publish_part("job", part, 4, 2)
    record = jobs.record("job")
    assert (record.counts.total, record.chunks, record.parts) == (8, 4, 2)


def test_a_part_out_of_order_does_not_count(jobs: JobStore) -> None:
    jobs.create(a_spec())
    jobs.publish_part("job", 1, 4, 2)
    assert jobs.record("job").counts.total == 0


@pytest.mark.parametrize("state", ["running", "paused", "cancelling", "cancelled"])
def test_publishing_tells_how_the_job_stands(services: Services, state: str) -> None:
    services.jobs.create(a_spec())
    put_state(services, state)
    assert services.jobs.publish_part("job", 0, 4, 2)[0] == state


@pytest.mark.parametrize("state", ["cancelling", "finalizing", "cancelled", "failed"])
def test_nothing_is_published_into_a_job_that_was_given_up(services: Services, state: str) -> None:
    standing_job_with_rows(services.jobs)
    put_state(services, state)
    assert services.jobs.publish_part("job", 1, 4, 2) == (state, 1)
    record = services.jobs.record("job")
    assert (record.counts.total, record.chunks, record.parts) == (4, 2, 1)


def test_publishing_for_no_job_tells_so(jobs: JobStore) -> None:
    assert jobs.publish_part("nobody", 0, 4, 2) == ("", 0)


def test_a_listed_job_runs(jobs: JobStore) -> None:
    standing_job_with_rows(jobs)
    assert not jobs.listing_done("job")
    record = jobs.record("job")
    assert (record.state, record.listing_complete) == (JobState.RUNNING, True)


def standing_job_with_rows(jobs: JobStore) -> None:
    jobs.create(a_spec())
    jobs.publish_part("job", 0, 4, 2)


def test_an_input_without_images_is_ready_at_once(jobs: JobStore) -> None:
    jobs.create(a_spec())
    assert jobs.listing_done("job")
    assert jobs.record("job").state is JobState.FINALIZING
    assert not jobs.listing_done("job")


def test_listing_for_no_job_makes_none(jobs: JobStore) -> None:
    assert not jobs.listing_done("nobody")
    with pytest.raises(JobNotFound):
        jobs.record("nobody")


def test_a_job_nobody_works_on_is_stopped_at_once(jobs: JobStore) -> None:
    standing_job_with_rows(jobs)
    assert jobs.stop("job", JobState.CANCELLED, "interrupted")
    record = jobs.record("job")
    assert (record.state, record.ending) == (JobState.FINALIZING, JobState.CANCELLED)
    assert record.reason == "interrupted"


def test_stopping_waits_for_the_chunks_in_hand(services: Services) -> None:
    standing_job_with_rows(services.jobs)
    worker = a_worker(services)
    _, lease = worker.claim(QUEUE, "job", 0, MODEL)
    assert not services.jobs.stop("job", JobState.CANCELLED, "interrupted")
    assert services.jobs.record("job").state is JobState.CANCELLING
    assert worker.finish(lease, a_tally(2), NO_TIME)[1]


def test_the_first_stop_says_why(services: Services) -> None:
    standing_job_with_rows(services.jobs)
    a_worker(services).claim(QUEUE, "job", 0, MODEL)
    services.jobs.stop("job", JobState.CANCELLED, "first")
    assert not services.jobs.stop("job", JobState.FAILED, "second")
    record = services.jobs.record("job")
    assert (record.ending, record.reason) == (JobState.CANCELLED, "first")


@pytest.mark.parametrize("state", JobState)
def test_stopping_is_a_legal_transition_or_changes_nothing(
    services: Services, state: JobState
) -> None:
    standing_job_with_rows(services.jobs)
    put_state(services, state)
    before = services.jobs.record("job")
    services.jobs.stop("job", JobState.CANCELLED, "interrupted")
    after = services.jobs.record("job")
    if JobState.CANCELLING in TRANSITIONS[state]:
        assert after.state is JobState.FINALIZING
    elif state is not JobState.CANCELLING:
        assert after == before


def test_stopping_no_job_is_nothing(jobs: JobStore) -> None:
    assert not jobs.stop("nobody", JobState.CANCELLED, "interrupted")


def ended(
    jobs: JobStore, state: JobState, reason: str | None = None, *, job: str = "job"
) -> JobRecord:
    """A job's record as a finalizer would conclude it."""
    record = jobs.record(job)
    counts = replace(record.counts, cancelled=3)
    return replace(record, state=state, reason=reason, counts=counts, completed_at=from_ms(1234567))


def test_a_job_is_concluded_once(services: Services) -> None:
    jobs = services.jobs
    jobs.create(a_spec())
    jobs.listing_done("job")
    first = ended(jobs, JobState.FAILED, "no_inputs")
    assert jobs.conclude(first)
    assert not jobs.conclude(replace(first, state=JobState.SUCCEEDED, reason=None))
    after = jobs.record("job")
    assert (after.state, after.reason) == (JobState.FAILED, "no_inputs")
    assert after.counts.cancelled == 3
    assert after.completed_at == after.updated_at == from_ms(1234567)


def test_only_a_finalizing_job_is_concluded(jobs: JobStore) -> None:
    standing_job_with_rows(jobs)
    assert not jobs.conclude(ended(jobs, JobState.SUCCEEDED))
    assert jobs.record("job").state is JobState.ENQUEUING


def test_a_job_is_active_on_its_queue_until_it_ends(jobs: JobStore) -> None:
    jobs.create(a_spec("b"))
    jobs.create(a_spec("a"))
    jobs.create(a_spec("other", model={"name": "tiny", "version": "1"}))
    assert jobs.active_jobs(QUEUE) == ["a", "b"]
    assert jobs.active_jobs(f"{QUEUE}:1") == ["other"]
    jobs.listing_done("a")
    assert jobs.active_jobs(QUEUE) == ["a", "b"]
    jobs.conclude(ended(jobs, JobState.FAILED, "no_inputs", job="a"))
    assert jobs.active_jobs(QUEUE) == ["b"]


def test_a_job_that_no_longer_exists_is_forgotten(jobs: JobStore) -> None:
    for name in ("a", "b"):
        jobs.create(a_spec(name))
    jobs.forget_active(QUEUE, "a")
    assert jobs.active_jobs(QUEUE) == ["b"]


def test_the_newest_jobs_come_first(services: Services) -> None:
    for number in range(5):
        services.jobs.create(a_spec(f"job-{number}"))
        services.redis.raw.zadd("millrace:jobs", {f"job-{number}": number})
    assert services.jobs.recent_jobs(2) == ["job-4", "job-3"]
    assert len(services.jobs.recent_jobs(100)) == 5
    assert services.jobs.recent_jobs(0) == []


def test_a_snapshot_holds_what_a_status_shows(services: Services) -> None:
    standing_job(services, a_spec(), rows=6)
    worker = a_worker(services, "1@host/x")
    _, lease = worker.claim(QUEUE, "job", 0, MODEL)
    worker.finish(lease, a_tally(1, 1), NO_TIME)
    worker.claim(QUEUE, "job", 1, MODEL)
    for queue in (QUEUE, f"{QUEUE}:{MODEL.version}"):  # as a worker does
        worker.renew(queue, "2|1@host/x", [])
        services.redis.raw.zadd(QueueKeys(queue).fleet, {"2|dead": 1})
    snapshot = services.jobs.snapshot("job")
    assert snapshot.record == services.jobs.record("job")
    assert snapshot.by_code == {"decode/bad_image": 1}
    assert snapshot.samples == [decode_outcome(ERROR_LINE)]
    ((ms, images),) = snapshot.pace
    assert images == 2
    assert 0 <= snapshot.now_ms - ms < 10_000
    assert [owner.rpartition("/")[0] for owner in snapshot.owners] == ["1@host/x"]
    assert snapshot.live_workers == 1


def test_running_chunks_are_those_under_a_lease(services: Services) -> None:
    standing_job(services, a_spec(), rows=6)
    worker = a_worker(services)
    for chunk in (0, 2):
        worker.claim(QUEUE, "job", chunk, MODEL)
    assert services.jobs.running_chunks("job") == {0, 2}


def test_the_bitmaps_of_a_new_job_are_empty(jobs: JobStore) -> None:
    assert jobs.done_bitmap("job") == jobs.failed_bitmap("job") == b""


def test_redis_numbers_its_bits_the_same_way(services: Services) -> None:
    raw: Any = services.redis.raw
    for number in (0, 7, 8, 1000):
        raw.setbit("bits", number, 1)
    assert list(set_bits(raw.get("bits"))) == [0, 7, 8, 1000]
