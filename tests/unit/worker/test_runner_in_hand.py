"""The chunk in hand while it runs, while its worker stops, and while Redis is away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from millrace.core.claims import Lease
from millrace.core.errors import RedisUnavailable
from millrace.core.job import JobState
from millrace.core.topology import QueueKeys
from tests.support import wait_until
from tests.unit.worker.runner_bench import QUEUE, Bench, mean


def test_a_chunk_is_in_hand_while_it_runs(bench: Bench) -> None:
    spec = bench.job(images=5)
    seen: list[list[Lease]] = []

    def noting(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        seen.append(bench.in_hand.leases())
        return mean(batch)

    bench.predict = noting
    bench.handle(spec, 0)
    assert {(lease.queue, lease.job, lease.chunk, lease.attempt) for (lease,) in seen} == {
        (QUEUE, spec.job_id, 0, 1)
    }
    assert bench.in_hand.leases() == []
    assert bench.in_hand.images == 3
    bench.handle(spec, 1)
    assert bench.in_hand.images == 5


def test_a_stopping_worker_hands_a_chunk_back_without_an_attempt(bench: Bench) -> None:
    spec = bench.job(images=3)
    bench.in_hand.close()
    bench.handle(spec, 0)
    assert bench.predicted == 0
    assert bench.leases() == []
    assert bench.services.jobs.running_chunks(spec.job_id) == set()
    assert bench.attempts(spec, 0) == 0
    assert bench.record(spec).done == 0


def test_closing_waits_for_the_chunk_that_runs(bench: Bench) -> None:
    spec = bench.job(images=3)
    running, go_on = threading.Event(), threading.Event()

    def waiting(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        running.set()
        assert go_on.wait(30)
        return mean(batch)

    bench.predict = waiting
    threading.Thread(target=bench.handle, args=(spec, 0), daemon=True).start()
    assert running.wait(30)
    assert bench.in_hand.close() == 1
    go_on.set()
    bench.in_hand.wait_empty()
    wait_until(lambda: bench.record(spec).state is JobState.SUCCEEDED, 10)


def failing_finish(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, times: int, then: Callable[[], object]
) -> None:
    """`finish` fails so often; `then` is called with the last failure."""
    honest, failures = bench.claims.finish, iter(range(1, times + 1))

    def finish(*arguments: Any) -> Any:
        failure = next(failures, None)
        if failure is None:
            return honest(*arguments)
        if failure == times:
            then()
        raise RedisUnavailable("gone")

    monkeypatch.setattr(bench.claims, "finish", finish)
    monkeypatch.setattr("millrace.worker.runner.AGAIN_S", 0.001)


def test_a_committed_chunk_is_counted_when_redis_is_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = bench.job()
    held: list[int] = []
    failing_finish(bench, monkeypatch, 3, lambda: held.append(len(bench.in_hand.leases())))
    bench.handle(spec, 0)
    assert held == [1]
    assert bench.record(spec).done == 1
    assert bench.predicted == 3


def test_a_worker_that_is_told_to_stop_does_not_wait_for_redis(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = bench.job()
    failing_finish(bench, monkeypatch, 3, bench.in_hand.close)
    bench.handle(spec, 0)
    assert bench.in_hand.leases() == []
    assert bench.record(spec).done == 0
    assert len(bench.lines(spec, 0)) == 3


def test_a_chunk_in_hand_is_not_run_a_second_time_beside_itself(bench: Bench) -> None:
    spec = bench.job()
    lease = bench.claim(spec, 0)
    bench.in_hand.add(lease)
    bench.services.redis.raw.zadd(QueueKeys(QUEUE).leases, {lease.member: 1})  # it ran out
    bench.handle(spec, 0)
    assert bench.predicted == 0
    (held,) = bench.in_hand.leases()
    assert held.token != lease.token
    bench.claims.renew(QUEUE, "3|bench", [held])
    assert bench.services.redis.raw.zscore(QueueKeys(QUEUE).leases, lease.member) > 1
