"""Verifying jobs that are as they should be, in every state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from millrace.core import locks
from millrace.core.chunks import PART_ROWS
from millrace.core.errors import ObjectNotFound
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import ManifestRow
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.storage import Location
from millrace.core.topology import JobKeys
from millrace.producer import Job
from millrace.producer.control import cancel, delete, pause
from millrace.producer.verification import Verification
from millrace.producer.verify import verify
from tests.unit.core.support import MODEL, a_spec, a_worker, created
from tests.unit.producer.support import listed_job, work

FAILING = {0: "fetch/not_found", 3: "decode/bad_image"}


def verified(services: Services, spec: JobSpec) -> Verification:
    return verify(services, JobDirectory(services.stores, spec.directory))


def queued(services: Services, place: Path) -> None:
    created(services, a_spec("j", output=str(place)))


def enqueuing(services: Services, place: Path) -> None:
    listed_job(services, place)
    services.redis.raw.hset(JobKeys("j").record, "listing_complete", 0)
    services.redis.raw.hset(JobKeys("j").record, "state", "enqueuing")


def running(services: Services, place: Path) -> None:
    work(services, listed_job(services, place), 1, failing=FAILING)


def paused(services: Services, place: Path) -> None:
    running(services, place)
    pause(services, "j")


def cancelling(services: Services, place: Path) -> None:
    running(services, place)
    a_worker(services).claim("millrace.tiny", "j", 0, MODEL)
    cancel(services, "j")


def finalizing(services: Services, place: Path) -> None:
    spec = listed_job(services, place)
    with locks.finalizing(services.redis, "j"):
        work(services, spec, 0, 1, 2, failing=FAILING)


def succeeded(services: Services, place: Path) -> None:
    work(services, listed_job(services, place), 2, 0, 1)


def completed_with_errors(services: Services, place: Path) -> None:
    work(services, listed_job(services, place), 0, 1, 2, failing=FAILING)


def failed(services: Services, place: Path) -> None:
    work(services, listed_job(services, place, error_threshold="1"), 0, 1, failing=FAILING)


def cancelled(services: Services, place: Path) -> None:
    running(services, place)
    cancel(services, "j")


def expired(services: Services, place: Path) -> None:
    spec = listed_job(services, place, deadline="2999-01-01T00:00:00Z")
    work(services, spec, 1, failing=FAILING)
    services.redis.raw.hset(JobKeys("j").record, "deadline_ms", 1)
    Job(services, "j").status()


STATES = [
    *(queued, enqueuing, running, paused, cancelling, finalizing),
    *(succeeded, completed_with_errors, failed, cancelled, expired),
]


@pytest.mark.parametrize("stand", STATES, ids=lambda stand: stand.__name__)
def test_a_job_nobody_tampered_with_is_as_it_should_be(
    services: Services, tmp_path: Path, stand: Callable[[Services, Path], None]
) -> None:
    stand(services, tmp_path)
    spec = services.jobs.spec("j")
    found = verified(services, spec)
    assert (found.findings, found.ok, found.asked_redis) == ([], True, True)
    assert found.state == stand.__name__
    counts = services.jobs.record("j").counts
    assert (found.total, found.succeeded, found.failed) == (
        counts.total,
        counts.succeeded,
        counts.failed,
    )
    assert found.without_outcome == counts.pending + counts.cancelled


def test_a_job_without_images_is_as_it_should_be(services: Services, tmp_path: Path) -> None:
    found = verified(services, listed_job(services, tmp_path, images=0))
    assert (found.findings, found.state, found.total, found.chunks) == ([], "failed", 0, 0)


def test_everything_is_counted_from_storage(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, images=7)
    work(services, spec, 0, 1, 3, failing=FAILING)
    found = verified(services, spec)
    assert (found.total, found.chunks, found.missing_chunks) == (7, 4, [2])
    assert (found.succeeded, found.failed, found.without_outcome) == (3, 2, 2)
    assert found.by_code == {"fetch/not_found": 1, "decode/bad_image": 1}


def test_a_verification_is_json(services: Services, tmp_path: Path) -> None:
    completed_with_errors(services, tmp_path)
    found = verified(services, services.jobs.spec("j"))
    found.note("redis", "something")
    assert orjson.loads(orjson.dumps(found.as_json())) == {
        "job_id": "j",
        "state": "completed_with_errors",
        "total": 6,
        "succeeded": 4,
        "failed": 2,
        "by_code": {"fetch/not_found": 1, "decode/bad_image": 1},
        "chunks": 3,
        "missing_chunks": [],
        "corrupt_chunks": [],
        "strays": [],
        "findings": [{"where": "redis", "problem": "something"}],
        "asked_redis": True,
        "without_outcome": 0,
        "ok": False,
    }


def test_a_manifest_of_several_parts(services: Services, tmp_path: Path) -> None:
    images = 2 * PART_ROWS + 3
    spec = listed_job(services, tmp_path, images=images, chunk_size=PART_ROWS)
    work(services, spec, 0, 2)
    told: list[int] = []
    found = verify(services, JobDirectory(services.stores, spec.directory), told.append)
    assert (found.findings, found.missing_chunks) == ([], [1])
    assert (found.total, found.succeeded) == (images, PART_ROWS + 3)
    assert told == [PART_ROWS, 2 * PART_ROWS, images]


@pytest.mark.parametrize("whole", [False, True], ids=["more comes", "that was all"])
def test_what_is_listed_and_run_meanwhile_is_no_stray(
    services: Services, tmp_path: Path, whole: bool
) -> None:
    spec = a_spec("j", output=str(tmp_path), chunk_size=PART_ROWS)
    created(services, spec)
    directory = JobDirectory(services.stores, spec.directory)

    def run_part(part: int) -> None:
        numbers = range(part * PART_ROWS, (part + 1) * PART_ROWS)
        directory.create_part(part, [ManifestRow(f"{n}.jpg", f'"{n}"', 1) for n in numbers])
        services.jobs.publish_part("j", part, PART_ROWS, 1)
        work(services, spec, part)

    def while_it_reads(images: int) -> None:
        if images == PART_ROWS:
            run_part(1)
            if whole:
                directory.complete_manifest(2, 2 * PART_ROWS)
                services.jobs.listing_done("j")

    run_part(0)
    found = verify(services, directory, while_it_reads)
    assert (found.findings, found.strays, found.chunks) == ([], [], 1)
    assert {*directory.committed_chunks(spec.plan)} == {0, 1}


@pytest.mark.parametrize("read", ["snapshot", "done_bitmap"])
def test_a_job_may_end_after_redis_was_asked(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    running(services, tmp_path)
    spec, original = services.jobs.spec("j"), getattr(services.jobs, read)

    def then_it_ends(job: str) -> object:
        monkeypatch.setattr(services.jobs, read, original)
        answer = original(job)
        work(services, spec, 0, 2)
        return answer

    monkeypatch.setattr(services.jobs, read, then_it_ends)
    assert verified(services, spec).findings == []


@pytest.mark.parametrize("gone", ["deleted", "down"])
@pytest.mark.parametrize("stand", [completed_with_errors, cancelled], ids=lambda it: it.__name__)
def test_storage_alone_will_do(
    services: Services, tmp_path: Path, gone: str, stand: Callable[[Services, Path], None]
) -> None:
    stand(services, tmp_path)
    spec = services.jobs.spec("j")
    if gone == "deleted":
        delete(services, "j")
    else:
        services = Services(Settings.load(redis_url="redis://127.0.0.1:1/0"))
    found = verified(services, spec)
    assert (found.findings, found.asked_redis) == ([], False)
    assert found.state == stand.__name__


def test_what_nobody_runs_any_more_is_not_as_it_should_be(
    services: Services, tmp_path: Path
) -> None:
    running(services, tmp_path)
    spec = services.jobs.spec("j")
    services.redis.raw.flushdb()
    found = verified(services, spec)
    assert (found.state, found.missing_chunks) == ("unknown", [0, 2])
    assert {finding.where: finding.problem for finding in found.findings} == {
        "summary.json": "is missing and Redis does not say the job runs",
        "results": "chunks without an object: 0, 2",
    }


def test_what_never_ended_is_not_as_it_should_be(services: Services, tmp_path: Path) -> None:
    """All that is listed has an outcome, but more may have been due."""
    enqueuing(services, tmp_path)
    spec = services.jobs.spec("j")
    work(services, spec, 0, 1, 2)
    services.redis.raw.flushdb()
    assert [finding.where for finding in verified(services, spec).findings] == ["summary.json"]


def test_a_job_of_that_name_elsewhere_is_another(services: Services, tmp_path: Path) -> None:
    completed_with_errors(services, tmp_path / "here")
    spec = services.jobs.spec("j")
    delete(services, "j")
    succeeded(services, tmp_path / "there")
    found = verified(services, spec)
    assert (found.findings, found.asked_redis) == ([], False)
    assert found.failed == 2


def test_a_directory_without_a_job_is_not_found(services: Services, tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound):
        verify(services, JobDirectory(services.stores, Location.parse(str(tmp_path))))
