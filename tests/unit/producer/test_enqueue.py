"""Enqueuing: part by part, workers may begin meanwhile, and a failure is an ending."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from millrace.core.errors import JobConflict, RedisUnavailable, StorageUnavailable
from millrace.core.job import JobSpec, JobState, Reason
from millrace.core.jobdir import JobDirectory, decode_rows
from millrace.core.locks import producing
from millrace.core.manifest import ManifestRow
from millrace.core.services import Services
from millrace.producer.enqueue import ListingProgress, enqueue, give_up
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_tally, a_worker, created

PART = 8192


@pytest.fixture
def spec(services: Services, tmp_path: Path) -> JobSpec:
    """A job of which nothing is listed; chunks of 4096 rows, two to a part."""
    made = a_spec("j", output=str(tmp_path), chunk_size=PART // 2)
    created(services, made)
    return made


def rows(count: int, start: int = 0) -> Iterator[ManifestRow]:
    return (ManifestRow(str(number), None, 1) for number in range(start, start + count))


def directory(services: Services, spec: JobSpec) -> JobDirectory:
    return JobDirectory(services.stores, spec.directory)


def test_the_manifest_is_cut_into_parts(services: Services, spec: JobSpec) -> None:
    told: list[ListingProgress] = []
    enqueue(services, spec, rows(2 * PART + 3), told.append)
    record = services.jobs.record("j")
    assert (record.counts.total, record.chunks, record.parts) == (2 * PART + 3, 5, 3)
    assert (record.listing_complete, record.state) == (True, JobState.RUNNING)
    lines = [directory(services, spec).part_lines(part) for part in range(3)]
    assert [len(part) for part in lines] == [PART, PART, 3]
    assert decode_rows(lines[2], spec.plan, 4) == list(rows(3, 2 * PART))
    assert told == [
        ListingProgress(PART, PART, 2),
        ListingProgress(2 * PART, 2 * PART, 4),
        ListingProgress(2 * PART + 3, 2 * PART + 3, 5),
    ]


def test_a_job_of_exactly_one_part_has_one(services: Services, spec: JobSpec) -> None:
    enqueue(services, spec, rows(PART))
    assert services.jobs.record("j").parts == 1


def test_workers_begin_while_listing_goes_on(services: Services, spec: JobSpec) -> None:
    def listed() -> Iterator[ManifestRow]:
        yield from rows(PART)
        yield ManifestRow("one more")
        assert services.queue.waiting(spec.queue) == {("j", 0), ("j", 1)}
        worker = a_worker(services)
        _, lease = worker.claim(spec.queue, "j", 0, MODEL)
        worker.finish(lease, a_tally(PART // 2), NO_TIME)
        record = services.jobs.record("j")
        assert (record.state, record.listing_complete) == (JobState.RUNNING, False)
        yield from rows(5, PART)

    enqueue(services, spec, listed())
    record = services.jobs.record("j")
    assert (record.counts.total, record.counts.succeeded) == (PART + 6, PART // 2)


def test_no_images_end_the_job_at_once(services: Services, spec: JobSpec) -> None:
    enqueue(services, spec, [])
    record = services.jobs.record("j")
    assert (record.state, record.reason) == (JobState.FAILED, "no_inputs")


def test_a_listing_that_outlasts_the_work_finalizes(services: Services, spec: JobSpec) -> None:
    def listed() -> Iterator[ManifestRow]:
        yield from rows(PART)
        worker = a_worker(services)
        for chunk in (0, 1):
            _, lease = worker.claim(spec.queue, "j", chunk, MODEL)
            assert not worker.finish(lease, a_tally(PART // 2), NO_TIME)[1]

    enqueue(services, spec, listed())
    assert services.jobs.record("j").state is JobState.SUCCEEDED


def test_a_listing_that_fails_ends_the_job_and_is_raised(services: Services, spec: JobSpec) -> None:
    def listed() -> Iterator[ManifestRow]:
        yield from rows(PART + 5)
        raise StorageUnavailable("the endpoint went away")

    with pytest.raises(StorageUnavailable, match="went away"):
        enqueue(services, spec, listed())
    record = services.jobs.record("j")
    assert (record.state, record.reason) == (JobState.FAILED, "input_listing_failed")
    assert record.counts.cancelled == record.counts.total == PART
    published = directory(services, spec).published_errors()
    assert published is not None
    assert list(published) == []


def test_a_redis_that_goes_away_for_a_moment_leaves_a_job_to_go_on_with(
    services: Services, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed() -> Iterator[ManifestRow]:
        yield from rows(PART + 5)
        monkeypatch.setattr(services.jobs, "publish_part", away)

    def away(*_: object) -> None:
        raise RedisUnavailable("gone")

    with pytest.raises(RedisUnavailable):
        enqueue(services, spec, listed())
    monkeypatch.undo()
    record = services.jobs.record("j")
    assert (record.state, record.ending, record.parts) == (JobState.ENQUEUING, None, 1)


def test_a_redis_wiped_after_a_part_was_written_is_told_and_the_part_stays(
    services: Services, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_part = JobDirectory.create_part

    def create_and_wipe(self: JobDirectory, part: int, some: Iterable[ManifestRow]) -> None:
        create_part(self, part, some)
        services.redis.raw.flushall()

    monkeypatch.setattr(JobDirectory, "create_part", create_and_wipe)
    with (
        pytest.raises(JobConflict, match="Redis has lost job j meanwhile") as raised,
        producing(services.redis, "j") as still_ours,
    ):
        enqueue(services, spec, rows(PART), still_ours=still_ours)
    assert raised.value.hint == f"millrace resume {spec.directory} --from-storage"
    assert directory(services, spec).parts() == [0]


def test_a_producer_that_was_overtaken_leaves_what_others_counted(
    services: Services, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_part, ours = JobDirectory.create_part, [True]

    def create_and_sleep(self: JobDirectory, part: int, some: Iterable[ManifestRow]) -> None:
        """It stands still, and meanwhile another one goes on and the job is cancelled."""
        create_part(self, part, some)
        ours.clear()
        services.jobs.publish_part("j", part, PART, 2)
        services.jobs.stop("j", JobState.CANCELLED, "requested")

    monkeypatch.setattr(JobDirectory, "create_part", create_and_sleep)
    with pytest.raises(JobConflict, match="another process goes on"):
        enqueue(services, spec, rows(PART), still_ours=lambda: bool(ours))
    assert directory(services, spec).parts() == [0]
    assert services.finalizer.finalize("j")
    assert directory(services, spec).parts() == [0]


def test_a_part_that_was_never_counted_goes_with_the_cancelled_job(
    services: Services, spec: JobSpec
) -> None:
    directory(services, spec).create_part(0, rows(PART))  # and the producer dies
    assert services.jobs.stop("j", JobState.CANCELLED, "requested")
    assert services.finalizer.finalize("j")
    assert directory(services, spec).parts() == []


def test_a_listing_that_fails_waits_for_the_chunks_in_hand(
    services: Services, spec: JobSpec
) -> None:
    worker = a_worker(services)
    leases = []

    def listed() -> Iterator[ManifestRow]:
        yield from rows(PART + 1)
        leases.append(worker.claim(spec.queue, "j", 0, MODEL)[1])
        raise StorageUnavailable("the endpoint went away")

    with pytest.raises(StorageUnavailable):
        enqueue(services, spec, listed())
    assert services.jobs.record("j").state is JobState.CANCELLING
    assert worker.finish(leases[0], a_tally(PART // 2), NO_TIME)[1]
    services.finalizer.finalize("j")
    record = services.jobs.record("j")
    assert record.state is JobState.FAILED
    assert (record.counts.succeeded, record.counts.cancelled) == (PART // 2, PART // 2)


def test_ctrl_c_cancels_the_job(services: Services, spec: JobSpec) -> None:
    def listed() -> Iterator[ManifestRow]:
        yield from rows(PART)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        enqueue(services, spec, listed())
    record = services.jobs.record("j")
    assert (record.state, record.reason) == (JobState.CANCELLED, "interrupted")


def test_listing_stops_when_somebody_gave_the_job_up(services: Services, spec: JobSpec) -> None:
    asked = 0

    def listed() -> Iterator[ManifestRow]:
        nonlocal asked
        for row in rows(10 * PART):
            asked += 1
            if asked == PART + 1:
                give_up(services, "j", JobState.CANCELLED, Reason.INTERRUPTED)
            yield row

    enqueue(services, spec, listed())
    assert asked <= 2 * PART + 1
    assert services.jobs.record("j").state is JobState.CANCELLED


def test_giving_up_a_job_nobody_works_on_ends_it(services: Services, spec: JobSpec) -> None:
    give_up(services, "j", JobState.FAILED, Reason.MODEL_LOAD_FAILED)
    record = services.jobs.record("j")
    assert (record.state, record.reason) == (JobState.FAILED, "model_load_failed")
