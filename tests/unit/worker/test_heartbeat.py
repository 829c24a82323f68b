"""The heartbeat, on a real Redis: it keeps leases alive and tells of the worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from millrace.cli.embedded_redis import EmbeddedRedis
from millrace.core.claims import Claims, Lease, ModelIdentity
from millrace.core.errors import RedisUnavailable
from millrace.core.fleet import Fleet, SeenWorker
from millrace.core.job import JobSpec
from millrace.core.periodic import Periodic
from millrace.core.running import Running
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import QueueKeys
from millrace.worker import heartbeat
from millrace.worker.heartbeat import Heartbeat, worker_name
from millrace.worker.in_hand import InHand
from tests.support import capture_logs, submitted, wait_until

QUEUES = ("millrace.tiny", "millrace.tiny:1")
NAME = "1@host/abc"
RUNNING = Running("tensorflow", "it was asked for", "float32", 16)


class Beating:
    """A worker's heart and what it looks after."""

    def __init__(self, redis_url: str, lease_s: float) -> None:
        self.services = Services(Settings.load(redis_url=redis_url))
        self.claims = Claims(self.services.redis, worker=NAME, lease_s=lease_s, max_attempts=3)
        self.in_hand = InHand()
        self.heartbeat = Heartbeat(
            NAME, "tiny:1", QUEUES, 3, lease_s, self.claims, self.services.fleet, self.in_hand
        )

    def close(self) -> None:
        self.services.redis.close()

    def seen(self) -> SeenWorker | None:
        """This worker, as whoever looks at the fleet sees it."""
        found = [seen for seen in self.services.fleet.workers() if seen.info.worker == NAME]
        return found[0] if found else None

    def state(self) -> str | None:
        seen = self.seen()
        return seen.info.state if seen else None

    def claim(self, spec: JobSpec, chunk: int, lease_s: float = 1) -> Lease:
        claims = Claims(self.services.redis, worker=NAME, lease_s=lease_s, max_attempts=3)
        answer, lease = claims.claim(spec.queue, spec.job_id, chunk, ModelIdentity("1", "sha256:0"))
        assert answer.holds_lease
        return lease

    def expiry_ms(self, lease: Lease) -> float | None:
        score = self.services.redis.raw.zscore(QueueKeys(lease.queue).leases, lease.member)
        return None if score is None else float(score)

    def sit_out(self, lease: Lease) -> None:
        """Until the term it was taken for is over."""
        first = self.expiry_ms(lease)
        assert first is not None
        wait_until(lambda: self.services.redis.now_ms() > first + 50, 10, "the first term is over")

    def holds(self, lease: Lease) -> bool:
        expiry = self.expiry_ms(lease)
        return expiry is not None and expiry > self.services.redis.now_ms()


@pytest.fixture
def beating(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Beating]:
    made = Beating(redis_url, getattr(request, "param", 1))
    yield made
    made.close()


fast = pytest.mark.parametrize("beating", [0.15], indirect=True, ids=["fast"])
"""For what does not depend on the lease: beats a twentieth of a second apart."""


@contextmanager
def started(heartbeat: Heartbeat) -> Iterator[None]:
    heartbeat.start(lambda: RUNNING)
    try:
        yield
    finally:
        heartbeat.stop()


def job(services: Services, root: Path) -> JobSpec:
    (root / "in").mkdir()
    for n in range(4):
        (root / "in" / f"{n}.png").write_bytes(b"x")
    return submitted(services, root, chunk_size=2)


def test_a_worker_can_be_announced_before_its_heart_beats(beating: Beating) -> None:
    beating.heartbeat.announce("loading")
    seen = beating.seen()
    assert seen is not None
    assert seen.info.state == "loading"
    assert (seen.info.model, seen.info.slots) == ("tiny:1", 3)
    assert seen.info.queues.split() == list(QUEUES)
    assert not seen.lost


@fast
def test_it_says_whether_the_worker_is_idle_busy_or_stopping(
    beating: Beating, tmp_path: Path
) -> None:
    spec = job(beating.services, tmp_path)
    with started(beating.heartbeat):
        wait_until(lambda: beating.state() == "idle", 10)
        lease = beating.claim(spec, 0)
        beating.in_hand.add(lease)
        wait_until(lambda: beating.state() == "busy", 10)
        beating.in_hand.remove(lease, images=2)
        wait_until(lambda: beating.state() == "idle", 10)
        beating.in_hand.close()
        wait_until(lambda: beating.state() == "stopping", 10)


