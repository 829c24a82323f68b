"""Deleting a job: its record, and its directory if that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from millrace.core.claims import Answer
from millrace.core.errors import ExitCode, JobConflict, JobNotFound
from millrace.core.job import JobSpec
from millrace.core.services import Services
from millrace.core.topology import JobKeys
from millrace.producer import Job
from millrace.producer.control import cancel, delete, pause
from tests.unit.core.support import MODEL, a_spec, a_worker
from tests.unit.producer.support import listed_job, work


@pytest.fixture
def spec(services: Services, tmp_path: Path) -> JobSpec:
    """A job that has ended, and left everything a job may leave."""
    made = listed_job(services, tmp_path / "out")
    work(services, made, 0, 1, failing={0: "fetch/not_found"})
    services.redis.raw.hset(JobKeys("j").attempts, 2, 1)
    cancel(services, "j")
    return made


def keys_of(services: Services, job: str) -> list[bytes]:
    return list(services.redis.raw.scan_iter(f"*{{{job}}}*"))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_all_its_keys_are_gone(services: Services, spec: JobSpec) -> None:
    assert len(keys_of(services, "j")) >= 6
    delete(services, "j")
    assert keys_of(services, "j") == []
    assert services.jobs.recent_jobs(10) == []
    assert services.jobs.active_jobs(spec.queue) == []
    with pytest.raises(JobNotFound):
        Job(services, "j").status()


def test_what_it_left_in_the_queue_is_of_no_job(services: Services, spec: JobSpec) -> None:
    delete(services, "j")
    assert a_worker(services).claim(spec.queue, "j", 2, MODEL)[0] is Answer.UNKNOWN
    assert keys_of(services, "j") == []


def test_its_outputs_stay_unless_they_are_to_go(services: Services, spec: JobSpec) -> None:
    place = Path(spec.directory.root)
    before = files(place)
    assert delete(services, "j") == 0
    assert files(place) == before


def test_its_outputs_go_and_leave_no_empty_directory(services: Services, spec: JobSpec) -> None:
    place = Path(spec.directory.root)
    (place.parent / "notes.txt").touch()
    standing = len(files(place))
    assert delete(services, "j", outputs=True) == standing > 5
    assert [path.name for path in place.parent.iterdir()] == ["notes.txt"]
    assert keys_of(services, "j") == []


def test_its_outputs_go_from_a_bucket(services: Services, bucket: str, s3_client: Any) -> None:
    for job in ("j", "j2"):
        listed_job(services, f"s3://{bucket}/out", job_id=job)
        cancel(services, job)
    assert delete(services, "j", outputs=True) >= 4
    left = s3_client.list_objects_v2(Bucket=bucket)["Contents"]
    assert {item["Key"].split("/")[1] for item in left} == {"j2"}


def test_other_jobs_are_left_alone(services: Services, spec: JobSpec) -> None:
    other = listed_job(services, spec.output, job_id="j2")
    before = {key: services.redis.raw.dump(key) for key in keys_of(services, "j2")}
    delete(services, "j", outputs=True)
    assert {key: services.redis.raw.dump(key) for key in keys_of(services, "j2")} == before
    assert services.jobs.active_jobs(spec.queue) == ["j2"]
    assert files(Path(other.directory.root))


@pytest.mark.parametrize("how", ["queued", "running", "paused", "cancelling"])
def test_a_job_under_way_is_not_deleted(services: Services, tmp_path: Path, how: str) -> None:
    if how == "queued":
        services.jobs.create(a_spec("j", output=str(tmp_path)))
    else:
        spec = listed_job(services, tmp_path)
        a_worker(services).claim(spec.queue, "j", 0, MODEL)
    if how == "paused":
        pause(services, "j")
    if how == "cancelling":
        cancel(services, "j")
    before = files(tmp_path)
    with pytest.raises(JobConflict, match=f"job j is {how}") as raised:
        delete(services, "j", outputs=True)
    assert raised.value.exit_code is ExitCode.CONFLICT
    assert raised.value.hint == "end it first:  millrace cancel j"
    assert services.jobs.record("j").state == how
    assert files(tmp_path) == before


def test_deleting_twice_finds_nothing_the_second_time(services: Services, spec: JobSpec) -> None:
    delete(services, "j")
    with pytest.raises(JobNotFound):
        delete(services, "j")


def test_its_name_is_free_again(services: Services, spec: JobSpec) -> None:
    delete(services, "j", outputs=True)
    again = listed_job(services, spec.output)
    work(services, again, 0, 1, 2)
    assert Job(services, "j").status().state == "succeeded"
