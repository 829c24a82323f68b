"""Cancel, pause, resume and priority, with and without workers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from millrace.core.claims import Answer, Claims, Finish, Lease
from millrace.core.errors import ExitCode, JobConflict, JobNotFound
from millrace.core.job import JobSpec, JobState, Priority, Reason
from millrace.core.manifest import ManifestRow
from millrace.core.services import Services
from millrace.core.topology import JobKeys, QueueKeys
from millrace.producer import Job
from millrace.producer.control import cancel, delete, pause, resume, set_priority
from millrace.producer.enqueue import enqueue
from millrace.producer.retry import retry
from tests.support import wait_until
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_tally, a_worker, created
from tests.unit.producer.support import listed_job, work

PART = 8192

CONTROLS: dict[str, Callable[[Services, str], object]] = {
    "cancel": cancel,
    "pause": pause,
    "resume": resume,
    "priority": lambda services, job: set_priority(services, job, Priority.HIGH),
}


@pytest.fixture
def spec(services: Services, tmp_path: Path) -> JobSpec:
    """Six images in three chunks, all of them waiting in the queue."""
    return listed_job(services, tmp_path)


@pytest.fixture
def job(services: Services, spec: JobSpec) -> Job:
    return Job(services, spec.job_id)


def leased(services: Services, spec: JobSpec, chunk: int, *, lease_s: float = 30) -> Lease:
    worker = a_worker(services, lease_s=lease_s)
    answer, lease = worker.claim(spec.queue, spec.job_id, chunk, MODEL)
    assert answer is Answer.OK
    return lease


def finish(worker: Claims, lease: Lease) -> tuple[Finish, bool]:
    return worker.finish(lease, a_tally(2), NO_TIME)


def waiting(services: Services, spec: JobSpec) -> set[int]:
    return {n for job, n in services.queue.waiting(spec.queue) if job == spec.job_id}


def state(services: Services) -> JobState:
    return services.jobs.record("j").state


# --- on what is not there, and on what has ended ---


def test_a_job_whose_directory_is_gone_can_be_ended_and_deleted(
    services: Services, spec: JobSpec
) -> None:
    shutil.rmtree(spec.directory.root)
    cancel(services, "j")
    # A reader on another machine may be the one who does not see it.
    assert state(services) is JobState.FINALIZING
    assert Job(services, "j").status().state is JobState.FINALIZING
    cancel(services, "j")
    assert state(services) is JobState.FAILED
    assert services.jobs.record("j").reason == Reason.JOB_DIRECTORY_UNUSABLE
    delete(services, "j")


def test_a_damaged_chunk_does_not_hide_the_status(services: Services, spec: JobSpec) -> None:
    work(services, spec, 0, failing={0: "decode/corrupt"})
    chunk = Path(spec.directory.root, "results/part-00000/chunk-0000000.jsonl")
    chunk.write_bytes(b"not an outcome\n")
    cancel(services, "j")
    assert Job(services, "j").status().state is JobState.FINALIZING


@pytest.mark.parametrize("control", [*CONTROLS.values(), delete, retry])
def test_what_is_not_there_is_not_found(
    services: Services, control: Callable[[Services, str], object]
) -> None:
    with pytest.raises(JobNotFound):
        control(services, "nobody")
    assert services.redis.raw.keys() == []


@pytest.mark.parametrize("ending", ["succeeded", "cancelled", "finalizing"])
@pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)
def test_what_has_ended_is_left_as_it_is(
    services: Services,
    spec: JobSpec,
    control: Callable[[Services, str], object],
    ending: str,
) -> None:
    services.redis.raw.hset(JobKeys("j").record, "state", ending)
    services.redis.raw.set(JobKeys("j").finalizer, "somebody")
    before = services.jobs.record("j")
    with pytest.raises(JobConflict, match=f"job j is {ending}; it cannot be") as raised:
        control(services, "j")
    assert raised.value.exit_code is ExitCode.CONFLICT
    assert services.jobs.record("j") == before


# --- cancel ---


def test_without_workers_a_job_is_cancelled_at_once(
    services: Services, spec: JobSpec, job: Job
) -> None:
    work(services, spec, 1)
    job.cancel()
    record = services.jobs.record("j")
    assert (record.state, record.reason) == (JobState.CANCELLED, Reason.REQUESTED)
    assert (record.counts.succeeded, record.counts.cancelled) == (2, 4)
    assert services.jobs.active_jobs(spec.queue) == []
    directory = Path(spec.directory.root)
    assert (directory / "summary.json").exists()
    assert not (directory / "_SUCCESS").exists()


def test_a_job_nothing_is_listed_of_is_cancelled_at_once(
    services: Services, tmp_path: Path
) -> None:
    created(services, a_spec("j", output=str(tmp_path)))
    cancel(services, "j")
    assert state(services) is JobState.CANCELLED


def test_a_paused_job_is_cancelled_at_once(services: Services, spec: JobSpec, job: Job) -> None:
    job.pause()
    job.cancel()
    assert state(services) is JobState.CANCELLED


def test_the_messages_of_a_cancelled_job_lead_nowhere(
    services: Services, spec: JobSpec, job: Job
) -> None:
    job.cancel()
    assert a_worker(services).claim(spec.queue, "j", 0, MODEL)[0] is Answer.CANCELLED
    assert services.feeder.feed(spec) == 0


def test_a_chunk_in_hand_ends_and_counts(services: Services, spec: JobSpec, job: Job) -> None:
    lease = leased(services, spec, 0)
    job.cancel()
    assert job.status().state is JobState.CANCELLING
    assert finish(a_worker(services), lease) == (Finish.FIRST, True)
    status = job.status()
    assert (status.state, status.counts.succeeded) == (JobState.CANCELLED, 2)


def test_a_job_whose_last_chunk_was_in_hand_is_whole(
    services: Services, spec: JobSpec, job: Job
) -> None:
    work(services, spec, 0, 1)
    lease = leased(services, spec, 2)
    job.cancel()
    assert finish(a_worker(services), lease) == (Finish.FIRST, True)
    assert job.status().state is JobState.SUCCEEDED


def test_cancelling_twice_is_cancelling_once(services: Services, spec: JobSpec, job: Job) -> None:
    lease = leased(services, spec, 0)
    job.cancel()
    job.cancel()
    assert finish(a_worker(services), lease) == (Finish.FIRST, True)


def test_a_job_whose_last_worker_died_long_ago_is_cancelled_at_once(
    services: Services, spec: JobSpec, job: Job
) -> None:
    leased(services, spec, 0, lease_s=0)
    job.cancel()
    assert state(services) is JobState.CANCELLED


def test_the_lease_of_a_dead_worker_holds_the_end_up_until_it_runs_out(
    services: Services, spec: JobSpec, job: Job
) -> None:
    lease = leased(services, spec, 0)
    job.cancel()
    assert state(services) is JobState.CANCELLING
    services.redis.raw.zadd(QueueKeys(spec.queue).leases, {lease.member: 1}, xx=True)
    wait_until(lambda: job.status().terminal, 10, "the lease has run out")
    record = services.jobs.record("j")
    assert (record.state, record.counts.cancelled) == (JobState.CANCELLED, 6)
    assert services.redis.raw.zcard(QueueKeys(spec.queue).leases) == 0


def test_cancelling_stops_the_producer_quietly(services: Services, tmp_path: Path) -> None:
    spec = a_spec("j", output=str(tmp_path), chunk_size=PART)
    created(services, spec)
    asked = 0

    def listed() -> Iterator[ManifestRow]:
        nonlocal asked
        for asked in range(10 * PART):
            if asked == PART + 1:
                cancel(services, "j")
            yield ManifestRow(str(asked))

    enqueue(services, spec, listed())
    assert asked < 2 * PART + 1
    record = services.jobs.record("j")
    assert (record.state, record.reason) == (JobState.CANCELLED, Reason.REQUESTED)
    assert record.counts.cancelled == record.counts.total == PART


# --- pause and resume ---


def test_nothing_of_a_paused_job_is_claimed_or_fed(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, images=40)
    job = Job(services, "j")
    job.pause()
    services.redis.raw.delete(spec.queue)
    assert state(services) is JobState.PAUSED
    assert a_worker(services).claim(spec.queue, "j", 0, MODEL)[0] is Answer.PAUSED
    assert services.feeder.feed(spec) == 0
    status = job.status()
    assert (status.state, status.health, status.terminal) == (JobState.PAUSED, "ok", False)


def test_what_was_in_hand_counts_while_paused(services: Services, spec: JobSpec, job: Job) -> None:
    lease = leased(services, spec, 0)
    job.pause()
    assert finish(a_worker(services), lease) == (Finish.FIRST, False)
    status = job.status()
    assert (status.state, status.counts.succeeded) == (JobState.PAUSED, 2)


def test_a_job_that_finishes_all_while_paused_ends(
    services: Services, spec: JobSpec, job: Job
) -> None:
    work(services, spec, 0, 1)
    lease = leased(services, spec, 2)
    job.pause()
    assert finish(a_worker(services), lease) == (Finish.FIRST, True)
    assert job.status().state is JobState.SUCCEEDED


def test_pausing_twice_is_pausing_once(services: Services, spec: JobSpec, job: Job) -> None:
    job.pause()
    job.pause()
    job.resume()
    assert state(services) is JobState.RUNNING


def test_resuming_sends_again_what_was_dropped_meanwhile(
    services: Services, tmp_path: Path
) -> None:
    spec = listed_job(services, tmp_path, images=40)
    job = Job(services, "j")
    work(services, spec, 0)
    leased(services, spec, 1)
    job.pause()
    services.redis.raw.delete(spec.queue)
    services.queue.send(spec.queue, "j", [7])
    job.resume()
    assert state(services) is JobState.RUNNING
    # The eight first ones were sent before; there is room for one more of each that left.
    assert waiting(services, spec) == set(range(2, 10))
    assert services.redis.raw.llen(spec.queue) == 8


def test_resuming_what_runs_changes_nothing(services: Services, spec: JobSpec, job: Job) -> None:
    before = waiting(services, spec)
    job.resume()
    assert (state(services), waiting(services, spec)) == (JobState.RUNNING, before)
    assert services.redis.raw.llen(spec.queue) == len(before)


def test_a_job_that_is_being_cancelled_is_neither_paused_nor_resumed(
    services: Services, spec: JobSpec, job: Job
) -> None:
    leased(services, spec, 0)
    job.cancel()
    for control in (job.pause, job.resume):
        with pytest.raises(JobConflict, match="job j is cancelling"):
            control()


def test_listing_goes_on_while_paused(services: Services, tmp_path: Path) -> None:
    spec = a_spec("j", output=str(tmp_path), chunk_size=PART)
    created(services, spec)
    pause(services, "j")  # while it is queued
    enqueue(services, spec, (ManifestRow(str(number)) for number in range(PART + 1)))
    record = services.jobs.record("j")
    assert (record.state, record.listing_complete) == (JobState.PAUSED, True)
    assert (record.chunks, record.fed) == (2, 0)
    resume(services, "j")
    assert waiting(services, spec) == {0, 1}


# --- priority ---


@pytest.mark.parametrize(("priority", "window"), [("high", 32), ("normal", 8), ("low", 8)])
def test_another_priority_is_another_window_at_once(
    services: Services, tmp_path: Path, priority: str, window: int
) -> None:
    spec = listed_job(services, tmp_path, images=200)
    set_priority(services, "j", Priority(priority))
    assert len(waiting(services, spec)) == window


def test_a_lower_priority_lets_the_window_run_down(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, images=200)
    set_priority(services, "j", Priority.LOW)
    for chunk in range(6):
        leased(services, spec, chunk)
        assert services.feeder.feed(spec) == 0
    leased(services, spec, 6)
    assert services.feeder.feed(spec) == 1
