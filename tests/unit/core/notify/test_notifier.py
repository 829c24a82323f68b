"""The ends of jobs, told at least once: on a real Redis, to a real server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from millrace.core.job import JobSpec, JobState, Reason
from millrace.core.jobdir import JobDirectory
from millrace.core.notify import ends, notifier
from millrace.core.notify.delivery import DeliveryState
from millrace.core.notify.ends import MAX_AGE_S
from millrace.core.notify.notifier import Notifier
from millrace.core.notify.outbox import Outbox
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.status import NotificationStatus, status_of
from millrace.core.topology import NOTIFICATIONS, JobKeys
from millrace.producer.control import delete
from millrace.producer.recover import restore
from tests.faults.receiver import Answer, Hangs, Received, Receiver, Says, receiver
from tests.support import capture_logs, wait_until
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_tally, a_worker, created, standing_job

pytestmark = pytest.mark.usefixtures("no_environment")

KEY = b"a secret of 24 bytes, ok"
SETTINGS: dict[str, Any] = {
    "notify_secret": f"whsec_{base64.b64encode(KEY).decode()}",
    "notify_allow_private": True,
    "notify_backoff_s": 0.01,
    "notify_timeout_s": 5,
}
PATIENT: dict[str, Any] = {"notify_backoff_s": 600}
"""What was not taken rests until the test is over."""


def serviced(redis_url: str, **settings: Any) -> Services:
    return Services(Settings.load(redis_url=redis_url, **{**SETTINGS, **settings}))


@pytest.fixture
def services(redis_url: str) -> Iterator[Services]:
    made = serviced(redis_url)
    yield made
    made.redis.close()


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def ended(services: Services, root: Path, url: str | None, job: str = "j") -> JobSpec:
    """A job that has ended as `cancelled`, and is to be told to `url`."""
    spec = standing_job(services, a_spec(job, output=str(root), notify=url), rows=2)
    services.jobs.stop(job, JobState.CANCELLED, Reason.REQUESTED)
    assert services.finalizer.finalize(job)
    return spec


def told(services: Services, job: str = "j") -> NotificationStatus:
    found = status_of(services.jobs.snapshot(job)).notification
    assert found is not None
    return found


def verified(came: Received, key: bytes = KEY) -> dict[str, Any]:
    """The event, if it is signed as the specification says."""
    signed = b".".join(
        [came.headers["webhook-id"].encode(), came.headers["webhook-timestamp"].encode(), came.body]
    )
    digest = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert came.headers["webhook-signature"].split(" ") == [f"v1,{digest}"]
    assert abs(int(came.headers["webhook-timestamp"]) - time.time()) < 60
    event: dict[str, Any] = json.loads(came.body)
    assert event["event_id"] == came.headers["webhook-id"]
    return event


def until_settled(services: Services, job: str = "j", tries: int = 60) -> NotificationStatus:
    """Tick until it is delivered or given up."""

    def settled() -> NotificationStatus | None:
        services.notifier.tick()
        found = told(services, job)
        return found if found.state.settled else None

    found: NotificationStatus = wait_until(settled, tries)
    return found


def test_the_end_is_told_once_and_signed(
    services: Services, there: Receiver, tmp_path: Path
) -> None:
    created(services, spec := a_spec("j", output=str(tmp_path), notify=there.url))
    assert told(services).state is DeliveryState.ARMED
    assert services.notifier.tick() == 0
    services.jobs.stop("j", JobState.CANCELLED, Reason.REQUESTED)
    services.finalizer.finalize("j")
    assert told(services).state is DeliveryState.WAITING
    with capture_logs() as logs:
        assert services.notifier.tick() == 1
        assert services.notifier.tick() == 0
    (came,) = there.received
    event = verified(came)
    status = status_of(services.jobs.snapshot("j")).model_dump(mode="json")
    assert event.pop("event") == "job.ended"
    assert event.pop("event_id").startswith("evt_")
    assert event == {name: value for name, value in status.items() if name != "notification"}
    assert event["state"] == "cancelled"
    assert came.headers["content-type"] == "application/json"
    assert told(services) == NotificationStatus(
        to=f"http://127.0.0.1:{there.port}",
        state=DeliveryState.DELIVERED,
        attempts=1,
        error=None,
        due_at=None,
    )
    assert [entry["event"] for entry in logs] == ["told the end of the job"]
    assert "t0p-s3cret" not in str(logs) + str(status)
    assert spec.notify == there.url


def test_a_job_without_a_url_is_told_to_nobody(services: Services, tmp_path: Path) -> None:
    ended(services, tmp_path, None)
    assert services.notifier.tick() == 0
    assert status_of(services.jobs.snapshot("j")).notification is None
    assert not services.redis.raw.exists(NOTIFICATIONS)


def test_what_fails_is_told_again_as_the_same_event(services: Services, tmp_path: Path) -> None:
    with receiver(500, 503, Says(302, {"Location": "/"}), 200) as there:
        ended(services, tmp_path, there.url)
        services.notifier.tick()
        assert told(services).state is DeliveryState.WAITING
        assert told(services).error == "answered 500"
        found = until_settled(services)
    assert (found.state, found.attempts, found.error) == (DeliveryState.DELIVERED, 4, None)
    assert len({verified(came)["event_id"] for came in there.received}) == 1
    assert len({came.body for came in there.received}) == 1


def test_the_pauses_grow_with_jitter_up_to_six_hours(services: Services) -> None:
    notifier = Notifier(services.jobs, services.stores, Settings.load())
    for attempt, pause in [(1, 5), (2, 20), (3, 80), (7, 20_480), (8, 21_600), (50, 21_600)]:
        drawn = {notifier.pause_s(attempt) for _ in range(20)}
        assert all(0.8 * pause <= each <= 1.2 * pause for each in drawn)
        assert len(drawn) > 1


def test_a_receiver_s_retry_after_is_kept(services: Services, tmp_path: Path) -> None:
    with receiver(Says(429, {"Retry-After": "900"})) as there:
        ended(services, tmp_path, there.url)
        services.notifier.tick()
    due = services.redis.raw.zscore(NOTIFICATIONS, "j") / 1000
    assert 890 < due - time.time() < 910
    at = told(services).due_at
    assert at is not None
    assert at.timestamp() == pytest.approx(due)


def test_it_is_given_up_after_so_many_tries(redis_url: str, tmp_path: Path) -> None:
    services = serviced(redis_url, notify_attempts=3)
    with receiver(500) as there, capture_logs() as logs:
        ended(services, tmp_path, there.url)
        found = until_settled(services)
    assert (found.state, found.attempts) == (DeliveryState.GIVEN_UP, 3)
    assert found.error == "answered 500"
    assert len(there.received) == 3
    given_up = [entry for entry in logs if entry["event"] == "gave up telling the end of the job"]
    assert [entry["job"] for entry in given_up] == ["j"]
    assert services.notifier.tick() == 0


def test_an_end_of_days_ago_is_not_tried_again(services: Services, tmp_path: Path) -> None:
    with receiver(500) as there:
        ended(services, tmp_path, there.url)
        keys = JobKeys("j")
        long_ago = int(services.redis.raw.hget(keys.record, "completed_ms")) - int(MAX_AGE_S * 1000)
        services.redis.raw.hset(keys.record, "completed_ms", long_ago)
        services.notifier.tick()
    assert told(services).state is DeliveryState.GIVEN_UP


def test_a_receiver_that_is_gone_is_left_alone(services: Services, tmp_path: Path) -> None:
    with receiver(410) as there:
        ended(services, tmp_path, there.url)
        services.notifier.tick()
    found = told(services)
    assert (found.state, found.error) == (DeliveryState.GIVEN_UP, "answered 410")


def test_an_address_that_may_not_be_notified_is_not_connected_to(
    redis_url: str, services: Services, there: Receiver, tmp_path: Path
) -> None:
    """The producer allowed it; these workers do not."""
    ended(services, tmp_path, there.url)
    strict = serviced(redis_url, notify_allow_private=False)
    strict.notifier.tick()
    assert there.received == []
    found = told(services)
    assert found.state is DeliveryState.WAITING
    assert found.error is not None
    assert "private address" in found.error


def test_of_many_senders_one_tells_it(redis_url: str, there: Receiver, tmp_path: Path) -> None:
    senders = [serviced(redis_url) for _ in range(6)]
    for number in range(5):
        ended(senders[0], tmp_path, there.url, f"j{number}")
    barrier = threading.Barrier(len(senders))

    def run(sender: Services) -> None:
        barrier.wait()
        sender.notifier.tick()

    threads = [threading.Thread(target=run, args=[sender]) for sender in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(verified(came)["job_id"] for came in there.received) == [
        f"j{number}" for number in range(5)
    ]


def test_when_its_sender_dies_another_tells_it(
    services: Services, there: Receiver, tmp_path: Path
) -> None:
    ended(services, tmp_path, there.url)
    outbox = Outbox(services.redis)
    assert outbox.take("j", 60) == 1  # and dies
    assert outbox.take("j", 60) == 0
    assert services.notifier.tick() == 0
    services.redis.raw.zadd(NOTIFICATIONS, {"j": 1}, xx=True)  # the lease runs out
    found = until_settled(services)
    assert (found.state, found.attempts) == (DeliveryState.DELIVERED, 2)
    assert len(there.received) == 1


def test_a_try_that_ends_after_its_lease_changes_nothing(
    services: Services, there: Receiver, tmp_path: Path
) -> None:
    ended(services, tmp_path, there.url)
    outbox = Outbox(services.redis)
    outbox.take("j", 0)
    services.notifier.tick()
    outbox.settle("j", DeliveryState.WAITING, "too late", again_in_s=0)
    outbox.settle("j", DeliveryState.GIVEN_UP, "too late")
    found = told(services)
    assert (found.state, found.error) == (DeliveryState.DELIVERED, None)
    assert outbox.due(outbox.now_ms(), 10) == []


def test_who_has_many_ends_hides_nobody_else_s(
    redis_url: str, there: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "READ_AT", 3)
    monkeypatch.setattr(notifier, "AT_A_TIME", 2)
    services = serviced(redis_url, **PATIENT)
    with receiver(500) as broken:
        for number in range(8):
            ended(services, tmp_path, broken.url, f"broken{number}")
        ended(services, tmp_path, there.url, "other")
        found = services.notifier.due()
        assert [len(jobs) for jobs in found.values()] == [2, 1]
        # What one did not take, the receiver's others are not tried for either.
        assert services.notifier.tick() == 2
        assert len(broken.received) == 1
        assert services.notifier.due() == {}
    assert [verified(came)["job_id"] for came in there.received] == ["other"]


@pytest.mark.parametrize("answer", [Says(500), Hangs()], ids=["500", "hangs"])
def test_a_url_that_rests_holds_up_no_other_of_its_host(
    answer: Answer, redis_url: str, there: Receiver, tmp_path: Path
) -> None:
    services = serviced(redis_url, **PATIENT, notify_timeout_s=1)
    there.answers = [answer, Says(204)]
    for number in range(3):
        ended(services, tmp_path, f"{there.url}&broken", f"broken{number}")
    ended(services, tmp_path, there.url, "other")
    assert services.notifier.tick() == 2
    assert [verified(came)["job_id"] for came in there.received] == ["broken0", "other"]


def test_a_host_that_does_not_answer_rests_whatever_the_url(redis_url: str, tmp_path: Path) -> None:
    services = serviced(redis_url, **PATIENT)
    with receiver() as gone:
        pass
    for number in range(3):
        ended(services, tmp_path, f"{gone.url}&{number}", f"j{number}")
    assert services.notifier.tick() == 1
    assert services.notifier.due() == {}


@pytest.mark.parametrize(
    ("answer", "forged"), [(410, False), (204, True)], ids=["gone", "not the receiver's doing"]
)
def test_what_another_end_does_not_share_makes_nobody_rest(
    answer: int, forged: bool, redis_url: str, there: Receiver, tmp_path: Path
) -> None:
    services = serviced(redis_url, **PATIENT)
    there.answers = [Says(answer), Says(204)]
    spec = ended(services, tmp_path, there.url, "bad")
    if forged:
        text = spec.model_copy(update={"chunk_size": 3}).model_dump_json()
        services.redis.raw.hset(JobKeys("bad").record, "spec", text)
    ended(services, tmp_path, there.url, "good")
    assert services.notifier.tick() == 2
    assert told(services, "bad").state is DeliveryState.GIVEN_UP
    assert told(services, "good").state is DeliveryState.DELIVERED


def test_a_receiver_rests_as_long_as_what_it_did_not_take_and_a_minute_at_most(
    redis_url: str, there: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier, "LONGEST_REST_S", 0.05)
    services = serviced(redis_url, **PATIENT)
    there.answers = [Says(503, {"Retry-After": "900"}), Says(204)]
    for job in ("first", "second"):
        ended(services, tmp_path, there.url, job)
    wait_until(lambda: services.notifier.tick() and len(there.received) == 2, 20)
    assert told(services, "first").state is DeliveryState.WAITING
    assert told(services, "second").state is DeliveryState.DELIVERED


def test_what_waits_is_read_once(redis_url: str, there: Receiver, tmp_path: Path) -> None:
    """However long: its place in the outbox tells whether it is the same end."""
    services = serviced(redis_url)
    for number in range(3):
        ended(services, tmp_path, there.url, f"j{number}")

    def spec_reads() -> int:
        stats = services.redis.raw.info("commandstats")
        return int(stats.get("cmdstat_hget", {"calls": 0})["calls"])

    found, before = services.notifier.due(), spec_reads()
    assert services.notifier.due() == found
    assert spec_reads() == before
    later = services.redis.raw.zscore(NOTIFICATIONS, "j1") + 1
    services.redis.raw.zadd(NOTIFICATIONS, {"j1": later}, xx=True)
    wait_until(lambda: sum(map(len, services.notifier.due().values())) == 3, 20)
    assert spec_reads() == before + 1


def test_what_is_dropped_amid_a_look_makes_it_pass_over_nothing(
    services: Services, there: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "READ_AT", 2)
    services.redis.raw.zadd(NOTIFICATIONS, {f"none{number}": number for number in range(5)})
    for number in range(3):
        ended(services, tmp_path, there.url, f"j{number}")
    assert services.notifier.tick() == 3
    assert not services.redis.raw.exists(NOTIFICATIONS)


def test_a_place_that_cannot_be_read_hides_no_other_end(
    redis_url: str, there: Receiver, tmp_path: Path
) -> None:
    services = serviced(redis_url, allowed_locations=f"memory://photos {tmp_path.as_uri()}")
    for job in ("forged", "good"):
        spec = ended(services, tmp_path, there.url, job)
    forged = spec.model_copy(update={"job_id": "forged", "output": "s3://"})
    services.redis.raw.hset(JobKeys("forged").record, "spec", forged.model_dump_json())
    assert services.notifier.tick() == 1
    assert [verified(came)["job_id"] for came in there.received] == ["good"]
    assert services.redis.raw.zscore(NOTIFICATIONS, "forged") is not None


def test_a_record_that_is_none_hides_no_other_end_and_is_dropped_in_the_end(
    services: Services, there: Receiver, tmp_path: Path
) -> None:
    for job in ("forged", "good"):
        ended(services, tmp_path, there.url, job)
    key = JobKeys("forged").record
    services.redis.raw.delete(key)
    services.redis.raw.rpush(key, "no record")
    assert services.notifier.tick() == 1
    assert [verified(came)["job_id"] for came in there.received] == ["good"]
    services.redis.raw.zadd(NOTIFICATIONS, {"forged": 1000 * (time.time() - MAX_AGE_S - 60)})
    services.notifier.tick()
    assert not services.redis.raw.exists(NOTIFICATIONS)


@pytest.mark.parametrize("place", ["spec", "state"])
def test_a_newer_version_s_job_is_left_to_who_can_read_it(
    place: str, redis_url: str, services: Services, there: Receiver, tmp_path: Path
) -> None:
    ended(services, tmp_path, there.url)
    key = JobKeys("j").record
    ours = services.redis.raw.hget(key, place)
    newer = json.dumps({**json.loads(ours), "newer": 1}) if place == "spec" else "newer"
    services.redis.raw.hset(key, place, newer)
    services.notifier.tick()
    assert not there.received
    assert services.redis.raw.zscore(NOTIFICATIONS, "j") is not None
    services.redis.raw.hset(key, place, ours)  # as another process reads it
    assert until_settled(serviced(redis_url)).state is DeliveryState.DELIVERED


def test_what_nobody_can_read_is_given_up_in_the_end(
    services: Services, there: Receiver, tmp_path: Path
) -> None:
    ended(services, tmp_path, there.url)
    services.redis.raw.hset(JobKeys("j").record, "spec", "no JSON")
    long_ago = 1000 * (time.time() - MAX_AGE_S - 60)
    services.redis.raw.zadd(NOTIFICATIONS, {"j": long_ago})
    services.notifier.tick()
    assert not services.redis.raw.exists(NOTIFICATIONS)


def test_what_nobody_may_tell_is_given_up_in_the_end_and_hides_nothing(
    redis_url: str,
    services: Services,
    there: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ends, "READ_AT", 1)
    for job in ("a", "b"):
        ended(services, tmp_path / "elsewhere", there.url, job)
    ended(services, tmp_path / "here", there.url, "c")
    bounded = serviced(redis_url, allowed_locations=(tmp_path / "here").as_uri())
    assert bounded.notifier.tick() == 0  # the input of all of them lies elsewhere
    assert services.redis.raw.zcard(NOTIFICATIONS) == 3
    long_ago = 1000 * (time.time() - MAX_AGE_S - 60)
    services.redis.raw.zadd(NOTIFICATIONS, {"a": long_ago})
    bounded.notifier.tick()
    assert told(services, "a").state is DeliveryState.GIVEN_UP
    assert told(services, "b").state is DeliveryState.WAITING
    assert not there.received


def test_without_a_secret_it_is_left_to_others(
    redis_url: str, there: Receiver, tmp_path: Path
) -> None:
    mute = serviced(redis_url, notify_secret=None)
    with capture_logs() as logs:
        assert mute.notifier.tick() == 0
        assert logs == []
        ended(mute, tmp_path, there.url)
        assert mute.notifier.tick() == mute.notifier.tick() == 0
    (said,) = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert "MILLRACE_NOTIFY_SECRET" in said
    assert told(mute).attempts == 0
    assert serviced(redis_url).notifier.tick() == 1
    assert len(there.received) == 1


def test_where_nobody_has_a_secret_ends_are_given_up_as_well(
    redis_url: str, there: Receiver, tmp_path: Path
) -> None:
    mute = serviced(redis_url, notify_secret=None)
    for job in ("new", "old"):
        ended(mute, tmp_path, there.url, job)
    mute.redis.raw.zadd(NOTIFICATIONS, {"old": 1000 * (time.time() - MAX_AGE_S - 60)})
    mute.notifier.tick()
    assert told(mute, "old").state is DeliveryState.GIVEN_UP
    assert told(mute, "new").state is DeliveryState.WAITING


def test_where_the_job_s_places_are_not_allowed_it_is_left_to_others(
    redis_url: str, tmp_path: Path
) -> None:
    """Any process looks, also one of other jobs' workers: that must not use up its tries."""
    elsewhere = serviced(redis_url, allowed_locations="s3://elsewhere")
    with receiver(503, 204) as there:
        services = serviced(redis_url, notify_attempts=2)
        ended(services, tmp_path, there.url)
        assert services.notifier.tick() >= 1
        for _ in range(5):
            assert elsewhere.notifier.tick() == 0
        found = until_settled(services)
    assert (found.state, found.attempts) == (DeliveryState.DELIVERED, 2)


