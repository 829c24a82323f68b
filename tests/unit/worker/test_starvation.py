"""How long the model waited: only what passes while a chunk is in hand counts."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from millrace.worker.starvation import Starvation, Stopwatch
from tests.support import wait_until


@dataclass
class Clock:
    """A stopwatch that a test turns."""

    now: float = 5.0

    def seconds(self) -> float:
        return self.now


def test_without_a_chunk_in_hand_nobody_starves() -> None:
    clock = Clock()
    starvation = Starvation(clock.seconds)
    clock.now += 3
    with starvation.chunk():
        clock.now += 0.25
    clock.now += 3
    assert starvation.take_us() == 250_000


def test_what_was_taken_is_not_told_again() -> None:
    clock = Clock()
    starvation = Starvation(clock.seconds)
    with starvation.chunk():
        clock.now += 1
        assert starvation.take_us() == 1_000_000
        clock.now += 2
        assert starvation.take_us() == 2_000_000
    assert starvation.take_us() == 0


def test_time_with_several_chunks_in_hand_counts_once() -> None:
    clock = Clock()
    starvation = Starvation(clock.seconds)
    with starvation.chunk():
        clock.now += 1
        with starvation.chunk():
            assert starvation.chunks == 2
            clock.now += 1
        clock.now += 1
    assert starvation.chunks == 0
    assert starvation.take_us() == 3_000_000


def test_a_chunk_that_failed_is_in_hand_no_more() -> None:
    starvation = Starvation(Clock().seconds)
    with pytest.raises(ValueError, match="failed"), starvation.chunk():
        raise ValueError("failed")
    assert starvation.chunks == 0


def test_a_stopwatch_shows_what_is_under_way_and_stands_still_afterwards() -> None:
    stopwatch, entered, leave = Stopwatch(), threading.Event(), threading.Event()

    def wait() -> None:
        with stopwatch:
            entered.set()
            leave.wait(20)

    assert stopwatch.seconds() == 0
    thread = threading.Thread(target=wait)
    thread.start()
    entered.wait(20)
    wait_until(lambda: stopwatch.seconds() > 0.01)
    leave.set()
    thread.join(20)
    stopped = stopwatch.seconds()
    assert stopped > 0.01
    assert stopwatch.seconds() == stopped
    with stopwatch:
        assert stopwatch.seconds() >= stopped