@pytest.mark.parametrize("beating", [90], indirect=True, ids=["slow"])
def test_it_tells_how_the_model_runs_as_soon_as_it_is_known(beating: Beating) -> None:
    told = RUNNING

    def seen() -> Running | None:
        worker = beating.seen()
        return worker.info.running if worker else None

    beating.heartbeat.announce("loading")
    assert seen() is None
    beating.heartbeat.start(lambda: told)
    try:
        wait_until(lambda: seen() == RUNNING, 10)
        told = replace(RUNNING, to_compare=16, compared=16, top_1_agreement=1.0)
        beating.heartbeat.soon()
        wait_until(lambda: seen() == told, 10)
    finally:
        beating.heartbeat.stop()


@fast
def test_it_tells_how_many_images_and_how_fast(beating: Beating) -> None:
    with started(beating.heartbeat):
        wait_until(lambda: beating.state() == "idle", 10)
        beating.in_hand.remove(Lease(QUEUES[0], "job", 0, "t", 1), images=500)

        def measured() -> bool:
            seen = beating.seen()
            return seen is not None and seen.info.images == 500 and seen.info.images_per_s > 0

        wait_until(measured, 10)


def test_it_beats_thrice_in_a_lease(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    periods: list[float] = []

    def noted(name: str, every_s: float, action: Callable[[], object]) -> Periodic:
        periods.append(every_s)
        return Periodic(name, every_s, action)

    monkeypatch.setattr(heartbeat, "Periodic", noted)
    Beating(redis_url, lease_s=30).close()
    assert periods == [10]


def test_a_lease_in_hand_does_not_expire(beating: Beating, tmp_path: Path) -> None:
    spec = job(beating.services, tmp_path)
    lease = beating.claim(spec, 0)
    beating.in_hand.add(lease)
    with started(beating.heartbeat):
        beating.sit_out(lease)
        wait_until(lambda: beating.holds(lease), 10)
    assert beating.services.jobs.running_chunks(spec.job_id) == {0}


@fast
def test_a_lease_that_is_not_in_hand_is_let_go(beating: Beating, tmp_path: Path) -> None:
    """As of a worker that died."""
    spec = job(beating.services, tmp_path)
    mine, other = beating.claim(spec, 0), beating.claim(spec, 1, lease_s=0.3)
    beating.in_hand.add(mine)
    with started(beating.heartbeat):
        beating.sit_out(other)
        assert not beating.holds(other)


@fast
def test_a_finished_lease_is_not_brought_back(beating: Beating, tmp_path: Path) -> None:
    spec = job(beating.services, tmp_path)
    lease = beating.claim(spec, 0)
    beating.in_hand.add(lease)
    with started(beating.heartbeat):
        wait_until(lambda: beating.state() == "busy", 10)
        beating.claims.release(lease)
        beating.in_hand.remove(lease)
        wait_until(lambda: beating.state() == "idle", 10)
        assert beating.expiry_ms(lease) is None


@fast
def test_its_slots_count_while_it_beats_and_not_after(beating: Beating) -> None:
    redis = beating.services.redis.raw
    with started(beating.heartbeat):
        for queue in QUEUES:
            wait_until(lambda q=queue: redis.zrange(QueueKeys(q).fleet, 0, -1), 10)  # type: ignore[misc]
            assert redis.zrange(QueueKeys(queue).fleet, 0, -1) == [f"3|{NAME}".encode()]
    assert all(redis.zcard(QueueKeys(queue).fleet) == 0 for queue in QUEUES)
    assert beating.seen() is None


@fast
def test_a_beat_that_fails_is_not_the_last(beating: Beating) -> None:
    """A key of another kind where the fleet should be: every command on it fails."""
    key = QueueKeys(QUEUES[0]).fleet
    beating.services.redis.raw.set(key, "in the way")
    with capture_logs() as logs, started(beating.heartbeat):
        wait_until(lambda: any("failed" in entry["event"] for entry in logs), 10)
        assert beating.state() is None
        beating.services.redis.raw.delete(key)
        wait_until(lambda: beating.state() == "idle", 10)


def test_leaving_says_goodbye(beating: Beating) -> None:
    beating.heartbeat.announce("loading")
    beating.heartbeat.leave()
    assert beating.seen() is None
    beating.heartbeat.leave()  # and does no harm twice


def test_it_outlives_a_redis_that_goes_away() -> None:
    with EmbeddedRedis() as server:
        beating = Beating(server.url, lease_s=0.15)
        beating.heartbeat.start(lambda: RUNNING)
        wait_until(lambda: beating.state() == "idle", 10)
    beating.heartbeat.stop()  # it cannot say goodbye, and says so in the log
    with pytest.raises(RedisUnavailable):
        Fleet(beating.services.redis).workers()
    beating.close()


def test_names_are_unique_within_a_process() -> None:
    names = {worker_name() for _ in range(50)}
    assert len(names) == 50
    assert all(name.startswith(f"{os.getpid()}@") for name in names)
    assert not any(character in name for name in names for character in " |:")
