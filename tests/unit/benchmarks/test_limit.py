"""The bare loop: what it counts, and that it tells why it cannot run."""

from __future__ import annotations

import signal
import threading
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import limit


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


def asked(model: Path, images: Path) -> Namespace:
    return Namespace(
        model=model,
        images=images,
        engine="tensorflow",
        precision="float32",
        exact_decode=False,
        seconds=0.01,
        in_turns=False,
    )


def test_the_reason_is_told_and_not_that_others_waited(tmp_path: Path) -> None:
    with pytest.raises(limit.NotMeasured, match="no-bundle"):
        limit.on_all_cores(asked(tmp_path / "no-bundle", tmp_path))


class Deadly:
    """Kills whoever is given it, as a kernel without memory does."""

    def __reduce__(self) -> Any:
        return signal.raise_signal, (signal.SIGKILL,)


def test_nobody_waits_for_a_process_that_was_killed() -> None:
    with pytest.raises(limit.NotMeasured, match="BrokenProcessPool"):
        limit.on_all_cores(Deadly())  # type: ignore[arg-type]


def test_who_asks_is_told_the_reason(tmp_path: Path) -> None:
    with pytest.raises(limit.NotMeasured, match="no-bundle"):
        limit.measure(tmp_path / "no-bundle", tmp_path, "tensorflow", "float32")
