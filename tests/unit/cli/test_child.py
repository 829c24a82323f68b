"""Child processes: waited for, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from millrace.cli.child import Child
from millrace.cli.ctrl_c import CtrlC
from tests.support import wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A child nobody has waited for yet is dead all the same.
    status = Path(f"/proc/{pid}/status")
    return not (status.exists() and "State:\tZ" in status.read_text())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "child.log"


def test_a_child_that_answers_in_time_has_no_problem(log: Path) -> None:
    child = Child(SLEEP, log=log)
    try:
        assert child.wait_until(lambda: alive(child.pid), 5) is None
    finally:
        child.stop()
    assert not alive(child.pid)


def test_a_child_that_ends_leaves_its_last_words(log: Path) -> None:
    child = Child(
        [sys.executable, "-c", "print('one', flush=True); exit('address in use')"], log=log
    )
    assert child.wait_until(lambda: False, 5) == "address in use"
    child.stop()


def test_a_child_that_says_nothing_is_quoted_so(log: Path) -> None:
    child = Child(SLEEP, log=log)
    assert child.wait_until(lambda: False, 0.05) == "it said nothing"
    child.stop()


def test_a_child_reads_what_it_is_given(log: Path) -> None:
    code = "import sys; print('got', sys.stdin.read())"
    child = Child([sys.executable, "-c", code], stdin=b"a secret", log=log)
    wait_until(lambda: "got a secret" in log.read_text(), 10)
    child.stop()


def test_a_child_that_does_not_listen_is_ended_by_force(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True)"
    child = Child([sys.executable, "-c", f"{code}; time.sleep(600)"], log=log)
    wait_until(lambda: log.read_text() == "deaf\n", 10)
    # It is given five seconds to go; a test need not sit them out.
    patient = child._process.wait
    monkeypatch.setattr(child._process, "wait", lambda timeout=None: patient(timeout and 0.05))
    child.stop()
    assert not alive(child.pid)


def test_a_second_ctrl_c_cuts_the_wait_short_and_leaves_nothing(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True)"
    child = Child([sys.executable, "-c", f"{code}; time.sleep(600)"], log=log)
    wait_until(lambda: log.read_text() == "deaf\n", 10)
    interrupt = threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
    patient = child._process.wait

    def wait(timeout: float | None = None) -> int:
        if timeout is not None:
            interrupt.start()
        return patient(timeout and 60)

    monkeypatch.setattr(child._process, "wait", wait)
    with CtrlC(), pytest.raises(KeyboardInterrupt):
        child.stop()
    assert not alive(child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can promise it")
def test_a_child_does_not_outlive_a_parent_that_is_killed(log: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from millrace.cli.child import Child\n"
        f"child = Child({SLEEP!r}, log=pathlib.Path({str(log)!r}))\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not alive(pid), 10, "the child is gone")
