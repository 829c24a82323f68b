"""The bytes held at once stay within the budget, and nobody waits for ever."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress

import pytest

from millrace.worker.byte_budget import ByteBudget
from tests.support import wait_until

LIMIT = 10
WITHIN_S = 20

Take = Callable[[int], Future[None]]


@pytest.fixture
def budget() -> ByteBudget:
    return ByteBudget(LIMIT)


@pytest.fixture
def take(budget: ByteBudget) -> Take:
    """Takes in a thread of its own; if it waits for ever, nothing waits for it."""

    def start(size: int) -> Future[None]:
        taken = Future[None]()

        def run() -> None:
            budget.take(size)
            taken.set_result(None)

        threading.Thread(target=run, daemon=True).start()
        return taken

    return start


def passes(taken: Future[None]) -> bool:
    """Whether it does within a time that is enough for one that need not wait."""
    return bool(wait([taken], 0.05).done)


def test_bytes_are_taken_up_to_the_limit_without_waiting(budget: ByteBudget) -> None:
    for size in (4, 0, 6):
        budget.take(size)
    budget.take(0)


def test_one_byte_more_waits_until_there_is_room(budget: ByteBudget, take: Take) -> None:
    budget.take(6)
    budget.take(4)
    more = take(5)
    assert not passes(more)
    budget.give_back(4)
    assert not passes(more), "6 and 5 are more than 10"
    budget.give_back(6)
    more.result(WITHIN_S)


def test_what_is_larger_than_the_limit_passes_alone(budget: ByteBudget, take: Take) -> None:
    budget.take(1)
    large = take(LIMIT + 5)
    assert not passes(large)
    budget.give_back(1)
    large.result(WITHIN_S)
    beside = take(1)
    assert not passes(beside)
    budget.give_back(LIMIT + 5)
    beside.result(WITHIN_S)


def test_a_large_one_that_waits_is_not_overtaken(budget: ByteBudget, take: Take) -> None:
    budget.take(5)
    large = take(8)
    wait_until(budget._turn.locked, WITHIN_S, "the large one waits")
    small = take(1)
    assert not passes(small), "though there is room for it"
    budget.give_back(5)
    for taken in (large, small):
        taken.result(WITHIN_S)


def test_what_turns_out_smaller_makes_room(budget: ByteBudget, take: Take) -> None:
    budget.take(8)
    waiting = take(5)
    assert not passes(waiting)
    budget.correct(8, 5)
    waiting.result(WITHIN_S)


def test_what_turns_out_larger_waits_for_nothing_but_others_wait_for_it(
    budget: ByteBudget, take: Take
) -> None:
    budget.take(0)
    budget.take(4)
    budget.correct(0, 2 * LIMIT)
    waiting = take(1)
    assert not passes(waiting)
    budget.give_back(4)
    assert not passes(waiting)
    budget.give_back(2 * LIMIT)
    waiting.result(WITHIN_S)


@pytest.mark.parametrize("seed", range(3))
def test_many_threads_never_hold_more_than_the_limit_together(seed: int) -> None:
    budget, lock = ByteBudget(LIMIT), threading.Lock()
    held: list[int] = []
    broken: list[list[int]] = []
    sizes = random.Random(seed).choices([1, 3, 7, LIMIT, LIMIT + 9], k=300)

    meeting = threading.Barrier(2)

    def hold(size: int) -> None:
        budget.take(size)
        with lock:
            held.append(size)
            if len(held) > 1 and sum(held) > LIMIT:
                broken.append(list(held))
        with suppress(threading.BrokenBarrierError):  # long enough to be met by another one
            meeting.wait(0.001)
        meeting.reset()
        with lock:
            held.remove(size)
        budget.give_back(size)

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(hold, size) for size in sizes]:
            done.result(WITHIN_S)
    assert not broken
    budget.take(LIMIT)
