"""What is missing or ruined in a job's directory is made whole, and nothing else is touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from millrace.core.chunks import ChunkPlan
from millrace.core.claims import Answer, Finish
from millrace.core.errors import JobConflict, StorageUnavailable
from millrace.core.job import JobSpec, JobState, Priority
from millrace.core.jobdir import JobDirectory
from millrace.core.services import Services
from millrace.core.storage import Location
from millrace.core.topology import JobKeys, QueueKeys, chunk_object
from millrace.producer.control import (
    cancel,
    delete,
    look_after,
    pause,
    resume,
    set_priority,
)
from millrace.producer.job import Job
from millrace.producer.recover import repair, restore
from millrace.producer.verify import verify
from tests.unit.core.support import MODEL, NO_TIME, a_tally, a_worker
from tests.unit.producer.support import (
    FAILING,
    directory_of,
    known,
    listed_job,
    lose,
    object_of,
    waiting,
    work,
)


@pytest.fixture
def ended(services: Services, tmp_path: Path) -> JobSpec:
    """A job of 19 images, four of which failed."""
    spec = listed_job(services, tmp_path, images=19)
    run_all(services, spec)
    return spec


def run_all(services: Services, spec: JobSpec) -> None:
    services.redis.raw.delete(spec.queue)  # the messages are taken
    work(services, spec, *range(10), failing=FAILING)
    assert verify(services, directory_of(services, spec)).ok


def contents(spec: JobSpec) -> dict[str, bytes]:
    root = Path(spec.directory.root)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "summary.json"
    }


def mend(services: Services, spec: JobSpec) -> Job:
    directory = directory_of(services, spec)
    found = verify(services, directory)
    assert not found.ok
    return repair(services, directory, found)


@pytest.mark.parametrize("damage", ["removed", "ruined", "both"])
def test_exactly_what_is_missing_runs_again(
    services: Services, ended: JobSpec, damage: str
) -> None:
    before, counts = contents(ended), Job(services, "j").status().counts
    lost = []
    if damage != "ruined":
        object_of(ended, 3).unlink()
        lost.append(3)
    if damage != "removed":
        object_of(ended, 7).write_bytes(b"what is this?\n")
        lost.append(7)
    job = mend(services, ended)
    assert waiting(services, ended) == lost
    assert job.status().state is JobState.RUNNING
    assert job.status().counts.pending == 2 * len(lost)
    work(services, ended, *lost, failing=FAILING)
    assert (job.status().state, job.status().counts) == ("completed_with_errors", counts)
    assert verify(services, directory_of(services, ended)).ok
    assert contents(ended) == before


@pytest.mark.parametrize("name", ["summary.json", "errors.jsonl", "_SUCCESS"])
def test_a_file_of_the_finalizer_is_written_again(
    services: Services, ended: JobSpec, name: str
) -> None:
    before = contents(ended)
    (Path(ended.directory.root) / name).unlink()
    assert mend(services, ended).status().state is JobState.COMPLETED_WITH_ERRORS
    assert verify(services, directory_of(services, ended)).ok
    assert contents(ended) == before
    assert waiting(services, ended) == []


def test_a_summary_that_says_otherwise_is_written_again(services: Services, ended: JobSpec) -> None:
    place = Path(ended.directory.root) / "summary.json"
    summary = json.loads(place.read_text())
    summary["counts"]["succeeded"] += 1
    place.write_text(json.dumps(summary))
    mend(services, ended)
    assert verify(services, directory_of(services, ended)).ok


def test_errors_that_say_otherwise_are_written_again(services: Services, ended: JobSpec) -> None:
    place = Path(ended.directory.root) / "errors.jsonl"
    whole = place.read_bytes()
    place.write_bytes(b"".join(whole.splitlines(keepends=True)[1:]))
    mend(services, ended)
    assert place.read_bytes() == whole
    assert verify(services, directory_of(services, ended)).ok


@pytest.mark.parametrize("field", ["total", "succeeded", "failed", "cancelled"])
def test_counts_of_redis_are_derived_anew(services: Services, ended: JobSpec, field: str) -> None:
    before = known(services)
    services.redis.raw.hincrby(JobKeys("j").record, field, 1)
    mend(services, ended)
    assert known(services) == before
    assert verify(services, directory_of(services, ended)).ok


def test_codes_of_redis_are_derived_anew(services: Services, ended: JobSpec) -> None:
    before = known(services)
    services.redis.raw.hset(JobKeys("j").errors, "decode/corrupt", 40)
    mend(services, ended)
    assert known(services) == before


def test_a_paused_job_is_repaired_and_stays_as_it_was_asked_to_be(
    services: Services, tmp_path: Path
) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0, 1)
    set_priority(services, "j", Priority.HIGH)
    pause(services, "j")
    services.redis.raw.delete(spec.queue)
    object_of(spec, 1).unlink()
    job = mend(services, spec)
    assert (job.status().state, waiting(services, spec)) == (JobState.PAUSED, [])
    factor = services.redis.raw.hget(JobKeys("j").record, "window_factor")
    assert float(factor) == Priority.HIGH.window_factor
    record = services.jobs.record("j")
    assert (record.version, record.digest) == (MODEL.version, MODEL.digest)
    resume(services, "j")
    assert waiting(services, spec) == [1, 2]
    work(services, spec, 1, 2)
    assert (job.status().state, job.status().counts.succeeded) == (JobState.SUCCEEDED, 6)
    assert verify(services, directory_of(services, spec)).ok


def test_what_was_in_hand_may_be_claimed_and_still_counts_once(
    services: Services, tmp_path: Path
) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0)
    _, lease = a_worker(services).claim(spec.queue, "j", 1, MODEL)
    pause(services, "j")
    object_of(spec, 0).unlink()
    mend(services, spec)
    resume(services, "j")
    assert a_worker(services, "2@host/x").claim(spec.queue, "j", 1, MODEL)[0] is Answer.OK
    assert a_worker(services).finish(lease, a_tally(2), NO_TIME)[0] is Finish.FIRST
    assert a_worker(services).finish(lease, a_tally(2), NO_TIME)[0] is Finish.REPEAT


def test_a_job_that_ended_with_a_chunk_in_hand_leaves_no_lease(
    services: Services, ended: JobSpec
) -> None:
    services.redis.raw.hset(JobKeys("j").owners, 3, "dead/token")
    services.redis.raw.zadd(QueueKeys(ended.queue).leases, {"j:3": 1, "other:3": 1})
    delete(services, "j")
    assert services.redis.raw.zrange(QueueKeys(ended.queue).leases, 0, -1) == [b"other:3"]


def test_a_job_that_runs_is_refused(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0, 1)
    object_of(spec, 1).write_bytes(b"ruined\n")
    before, files = known(services), contents(spec)
    with pytest.raises(JobConflict, match="job j is running") as caught:
        mend(services, spec)
    assert "millrace pause j" in (caught.value.hint or "")
    assert (known(services), contents(spec)) == (before, files)


def test_nothing_is_removed_if_storage_goes_away(
    services: Services, ended: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_of(ended, 3).write_bytes(b"ruined\n")
    object_of(ended, 77).write_bytes(b"")
    directory = directory_of(services, ended)
    found, before, files = verify(services, directory), known(services), contents(ended)
    read_chunk = JobDirectory.read_chunk

    def then_none(self: JobDirectory, plan: ChunkPlan, chunk: int) -> bytes | None:
        if chunk == 8:
            raise StorageUnavailable("503")
        return read_chunk(self, plan, chunk)

    monkeypatch.setattr(JobDirectory, "read_chunk", then_none)
    with pytest.raises(StorageUnavailable):
        repair(services, directory, found)
    assert (known(services), contents(ended)) == (before, files)


def test_a_stray_of_then_that_is_a_chunk_by_now_stays(services: Services, ended: JobSpec) -> None:
    object_of(ended, 2).unlink()
    directory = directory_of(services, ended)
    found = verify(services, directory)
    found.strays.append(chunk_object(0, 4))
    repair(services, directory, found)
    assert object_of(ended, 4).exists()


def test_of_a_job_that_was_ended_early_nothing_is_removed(
    services: Services, tmp_path: Path
) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0)
    cancel(services, "j")
    look_after(services, "j")
    object_of(spec, 0).write_bytes(b"ruined\n")
    before, files = known(services), contents(spec)
    directory = directory_of(services, spec)
    found = verify(services, directory)
    assert found.corrupt_chunks == [0]
    with pytest.raises(JobConflict, match="ended early"):
        repair(services, directory, found)
    assert known(services) == before
    assert contents(spec) == files


def test_a_repaired_job_on_a_bucket_is_whole(
    services: Services, bucket: str, s3_client: Any
) -> None:
    spec = listed_job(services, f"s3://{bucket}/out", images=19)
    run_all(services, spec)
    key = f"out/j/{chunk_object(0, 4)}"
    whole = s3_client.get_object(Bucket=bucket, Key=key)["Body"].read()
    s3_client.put_object(Bucket=bucket, Key=key, Body=whole[:-20])
    mend(services, spec)
    assert waiting(services, spec) == [4]
    work(services, spec, 4, failing=FAILING)
    assert s3_client.get_object(Bucket=bucket, Key=key)["Body"].read() == whole
    assert verify(services, directory_of(services, spec)).ok


# --- what must not be touched ---


def test_a_copy_of_a_directory_is_not_gone_on_with(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0)
    lose(services)
    copy = tmp_path / "copy" / spec.job_id
    shutil.copytree(spec.directory.root, copy)
    elsewhere = JobDirectory(services.stores, Location.parse(str(copy)))
    found = verify(services, elsewhere)
    with pytest.raises(JobConflict, match="copy"):
        restore(services, elsewhere)
    with pytest.raises(JobConflict, match="copy"):
        repair(services, elsewhere, found)
    assert services.redis.raw.keys() == []


def test_another_job_of_the_same_name_is_left_alone(services: Services, tmp_path: Path) -> None:
    lost = listed_job(services, tmp_path / "a")
    lose(services)
    other = listed_job(services, tmp_path / "b")
    before = known(services)
    directory = directory_of(services, lost)
    with pytest.raises(JobConflict):
        repair(services, directory, verify(services, directory))
    assert known(services) == before
    assert services.jobs.spec("j") == other


def test_a_stray_object_is_removed_where_the_manifest_is_whole(
    services: Services, tmp_path: Path
) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, *range(services.jobs.record("j").chunks))
    stray = object_of(spec, 77)
    stray.write_bytes(b"")
    directory = directory_of(services, spec)
    repair(services, directory, verify(services, directory))
    assert not stray.exists()
    assert verify(services, directory).ok
