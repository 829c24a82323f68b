"""Pages that are open while Redis is away say so, and take it back once it has come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from millrace.core.job import JobSpec
from millrace.core.services import Services
from millrace.producer.web import jobs_pages, streams
from tests.faults.redis_server import MortalRedis
from tests.unit.core.test_fleet import ONE
from tests.unit.producer.support import listed_job
from tests.unit.producer.web.test_live import listening

STREAMS = ("/live", "/live?state=running", "/jobs/j/live")


@pytest.fixture
def redis() -> Iterator[MortalRedis]:
    with MortalRedis(append_only=True) as server:
        yield server


@pytest.fixture
def redis_url(redis: MortalRedis) -> str:
    return redis.url


@pytest.fixture
def job(services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    monkeypatch.setattr(streams, "EVERY_S", 0.05)
    monkeypatch.setattr(jobs_pages, "CALM_S", 0)
    return listed_job(services, tmp_path / "out", images=4)


def next_away(told: Iterator[tuple[str, str]]) -> str:
    return next(data for name, data in told if name == "away")


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_tells_that_redis_is_away_and_that_it_is_back(
    path: str, client: httpx.Client, job: JobSpec, redis: MortalRedis
) -> None:
    with listening(client, path) as told:
        assert next(told)[0] != "away"
        redis.die()
        assert next_away(told).startswith("cannot reach Redis")
        redis.come_back()
        assert next_away(told) == ""


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_that_begins_meanwhile_tells_it_first(
    path: str, client: httpx.Client, job: JobSpec, redis: MortalRedis
) -> None:
    redis.die()
    with listening(client, path) as told:
        name, data = next(told)
        assert (name, data.startswith("cannot reach Redis")) == ("away", True)
        redis.come_back()
        assert next(told) == ("away", "")
        assert any("running" in data for _, data in told)


def test_who_would_answer_a_picture_is_not_known(
    client: httpx.Client, services: Services, redis: MortalRedis
) -> None:
    services.fleet.announce(ONE)
    redis.die()
    page = client.get("/try")
    assert page.status_code == 200
    assert "cannot reach Redis" in page.text
    assert "No worker is up" not in page.text
