"""The watchdog: what stands still too long ends the process, unless Redis is to blame."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from millrace.core.errors import ExitCode, RedisUnavailable
from millrace.worker import watchdog
from millrace.worker.watchdog import Beat, Watchdog, Watched
from tests.support import wait_until


@dataclass
class Kennel:
    """A watchdog, its clock, and what it did."""

    now: float = 1000.0
    redis_is_away: bool = False
    left: list[int] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def ping(self) -> None:
        if self.redis_is_away:
            raise RedisUnavailable("gone")


@pytest.fixture
def kennel(monkeypatch: pytest.MonkeyPatch) -> Kennel:
    made = Kennel()
    monkeypatch.setattr(watchdog, "time", made)
    return made


def watching(kennel: Kennel, beat: Beat) -> Watchdog:
    return Watchdog([Watched("it", beat.age, 60)], kennel.ping, kennel.left.append)


def test_what_moves_is_left_alone(kennel: Kennel) -> None:
    beat = Beat()
    dog = watching(kennel, beat)
    for _ in range(20):
        kennel.now += 30
        beat.touch()
        dog.look()
    assert kennel.left == []


def test_what_stands_still_ends_the_process(kennel: Kennel) -> None:
    dog = watching(kennel, Beat())
    kennel.now += 60
    dog.look()
    assert kennel.left == []
    kennel.now += 1
    dog.look()
    assert kennel.left == [ExitCode.WEDGED]


def test_the_time_without_redis_does_not_count(kennel: Kennel) -> None:
    dog = watching(kennel, Beat())
    kennel.redis_is_away = True
    for _ in range(10):
        kennel.now += 60
        dog.look()
    kennel.redis_is_away = False
    kennel.now += 60
    dog.look()
    assert kennel.left == []
    kennel.now += 1
    dog.look()
    assert kennel.left == [ExitCode.WEDGED]


def test_it_looks_by_itself_until_it_is_stopped() -> None:
    left = threading.Event()
    dog = Watchdog([Watched("it", lambda: 2.0, 0.05)], lambda: None, lambda _: left.set())
    dog.start()
    assert left.wait(10)
    dog.stop()
    wait_until(lambda: all(t.name != "watchdog" for t in threading.enumerate()), 5)
