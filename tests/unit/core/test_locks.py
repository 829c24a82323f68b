"""The locks of listing and finalizing: one holder each, and no lock outlives a dead one."""

from __future__ import annotations

import pytest

from millrace.core import locks
from millrace.core.errors import JobConflict
from millrace.core.locks import finalizing, producing, rebuilding
from millrace.core.services import Services
from millrace.core.topology import JobKeys


def test_one_process_lists_a_job_at_a_time(services: Services) -> None:
    with producing(services.redis, "job") as still_ours:
        assert still_ours()
        with pytest.raises(JobConflict, match="listed by another process"):
            producing(services.redis, "job").__enter__()
        with producing(services.redis, "other"):
            pass
        services.redis.raw.set(JobKeys("job").producer, "somebody else")
        assert not still_ours()
    assert services.redis.raw.get(JobKeys("job").producer) == b"somebody else"
    services.redis.raw.delete(JobKeys("job").producer)
    with producing(services.redis, "job"):
        pass


def test_one_process_finalizes_at_a_time(services: Services) -> None:
    with finalizing(services.redis, "job") as first:
        assert first is not None
        with finalizing(services.redis, "job") as second:
            assert second is None
        with finalizing(services.redis, "other") as other:
            assert other is not None
        with finalizing(services.redis, "job") as third:
            assert third is None
    with finalizing(services.redis, "job") as again:
        assert again is not None


def test_nobody_finalizes_while_the_record_is_made_anew(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_LETTING_GO_S", 0.05)
    with rebuilding(services.redis, "job") as still_ours:
        assert still_ours()
        with finalizing(services.redis, "job") as keep:
            assert keep is None
        with pytest.raises(JobConflict, match="repaired or ended by another process"):
            rebuilding(services.redis, "job").__enter__()
        services.redis.raw.set(JobKeys("job").finalizer, "somebody else")
        assert not still_ours()
    assert services.redis.raw.get(JobKeys("job").finalizer) == b"somebody else"


def test_a_finalizer_that_is_about_to_let_go_is_waited_for(services: Services) -> None:
    services.redis.raw.set(JobKeys("job").finalizer, "somebody else", px=300)
    with rebuilding(services.redis, "job") as still_ours:
        assert still_ours()


def test_a_finalizer_that_fails_gives_the_lock_back(services: Services) -> None:
    with pytest.raises(RuntimeError), finalizing(services.redis, "job"):
        raise RuntimeError
    with finalizing(services.redis, "job") as keep:
        assert keep is not None


def test_a_finalizer_that_died_holds_the_lock_for_a_minute(services: Services) -> None:
    with finalizing(services.redis, "job"):
        assert 50_000 < services.redis.raw.pttl(JobKeys("job").finalizer) <= 60_000


def test_a_finalizer_that_goes_on_keeps_its_lock(services: Services) -> None:
    raw, key = services.redis.raw, JobKeys("job").finalizer
    with finalizing(services.redis, "job") as keep:
        assert keep is not None
        raw.pexpire(key, 5_000)
        keep()
        assert 50_000 < raw.pttl(key) <= 60_000
    assert not raw.exists(key)


def test_a_lock_that_ran_out_cannot_be_kept_and_is_left_to_the_next(services: Services) -> None:
    raw, key = services.redis.raw, JobKeys("job").finalizer
    with finalizing(services.redis, "job") as keep:
        assert keep is not None
        raw.delete(key)
        keep()
        assert not raw.exists(key)
        raw.set(key, "somebody else", px=5_000)
        keep()
        assert (raw.get(key), raw.pttl(key) <= 5_000) == (b"somebody else", True)


def test_a_finalizer_that_was_too_slow_does_not_take_the_next_ones_lock(
    services: Services,
) -> None:
    key = JobKeys("job").finalizer
    with finalizing(services.redis, "job"):
        services.redis.raw.set(key, "somebody else")
    assert services.redis.raw.get(key) == b"somebody else"
