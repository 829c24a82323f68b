"""The threads that tell: a receiver that hangs holds up its own tries and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.core.notify import notifier, notifying
from millrace.core.notify.delivery import DeliveryState
from millrace.core.notify.notifying import Notifying
from millrace.core.services import Services
from tests.faults.receiver import Hangs, receiver
from tests.support import wait_until
from tests.unit.core.notify.test_notifier import ended, serviced, told, verified

pytestmark = pytest.mark.usefixtures("no_environment")


@pytest.fixture
def services(redis_url: str) -> Iterator[Services]:
    made = serviced(redis_url, notify_timeout_s=20)
    yield made
    made.redis.close()


@pytest.fixture
def threads(services: Services) -> Iterator[Notifying]:
    made = Notifying(services.notifier, services.finalizer, every_s=3600)
    made.start()
    yield made
    made.stop()


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


def test_more_is_told_to_a_receiver_than_fits_in_one_turn(
    services: Services, threads: Notifying, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier, "AT_A_TIME", 2)
    monkeypatch.setattr(notifying, "MOST_RECEIVERS", 1)
    with receiver() as first, receiver() as second:
        for number in range(5):
            ended(services, tmp_path, (first, second)[number % 2].url, f"j{number}")
        wait_until(lambda: len(first.received) + len(second.received) == 5, 20)


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
