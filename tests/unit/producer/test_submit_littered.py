"""A new job does not begin where another one left objects; the same job goes on in its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.core.errors import ExitCode, JobConflict
from millrace.core.job import JobState
from millrace.core.model_ref import ModelRef
from millrace.core.services import Services
from millrace.core.topology import chunk_object, manifest_part
from millrace.producer import Job, submit
from millrace.producer.control import cancel, delete
from millrace.producer.submit import make_spec
from tests.unit.producer.support import directory_of, work


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").touch()
    return folder


@pytest.fixture(params=["directory", "bucket"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "bucket":
        return f"s3://{request.getfixturevalue('bucket')}/out"
    return str(tmp_path / "out")


def asked(services: Services, photos: Path, out: str) -> Job:
    return submit(
        str(photos), model="tiny", output=out, job_id="j", chunk_size=2, settings=services.settings
    )


def test_what_a_frozen_worker_wrote_after_the_job_was_deleted_is_no_new_job_s(
    services: Services, photos: Path, out: str
) -> None:
    asked(services, photos, out)
    spec = services.jobs.spec("j")
    cancel(services, "j")
    delete(services, "j", outputs=True)
    directory = directory_of(services, spec)
    directory.create_chunk(spec.plan, 1, b"as it was predicted then\n")
    with pytest.raises(JobConflict, match="holds what another job left there") as refused:
        asked(services, photos, out)
    assert refused.value.exit_code is ExitCode.CONFLICT
    assert refused.value.hint == "remove it, or choose another --job-id"
    # Again, for a refusal must leave nothing that looks like a job.
    with pytest.raises(JobConflict, match="another job"):
        asked(services, photos, out)
    assert services.jobs.recent_jobs(10) == []
    directory.delete_stray(chunk_object(0, 1))
    job = asked(services, photos, out)
    work(services, services.jobs.spec("j"), 0, 1)
    assert job.status().state is JobState.SUCCEEDED


@pytest.mark.parametrize("name", [manifest_part(0), "by-key/0.jpg.json", "model.json"])
def test_neither_is_anything_else_of_a_job(
    services: Services, tmp_path: Path, photos: Path, name: str
) -> None:
    left = tmp_path / "out" / "j" / name
    left.parent.mkdir(parents=True)
    left.touch()
    with pytest.raises(JobConflict, match="another job"):
        asked(services, photos, str(tmp_path / "out"))


def test_what_is_no_job_s_is_in_nobody_s_way(
    services: Services, tmp_path: Path, photos: Path
) -> None:
    notes = tmp_path / "out" / "j" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.touch()
    assert asked(services, photos, str(tmp_path / "out")).status().counts.total == 4


def test_a_job_whose_producer_died_after_its_first_word_is_submitted_again(
    services: Services, photos: Path, out: str
) -> None:
    spec = make_spec(
        services, str(photos), model=ModelRef("tiny"), output=out, job_id="j", chunk_size=2
    )
    directory_of(services, spec).create_spec(spec)
    assert asked(services, photos, out).status().counts.total == 4


def test_the_same_again_is_the_same_job_while_its_outcomes_stand(
    services: Services, photos: Path, out: str
) -> None:
    asked(services, photos, out)
    work(services, services.jobs.spec("j"), 0, 1)
    before = asked(services, photos, out).status()
    assert (before.state, before.counts.succeeded) == (JobState.SUCCEEDED, 4)
    # And one that Redis lost is told from what another job left.
    services.redis.raw.flushdb()
    with pytest.raises(JobConflict, match="Redis no longer knows"):
        asked(services, photos, out)
