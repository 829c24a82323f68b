"""The bare loop: what it counts, and that it tells why it cannot run."""

from __future__ import annotations

import queue
import threading
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import limit

WITHIN_S = 20


def test_a_loop_turns_once_at_least_and_counts_cpu_not_time() -> None:
    turns: list[int] = []
    spent = limit.cpu_per_turn(lambda: turns.append(1), seconds=0)
    assert turns == [1]
    assert spent >= 0


def test_a_turn_that_waits_costs_nothing() -> None:
    waiting = threading.Event()
    assert limit.cpu_per_turn(lambda: waiting.wait(0.2), seconds=0) < 0.2


def test_a_loop_goes_on_for_its_seconds() -> None:
    turns: list[int] = []
    limit.cpu_per_turn(lambda: turns.append(1), seconds=0.05)
    assert len(turns) > 1


def test_the_one_that_fails_tells_why_before_the_others_tell_that_it_did(tmp_path: Path) -> None:
    barrier, answers = threading.Barrier(2), queue.SimpleQueue[Any]()

    def other() -> None:
        try:
            barrier.wait(WITHIN_S)
        except threading.BrokenBarrierError as error:
            answers.put(type(error).__name__)

    waiting = threading.Thread(target=other)
    waiting.start()
    asked = Namespace(model=tmp_path / "none", engine="tensorflow", precision="float32")
    limit._one_core(asked, barrier, answers)  # type: ignore[arg-type]
    waiting.join(WITHIN_S)
    first, second = answers.get(timeout=1), answers.get(timeout=1)
    assert "none" in first
    assert second == "BrokenBarrierError"


def test_who_asks_is_told_the_reason(tmp_path: Path) -> None:
    with pytest.raises(limit.NotMeasured, match="no-bundle"):
        limit.measure(tmp_path / "no-bundle", tmp_path, "tensorflow", "float32")
