"""Retrying: a child job over exactly what failed in its parent."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.core.errors import JobConflict
from millrace.core.job import JobSpec, JobState
from millrace.core.jobdir import JobDirectory, decode_rows
from millrace.core.manifest import ManifestRow
from millrace.core.services import Services
from millrace.producer import Job
from millrace.producer.control import cancel
from millrace.producer.retry import retry
from tests.unit.core.support import MODEL, a_worker
from tests.unit.producer.support import listed_job, work

FAILING = {1: "fetch/not_found", 2: "decode/bad_image", 5: "fetch/timeout", 6: "infer/timeout"}


@pytest.fixture
def parent(services: Services, tmp_path: Path) -> JobSpec:
    """Eight images, of which four failed."""
    limits = {"error_threshold": "50%", "deadline": "2999-01-01T00:00:00Z"}
    spec = listed_job(services, tmp_path / "out", images=8, top_k=3, **limits)
    work(services, spec, 3, 1, 2, 0, failing=FAILING)
    return spec


def rows(services: Services, job: Job) -> list[ManifestRow]:
    """The manifest of a small job."""
    spec = services.jobs.spec(job.id)
    directory = JobDirectory(services.stores, spec.directory)
    numbers = range(services.jobs.record(job.id).chunks)
    lines = directory.part_lines(0) if numbers else []
    return [row for chunk in numbers for row in decode_rows(lines, spec.plan, chunk)]


def keys(services: Services, job: Job) -> list[str]:
    return [row.key for row in rows(services, job)]


def test_the_child_is_over_exactly_what_failed(services: Services, parent: JobSpec) -> None:
    child = retry(services, "j")
    # As they are now: whoever repaired an image gave it another ETag.
    assert rows(services, child) == [ManifestRow(f"{n}.jpg") for n in sorted(FAILING)]
    status = child.status()
    assert (status.parent_job_id, status.counts.total) == ("j", 4)
    assert status.state is JobState.RUNNING
    assert services.queue.waiting(parent.queue) >= {(child.id, 0), (child.id, 1)}


def test_the_child_asks_for_the_same_but_for_the_limits(
    services: Services, parent: JobSpec
) -> None:
    child = services.jobs.spec(retry(services, "j").id)
    same = {"model", "output", "chunk_size", "priority", "top_k", "layout"}
    assert child.model_dump(include=same) == parent.model_dump(include=same)
    assert child.input.uri == parent.input.uri
    assert (child.error_threshold, child.deadline) == (None, None)
    assert child.job_id.startswith("tiny-")


def test_the_parent_stays_as_it_is(services: Services, parent: JobSpec) -> None:
    before = services.jobs.snapshot("j").record
    child = retry(services, "j")
    work(services, services.jobs.spec(child.id), 0, 1)
    assert child.status().state is JobState.SUCCEEDED
    assert services.jobs.snapshot("j").record == before


@pytest.mark.parametrize(
    ("codes", "chosen"),
    [
        (["not_found"], [1]),
        (["timeout"], [5, 6]),
        (["fetch/timeout"], [5]),
        (["fetch/timeout", "bad_image"], [2, 5]),
        (["fetch/bad_image", "infer/timeout"], [6]),
    ],
)
def test_codes_choose_among_them(
    services: Services, parent: JobSpec, codes: list[str], chosen: list[int]
) -> None:
    assert keys(services, retry(services, "j", codes=codes)) == [f"{n}.jpg" for n in chosen]


@pytest.mark.parametrize("codes", [["fetch"], ["fetch/"], ["gone"]])
def test_nothing_that_failed_so_is_a_job_without_inputs(
    services: Services, parent: JobSpec, codes: list[str]
) -> None:
    status = retry(services, "j", codes=codes).status()
    assert (status.state, status.reason) == (JobState.FAILED, "no_inputs")


def test_a_parent_without_failures_is_a_job_without_inputs(
    services: Services, tmp_path: Path
) -> None:
    work(services, listed_job(services, tmp_path), 0, 1, 2)
    assert retry(services, "j").status().reason == "no_inputs"


def test_of_a_cancelled_parent_what_failed_is_run_again_and_no_more(
    services: Services, tmp_path: Path
) -> None:
    work(services, listed_job(services, tmp_path), 0, failing={1: "fetch/timeout"})
    cancel(services, "j")
    assert keys(services, retry(services, "j")) == ["1.jpg"]


def test_the_same_retry_under_the_same_id_is_the_same_job(
    services: Services, parent: JobSpec
) -> None:
    for codes in (["timeout", "not_found"], ["not_found", "timeout"]):
        assert retry(services, "j", codes=codes, job_id="again").id == "again"
    assert services.jobs.record("again").counts.total == 3
    with pytest.raises(JobConflict, match="exists with another spec"):
        retry(services, "j", job_id="again")
    with pytest.raises(JobConflict, match="exists with another spec"):
        retry(services, "j", job_id="j")


@pytest.mark.parametrize("how", ["running", "cancelling"])
def test_a_parent_under_way_is_a_conflict(services: Services, tmp_path: Path, how: str) -> None:
    spec = listed_job(services, tmp_path)
    a_worker(services).claim(spec.queue, "j", 0, MODEL)
    if how == "cancelling":
        cancel(services, "j")
    with pytest.raises(JobConflict, match=f"job j is {how}; its failures are not all known yet"):
        retry(services, "j", job_id="child")
    assert services.jobs.recent_jobs(10) == ["j"]


def test_a_retry_may_be_retried(services: Services, parent: JobSpec) -> None:
    child = retry(services, "j", job_id="child")
    failing = {5: "fetch/timeout"}
    work(services, services.jobs.spec("child"), 0, 1, failing=failing)
    assert child.status().state is JobState.COMPLETED_WITH_ERRORS
    grandchild = retry(services, "child")
    assert keys(services, grandchild) == ["5.jpg"]
    assert grandchild.status().parent_job_id == "child"