def test_a_deleted_job_is_told_no_more(services: Services, there: Receiver, tmp_path: Path) -> None:
    ended(services, tmp_path, there.url)
    delete(services, "j")
    assert not services.redis.raw.exists(NOTIFICATIONS)
    # Deleted between the look and the try:
    ended(services, tmp_path / "other", there.url, "k")
    services.redis.raw.delete(JobKeys("k").record)
    assert services.notifier.tick() == 0
    assert not services.redis.raw.exists(NOTIFICATIONS, JobKeys("k").record)
    assert there.received == []


def test_what_is_no_job_s_is_dropped(services: Services, there: Receiver, tmp_path: Path) -> None:
    created(services, a_spec("running", output=str(tmp_path), notify=there.url))
    services.redis.raw.hset(JobKeys("broken").record, "spec", "no JSON")
    services.redis.raw.zadd(NOTIFICATIONS, {"running": 0, "broken": 0, "none": 0, "ended": 0})
    ended(services, tmp_path, there.url, "ended")
    services.notifier.tick()
    assert [verified(came)["job_id"] for came in there.received] == ["ended"]
    assert not services.redis.raw.exists(NOTIFICATIONS)


def test_redis_alone_makes_nobody_send_anything(
    services: Services, there: Receiver, tmp_path: Path
) -> None:
    """Of a record that is not what its `job.json` says nothing is told."""
    spec = ended(services, tmp_path, "http://127.0.0.1:1/")
    forged = spec.model_copy(update={"notify": there.url})
    services.redis.raw.hset(JobKeys("j").record, "spec", forged.model_dump_json())
    services.notifier.tick()
    assert there.received == []
    assert told(services).state is DeliveryState.GIVEN_UP


