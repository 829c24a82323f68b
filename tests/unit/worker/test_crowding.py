"""What decoding takes of a process's CPU, and when that is held against it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from millrace.worker.crowding import Crowding, Lap


class Clocks:
    """The three clocks of one thread, turned by a test."""

    def __init__(self) -> None:
        self.wall = self.thread = self.process = 5.0

    def decode(self, crowding: Crowding, *, cpu: float, wall: float) -> int:
        """One image."""
        began = Lap.begin()
        self.wall += wall
        self.thread += cpu
        self.process += cpu
        return crowding.decoded(began)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clocks]:
    found = Clocks()
    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: found.wall)
        patch.setattr(time, "thread_time", lambda: found.thread)
        patch.setattr(time, "process_time", lambda: found.process)
        yield found


def test_decoding_is_counted_in_cpu_time(clocks: Clocks) -> None:
    assert clocks.decode(Crowding(), cpu=0.25, wall=3) == 250_000


@pytest.mark.parametrize(
    ("cpu", "wall", "rest", "lost"),
    [
        (3.0, 9.0, 1.0, 0.75),
        (3.0, 4.0, 1.0, 0.0),  # a core was free when it wanted one
        (3.0, 9.0, 3.0, 0.0),  # the model took as much
        (3.0, 9.0, 0.0, 1.0),
        (0.0, 0.0, 0.0, 0.0),
    ],
)
def test_the_model_loses_what_decoding_takes_where_they_compete(
    cpu: float, wall: float, rest: float, lost: float, clocks: Clocks
) -> None:
    crowding = Crowding()
    clocks.decode(crowding, cpu=cpu, wall=wall)
    clocks.process += rest
    assert crowding.take() == lost


def test_what_was_taken_is_not_told_again(clocks: Clocks) -> None:
    crowding = Crowding()
    clocks.decode(crowding, cpu=4, wall=10)
    assert crowding.take() == 1.0
    assert crowding.take() == 0.0
    clocks.decode(crowding, cpu=3, wall=9)
    clocks.process += 1
    assert crowding.take() == 0.75


def test_the_clocks_are_the_threads_own() -> None:
    began = Lap.begin()
    while time.thread_time() - began.cpu < 0.02:
        pass
    assert 20_000 <= Crowding().decoded(began) < 10_000_000
