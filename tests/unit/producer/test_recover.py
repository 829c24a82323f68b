"""Who may go on with a job, in which states, and what its health says meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from millrace.core import locks, status
from millrace.core.errors import JobConflict, JobNotFound
from millrace.core.job import JobState, Reason
from millrace.core.locks import producing
from millrace.core.manifest import ManifestRow
from millrace.core.periodic import Periodic
from millrace.core.services import Services
from millrace.core.storage import Location
from millrace.core.topology import JobKeys, QueueKeys
from millrace.producer.control import cancel, pause
from millrace.producer.enqueue import enqueue, give_up
from millrace.producer.job import Job
from millrace.producer.recover import go_on
from millrace.producer.source import image_references
from tests.support import wait_until
from tests.unit.core.support import MODEL, a_spec, a_worker, created
from tests.unit.producer.half_listed import PART, HalfListed
from tests.unit.producer.support import known, listed_job, waiting, work


def test_while_its_producer_lives_a_job_is_not_listed(services: Services, half: HalfListed) -> None:
    with producing(services.redis, "j"):
        with pytest.raises(JobConflict, match="listed by another process"):
            go_on(services, "j")
        assert len(half.manifest) == PART
    go_on(services, "j")
    assert len(half.manifest) == 10


def test_the_lock_is_kept_as_long_as_its_producer_lives(
    services: Services, half: HalfListed, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, raw = JobKeys("j").producer, services.redis.raw

    def hurried(name: str, every_s: float, keep: Callable[[], object]) -> Periodic:
        assert every_s <= locks.PRODUCER_LOCK_S / 4
        return Periodic(name, 0.05, keep)

    monkeypatch.setattr(locks, "Periodic", hurried)
    with producing(services.redis, "j"):
        for _ in range(5):
            raw.pexpire(key, 30_000)
            wait_until(lambda: raw.pttl(key) > 50_000, 10, "the lock is renewed again and again")
        with pytest.raises(JobConflict):
            go_on(services, "j")
    assert not services.redis.raw.exists(key)


def test_a_dead_producer_s_lock_expires(
    services: Services, half: HalfListed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "UNLISTED_AFTER_S", -1)
    services.redis.raw.set(JobKeys("j").producer, "dead", px=60_000)
    with pytest.raises(JobConflict) as refused:
        go_on(services, "j")
    assert locks.PRODUCER_LOCK_S <= 60
    assert "runs out within a minute" in (refused.value.hint or "")
    services.redis.raw.pexpire(JobKeys("j").producer, 1)
    wait_until(lambda: Job(services, "j").status().health == "no_producer", 10)
    go_on(services, "j")
    half.finish()


def test_the_health_tells_of_the_missing_producer(
    services: Services, half: HalfListed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "UNLISTED_AFTER_S", -1)
    job = Job(services, "j")
    services.redis.raw.zadd(QueueKeys(half.spec.queue).fleet, {"3|w": 2**50})
    assert job.status().health == "no_producer"
    with producing(services.redis, "j"):
        assert job.status().health != "no_producer"
    go_on(services, "j")
    assert job.status().health == "ok"


def test_a_job_that_is_paused_and_half_listed_is_listed_and_runs(
    services: Services, half: HalfListed
) -> None:
    pause(services, "j")
    services.redis.raw.delete(half.spec.queue)  # workers drop a paused job's messages
    assert Job(services, "j").status().health == "ok"
    go_on(services, "j")
    status = Job(services, "j").status()
    assert (status.state, status.counts.total) == (JobState.RUNNING, 10)
    assert waiting(services, half.spec) == [0, 1, 2, 3, 4]
    half.finish()


def test_a_paused_job_goes_on(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path)
    pause(services, "j")
    go_on(services, "j")
    assert Job(services, "j").status().state is JobState.RUNNING
    work(services, spec, 0, 1, 2)
    assert Job(services, "j").status().state is JobState.SUCCEEDED


def test_going_on_with_a_job_under_way_changes_nothing(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 1)
    before = known(services)
    go_on(services, "j")
    assert known(services) == before


def test_a_job_that_has_ended_does_not_go_on(services: Services, half: HalfListed) -> None:
    give_up(services, "j", JobState.CANCELLED, Reason.REQUESTED)
    with pytest.raises(JobConflict, match="cancelled; it cannot be resumed"):
        go_on(services, "j")
    assert len(half.manifest) == PART


def test_a_job_whose_chunks_are_ending_is_not_listed(services: Services, half: HalfListed) -> None:
    a_worker(services).claim(half.spec.queue, "j", 0, MODEL)
    cancel(services, "j")
    with pytest.raises(JobConflict, match="cancelling; it cannot be resumed"):
        go_on(services, "j")


def test_a_job_that_is_not_there_does_not_go_on(services: Services) -> None:
    with pytest.raises(JobNotFound):
        go_on(services, "nobody")


def test_a_producer_that_stood_still_leaves_the_job_to_another(
    services: Services, tmp_path: Path
) -> None:
    photos = tmp_path / "in"
    photos.mkdir()
    for n in range(3):
        (photos / f"{n}.jpg").touch()
    spec = a_spec("j", input={"uri": str(photos)}, output=str(tmp_path / "out"))
    created(services, spec)

    def frozen() -> Iterator[ManifestRow]:
        yield from image_references(services.stores, spec.input, Location.parse(spec.output))
        services.redis.raw.delete(JobKeys("j").producer)  # as it does by itself after a minute
        go_on(services, "j")

    with producing(services.redis, "j") as ours, pytest.raises(JobConflict, match="goes on"):
        enqueue(services, spec, frozen(), still_ours=ours)
    assert Job(services, "j").status().state == "running"
    assert known(services)["manifest"][2]
