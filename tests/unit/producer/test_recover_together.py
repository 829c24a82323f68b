"""Several who repair, restore or resume one job at once: one does, the others change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from millrace.core import locks
from millrace.core.chunks import ChunkPlan
from millrace.core.errors import JobConflict, StorageUnavailable
from millrace.core.job import JobSpec, JobState
from millrace.core.jobdir import JobDirectory
from millrace.core.jobstore import JobStore
from millrace.core.services import Services
from millrace.core.topology import JobKeys
from millrace.producer.control import cancel, look_after, pause, resume
from millrace.producer.job import Job
from millrace.producer.recover import repair, restore
from millrace.producer.verify import verify
from tests.support import wait_until
from tests.unit.producer.support import (
    directory_of,
    known,
    listed_job,
    lose,
    object_of,
    waiting,
    work,
)


@pytest.fixture
def ruined(services: Services, tmp_path: Path) -> JobSpec:
    """A job of six images that has ended; the object of its second chunk is no outcome."""
    spec = listed_job(services, tmp_path)
    services.redis.raw.delete(spec.queue)  # the messages are taken
    work(services, spec, 0, 1, 2)
    object_of(spec, 1).write_bytes(b"ruined\n")
    return spec


def contents(spec: JobSpec) -> dict[str, bytes]:
    root = Path(spec.directory.root)
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def written(path: Path) -> tuple[int, int]:
    """Another once the file is written anew."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns


def lose_the_lock(services: Services) -> None:
    """As it goes with a process that stands still for longer than its lock lasts."""
    services.redis.raw.delete(JobKeys("j").finalizer)


def meanwhile(do: Callable[[], object]) -> Callable[[int], None]:
    """A progress that does something, once, when all is read and nothing is changed."""
    left = [do]

    def once(images: int) -> None:
        while left:
            left.pop()()

    return once


# --- repairs ---


