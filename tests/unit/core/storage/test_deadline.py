"""A call that takes too long is given up, and only that."""

from __future__ import annotations

import threading
import time

import pytest

from millrace.core.errors import ObjectNotFound
from millrace.core.storage.deadline import within


def test_a_call_in_time_is_as_if_it_were_made_at_once() -> None:
    assert within(10, lambda: 5) == 5
    error = ObjectNotFound("a")

    def fail() -> None:
        raise error

    with pytest.raises(ObjectNotFound) as caught:
        within(10, fail)
    assert caught.value is error


def test_a_call_that_takes_too_long_is_given_up_and_keeps_no_process_alive() -> None:
    go_on, ended = threading.Event(), threading.Event()

    def slow() -> None:
        go_on.wait(30)
        ended.set()

    before, started = set(threading.enumerate()), time.monotonic()
    with pytest.raises(TimeoutError):
        within(0.1, slow)
    assert time.monotonic() - started < 5
    since = set(threading.enumerate()) - before
    (left,) = [thread for thread in since if thread.name == "within"]
    assert left.daemon
    go_on.set()
    assert ended.wait(10)
