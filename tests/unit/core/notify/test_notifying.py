"""The threads that tell: a receiver that hangs holds up its own tries and nothing else."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from millrace.core.notify import notifier, notifying
from millrace.core.notify.delivery import DeliveryState
from millrace.core.notify.ends import End
from millrace.core.notify.notifying import Notifying
from millrace.core.services import Services
from tests.faults.receiver import Answer, Hangs, Received, receiver
from tests.support import wait_until
from tests.unit.core.notify.test_notifier import ended, serviced, told, verified

pytestmark = pytest.mark.usefixtures("no_environment")


@pytest.fixture
def services(redis_url: str) -> Iterator[Services]:
    made = serviced(redis_url, notify_timeout_s=20)
    yield made
    made.redis.close()


@contextmanager
def started(services: Services, every_s: float = 3600) -> Iterator[Notifying]:
    made = Notifying(services.notifier, services.finalizer, every_s)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def threads(services: Services) -> Iterator[Notifying]:
    with started(services) as made:
        yield made


def test_what_ends_here_is_told_at_once(
    services: Services, threads: Notifying, tmp_path: Path
) -> None:
    with receiver() as there:
        for number in range(3):
            ended(services, tmp_path, there.url, f"j{number}")
        wait_until(lambda: len(there.received) == 3, 20)
        wait_until(lambda: told(services, "j2").state is DeliveryState.DELIVERED, 20)


def test_a_receiver_that_hangs_holds_up_nobody_else_s(
    services: Services, threads: Notifying, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifying, "STOPS_WITHIN_S", 0.1)
    with receiver(Hangs()) as hanging, receiver() as there:
        for number in range(30):  # more than are told at a time
            ended(services, tmp_path, hanging.url, f"hanging{number}")
        wait_until(lambda: hanging.received, 20, "it hangs")
        ended(services, tmp_path, there.url, "other")
        wait_until(lambda: there.received, 10, "the other one is told")
        assert len(hanging.received) == 1
        threads.stop()


def test_more_is_told_to_a_receiver_than_a_look_hands_out(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier, "AT_A_TIME", 2)
    with receiver() as there:
        for number in range(5):
            ended(services, tmp_path, there.url, f"j{number}")
        with started(services):
            wait_until(lambda: len(there.received) == 5, 20)


def test_more_that_hang_than_there_are_threads_hold_up_nobody_else_s(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifying, "MOST_RECEIVERS", 2)
    services = serviced(redis_url, notify_timeout_s=0.5, notify_backoff_s=0.01)
    with receiver(Hangs()) as one, receiver(Hangs()) as two, receiver() as there:
        for number in range(80):
            ended(services, tmp_path, (one, two)[number % 2].url, f"hanging{number}")
        ended(services, tmp_path, there.url, "other")
        with started(services, every_s=0.05):
            wait_until(lambda: there.received, 20, "the other one is told")
            assert len(one.received) + len(two.received) <= 6


def test_those_that_take_slowly_take_turns_with_the_others(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They never rest, and what is due to them was due first. A turn costs no look."""
    monkeypatch.setattr(notifying, "MOST_RECEIVERS", 1)
    monkeypatch.setattr(notifying, "TURN_S", 0)
    look, looks = services.notifier.due, list[float]()

    def counted() -> dict[str, deque[End]]:
        looks.append(time.monotonic())
        return look()

    monkeypatch.setattr(services.notifier, "due", counted)
    with receiver() as busy, receiver() as there:
        for number in range(20):
            ended(services, tmp_path, busy.url, f"busy{number}")
        ended(services, tmp_path, there.url, "other")
        take, by_then = there.take, list[int]()

        def noted(came: Received) -> Answer:
            by_then.append(len(busy.received))
            return take(came)

        monkeypatch.setattr(there, "take", noted)
        with started(services):
            wait_until(lambda: there.received, 20, "the other one is told")
            assert by_then[0] < 20
            wait_until(lambda: len(busy.received) == 20, 20)
    assert len(looks) <= 2


def test_looking_takes_a_tenth_of_the_time_at_most(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, began, over = services.notifier.due, list[float](), list[float]()

    def slow() -> dict[str, deque[End]]:
        began.append(time.monotonic())
        time.sleep(0.05)
        services.finalizer.on_end()  # a job ends meanwhile
        over.append(time.monotonic())
        return look()

    monkeypatch.setattr(services.notifier, "due", slow)
    with started(services):
        wait_until(lambda: len(began) > 1, 20, "it looked again")
    assert began[1] - over[0] >= 9 * (over[0] - began[0])


def test_a_process_that_ends_hands_on_what_it_is_trying(
    redis_url: str,
    services: Services,
    threads: Notifying,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notifying, "STOPS_WITHIN_S", 0.2)
    with receiver(Hangs(), 204) as there:
        ended(services, tmp_path, there.url)
        wait_until(lambda: there.received, 20, "it is trying")
        began = time.monotonic()
        threads.stop()
        assert time.monotonic() - began < 5
        assert serviced(redis_url).notifier.tick() == 1
        assert [verified(came)["job_id"] for came in there.received] == ["j", "j"]
        assert told(services).state is DeliveryState.DELIVERED
