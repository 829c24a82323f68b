"""A job is given up by its deadline or its error threshold, by whoever touches it next."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.core.claims import Answer, Claims, Finish, Lease
from millrace.core.job import JobSpec, JobState, Reason
from millrace.core.services import Services
from millrace.core.topology import JobKeys
from millrace.producer import Job
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_tally, a_worker, standing_job

QUEUE = "millrace.tiny"


@pytest.fixture
def worker(services: Services) -> Claims:
    return a_worker(services)


def limited(
    services: Services, place: Path, *, rows: int = 10, listed: bool = True, **limits: str
) -> JobSpec:
    """A job in chunks of two rows under limits."""
    spec = a_spec(output=str(place), created_at=_now(services), **limits)
    return standing_job(services, spec, rows=rows, listed=listed)


def _now(services: Services) -> float:
    seconds, micros = services.redis.raw.time()
    return float(seconds + micros / 1e6)


def leased(worker: Claims, chunk: int) -> Lease:
    answer, lease = worker.claim(QUEUE, "job", chunk, MODEL)
    assert answer is Answer.OK
    return lease


def finish(worker: Claims, chunk: int, *, failed: int) -> bool:
    """Run a chunk of two rows; whether the job is thereby ready to be finalized."""
    answer, ready = worker.finish(leased(worker, chunk), a_tally(2 - failed, failed), NO_TIME)
    assert answer is Finish.FIRST
    return ready


def pass_deadline(services: Services) -> None:
    """Let the job's deadline be over by the time of Redis, for a moment."""
    services.redis.raw.hset(JobKeys("job").record, "deadline_ms", services.redis.now_ms() - 1)


# --- the deadline ---


def test_within_its_deadline_a_job_is_like_any_other(
    services: Services, worker: Claims, tmp_path: Path
) -> None:
    limited(services, tmp_path, deadline="1h")
    for chunk in range(5):
        finish(worker, chunk, failed=0)
    assert Job(services, "job").status().state is JobState.SUCCEEDED


def test_past_its_deadline_no_chunk_is_claimed(
    services: Services, worker: Claims, tmp_path: Path
) -> None:
    limited(services, tmp_path, deadline="1h")
    pass_deadline(services)
    assert worker.claim(QUEUE, "job", 0, MODEL)[0] is Answer.EXPIRED
    record = services.jobs.record("job")
    assert (record.state, record.ending) == (JobState.CANCELLING, JobState.EXPIRED)


def test_what_is_in_hand_at_the_deadline_counts_and_ends_the_job(
    services: Services, worker: Claims, tmp_path: Path
) -> None:
    limited(services, tmp_path, deadline="1h")
    lease = leased(worker, 0)
    pass_deadline(services)
    assert worker.finish(lease, a_tally(2), NO_TIME) == (Finish.FIRST, True)
    status = Job(services, "job").status()
    assert (status.state, status.reason) == (JobState.EXPIRED, Reason.DEADLINE_EXCEEDED)
    assert (status.counts.succeeded, status.counts.cancelled) == (2, 8)


def test_a_job_that_is_whole_at_its_deadline_has_not_expired(
    services: Services, worker: Claims, tmp_path: Path
) -> None:
    limited(services, tmp_path, rows=2, deadline="1h")
    lease = leased(worker, 0)
    pass_deadline(services)
    assert worker.finish(lease, a_tally(2), NO_TIME) == (Finish.FIRST, True)
    status = Job(services, "job").status()
    assert (status.state, status.reason) == (JobState.SUCCEEDED, None)


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("paused", [True, False])
def test_asking_for_its_status_expires_a_job_that_has_no_workers(
    services: Services, tmp_path: Path, *, listed: bool, paused: bool
) -> None:
    limited(services, tmp_path, listed=listed, deadline="1h")
    if paused:
        services.jobs.pause("job")
    pass_deadline(services)
    status = Job(services, "job").status()
    assert (status.state, status.reason) == (JobState.EXPIRED, Reason.DEADLINE_EXCEEDED)
    assert status.counts.cancelled == 10
    assert services.jobs.active_jobs(QUEUE) == []


def test_settling_expires_a_job_too(services: Services, tmp_path: Path) -> None:
    limited(services, tmp_path, deadline="1h")
    pass_deadline(services)
    assert services.jobs.settle(services.jobs.record("job"))
    assert services.jobs.record("job").state is JobState.FINALIZING


def test_a_job_that_ended_does_not_expire(
    services: Services, worker: Claims, tmp_path: Path
) -> None:
    limited(services, tmp_path, rows=2, deadline="1h")
    finish(worker, 0, failed=0)
    services.finalizer.finalize("job")
    pass_deadline(services)
    assert Job(services, "job").status().state is JobState.SUCCEEDED


