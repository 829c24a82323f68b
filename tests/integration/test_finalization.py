"""A job that has ended is always finalized, by whoever sees it first."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from millrace.core.claims import Claims, Finish, ModelIdentity
from millrace.core.errors import ItemError, Stage, StorageUnavailable, WaitTimeout
from millrace.core.job import JobSpec, JobState, Reason
from millrace.core.jobdir import JobDirectory, decode_rows
from millrace.core.outcome import encode_lines, error_line, prediction_line, tally
from millrace.core.record import TimingTotals
from millrace.core.services import Services
from millrace.core.status import JobStatus
from millrace.producer.enqueue import give_up
from millrace.producer.job import Job
from tests.job_checks import check_job
from tests.support import submitted

MODEL = ModelIdentity("1", "sha256:0")


@pytest.fixture
def claims(services: Services) -> Claims:
    return Claims(services.redis, worker="test", lease_s=30, max_attempts=5)


def a_job(services: Services, tmp_path: Path, images: int) -> JobSpec:
    source = tmp_path / "in"
    source.mkdir()
    for n in range(images):
        (source / f"{n}.png").write_bytes(b"x")
    return submitted(services, tmp_path, model="any", chunk_size=2)


def finish_chunk(services: Services, claims: Claims, spec: JobSpec, chunk: int) -> bool:
    """Do what a worker does; the first image of each chunk fails. True: finalize now."""
    directory = JobDirectory(services.stores, spec.directory)
    answer, lease = claims.claim(spec.queue, spec.job_id, chunk, MODEL)
    assert answer.holds_lease
    rows = decode_rows(directory.part_lines(0), spec.plan, chunk)
    broken = ItemError(Stage.DECODE, "corrupt", "not a picture")
    lines = [error_line(rows[0], broken, 1), *(prediction_line(row, []) for row in rows[1:])]
    body = directory.create_chunk(spec.plan, chunk, encode_lines(lines))
    counted, ready = claims.finish(lease, tally(body, rows), TimingTotals(1, 2, 3, 4))
    assert counted is Finish.FIRST
    return ready


def test_a_reader_finalizes_what_the_last_worker_left(
    services: Services, claims: Claims, tmp_path: Path
) -> None:
    spec = a_job(services, tmp_path, 5)
    assert [finish_chunk(services, claims, spec, chunk) for chunk in (1, 0, 2)] == [
        False,
        False,
        True,
    ]
    # The worker that was told to finalize died here.
    assert services.jobs.record(spec.job_id).state is JobState.FINALIZING
    status = Job(services, spec.job_id).status()
    assert status.state is JobState.COMPLETED_WITH_ERRORS
    assert status.counts.succeeded == 2
    assert status.counts.failed == 3
    outcomes = check_job(spec.directory.uri, status.model_dump(mode="json"))
    assert list(Job(services, spec.job_id).errors()) == [o for o in outcomes if "error" in o]


def test_a_finalizer_that_dies_midway_is_repaired(
    services: Services, claims: Claims, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = a_job(services, tmp_path, 3)
    for chunk in (0, 1):
        finish_chunk(services, claims, spec, chunk)
    for step in ("put_errors", "put_summary", "put_success"):
        with monkeypatch.context() as patched:

            def fail(*_: object) -> None:
                raise StorageUnavailable("cut off")

            patched.setattr(JobDirectory, step, fail)
            with pytest.raises(StorageUnavailable):
                services.finalizer.finalize(spec.job_id)
        assert services.jobs.record(spec.job_id).state is JobState.FINALIZING
    status = Job(services, spec.job_id).status()
    check_job(spec.directory.uri, status.model_dump(mode="json"))


def test_of_many_readers_one_finalizes(services: Services, claims: Claims, tmp_path: Path) -> None:
    spec = a_job(services, tmp_path, 2)
    assert finish_chunk(services, claims, spec, 0)
    did = []
    barrier = threading.Barrier(6)

    def read() -> None:
        barrier.wait()
        did.append(services.finalizer.finalize(spec.job_id))

    readers = [threading.Thread(target=read) for _ in range(6)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert did.count(True) == 1
    assert Job(services, spec.job_id).status().terminal


def test_giving_up_waits_for_the_chunks_in_hand_and_counts_them(
    services: Services, claims: Claims, tmp_path: Path
) -> None:
    spec = a_job(services, tmp_path, 6)
    answer, lease = claims.claim(spec.queue, spec.job_id, 0, MODEL)
    assert answer.holds_lease
    give_up(services, spec.job_id, JobState.FAILED, Reason.MODEL_LOAD_FAILED)
    assert services.jobs.record(spec.job_id).state is JobState.CANCELLING
    answer, _ = claims.claim(spec.queue, spec.job_id, 1, MODEL)
    assert answer == "CANCELLED"
    assert claims.release(lease, forget_attempt=True)
    status = Job(services, spec.job_id).status()
    assert (status.state, status.reason) == ("failed", "model_load_failed")
    assert status.counts.model_dump() == {
        "total": 6,
        "pending": 0,
        "succeeded": 0,
        "failed": 0,
        "skipped": 0,
        "cancelled": 6,
    }
    assert not (tmp_path / "out" / spec.job_id / "_SUCCESS").exists()


def test_a_chunk_that_comes_after_the_end_is_not_counted(
    services: Services, claims: Claims, tmp_path: Path
) -> None:
    spec = a_job(services, tmp_path, 4)
    late = Claims(services.redis, worker="frozen", lease_s=30, max_attempts=5)
    _, lease = late.claim(spec.queue, spec.job_id, 0, MODEL)
    # Its lease is taken from it, as the reconciler does once it has expired.
    services.redis.raw.zadd("millrace:leases:" + spec.queue, {lease.member: 1})
    from millrace.core.claims import release_expired

    release_expired(services.redis, spec.queue, spec.job_id, 0)
    give_up(services, spec.job_id, JobState.CANCELLED, Reason.INTERRUPTED)
    before = Job(services, spec.job_id).status().counts
    rows = decode_rows(JobDirectory(services.stores, spec.directory).part_lines(0), spec.plan, 0)
    body = encode_lines(prediction_line(row, []) for row in rows)
    answer, ready = late.finish(lease, tally(body, rows), TimingTotals())
    assert (answer, ready) == (Finish.LATE, False)
    assert Job(services, spec.job_id).status().counts == before


def test_waiting_ends_with_the_job_or_with_the_timeout(
    services: Services, claims: Claims, tmp_path: Path
) -> None:
    spec = a_job(services, tmp_path, 2)
    job = Job(services, spec.job_id)
    seen: list[JobStatus] = []
    with pytest.raises(WaitTimeout):
        job.wait(0, progress=seen.append)
    assert [status.state for status in seen] == ["running"]
    assert seen[0].health == "no_workers"
    finish_chunk(services, claims, spec, 0)
    assert job.wait(10).state is JobState.COMPLETED_WITH_ERRORS
