"""Threads that nobody has to wait for."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from millrace.producer.http.pool import Pool


def test_what_is_called_answers_or_raises() -> None:
    pool = Pool(2, "test")
    answered, raised = pool.submit(pow, 2, 3), pool.submit(int, "x")
    assert answered is not None
    assert raised is not None
    assert answered.result(10) == 8
    with pytest.raises(ValueError, match="'x'"):
        raised.result(10)
    pool.close(10)


def test_only_so_many_run_at_once() -> None:
    pool, gate = Pool(2, "test"), threading.Event()
    futures = [pool.submit(gate.wait, 10) for _ in range(3)]
    gate.set()
    assert all(future is not None and future.result(10) for future in futures)
    pool.close(10)


def test_a_closed_pool_begins_nothing_more() -> None:
    pool, gate, begun = Pool(1, "test"), threading.Event(), threading.Event()

    def stand_still() -> bool:
        begun.set()
        return gate.wait(10)

    running, waiting = pool.submit(stand_still), pool.submit(pow, 2, 3)
    assert begun.wait(10)
    pool.close()
    gate.set()
    assert running is not None
    assert running.result(10)
    pool.close(10)
    assert waiting is not None
    assert waiting.cancelled()
    assert pool.submit(pow, 2, 3) is None


def test_a_process_ends_without_waiting_for_it() -> None:
    code = (
        "import threading; from millrace.producer.http.pool import Pool\n"
        "Pool(1, 'test').submit(threading.Event().wait)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
