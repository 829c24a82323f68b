"""A thread that does one thing again and again, whatever becomes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from millrace.core import periodic
from millrace.core.errors import MillraceError
from millrace.core.periodic import Periodic
from tests.support import capture_logs, wait_until

WITHIN_S = 20


@contextmanager
def running(action: Callable[[], object], every_s: float) -> Iterator[None]:
    thread = Periodic("errand", every_s, action)
    thread.start()
    try:
        yield
    finally:
        thread.stop()


def test_it_begins_at_once() -> None:
    done = threading.Event()
    with running(done.set, every_s=3600):
        assert done.wait(WITHIN_S)


def test_it_goes_on() -> None:
    times: list[int] = []
    with running(lambda: times.append(1), every_s=0.001):
        wait_until(lambda: len(times) >= 5, WITHIN_S)


@pytest.mark.parametrize("error", [MillraceError("no"), ValueError("a mistake")])
def test_a_failure_is_not_the_end(error: Exception) -> None:
    times: list[int] = []

    def fail() -> None:
        times.append(1)
        raise error

    with capture_logs() as logs, running(fail, every_s=0.001):
        wait_until(lambda: len(times) >= 3, WITHIN_S)
    assert [entry["event"] for entry in logs] == ["errand failed"]


@pytest.mark.parametrize("quiet_s", [0, 3600])
def test_a_failure_that_lasts_is_told_now_and_then_and_so_is_its_end(
    monkeypatch: pytest.MonkeyPatch, quiet_s: float
) -> None:
    monkeypatch.setattr(periodic, "QUIET_S", quiet_s)
    times: list[int] = []

    def fail_at_first() -> None:
        times.append(1)
        if len(times) in (1, 2, 3, 5):
            raise MillraceError("no")

    with capture_logs() as logs, running(fail_at_first, every_s=0.001):
        wait_until(lambda: len(times) >= 8, WITHIN_S)
    again = 1 if quiet_s else 3
    assert [entry["event"] for entry in logs] == [
        *(["errand failed"] * again),
        "errand works again",
        "errand failed",
        "errand works again",
    ]
    assert logs[0]["error"] == "no"


def test_a_mistake_is_told_with_where_it_is() -> None:
    def mistake() -> None:
        raise ValueError("a mistake")

    with capture_logs() as logs, running(mistake, every_s=3600):
        wait_until(lambda: logs, WITHIN_S)
    assert logs[0]["log_level"] == "error"
    assert "a mistake" in str(logs[0]["exc_info"])


def test_stopping_waits_for_what_is_under_way_and_for_nothing_else() -> None:
    begun, go_on, over = threading.Event(), threading.Event(), threading.Event()

    def action() -> None:
        begun.set()
        assert go_on.wait(WITHIN_S)
        over.set()

    thread = Periodic("errand", 3600, action)
    thread.start()
    assert begun.wait(WITHIN_S)
    stopping = threading.Thread(target=thread.stop)
    stopping.start()
    assert not over.is_set()
    go_on.set()
    stopping.join(WITHIN_S)
    assert not stopping.is_alive()
    assert over.is_set()


def test_after_a_failure_it_does_not_wait_the_whole_interval() -> None:
    times: list[int] = []

    def fail_once() -> None:
        times.append(1)
        if len(times) == 1:
            raise MillraceError("no")

    with running(fail_once, every_s=3600):
        wait_until(lambda: len(times) == 2, WITHIN_S)


def test_what_is_wanted_soon_does_not_wait_the_whole_interval() -> None:
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def action() -> None:
        begun.release()
        assert go_on.acquire(timeout=WITHIN_S)

    thread = Periodic("errand", 3600, action)
    thread.start()
    try:
        assert begun.acquire(timeout=WITHIN_S)
        thread.soon()  # while it is under way: what it does now may be too old
        go_on.release()
        assert begun.acquire(timeout=WITHIN_S)
        go_on.release()
        thread.soon()
        assert begun.acquire(timeout=WITHIN_S)
    finally:
        go_on.release()
        thread.stop()
    assert not begun.acquire(blocking=False)


def test_what_was_never_started_may_be_stopped() -> None:
    Periodic("errand", 3600, lambda: None).stop()
