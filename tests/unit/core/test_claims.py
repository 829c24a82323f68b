"""Claims and leases on a real Redis: who runs a chunk, and what is counted."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

import pytest

from millrace.core.bitmaps import set_bits
from millrace.core.claims import Answer, Claims, Finish, Lease, ModelIdentity, release_expired
from millrace.core.errors import RedisUnavailable
from millrace.core.job import JobState
from millrace.core.record import TimingTotals
from millrace.core.services import Services
from millrace.core.topology import JobKeys, QueueKeys
from tests.support import wait_until
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_tally, a_worker, standing_job

QUEUE = "millrace.tiny"


@pytest.fixture
def job(services: Services) -> str:
    """Ten rows in five chunks, all listed."""
    return standing_job(services, a_spec(), rows=10).job_id


@pytest.fixture
def worker(services: Services) -> Claims:
    return a_worker(services)


def claim(worker: Claims, job: str, chunk: int, model: ModelIdentity = MODEL) -> Answer:
    return worker.claim(QUEUE, job, chunk, model)[0]


def leased(worker: Claims, job: str, chunk: int) -> Lease:
    answer, lease = worker.claim(QUEUE, job, chunk, MODEL)
    assert answer.holds_lease
    return lease


def set_state(services: Services, job: str, state: str, **fields: str) -> None:
    """Put a job where no call of the store's own leads to from a unit test."""
    services.redis.raw.hset(JobKeys(job).record, mapping={"state": state, **fields})


def owner(services: Services, job: str, chunk: int) -> str | None:
    found = services.redis.raw.hget(JobKeys(job).owners, chunk)
    return found.decode() if found else None


# --- claim ---


def test_the_first_claim_is_granted_and_starts_the_job(
    services: Services, job: str, worker: Claims
) -> None:
    answer, lease = worker.claim(QUEUE, job, 3, MODEL)
    assert (answer, lease.attempt) == (Answer.OK, 1)
    assert lease.token.startswith("worker/")
    record = services.jobs.record(job)
    assert record.state is JobState.RUNNING
    assert record.started_at is not None
    assert services.jobs.running_chunks(job) == {3}


def test_claiming_starts_a_job_that_is_still_being_listed(
    services: Services, worker: Claims
) -> None:
    job = standing_job(services, a_spec(), rows=10, listed=False).job_id
    assert services.jobs.record(job).state is JobState.ENQUEUING
    assert claim(worker, job, 0) is Answer.OK
    assert services.jobs.record(job).state is JobState.RUNNING


def test_a_leased_chunk_is_busy_for_everyone_else(
    services: Services, job: str, worker: Claims
) -> None:
    leased(worker, job, 0)
    assert claim(a_worker(services, "other"), job, 0) is Answer.BUSY
    assert claim(worker, job, 0) is Answer.BUSY
    assert claim(worker, job, 1) is Answer.OK