def test_of_two_repairs_at_once_one_is_refused(
    services: Services, ruined: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_LETTING_GO_S", 0.05)
    directory = directory_of(services, ruined)
    found = verify(services, directory)

    def second() -> None:
        before = contents(ruined)
        with pytest.raises(JobConflict, match="being repaired") as refused:
            repair(services, directory, found)
        assert "within a minute" in (refused.value.hint or "")
        assert contents(ruined) == before

    job = repair(services, directory, found, meanwhile(second))
    assert waiting(services, ruined) == [1]
    work(services, ruined, 1)
    assert job.status().state is JobState.SUCCEEDED
    assert verify(services, directory).ok
    assert not services.redis.raw.exists(JobKeys("j").finalizer)


def test_a_slow_repair_removes_nothing_that_a_faster_one_ran_again(
    services: Services, ruined: JobSpec
) -> None:
    directory = directory_of(services, ruined)
    found, done = verify(services, directory), list[dict[str, bytes]]()

    def faster() -> None:
        lose_the_lock(services)
        repair(services, directory, found)
        work(services, ruined, 1)
        assert verify(services, directory).ok
        done.append(contents(ruined))

    with pytest.raises(JobConflict, match="was changed meanwhile; nothing was done"):
        repair(services, directory, found, meanwhile(faster))
    assert [contents(ruined)] == done
    assert services.jobs.record("j").state is JobState.SUCCEEDED
    assert verify(services, directory).ok


def test_what_another_repair_made_whole_stays(services: Services, ruined: JobSpec) -> None:
    directory = directory_of(services, ruined)
    of_then = verify(services, directory)
    repair(services, directory, of_then)
    work(services, ruined, 1)
    stands = written(object_of(ruined, 1))
    job = repair(services, directory, of_then)
    assert written(object_of(ruined, 1)) == stands
    assert job.status().state is JobState.SUCCEEDED
    assert verify(services, directory).ok


def test_who_loses_the_lock_removes_nothing(
    services: Services, ruined: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = directory_of(services, ruined)
    found, before = verify(services, directory), contents(ruined)
    restore_record = JobStore.restore

    def then_stand_still(store: JobStore, *args: object, **options: object) -> None:
        restore_record(store, *args, **options)  # type: ignore[arg-type]
        lose_the_lock(services)

    with monkeypatch.context() as patch:
        patch.setattr(JobStore, "restore", then_stand_still)
        with pytest.raises(JobConflict, match="another process goes on"):
            repair(services, directory, found)
    assert contents(ruined) == before
    assert services.jobs.record("j").state is JobState.PAUSED


def test_a_repair_that_is_interrupted_is_done_again(
    services: Services, ruined: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_of(ruined, 2).write_bytes(b"ruined\n")
    directory, deleted = directory_of(services, ruined), list[int]()
    delete_chunk = JobDirectory.delete_chunk

    def only_one(self: JobDirectory, plan: ChunkPlan, chunk: int) -> None:
        if deleted:
            raise StorageUnavailable("503")
        delete_chunk(self, plan, chunk)
        deleted.append(chunk)

    with monkeypatch.context() as patch:
        patch.setattr(JobDirectory, "delete_chunk", only_one)
        with pytest.raises(StorageUnavailable):
            repair(services, directory, verify(services, directory))
    assert deleted == [1]
    record = services.jobs.record("j")
    # Nobody claims the chunk whose object is yet to go, and neither counts.
    assert (record.state, record.done, waiting(services, ruined)) == (JobState.PAUSED, 1, [])
    repair(services, directory, verify(services, directory))
    resume(services, "j")
    assert waiting(services, ruined) == [1, 2]
    work(services, ruined, 1, 2)
    assert services.jobs.record("j").state is JobState.SUCCEEDED
    assert verify(services, directory).ok


def test_a_job_that_is_cancelled_meanwhile_is_refused(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0, 1)
    pause(services, "j")
    object_of(spec, 1).write_bytes(b"ruined\n")
    directory = directory_of(services, spec)
    found, before = verify(services, directory), contents(spec)
    with pytest.raises(JobConflict, match="changed meanwhile"):
        repair(services, directory, found, meanwhile(lambda: cancel(services, "j")))
    assert contents(spec) == before
    look_after(services, "j")  # which had to wait for the lock
    assert services.jobs.record("j").state is JobState.CANCELLED


def test_a_paused_job_is_not_resumed_while_it_is_repaired(
    services: Services, tmp_path: Path
) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0, 1)
    pause(services, "j")
    services.redis.raw.delete(spec.queue)
    object_of(spec, 1).write_bytes(b"ruined\n")
    directory = directory_of(services, spec)

    def refused() -> None:
        with pytest.raises(JobConflict, match="job j is being repaired; it cannot be resumed"):
            resume(services, "j")
        assert services.jobs.record("j").state is JobState.PAUSED

    repair(services, directory, verify(services, directory), meanwhile(refused))
    resume(services, "j")
    assert waiting(services, spec) == [1, 2]
    work(services, spec, 1, 2)
    assert verify(services, directory).ok


def test_the_lock_of_one_that_died_runs_out(
    services: Services, ruined: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_LETTING_GO_S", 0.05)
    directory = directory_of(services, ruined)
    services.redis.raw.set(JobKeys("j").finalizer, "dead", px=60_000)
    with pytest.raises(JobConflict, match="being repaired"):
        repair(services, directory, verify(services, directory))
    services.redis.raw.pexpire(JobKeys("j").finalizer, 1)
    wait_until(lambda: not services.redis.raw.exists(JobKeys("j").finalizer), 10)
    repair(services, directory, verify(services, directory))
    assert waiting(services, ruined) == [1]


# --- restorations ---


def test_a_slow_restoration_leaves_what_a_faster_one_ended(
    services: Services, tmp_path: Path
) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0, 1, 2)
    object_of(spec, 1).unlink()
    lose(services)
    directory, ended = directory_of(services, spec), list[object]()

    def faster() -> None:
        lose_the_lock(services)
        restore(services, directory)
        work(services, spec, 1)
        assert verify(services, directory).ok
        ended.append((known(services), contents(spec)))

    with pytest.raises(JobConflict, match="Redis knows job j"):
        restore(services, directory, meanwhile(faster))
    assert [(known(services), contents(spec))] == ended
    assert directory.has_success()


def test_nobody_ends_a_job_while_its_record_is_made_anew(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0, 1, 2)
    (Path(spec.directory.root) / "summary.json").unlink()
    lose(services)
    directory, seen = directory_of(services, spec), list[JobState]()
    delete_success = JobDirectory.delete_success

    def after_a_reader(self: JobDirectory) -> None:
        look_after(services, "j")
        seen.append(services.jobs.record("j").state)
        delete_success(self)

    monkeypatch.setattr(JobDirectory, "delete_success", after_a_reader)
    assert restore(services, directory).status().state is JobState.SUCCEEDED
    assert seen == [JobState.FINALIZING]
    assert Job(services, "j").status().terminal
    assert verify(services, directory).ok
