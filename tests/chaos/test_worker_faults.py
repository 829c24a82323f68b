"""Workers freeze, fall silent, die; messages vanish; chunks last longer than leases."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from millrace.core.services import Services
from millrace.core.topology import QueueKeys
from tests.chaos.crew import CHUNK, LEASE_S, SLOTS, Crew, Inputs
from tests.faults.gate import Gate
from tests.support import millrace, millrace_json, running_worker, wait_until

CHUNKS = 48 // CHUNK
RESENT, EXPIRED = "re-sent chunks that were lost", "a lease expired"


def test_a_chunk_slower_than_its_lease_runs_once_and_vanished_messages_are_sent_again(
    crew: Crew,
) -> None:
    crew.close_gates()
    job = crew.enqueue()
    crew.all_slots_taken()

    def others_wait() -> bool:
        return len(crew.waiting(job)) == CHUNKS - 2 * SLOTS

    wait_until(others_wait, 90)
    resent, expired = (crew.logs().count(line) for line in (RESENT, EXPIRED))
    crew.redis.raw.delete(crew.queue)
    held = time.monotonic()
    wait_until(lambda: crew.logs().count(RESENT) > resent, 90)
    crew.redis.raw.rpop(crew.queue)  # as a worker does that dies before it claims
    wait_until(others_wait, 90)
    wait_until(lambda: time.monotonic() - held > 2.5 * LEASE_S)
    crew.open_gates()
    crew.wait(job)
    crew.assert_exact(job)
    assert crew.logs().count(EXPIRED) == expired
    assert crew.runs(job) == {chunk: ["FIRST"] for chunk in range(CHUNKS)}


def test_a_frozen_worker_that_wakes_up_changes_nothing(crew: Crew) -> None:
    crew.close_gates()
    job = crew.enqueue()
    crew.all_slots_taken()
    crew.far.signal(signal.SIGSTOP)
    crew.near.gate.open()
    crew.wait(job)
    crew.assert_exact(job)
    before = crew.committed(job)
    crew.far.gate.open()
    crew.far.signal(signal.SIGCONT)
    wait_until(lambda: sum(map(len, crew.runs(job).values())) == CHUNKS + SLOTS, 90)
    repeated = [answers for answers in crew.runs(job).values() if len(answers) > 1]
    assert [sorted(answers) for answers in repeated] == [["FIRST", "REPEAT"]] * SLOTS
    assert crew.committed(job) == before
    crew.assert_exact(job)


def test_a_worker_that_redis_lost_sight_of_commits_and_others_count_it(crew: Crew) -> None:
    crew.close_gates()
    job = crew.enqueue()
    crew.all_slots_taken()
    crew.far.proxy.partition()
    crew.far.gate.open()
    wait_until(lambda: len(crew.committed(job)) == SLOTS, 90, "it commits what it holds")
    before = crew.committed(job)
    crew.near.gate.open()
    crew.wait(job)
    crew.assert_exact(job)
    after = crew.committed(job)
    assert {path: after[path] for path in before} == before
    crew.far.proxy.heal()
    wait_until(lambda: crew.fleet_size() == 2, 90, "it is back")
    second = crew.enqueue()
    crew.wait(second)
    crew.assert_exact(second)
    assert crew.committed(job) == after
    crew.assert_exact(job)


def test_a_small_job_overtakes_a_big_one_on_the_same_model(crew: Crew) -> None:
    crew.close_gates()
    big = crew.enqueue(crew.inputs.many)
    crew.all_slots_taken()
    small = crew.enqueue()
    for member in crew.members:
        member.gate.hold(0.03)
    crew.wait(small)
    crew.open_gates()
    crew.wait(big)
    crew.assert_exact(small)
    crew.assert_exact(big)
    last = max(when for _, when in crew.committed(small).values())
    ended = [when for _, when in crew.committed(big).values()]
    assert sum(when < last for when in ended) < 0.8 * len(ended)


def test_a_job_nobody_works_on_is_taken_up_and_the_reconciler_is_replaced(
    tmp_path: Path, env: dict[str, str], inputs: Inputs, services: Services
) -> None:
    slow = env | {"MILLRACE_RECONCILE_S": "2"}  # so that the lock outlives its holder for a while
    gate = Gate(tmp_path / "gate")
    gate.close()
    request = ("enqueue", str(inputs.few), "--model", "tiny", "--out", str(tmp_path / "out"))
    job = millrace_json(*request, "--chunk-size", str(CHUNK), env=env)["job_id"]
    assert millrace_json("status", job, env=env)["health"] == "no_workers"
    start, theirs = ("--model", "tiny", "--processes", "2"), slow | gate.environment
    lock = QueueKeys("millrace.tiny:1").reconciler
    services.redis.raw.delete("millrace.tiny:1")
    with running_worker(*start, env=theirs, log=tmp_path / "log", ready=2) as workers:
        wait_until(lambda: len(services.jobs.running_chunks(job)) == 2 * SLOTS, 90)
        raw = services.redis.raw
        holder = wait_until(lambda: raw.pttl(lock) > 1000 and raw.get(lock), 90).decode()
        os.kill(int(holder.partition("@")[0]), signal.SIGKILL)
        gate.open()
        wait_until(
            lambda: (raw.get(lock) or holder.encode()).decode() != holder, 90, "another reconciles"
        )
        assert millrace("status", job, "--watch", env=env).returncode == 0
        assert workers.log.count(EXPIRED) == SLOTS
    inputs.assert_exact(job, tmp_path / "out", env)