def test_a_job_restored_after_redis_was_lost_is_told(
    services: Services, there: Receiver, tmp_path: Path
) -> None:
    """Lost between the end and the telling; and once more, if it was told: as the same event."""
    spec = standing_job(services, a_spec("j", output=str(tmp_path), notify=there.url), rows=0)
    directory = JobDirectory(services.stores, spec.directory)
    directory.complete_manifest(0, 0)
    services.finalizer.finalize("j")
    services.redis.raw.flushall()
    assert services.notifier.tick() == 0
    restore(services, directory)
    assert services.notifier.tick() == 1
    services.redis.raw.flushall()
    restore(services, directory)
    assert services.notifier.tick() == 1
    first, second = (verified(came) for came in there.received)
    assert first["event_id"] == second["event_id"]
    assert (first["state"], first["reason"]) == ("failed", "no_inputs")


def test_a_job_that_goes_on_after_redis_was_lost_is_told_when_it_ends(
    services: Services, there: Receiver, tmp_path: Path
) -> None:
    spec = standing_job(services, a_spec("j", output=str(tmp_path), notify=there.url), rows=0)
    directory = JobDirectory(services.stores, spec.directory)
    directory.complete_manifest(0, 0)
    services.redis.raw.flushall()
    restore(services, directory)
    until_settled(services)
    assert len(there.received) == 1


def test_a_job_that_ends_again_is_another_event(
    services: Services, there: Receiver, tmp_path: Path
) -> None:
    ended(services, tmp_path, there.url)
    services.notifier.tick()
    record = services.jobs.record("j")
    services.redis.raw.hset(JobKeys("j").record, "state", "finalizing")
    later = replace(record, completed_at=record.updated_at + timedelta(days=1))
    services.jobs.conclude(later)
    services.notifier.tick()
    first, second = (verified(came)["event_id"] for came in there.received)
    assert first != second


def test_a_worker_that_runs_the_last_chunk_leaves_it_to_be_told(
    services: Services, there: Receiver, tmp_path: Path
) -> None:
    standing_job(services, a_spec("j", output=str(tmp_path), notify=there.url), rows=2)
    worker = a_worker(services)
    _, lease = worker.claim("millrace.tiny", "j", 0, MODEL)
    assert worker.finish(lease, a_tally(2), NO_TIME)[1]
    services.finalizer.finalize("j")
    services.notifier.tick()
    assert verified(there.received[0])["state"] == "succeeded"
