"""The worker registry on a real Redis."""

from __future__ import annotations

from dataclasses import replace

import pytest

from millrace.core.errors import CorruptRecord
from millrace.core.fleet import FORGOTTEN_AFTER_S, SILENT_AFTER_S, Fleet, WorkerInfo
from millrace.core.running import Running
from millrace.core.services import Services
from millrace.core.topology import WORKERS, QueueKeys, worker_key

ONE = WorkerInfo(
    worker="1@host/ab",
    model="tiny:1",
    queues="millrace.tiny millrace.tiny:1",
    state="busy",
    slots=4,
    images=100,
    images_per_s=12.5,
    started_ms=1,
)

RUNNING = Running(
    "openvino", "it is installed, and takes the model", "bfloat16", 16, 32, 16, 0.9375
)


@pytest.fixture
def fleet(services: Services) -> Fleet:
    return services.fleet


def seen_ago(services: Services, worker: str, seconds: float) -> None:
    """Put a worker's last sign of life into the past, by the time of Redis."""
    now, _ = services.redis.raw.time()
    services.redis.raw.zadd(WORKERS, {worker: int((now - seconds) * 1000)})


def test_a_worker_is_seen_as_it_described_itself(fleet: Fleet) -> None:
    fleet.announce(ONE)
    (seen,) = fleet.workers()
    assert seen.info == ONE
    assert not seen.lost
    assert 0 <= seen.silent_s < 10


def test_its_last_description_counts(fleet: Fleet) -> None:
    fleet.announce(ONE)
    fleet.announce(replace(ONE, state="idle", images=200))
    (seen,) = fleet.workers()
    assert (seen.info.state, seen.info.images) == ("idle", 200)


def test_nobody_is_an_empty_list(fleet: Fleet) -> None:
    assert fleet.workers() == []


def test_those_seen_last_come_first(services: Services, fleet: Fleet) -> None:
    for name, ago in (("a", 20.0), ("b", 5.0), ("c", 30.0)):
        fleet.announce(replace(ONE, worker=name))
        seen_ago(services, name, ago)
    assert [seen.info.worker for seen in fleet.workers()] == ["b", "a", "c"]


def test_a_worker_silent_for_a_minute_is_lost(services: Services, fleet: Fleet) -> None:
    fleet.announce(ONE)
    seen_ago(services, ONE.worker, SILENT_AFTER_S - 5)
    assert not fleet.workers()[0].lost
    seen_ago(services, ONE.worker, SILENT_AFTER_S + 5)
    assert fleet.workers()[0].lost


def test_a_worker_silent_for_ten_minutes_is_forgotten(services: Services, fleet: Fleet) -> None:
    fleet.announce(ONE)
    assert 0 < services.redis.raw.ttl(worker_key(ONE.worker)) <= FORGOTTEN_AFTER_S
    seen_ago(services, ONE.worker, FORGOTTEN_AFTER_S + 5)
    assert fleet.workers() == []
    assert services.redis.raw.zcard(WORKERS) == 0


def test_a_worker_whose_description_has_expired_is_passed_over(
    services: Services, fleet: Fleet
) -> None:
    fleet.announce(ONE)
    fleet.announce(replace(ONE, worker="other"))
    services.redis.raw.delete(worker_key(ONE.worker))
    assert [seen.info.worker for seen in fleet.workers()] == ["other"]


def test_leaving_takes_its_description_and_its_slots(services: Services, fleet: Fleet) -> None:
    keys = [QueueKeys(queue).fleet for queue in ONE.queues.split()]
    for key in keys:
        services.redis.raw.zadd(key, {"4|1@host/ab": 2**50, "2|other": 2**50})
    fleet.announce(ONE)
    fleet.leave(ONE.worker, "4|1@host/ab", keys)
    assert fleet.workers() == []
    assert [services.redis.raw.zrange(key, 0, -1) for key in keys] == [[b"2|other"]] * 2


def test_leaving_without_having_come_is_no_error(fleet: Fleet) -> None:
    fleet.leave("nobody", "1|nobody", [])


@pytest.mark.parametrize("field", [{"slots": "many"}, {"images_per_s": "fast"}])
def test_a_description_that_is_not_ours_is_corrupt(
    services: Services, fleet: Fleet, field: dict[str, str]
) -> None:
    fleet.announce(ONE)
    services.redis.raw.hset(worker_key(ONE.worker), mapping=field)
    with pytest.raises(CorruptRecord):
        fleet.workers()


def test_an_incomplete_description_is_corrupt(services: Services, fleet: Fleet) -> None:
    fleet.announce(ONE)
    services.redis.raw.hdel(worker_key(ONE.worker), "model")
    with pytest.raises(CorruptRecord):
        fleet.workers()


def test_how_the_model_runs_is_told_once_it_is_loaded(fleet: Fleet) -> None:
    fleet.announce(replace(ONE, state="loading"))
    assert fleet.workers()[0].info.running is None
    fleet.announce(replace(ONE, running=RUNNING))
    assert fleet.workers()[0].info.running == RUNNING


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        RUNNING.to_json().replace(b"openvino", b"open[red]vino"),
        RUNNING.to_json().replace(b"takes", b"\\u001b[31m"),
        RUNNING.to_json().replace(b"takes", b"x" * 1000),
        RUNNING.to_json().replace(b"0.9375", b"1.5"),
        RUNNING.to_json().replace(b"0.9375", b"NaN"),
        RUNNING.to_json().replace(b"0.9375", b'"most"'),
        RUNNING.to_json().replace(b":32", b":-32"),
    ],
)
def test_what_no_worker_tells_of_its_model_is_corrupt(
    written: bytes, services: Services, fleet: Fleet
) -> None:
    fleet.announce(replace(ONE, running=RUNNING))
    services.redis.raw.hset(worker_key(ONE.worker), "running", written)
    with pytest.raises(CorruptRecord):
        fleet.workers()
