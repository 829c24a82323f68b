"""Chunks share the process, except for one that must be alone in it."""

from __future__ import annotations

import threading

from millrace.worker.turns import Turns
from tests.support import wait_until


def started(work: threading.Thread) -> threading.Thread:
    work.start()
    return work


class Visits:
    """Threads that take their turn and stay until they are let go."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.inside: list[str] = []

    def enter(self, kind: str) -> tuple[threading.Thread, threading.Event]:
        leave = threading.Event()

        def visit() -> None:
            with self.turns.alone() if kind == "alone" else self.turns.shared():
                self.inside.append(kind)
                leave.wait(10)
                self.inside.remove(kind)

        return started(threading.Thread(target=visit, daemon=True)), leave


def test_many_share_but_one_alone_waits_for_all_and_keeps_newcomers_out() -> None:
    visits = Visits(Turns())
    first = [visits.enter("shared") for _ in range(3)]
    wait_until(lambda: visits.inside == ["shared"] * 3, 5)
    alone, leave_alone = visits.enter("alone")
    wait_until(lambda: visits.turns._waiting == 1, 5)
    late, leave_late = visits.enter("shared")
    for thread, leave in first[:2]:
        leave.set()
        thread.join(5)
    assert visits.inside == ["shared"]
    first[2][1].set()
    wait_until(lambda: visits.inside == ["alone"], 5)
    leave_alone.set()
    alone.join(5)
    wait_until(lambda: visits.inside == ["shared"], 5)
    leave_late.set()
    late.join(5)
    assert visits.inside == []


def test_two_alone_take_turns() -> None:
    visits = Visits(Turns())
    one, leave_one = visits.enter("alone")
    wait_until(lambda: visits.inside == ["alone"], 5)
    other, leave_other = visits.enter("alone")
    wait_until(lambda: visits.turns._waiting == 1, 5)
    assert visits.inside == ["alone"]
    leave_one.set()
    one.join(5)
    wait_until(lambda: visits.inside == ["alone"], 5)
    leave_other.set()
    other.join(5)
    with visits.turns.shared():
        pass


def test_who_does_not_wait_is_told_whether_it_may_share() -> None:
    visits = Visits(Turns())
    with visits.turns.shared(wait=False) as has_turn:
        assert has_turn
    alone, leave = visits.enter("alone")
    wait_until(lambda: visits.inside == ["alone"], 5)
    with visits.turns.shared(wait=False) as has_turn:
        assert not has_turn
    leave.set()
    alone.join(5)
    assert visits.turns._sharing == 0