def test_of_many_claims_at_once_one_is_granted(services: Services, job: str) -> None:
    answers: list[Answer] = []
    barrier = threading.Barrier(6)

    def run(name: str) -> None:
        worker = a_worker(services, name)
        barrier.wait()
        answers.append(claim(worker, job, 0))

    threads = [threading.Thread(target=run, args=(str(n),)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(answers) == {Answer.OK: 1, Answer.BUSY: 5}


def test_a_finished_chunk_is_done(job: str, worker: Claims) -> None:
    worker.finish(leased(worker, job, 0), a_tally(2), NO_TIME)
    assert claim(worker, job, 0) is Answer.DONE


@pytest.mark.parametrize("state", ["finalizing", "succeeded", "completed_with_errors", "failed"])
def test_a_chunk_of_a_job_that_ended_is_done(
    services: Services, job: str, worker: Claims, state: str
) -> None:
    set_state(services, job, state)
    assert claim(worker, job, 0) is Answer.DONE


@pytest.mark.parametrize(
    ("state", "fields", "answer"),
    [
        ("paused", {}, Answer.PAUSED),
        ("cancelling", {"ending": "cancelled"}, Answer.CANCELLED),
        ("cancelling", {"ending": "failed"}, Answer.CANCELLED),
        ("cancelled", {"ending": "cancelled"}, Answer.CANCELLED),
        ("cancelling", {"ending": "expired"}, Answer.EXPIRED),
        ("expired", {"ending": "expired"}, Answer.EXPIRED),
    ],
)
def test_a_job_that_takes_no_work_says_why(
    services: Services,
    job: str,
    worker: Claims,
    state: str,
    fields: dict[str, str],
    answer: Answer,
) -> None:
    set_state(services, job, state, **fields)
    assert claim(worker, job, 0) is answer
    assert services.jobs.running_chunks(job) == set()


def test_no_such_job_and_no_such_chunk_are_unknown(job: str, worker: Claims) -> None:
    assert claim(worker, "nobody", 0) is Answer.UNKNOWN
    assert claim(worker, job, 5) is Answer.UNKNOWN
    assert claim(worker, job, 2**31 - 1) is Answer.UNKNOWN


def test_a_chunk_is_unknown_until_its_part_is_published(services: Services, worker: Claims) -> None:
    services.jobs.create(a_spec())
    assert claim(worker, "job", 0) is Answer.UNKNOWN
    services.jobs.publish_part("job", 0, 2, 1)
    assert claim(worker, "job", 0) is Answer.OK


def test_the_first_claim_pins_the_model(services: Services, job: str, worker: Claims) -> None:
    leased(worker, job, 0)
    record = services.jobs.record(job)
    assert (record.version, record.digest) == (MODEL.version, MODEL.digest)
    assert claim(worker, job, 1, ModelIdentity("2", MODEL.digest)) is Answer.WRONG_MODEL
    assert claim(worker, job, 1, ModelIdentity(MODEL.version, "other")) is Answer.WRONG_MODEL
    assert claim(worker, job, 1) is Answer.OK


def test_a_job_pinned_at_submission_takes_no_other_model(
    services: Services, worker: Claims
) -> None:
    spec = a_spec(model={"name": "tiny", "version": "7", "digest": "sha256:seven"})
    standing_job(services, spec, rows=2)
    assert claim(worker, "job", 0) is Answer.WRONG_MODEL
    assert claim(worker, "job", 0, ModelIdentity("7", "sha256:seven")) is Answer.OK


def test_a_refused_claim_is_no_attempt(services: Services, job: str, worker: Claims) -> None:
    leased(worker, job, 0)
    for _ in range(3):
        claim(a_worker(services, "other"), job, 0)
    assert services.redis.raw.hget(JobKeys(job).attempts, 0) == b"1"


def test_retrying_the_very_same_claim_grants_the_very_same_lease(
    services: Services, job: str, worker: Claims
) -> None:
    lease = leased(worker, job, 0)
    keys = JobKeys(job)
    # What the client sends again when the answer was lost on the way.
    again = services.redis.script("claim")(
        keys=[keys.record, keys.done, keys.attempts, keys.owners, QueueKeys(QUEUE).leases],
        args=[0, lease.member, lease.token, 30_000, 5, MODEL.version, MODEL.digest],
    )
    assert again == [b"OK", 1]
    assert owner(services, job, 0) == lease.token
    assert services.redis.raw.hget(keys.attempts, 0) == b"1"


def test_a_chunk_claimed_too_often_is_poison(services: Services, job: str) -> None:
    worker = a_worker(services, max_attempts=2)
    answers = []
    for _ in range(3):
        answer, lease = worker.claim(QUEUE, job, 0, MODEL)
        answers.append((answer, lease.attempt))
        if answer is Answer.OK:
            worker.release(lease)
    assert answers == [(Answer.OK, 1), (Answer.OK, 2), (Answer.POISON, 3)]


def test_poison_holds_a_lease_and_can_be_finished(services: Services, job: str) -> None:
    worker = a_worker(services, max_attempts=1)
    worker.release(leased(worker, job, 0))
    answer, lease = worker.claim(QUEUE, job, 0, MODEL)
    assert (answer, answer.holds_lease) == (Answer.POISON, True)
    assert claim(a_worker(services, "other"), job, 0) is Answer.BUSY
    assert worker.finish(lease, a_tally(0, 2, "infer/poison"), NO_TIME) == (Finish.FIRST, False)


# --- leases ---


def test_a_lease_runs_out_by_the_time_of_redis(services: Services, job: str) -> None:
    slow, raw = a_worker(services, "slow"), services.redis.raw
    lease = leased(slow, job, 0)
    other = a_worker(services, "other")
    assert claim(other, job, 0) is Answer.BUSY
    raw.zadd(QueueKeys(QUEUE).leases, {lease.member: services.redis.now_ms() + 100})
    taken = wait_until(
        lambda: claim(other, job, 0) is Answer.OK, 5, "the lease has run out and is taken over"
    )
    assert taken
    assert services.redis.raw.hget(JobKeys(job).attempts, 0) == b"2"
    assert not slow.release(lease)
    assert (owner(services, job, 0) or "").startswith("other/")


def test_a_renewed_lease_does_not_run_out(services: Services, job: str) -> None:
    raw = services.redis.raw
    lease = leased(a_worker(services, lease_s=0.05), job, 0)
    a_worker(services).renew(QUEUE, "2|worker", [lease])
    seconds, _ = raw.time()
    expiry = raw.zscore(QueueKeys(QUEUE).leases, lease.member)
    assert seconds + 25 < expiry / 1000 <= seconds + 31
    assert claim(a_worker(services, "other"), job, 0) is Answer.BUSY


def test_in_a_full_redis_leases_are_renewed_and_chunks_counted_and_none_claimed(
    services: Services, job: str, worker: Claims
) -> None:
    raw = services.redis.raw
    leases = QueueKeys(QUEUE).leases
    lease = leased(worker, job, 0)
    raw.zadd(leases, {lease.member: 1})
    raw.config_set("maxmemory", 1)
    try:
        worker.renew(QUEUE, "2|worker", [lease])
        assert raw.zscore(leases, lease.member) > 1
        assert worker.finish(lease, a_tally(2), NO_TIME)[0] is Finish.FIRST
        with pytest.raises(RedisUnavailable, match="full"):
            claim(worker, job, 1)
    finally:
        raw.config_set("maxmemory", 0)
    assert services.jobs.record(job).done == 1
    assert claim(worker, job, 1) is Answer.OK


def test_renewing_brings_no_lease_back(services: Services, job: str, worker: Claims) -> None:
    lease = leased(worker, job, 0)
    worker.release(lease)
    worker.renew(QUEUE, "2|worker", [lease])
    assert claim(a_worker(services, "other"), job, 0) is Answer.OK


def test_renewing_does_not_extend_the_lease_of_another(services: Services, job: str) -> None:
    """As of a worker that was away for longer than its lease and does not know it yet."""
    raw, leases = services.redis.raw, QueueKeys(QUEUE).leases
    slow = a_worker(services, "slow", lease_s=0)
    lost, kept = leased(slow, job, 0), leased(slow, job, 1)
    theirs = leased(a_worker(services, "other", lease_s=5), job, 0)
    before, old = raw.zscore(leases, theirs.member), raw.zscore(leases, kept.member)
    for held in ([lost, kept], [kept, lost], [lost]):
        a_worker(services, "slow").renew(QUEUE, "1|slow", held)
    assert raw.zscore(leases, theirs.member) == before
    assert raw.zscore(leases, kept.member) > old + 25_000
    assert (owner(services, job, 0), owner(services, job, 1)) == (theirs.token, kept.token)


def test_the_leases_of_several_jobs_are_renewed_together(services: Services, job: str) -> None:
    raw, leases = services.redis.raw, QueueKeys(QUEUE).leases
    standing_job(services, a_spec("b"), rows=10)
    brief = a_worker(services, lease_s=5)
    held = [leased(brief, name, chunk) for name, chunk in ((job, 3), ("b", 3), (job, 0))]
    now = raw.time()[0]
    a_worker(services).renew(QUEUE, "3|worker", held)
    assert all(raw.zscore(leases, lease.member) / 1000 > now + 25 for lease in held)


def test_renewing_keeps_the_place_in_the_fleet_and_drops_the_dead(
    services: Services, worker: Claims
) -> None:
    fleet = QueueKeys(QUEUE).fleet
    services.redis.raw.zadd(fleet, {"2|dead": 1})
    worker.renew(QUEUE, "4|worker", [])
    assert services.redis.raw.zrange(fleet, 0, -1) == [b"4|worker"]


def test_a_released_chunk_may_be_claimed_again(job: str, worker: Claims) -> None:
    worker.release(leased(worker, job, 0))
    answer, lease = worker.claim(QUEUE, job, 0, MODEL)
    assert (answer, lease.attempt) == (Answer.OK, 2)


def test_being_told_to_stop_is_no_failed_attempt(job: str, worker: Claims) -> None:
    worker.release(leased(worker, job, 0), forget_attempt=True)
    assert worker.claim(QUEUE, job, 0, MODEL)[1].attempt == 1


def test_only_its_owner_gives_a_lease_back(services: Services, job: str, worker: Claims) -> None:
    lease = leased(worker, job, 0)
    worker.release(replace(lease, token="thief/0"), forget_attempt=True)
    assert owner(services, job, 0) == lease.token
    assert claim(worker, job, 0) is Answer.BUSY


def test_giving_back_twice_gives_back_once(services: Services, job: str, worker: Claims) -> None:
    lease = leased(worker, job, 0)
    worker.release(lease, forget_attempt=True)
    worker.release(lease, forget_attempt=True)
    assert services.redis.raw.hget(JobKeys(job).attempts, 0) == b"0"


def test_anyone_may_free_a_lease_that_ran_out_but_no_other(
    services: Services, job: str, worker: Claims
) -> None:
    leased(worker, job, 0)
    leased(a_worker(services, "dead", lease_s=0), job, 1)
    for chunk in range(3):
        release_expired(services.redis, QUEUE, job, chunk)
    assert services.jobs.running_chunks(job) == {0}
    assert services.redis.script("expired")(keys=[QueueKeys(QUEUE).leases], args=[9]) == []


# --- finish ---


def test_the_first_finish_counts(services: Services, job: str, worker: Claims) -> None:
    lease = leased(worker, job, 3)
    timing = TimingTotals(1, 2, 3, 4, 5, 6, 7)
    assert worker.finish(lease, a_tally(1, 1), timing) == (Finish.FIRST, False)
    snapshot = services.jobs.snapshot(job)
    record = snapshot.record
    assert (record.counts.succeeded, record.counts.failed, record.done) == (1, 1, 1)
    assert record.timing == timing
    assert record.progress_at is not None
    assert snapshot.by_code == {"decode/bad_image": 1}
    assert len(snapshot.samples) == 1
    assert snapshot.pace == [(snapshot.pace[0][0], 2)]
    assert snapshot.owners == []
    assert services.redis.raw.zcard(QueueKeys(QUEUE).leases) == 0
    assert list(set_bits(services.jobs.done_bitmap(job))) == [3]
    assert list(set_bits(services.jobs.failed_bitmap(job))) == [3]


def test_the_attempts_of_a_finished_chunk_are_forgotten(
    services: Services, job: str, worker: Claims
) -> None:
    first, second = (leased(worker, job, chunk) for chunk in (0, 1))
    for _ in range(2):
        worker.finish(first, a_tally(2), NO_TIME)
        assert services.redis.raw.hgetall(JobKeys(job).attempts) == {b"1": b"1"}
    worker.finish(second, a_tally(2), NO_TIME)
    assert not services.redis.raw.exists(JobKeys(job).attempts)


def test_a_chunk_without_errors_is_not_marked_as_failed(
    services: Services, job: str, worker: Claims
) -> None:
    worker.finish(leased(worker, job, 0), a_tally(2), NO_TIME)
    assert services.jobs.failed_bitmap(job) == b""


def test_a_repeated_finish_moves_nothing(services: Services, job: str, worker: Claims) -> None:
    lease = leased(worker, job, 0)
    worker.finish(lease, a_tally(1, 1), TimingTotals(1, 1, 1, 1))
    before = services.jobs.snapshot(job)
    assert worker.finish(lease, a_tally(0, 2), TimingTotals(9, 9, 9, 9)) == (Finish.REPEAT, False)
    after = services.jobs.snapshot(job)
    assert after.record == before.record
    assert (after.by_code, after.samples, after.pace) == (
        before.by_code,
        before.samples,
        before.pace,
    )


def test_a_worker_that_lost_its_lease_is_counted_if_it_finishes_first(
    services: Services, job: str
) -> None:
    lost = leased(a_worker(services, "slow", lease_s=0), job, 0)
    taken = leased(a_worker(services, "other"), job, 0)
    assert a_worker(services, "slow").finish(lost, a_tally(2), NO_TIME)[0] is Finish.FIRST
    assert a_worker(services, "other").finish(taken, a_tally(2), NO_TIME)[0] is Finish.REPEAT
    assert services.jobs.record(job).counts.succeeded == 2
    assert services.jobs.running_chunks(job) == set()


@pytest.mark.parametrize("state", ["finalizing", "cancelled", "failed", "succeeded", "expired"])
def test_after_the_end_a_finish_is_late_and_moves_nothing(
    services: Services, job: str, worker: Claims, state: str
) -> None:
    lease = leased(worker, job, 0)
    set_state(services, job, state)
    assert worker.finish(lease, a_tally(2), NO_TIME) == (Finish.LATE, False)
    assert services.jobs.record(job).counts.finished == 0
    assert services.jobs.running_chunks(job) == set()


def test_finishing_a_chunk_of_no_job_is_unknown(worker: Claims) -> None:
    lease = Lease(QUEUE, "nobody", 0, "worker/0", 1)
    assert worker.finish(lease, a_tally(2), NO_TIME) == (Finish.UNKNOWN, False)


@pytest.mark.parametrize("state", ["paused", "cancelling"])
def test_what_is_in_hand_is_counted_when_a_job_is_paused_or_cancelled(
    services: Services, job: str, worker: Claims, state: str
) -> None:
    lease = leased(worker, job, 0)
    set_state(services, job, state)
    assert worker.finish(lease, a_tally(2), NO_TIME)[0] is Finish.FIRST
    assert services.jobs.record(job).counts.succeeded == 2


def test_only_the_first_ten_samples_are_kept(services: Services, worker: Claims) -> None:
    job = standing_job(services, a_spec(), rows=10).job_id
    for chunk in range(5):
        worker.finish(leased(worker, job, chunk), a_tally(0, 3), NO_TIME)
    snapshot = services.jobs.snapshot(job)
    assert len(snapshot.samples) == 10
    assert snapshot.by_code == {"decode/bad_image": 15}


def test_the_last_chunk_makes_the_job_ready_exactly_once(
    services: Services, job: str, worker: Claims
) -> None:
    leases = [leased(worker, job, chunk) for chunk in range(5)]
    ready = [worker.finish(lease, a_tally(2), NO_TIME)[1] for lease in leases + leases]
    assert ready == [False] * 4 + [True] + [False] * 5
    assert services.jobs.record(job).state is JobState.FINALIZING


def test_of_many_last_chunks_at_once_one_makes_the_job_ready(services: Services) -> None:
    job = standing_job(services, a_spec(), rows=12).job_id
    worker = a_worker(services)
    leases = [leased(worker, job, chunk) for chunk in range(6)]
    ready: list[bool] = []
    barrier = threading.Barrier(12)

    def run(lease: Lease) -> None:
        barrier.wait()
        ready.append(worker.finish(lease, a_tally(2), NO_TIME)[1])

    threads = [threading.Thread(target=run, args=(lease,)) for lease in leases * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ready) == [False] * 11 + [True]
    assert services.jobs.record(job).counts.succeeded == 12


def test_a_job_is_not_ready_while_it_is_listed(services: Services, worker: Claims) -> None:
    job = standing_job(services, a_spec(), rows=2, listed=False).job_id
    assert worker.finish(leased(worker, job, 0), a_tally(2), NO_TIME) == (Finish.FIRST, False)
    assert services.jobs.record(job).state is JobState.RUNNING
    assert services.jobs.listing_done(job)
    assert services.jobs.record(job).state is JobState.FINALIZING


@pytest.mark.parametrize("way", ["finish", "release", "expire"])
def test_a_cancelled_job_is_ready_when_its_last_lease_is_gone(
    services: Services, job: str, way: str
) -> None:
    worker = a_worker(services, lease_s=0)
    first, last = leased(worker, job, 0), leased(worker, job, 1)
    assert not services.jobs.stop(job, JobState.CANCELLED, "interrupted")

    def end(lease: Lease) -> bool:
        if way == "finish":
            return worker.finish(lease, a_tally(2), NO_TIME)[1]
        if way == "release":
            return worker.release(lease)
        return release_expired(services.redis, QUEUE, job, lease.chunk)

    assert not end(first)
    assert end(last)
    assert services.jobs.record(job).state is JobState.FINALIZING
