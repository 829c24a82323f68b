"""The index of jobs, walked from the newest to the oldest."""

from __future__ import annotations

import pytest

from millrace.core import jobindex
from millrace.core.jobindex import JobIndex, Place
from millrace.core.services import Services
from millrace.core.topology import JOBS
from tests.unit.core.support import a_spec


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_jobs_of_one_moment_are_all_seen_once(
    services: Services, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobindex, "AT_ONCE", at_once)
    services.redis.raw.zadd(JOBS, {f"j{n:02d}": 1000 + n // 5 for n in range(13)})
    index = JobIndex(services.redis)
    expected = [Place(1000 + n // 5, f"j{n:02d}") for n in range(12, -1, -1)]
    assert [*index.before(None)] == expected
    for at, place in enumerate(expected):
        assert [*index.before(place)] == expected[at + 1 :]


def test_a_brief_is_of_a_job_that_can_be_read(services: Services) -> None:
    services.jobs.create(a_spec("whole", labels={"a": "b"}))
    services.redis.raw.set("millrace:{odd}:record", "x")
    services.redis.raw.hset("millrace:{half}:record", "state", "running")
    services.redis.raw.hset("millrace:{wrong}:record", mapping={"spec": "{}", "state": "running"})
    places = [Place(1, job) for job in ("whole", "odd", "half", "wrong", "gone")]
    (brief,) = JobIndex(services.redis).briefs(places)
    assert (brief.place.job, brief.state, brief.spec.labels) == ("whole", "queued", {"a": "b"})
