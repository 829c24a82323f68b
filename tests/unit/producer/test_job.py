"""A job from the outside: its status, its end, its results."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.core.errors import (
    CorruptRecord,
    ItemError,
    JobNotFound,
    RedisUnavailable,
    Stage,
    WaitTimeout,
)
from millrace.core.job import JobSpec, JobState
from millrace.core.jobdir import JobDirectory
from millrace.core.locks import finalizing
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import encode_lines, error_line, prediction_line, tally
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.status import JobStatus
from millrace.producer import Job, open_job
from tests.faults.s3_proxy import s3_proxy
from tests.support import capture_logs
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_tally, a_worker, standing_job

BAD = ItemError(Stage.DECODE, "bad_image", "no image")


@pytest.fixture
def spec(services: Services, tmp_path: Path) -> JobSpec:
    """Two chunks of two rows."""
    return standing_job(services, a_spec("j", output=str(tmp_path)), rows=4)


@pytest.fixture
def job(services: Services, spec: JobSpec) -> Job:
    return Job(services, spec.job_id)


def work(services: Services, spec: JobSpec, chunk: int) -> None:
    """Run a chunk: its first row succeeds, its second does not."""
    rows = [ManifestRow(str(2 * chunk)), ManifestRow(str(2 * chunk + 1))]
    body = encode_lines([prediction_line(rows[0], []), error_line(rows[1], BAD, 1)])
    JobDirectory(services.stores, spec.directory).create_chunk(spec.plan, chunk, body)
    worker = a_worker(services)
    _, lease = worker.claim(spec.queue, spec.job_id, chunk, MODEL)
    worker.finish(lease, tally(body, rows), NO_TIME)


def test_a_handle_shows_its_id(job: Job) -> None:
    assert repr(job) == "Job('j')"


def test_a_job_is_opened_by_its_id(settings: Settings, spec: JobSpec) -> None:
    assert open_job("j", settings).status().counts.total == 4


def test_a_job_that_is_not_there_is_found_out_when_asked(settings: Settings) -> None:
    job = open_job("nobody", settings)
    for ask in (job.status, job.wait, job.results, job.errors):
        with pytest.raises(JobNotFound):
            ask()


def test_the_status_finalizes_a_job_that_waits_for_it(
    services: Services, spec: JobSpec, job: Job
) -> None:
    for chunk in (0, 1):
        work(services, spec, chunk)
    assert services.jobs.record("j").state is JobState.FINALIZING
    status = job.status()
    assert (status.state, status.terminal) == (JobState.COMPLETED_WITH_ERRORS, True)


def test_the_status_does_not_wait_for_another_finalizer(
    services: Services, spec: JobSpec, job: Job
) -> None:
    for chunk in (0, 1):
        work(services, spec, chunk)
    with finalizing(services.redis, "j"):
        assert job.status().state is JobState.FINALIZING


def test_the_status_leaves_to_others_what_this_process_cannot_write(
    services: Services, spec: JobSpec, job: Job
) -> None:
    for chunk in (0, 1):
        work(services, spec, chunk)
    output = Path(spec.directory.root).parent
    kept = output.rename(output.with_name("kept"))
    output.touch()
    assert job.status().state is JobState.FINALIZING
    assert services.jobs.record("j").state is JobState.FINALIZING
    output.unlink()
    kept.rename(output)
    assert job.status().state is JobState.COMPLETED_WITH_ERRORS
    assert [outcome["key"] for outcome in job.errors()] == ["1", "3"]


@pytest.mark.parametrize("answer", [403, 404, 500])
def test_the_status_is_shown_to_those_who_may_only_read(
    redis_url: str,
    s3: EmbeddedS3,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    answer: int,
) -> None:
    services = Services(Settings.load(redis_url=redis_url, storage_max_retries=0))
    spec = standing_job(
        Services(services.settings), a_spec("j", output=f"s3://{bucket}/out"), rows=2
    )
    with s3_proxy(
        s3.endpoint, instead=lambda asked: None if asked.method == "GET" else answer
    ) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        services.jobs.stop("j", JobState.CANCELLED, "interrupted")
        assert Job(services, spec.job_id).status().state is JobState.FINALIZING
        with pytest.raises(WaitTimeout):
            Job(services, spec.job_id).wait(0)


def test_waiting_ends_with_the_job(services: Services, spec: JobSpec, job: Job) -> None:
    told: list[JobStatus] = []

    def follow(status: JobStatus) -> None:
        told.append(status)
        if len(told) <= 2:
            work(services, spec, len(told) - 1)

    last = job.wait(30, progress=follow, poll_s=0.001)
    assert last.state is JobState.COMPLETED_WITH_ERRORS
    assert [status.counts.pending for status in told] == [4, 2, 0]
    assert told[-1] == last


def test_waiting_for_a_job_that_ended_returns_at_once(
    services: Services, spec: JobSpec, job: Job
) -> None:
    for chunk in (0, 1):
        work(services, spec, chunk)
    assert job.wait(0).terminal


def test_waiting_gives_up_and_the_job_goes_on(services: Services, spec: JobSpec, job: Job) -> None:
    with pytest.raises(WaitTimeout, match=r"job j has not ended within 0\.01 s"):
        job.wait(0.01, poll_s=0.001)
    assert services.jobs.record("j").state is JobState.RUNNING


def test_waiting_does_not_outlast_its_timeout_by_a_poll(job: Job) -> None:
    begun = time.monotonic()
    with pytest.raises(WaitTimeout):
        job.wait(0.1, poll_s=60)
    assert 0.1 <= time.monotonic() - begun < 30


def test_waiting_rides_out_a_redis_that_goes_away(
    services: Services, spec: JobSpec, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, answers = job.status, iter([True, False, False, True])
    seen: list[JobStatus] = []

    def status() -> JobStatus:
        if not next(answers):
            raise RedisUnavailable("gone")
        if seen:
            work(services, spec, 0)
            work(services, spec, 1)
        return honest()

    monkeypatch.setattr(job, "status", status)
    with capture_logs() as logs:
        assert job.wait(30, progress=seen.append, poll_s=0.001).terminal
    assert [entry["event"] for entry in logs if "Redis" in entry["event"]] == ["waiting for Redis"]


@pytest.mark.parametrize("answers", [[], [True]])
def test_waiting_for_a_redis_that_never_answered_or_stays_away_fails(
    job: Job, monkeypatch: pytest.MonkeyPatch, answers: list[bool]
) -> None:
    honest, left = job.status, iter(answers)

    def status() -> JobStatus:
        if not next(left, False):
            raise RedisUnavailable("gone")
        return honest()

    monkeypatch.setattr(job, "status", status)
    with pytest.raises(RedisUnavailable):
        job.wait(poll_s=0.001, patience_s=0.01)


def test_another_thread_may_end_what_one_waits_for(
    services: Services, spec: JobSpec, job: Job
) -> None:
    def work_all() -> None:
        for chunk in (0, 1):
            work(services, spec, chunk)

    thread = threading.Thread(target=work_all)
    thread.start()
    assert job.wait(30, poll_s=0.005).terminal
    thread.join()


def test_results_are_streamed_in_manifest_order_as_far_as_they_stand(
    services: Services, spec: JobSpec, job: Job
) -> None:
    assert list(job.results()) == []
    work(services, spec, 1)
    assert [outcome["key"] for outcome in job.results()] == ["2", "3"]
    work(services, spec, 0)
    assert [outcome["key"] for outcome in job.results()] == ["0", "1", "2", "3"]
    assert next(job.results()) == {"key": "0", "etag": None, "predictions": []}


@pytest.mark.parametrize("finalized", [False, True])
def test_errors_are_the_same_before_and_after_finalization(
    services: Services, spec: JobSpec, job: Job, finalized: bool
) -> None:
    for chunk in (0, 1):
        work(services, spec, chunk)
    if finalized:
        services.finalizer.finalize("j")
    errors = list(job.errors())
    assert [outcome["key"] for outcome in errors] == ["1", "3"]
    assert errors[0]["error"]["code"] == "bad_image"


def test_until_they_are_published_errors_are_sought_only_where_there_are_some(
    services: Services, spec: JobSpec, job: Job
) -> None:
    work(services, spec, 1)
    worker = a_worker(services)
    _, lease = worker.claim(spec.queue, spec.job_id, 0, MODEL)
    JobDirectory(services.stores, spec.directory).create_chunk(spec.plan, 0, b"not to be read\n")
    worker.finish(lease, a_tally(2), NO_TIME)
    assert [outcome["key"] for outcome in job.errors()] == ["3"]
    with pytest.raises(CorruptRecord):
        list(job.results())
