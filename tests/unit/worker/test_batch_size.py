"""The size of a batch: the one given, or the fastest that fits."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from millrace.core.bundle import Bundle
from millrace.core.card import Card
from millrace.worker import batch_size
from millrace.worker.batch_size import BATCH_BYTES, LARGEST, warm_up
from millrace.worker.predictor import OutOfMemoryError, Pixels, Predictor, Scores
from millrace.worker.tuning import EngineName, Tuning


class Clock:
    """Stands still but for what predictions take."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Timed(Predictor):
    """Takes as long as it is told to, by a clock of the test's own."""

    engine = EngineName.AUTO

    def __init__(
        self, clock: Clock, takes: Callable[[int], float], room: int = 1000, side: int = 8
    ) -> None:
        card = Card.make(name="timed", signature="serving_default", height=side, width=side)
        super().__init__(Bundle(Path(), card, ()), Tuning())
        self._clock, self._takes, self._room = clock, takes, room
        self.sizes: list[int] = []

    def _run(self, pixels: Pixels) -> Scores:
        if len(pixels) > self._room:
            raise OutOfMemoryError
        self.sizes.append(len(pixels))
        self._clock.now += self._takes(len(pixels))
        return np.zeros((len(pixels), 4), np.float32)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "perf_counter", found)
    monkeypatch.setattr(time, "monotonic", found)
    return found


@pytest.mark.parametrize(
    ("each_ms", "found"),
    [
        ({}, LARGEST),  # all the same
        ({4: 0.5, 8: 0.6}, 4),
        ({1: 0.5}, 1),
        ({8: 0.5, 16: 0.52, 32: 0.6}, 16),  # as fast but for a little
    ],
)
def test_the_fastest_is_found(each_ms: dict[int, float], found: int, clock: Clock) -> None:
    model = Timed(clock, lambda size: size * each_ms.get(size, 1.0) / 1000)
    assert warm_up(model, None) == found


@pytest.mark.parametrize(("each_s", "found"), [(0.01, 16), (0.06, 4), (0.1, 4), (10.0, 1)])
def test_it_takes_no_longer_than_its_budget(each_s: float, found: int, clock: Clock) -> None:
    assert warm_up(Timed(clock, lambda size: size * each_s), None) == found
    slow = each_s >= batch_size.SLOW_S
    budget = batch_size.SLOW_BUDGET_S if slow else batch_size.BUDGET_S
    assert clock.now <= max(budget, batch_size.SLOW_TRIES * each_s) + 1e-6


@pytest.mark.parametrize(
    ("set_up_s", "found"),
    [
        (0.15, LARGEST),  # that of a size is no reason to do without larger ones
        (10.0, 1),  # but a worker is to start soon
    ],
)
def test_setting_up_has_a_budget_of_its_own(set_up_s: float, found: int, clock: Clock) -> None:
    met: set[int] = set()

    def takes(size: int) -> float:
        first = size not in met
        met.add(size)
        return size * 0.001 + first * set_up_s

    assert warm_up(Timed(clock, takes), None) == found
    assert clock.now < batch_size.BUDGET_S + max(batch_size.SET_UP_S, set_up_s) + 0.1


def test_what_does_not_fit_is_not_taken(clock: Clock) -> None:
    assert warm_up(Timed(clock, lambda size: 0.001, room=9), None) == 8
    assert warm_up(Timed(clock, lambda size: 0.001, room=0), None) == 1


def test_large_pictures_make_small_batches(clock: Clock) -> None:
    side = 2048
    found = warm_up(Timed(clock, lambda size: 0.001, side=side), None)
    assert found == 4  # the largest power of two of five
    assert BATCH_BYTES // (side * side * 3) == 5


def test_a_size_that_is_given_is_warmed_up_and_taken(clock: Clock) -> None:
    model = Timed(clock, lambda size: 0.001)
    assert warm_up(model, 12) == 12
    assert model.sizes == [12, 6, 3, 1]


@pytest.mark.parametrize(("given", "found"), [(None, 4), (16, 16)])
def test_a_fixed_batch_size_is_the_size(given: int | None, found: int, clock: Clock) -> None:
    model = Timed(clock, lambda size: 0.001)
    model.batch_limit = 4
    assert warm_up(model, given) == found
    assert model.sizes == [4]