def test_a_person_who_cancels_is_first(services: Services, worker: Claims, tmp_path: Path) -> None:
    limited(services, tmp_path, deadline="1h")
    lease = leased(worker, 0)
    services.jobs.stop("job", JobState.CANCELLED, Reason.REQUESTED)
    pass_deadline(services)
    worker.finish(lease, a_tally(2), NO_TIME)
    assert Job(services, "job").status().state is JobState.CANCELLED


# --- the error threshold ---


def test_as_many_failed_images_as_allowed_are_no_failure(
    services: Services, worker: Claims, tmp_path: Path
) -> None:
    limited(services, tmp_path, error_threshold="3")
    for chunk, failed in enumerate((2, 1, 0, 0, 0)):
        finish(worker, chunk, failed=failed)
    assert Job(services, "job").status().state is JobState.COMPLETED_WITH_ERRORS


@pytest.mark.parametrize("listed", [True, False])
def test_one_more_fails_the_job_while_there_is_more_to_do(
    services: Services, worker: Claims, tmp_path: Path, *, listed: bool
) -> None:
    limited(services, tmp_path, listed=listed, error_threshold="3")
    assert not finish(worker, 0, failed=2)
    assert finish(worker, 1, failed=2)
    assert worker.claim(QUEUE, "job", 2, MODEL)[0] is Answer.DONE
    status = Job(services, "job").status()
    assert (status.state, status.reason) == (JobState.FAILED, Reason.ERROR_THRESHOLD_EXCEEDED)
    assert (status.counts.failed, status.counts.cancelled) == (4, 6)
    assert not (tmp_path / "job" / "_SUCCESS").exists()


def test_a_threshold_of_none_fails_with_the_first(
    services: Services, worker: Claims, tmp_path: Path
) -> None:
    limited(services, tmp_path, error_threshold="0")
    assert not finish(worker, 0, failed=0)
    assert finish(worker, 1, failed=1)


def test_what_is_in_hand_beyond_the_threshold_is_still_counted(
    services: Services, worker: Claims, tmp_path: Path
) -> None:
    limited(services, tmp_path, error_threshold="1")
    other = leased(worker, 4)
    assert not finish(worker, 0, failed=2)
    assert services.jobs.record("job").state is JobState.CANCELLING
    assert worker.claim(QUEUE, "job", 1, MODEL)[0] is Answer.CANCELLED
    assert worker.finish(other, a_tally(2), NO_TIME) == (Finish.FIRST, True)
    status = Job(services, "job").status()
    assert (status.state, status.counts.succeeded) == (JobState.FAILED, 2)


@pytest.mark.parametrize("threshold", ["1", "10%"])
def test_exceeded_by_the_very_last_chunk_it_is_a_failure_all_the_same(
    services: Services, worker: Claims, tmp_path: Path, threshold: str
) -> None:
    limited(services, tmp_path, error_threshold=threshold)
    for chunk in range(4):
        assert not finish(worker, chunk, failed=0)
    assert finish(worker, 4, failed=2)
    status = Job(services, "job").status()
    assert (status.state, status.reason) == (JobState.FAILED, Reason.ERROR_THRESHOLD_EXCEEDED)
    assert (status.counts.succeeded, status.counts.failed, status.counts.cancelled) == (8, 2, 0)


def test_a_share_is_judged_once_all_is_listed(
    services: Services, worker: Claims, tmp_path: Path
) -> None:
    limited(services, tmp_path, listed=False, error_threshold="20%")
    for chunk in range(2):
        assert not finish(worker, chunk, failed=2)
    services.jobs.publish_part("job", 1, 10, 5)
    assert not services.jobs.listing_done("job")  # 4 of 20
    assert services.jobs.record("job").state is JobState.RUNNING
    assert finish(worker, 2, failed=1)
    assert services.jobs.record("job").ending is JobState.FAILED


def test_the_end_of_the_listing_may_fail_the_job(
    services: Services, worker: Claims, tmp_path: Path
) -> None:
    limited(services, tmp_path, listed=False, error_threshold="20%")
    for chunk in range(2):
        assert not finish(worker, chunk, failed=2)
    assert services.jobs.listing_done("job")
    assert Job(services, "job").status().reason == Reason.ERROR_THRESHOLD_EXCEEDED


def test_a_paused_job_is_judged_too(services: Services, worker: Claims, tmp_path: Path) -> None:
    limited(services, tmp_path, error_threshold="1")
    lease = leased(worker, 0)
    services.jobs.pause("job")
    assert worker.finish(lease, a_tally(0, 2), NO_TIME) == (Finish.FIRST, True)
    assert Job(services, "job").status().state is JobState.FAILED
