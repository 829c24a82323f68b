"""Redis dies, goes away, stands still, fills up; the network to it breaks. Nothing is lost."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import pytest

from millrace.core.errors import RedisUnavailable
from millrace.core.manifest import ManifestRow
from millrace.producer.source import image_references
from tests.chaos.crew import CHUNK, LEASE_S, SLOTS, Crew
from tests.support import MILLRACE, millrace, wait_until

IMAGES = 48
CHUNKS = IMAGES // CHUNK
IN_HAND = 2 * SLOTS


@contextmanager
def started(*arguments: str, crew: Crew) -> Iterator[subprocess.Popen[str]]:
    """A command under way; it must end by itself."""
    process = subprocess.Popen(
        [*MILLRACE, *arguments],
        env={**os.environ, **crew.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_redis_killed_and_back_from_its_append_only_file(crew: Crew) -> None:
    crew.close_gates()
    job = crew.enqueue()
    crew.all_slots_taken()
    crew.redis.die()
    crew.redis.come_back()
    assert crew.status(job).counts.pending == IMAGES
    crew.open_gates()
    crew.wait(job)
    crew.assert_exact(job)


def test_redis_away_while_chunks_end_and_somebody_watches(crew: Crew) -> None:
    crew.close_gates()
    request = (*crew.request(crew.inputs.few), "--job-id", "watched", "--wait")
    with ExitStack() as stack:
        waits = stack.enter_context(started(*request, crew=crew))
        crew.all_slots_taken()
        watches = stack.enter_context(started("status", "watched", "--watch", crew=crew))
        wait_until(lambda: watchers(crew) == 2, 90, "both watch")
        again = crew.logs().count("will run again")
        crew.redis.shut_down()
        crew.open_gates()
        wait_until(lambda: len(crew.committed("watched")) == IN_HAND, 90, "they are committed")
        before = crew.committed("watched")
        assert millrace("status", "watched", env=crew.env).returncode == 5
        crew.redis.come_back()
        for watcher in (watches, waits):
            _, told = watcher.communicate(timeout=180)
            assert watcher.returncode == 0, told
            assert "waiting for Redis" in told
    crew.assert_exact("watched")
    assert crew.logs().count("will run again") == again
    assert crew.runs("watched") == {chunk: ["FIRST"] for chunk in range(CHUNKS)}
    after = crew.committed("watched")
    assert {path: after[path] for path in before} == before


def watchers(crew: Crew) -> int:
    """Connections whose last command is the last of a status."""
    return sum(client["cmd"] == "zcount" for client in crew.redis.raw.client_list())


def test_redis_frozen_for_longer_than_the_leases(crew: Crew) -> None:
    crew.close_gates()
    job = crew.enqueue()
    crew.all_slots_taken()
    expired = crew.logs().count("a lease expired")
    crew.redis.freeze()
    frozen = time.monotonic()
    assert millrace("status", job, env=crew.env).returncode == 5
    wait_until(lambda: time.monotonic() - frozen > 2 * LEASE_S)
    crew.redis.thaw()
    thawed = time.monotonic()
    wait_until(lambda: time.monotonic() - thawed > LEASE_S)
    crew.open_gates()
    crew.wait(job)
    crew.assert_exact(job)
    # Every worker lived, so every chunk stayed where it was.
    assert crew.logs().count("a lease expired") == expired
    assert crew.runs(job) == {chunk: ["FIRST"] for chunk in range(CHUNKS)}


def test_connections_reset_again_and_again_on_a_slow_network(crew: Crew) -> None:
    crew.close_gates()
    for member in crew.members:
        member.proxy.slow_down(delay_s=0.02)
    job = crew.enqueue()
    crew.all_slots_taken()
    for member in crew.members:
        member.gate.hold(0.05)
    for done in range(1, CHUNKS):
        wait_until(lambda least=done: crew.done(job) >= least, 90, "it goes on")  # type: ignore[misc]
        for member in crew.members:
            member.proxy.reset()
    crew.wait(job)
    crew.assert_exact(job)


def test_redis_is_full_and_workers_wait(crew: Crew) -> None:
    crew.close_gates()
    job = crew.enqueue()
    crew.all_slots_taken()
    expired = crew.logs().count("a lease expired")
    crew.redis.fill_up()
    full = time.monotonic()
    refused = millrace(*crew.request(crew.inputs.few), "--job-id", "refused", env=crew.env)
    assert refused.returncode == 5
    error, hint = refused.stderr.splitlines()
    assert error.endswith("is full")
    wait_until(lambda: time.monotonic() - full > 1.5 * LEASE_S)
    crew.open_gates()
    # What is in hand is counted all the same: it takes hardly any memory.
    wait_until(lambda: crew.done(job) == IN_HAND, 90)
    wait_until(lambda: "could not claim a chunk" in crew.logs(), 90)
    assert crew.status(job).counts.pending == IMAGES - IN_HAND * CHUNK
    crew.redis.make_room()
    crew.wait(job)
    crew.assert_exact(job)
    assert crew.logs().count("a lease expired") == expired
    assert crew.runs(job) == {chunk: ["FIRST"] for chunk in range(CHUNKS)}
    _, resume = hint.split("millrace ")
    assert millrace(*resume.split(), env=crew.env).returncode == 0
    crew.wait("refused")
    crew.assert_exact("refused")


def test_redis_s_disk_is_full_and_workers_wait(crew: Crew) -> None:
    pids = [member.pid for member in crew.members]
    idle = crew.logs().count("gives no messages now")
    crew.redis.fill_the_disk()
    wait_until(lambda: crew.logs().count("gives no messages now") >= idle + 4, 90, "they wait")
    crew.redis.empty_the_disk()
    crew.close_gates()
    job = crew.enqueue()
    crew.all_slots_taken()
    crew.redis.fill_the_disk()
    full = time.monotonic()
    refused = millrace(*crew.request(crew.inputs.few), env=crew.env)
    assert refused.returncode == 5
    assert "takes no writes now: MISCONF" in refused.stderr.splitlines()[0]
    crew.open_gates()
    wait_until(lambda: len(crew.committed(job)) == IN_HAND, 90, "they are committed")
    wait_until(lambda: time.monotonic() - full > 1.5 * LEASE_S)
    crew.redis.empty_the_disk()
    crew.wait(job)
    crew.assert_exact(job)
    assert crew.runs(job) == {chunk: ["FIRST"] for chunk in range(CHUNKS)}
    assert [member.pid for member in crew.members] == pids


def test_a_listing_that_finds_redis_full_is_gone_on_with(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up_at_the_end(*arguments: Any) -> Iterator[ManifestRow]:
        yield from image_references(*arguments)
        crew.redis.fill_up()

    # Not by its name, which the package gives to the function `submit`.
    module = import_module("millrace.producer.submit")
    monkeypatch.setattr(module, "image_references", fill_up_at_the_end)
    with pytest.raises(RedisUnavailable, match="is full") as caught:
        crew.enqueue(job_id="half")
    assert "millrace resume half" in (caught.value.hint or "")
    crew.redis.make_room()
    assert not crew.status("half").terminal
    assert millrace("resume", "half", env=crew.env).returncode == 0
    crew.wait("half")
    crew.assert_exact("half")
