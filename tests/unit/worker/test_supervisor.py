"""The supervisor: real child processes, restarted when they die, ended together."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from millrace.core.errors import ExitCode
from millrace.worker import supervisor
from millrace.worker.options import WorkerOptions
from millrace.worker.supervisor import (
    HOPELESS,
    Supervisor,
    decode_threads_each,
    devices_each,
    threads_each,
)
from tests.support import capture_logs, wait_until

STAND_IN = '''
"""A worker process that writes down how it was started and ends as it is told."""
import os, signal, sys, time

home = os.environ["STAND_IN_HOME"]
starts = len(os.listdir(home))
with open(f"{home}/{os.getpid()}.starting", "w") as note:
    told = ("MILLRACE_BATCH_SIZE", "MILLRACE_THREADS", "MILLRACE_DECODE_THREADS", "MILLRACE_CREW")
    note.write(" ".join(os.environ[name] for name in told))

def on_signal(number, frame):
    open(f"{home}/{os.getpid()}.heard-{signal.Signals(number).name}", "w").close()
    code = os.environ.get("STAND_IN_CODE_AFTER_SIGNAL")
    os._exit(int(code or 0))

if "STAND_IN_STUBBORN" in os.environ:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
elif "STAND_IN_DEAF" not in os.environ:
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
os.rename(f"{home}/{os.getpid()}.starting", f"{home}/{os.getpid()}.started")
ends = os.environ.get("STAND_IN_ENDS", "").split()
if starts < len(ends):
    os._exit(int(ends[starts]))
os.read(int(os.environ["MILLRACE_PARENT_FD"]), 1)
'''


class Hasty:
    """A clock for the supervisor alone that runs ten times as fast as ours."""

    sleep = staticmethod(time.sleep)

    @staticmethod
    def monotonic() -> float:
        return 10 * time.monotonic()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "time", Hasty)
    monkeypatch.setattr(supervisor, "STEADY_S", 600)


class Crew:
    """A supervisor over stand-ins: real processes, but for the module they run."""

    def __init__(self, root: Path, processes: int, **environment: str) -> None:
        package = root / "path" / "millrace" / "worker"
        package.mkdir(parents=True)
        (package.parent / "__init__.py").touch()
        (package / "__init__.py").touch()
        (package / "process.py").write_text(STAND_IN)
        self.home = root / "home"
        self.home.mkdir()
        self.supervisor = Supervisor(
            processes,
            {
                "PYTHONPATH": str(root / "path"),
                "STAND_IN_HOME": str(self.home),
                "MILLRACE_BATCH_SIZE": "7",
                **environment,
            },
        )

    def started(self) -> set[int]:
        """Process ids of all that ever were ready."""
        return {int(file.stem) for file in self.home.glob("*.started")}

    def heard(self) -> set[str]:
        """What made them end, of those that were told to."""
        return {file.suffix for file in self.home.glob("*.heard-*")}

    def wait(self, condition: Callable[[], bool]) -> None:
        """Look after them until something is so."""

        def looked_after() -> bool:
            assert self.supervisor.poll() is None
            return condition()

        wait_until(looked_after, 20)

    def wait_for(self, starts: int) -> None:
        """Look after them until so many were started."""
        self.wait(lambda: len(self.started()) >= starts)

    def end(self) -> int:
        """Look after them until all are gone; the code they ended with."""
        return end_of(self.supervisor)


def end_of(supervised: Supervisor) -> int:
    code: int | None = None

    def gone() -> bool:
        nonlocal code
        code = supervised.poll()
        return code is not None

    wait_until(gone, 120)
    assert code is not None
    return code


@pytest.fixture
def crew(tmp_path: Path) -> Callable[..., Crew]:
    return lambda processes, **environment: Crew(tmp_path, processes, **environment)


def test_every_process_is_started_with_the_environment(crew: Callable[..., Crew]) -> None:
    three = crew(3, MILLRACE_THREADS="4", MILLRACE_DECODE_THREADS="6")
    three.supervisor.start()
    three.wait_for(3)
    assert three.started() == set(three.supervisor.pids)
    assert {file.read_text() for file in three.home.iterdir()} == {"7 4 6 3"}
    three.supervisor.stop()
    assert three.end() == ExitCode.OK
    assert three.supervisor.pids == []
    assert len(three.started()) == 3
    assert three.supervisor.failures == 0


@pytest.mark.parametrize("exported", [None, "", "5"])
@pytest.mark.usefixtures("no_environment")
def test_the_machine_is_shared_unless_the_environment_says_otherwise(
    exported: str | None,
    crew: Callable[..., Crew],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if exported is not None:
        monkeypatch.setenv("MILLRACE_THREADS", exported)
        monkeypatch.setenv("MILLRACE_DECODE_THREADS", exported)
    two = crew(2)
    two.supervisor.start()
    two.wait_for(2)
    assert {file.read_text() for file in two.home.iterdir()} == {
        f"7 {exported or threads_each(2)} {exported or decode_threads_each(2)} 2"
    }
    two.supervisor.stop()
    assert two.end() == ExitCode.OK


@pytest.mark.parametrize("deaf", [{}, {"STAND_IN_DEAF": "1"}], ids=["handled", "killed by it"])
def test_a_stop_ends_in_success(deaf: dict[str, str], crew: Callable[..., Crew]) -> None:
    two = crew(2, **deaf)
    two.supervisor.start()
    two.wait_for(2)
    two.supervisor.stop()
    assert two.end() == ExitCode.OK
    assert two.supervisor.failures == 0


@pytest.mark.usefixtures("hasty")
def test_a_process_that_dies_is_replaced_and_the_others_stay(crew: Callable[..., Crew]) -> None:
    two = crew(2)
    two.supervisor.start()
    two.wait_for(2)
    killed, other = two.supervisor.pids
    os.kill(killed, signal.SIGKILL)
    two.wait(lambda: killed not in two.supervisor.pids)
    assert two.supervisor.pids == [other]  # not at once: it waits a moment first
    two.wait_for(3)
    assert other in two.supervisor.pids
    assert killed not in two.supervisor.pids
    assert two.supervisor.failures == 1
    two.supervisor.stop()
    assert two.end() == ExitCode.OK


@pytest.mark.usefixtures("hasty")
def test_a_process_that_keeps_dying_is_restarted_ever_more_slowly(
    crew: Callable[..., Crew],
) -> None:
    one = crew(1, STAND_IN_ENDS="1 70")
    with capture_logs() as logs:
        one.supervisor.start()
        one.wait(lambda: sum("restarting" in entry["event"] for entry in logs) == 2)
    assert [(entry["code"], entry["in_s"]) for entry in logs] == [(1, 1.0), (70, 2.0)]
    assert one.supervisor.failures == 2
    one.supervisor.stop()
    assert one.end() == ExitCode.OK
    assert len(one.started()) == 2


@pytest.mark.parametrize("code", sorted(HOPELESS))
def test_a_hopeless_code_ends_everything_once(code: int, crew: Callable[..., Crew]) -> None:
    three = crew(3, STAND_IN_ENDS=f"{code}")
    three.supervisor.start()
    assert three.end() == code
    assert len(three.started()) <= 3
    assert three.supervisor.poll() == code
    assert three.supervisor.failures == 0
    assert three.supervisor.pids == []


def test_a_process_that_fails_while_stopping_is_the_code(crew: Callable[..., Crew]) -> None:
    two = crew(2, STAND_IN_CODE_AFTER_SIGNAL="130")
    two.supervisor.start()
    two.wait_for(2)
    two.supervisor.stop()
    assert two.end() == ExitCode.INTERRUPTED


def test_a_process_killed_while_stopping_is_an_internal_error(crew: Callable[..., Crew]) -> None:
    one = crew(1, STAND_IN_STUBBORN="1")
    one.supervisor.start()
    one.wait_for(1)
    one.supervisor.stop()
    os.kill(one.supervisor.pids[0], signal.SIGKILL)
    assert one.end() == ExitCode.INTERNAL
    assert one.supervisor.failures == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_passes_either_signal_on_as_sigterm_and_puts_the_handlers_back(
    number: signal.Signals, crew: Callable[..., Crew]
) -> None:
    two = crew(2)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def interrupt() -> None:
        wait_until(lambda: len(two.started()) == 2, 20)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert two.supervisor.run() == ExitCode.OK
    thread.join(20)
    assert two.heard() == {".heard-SIGTERM"}
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_model_that_is_not_there_ends_real_workers_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    environment = {
        "MILLRACE_SAVED_MODEL": str(tmp_path / "nowhere"),
        "MILLRACE_NAME": "none",
        "MILLRACE_SIZE": "8",
    }
    two = Supervisor(2, environment)
    two.start()
    assert end_of(two) == ExitCode.NOT_FOUND
    said = capfd.readouterr().err
    assert 1 <= said.count("holds no SavedModel") <= 2
    assert "Traceback" not in said


def test_the_threads_of_all_processes_fill_the_machine_once() -> None:
    cores = len(os.sched_getaffinity(0))
    assert threads_each(1) == cores
    assert threads_each(cores) == 1
    assert threads_each(1000) == 1


def test_decode_threads_are_shared_out_too() -> None:
    cores = len(os.sched_getaffinity(0))
    assert decode_threads_each(1) == cores + 1
    assert decode_threads_each(cores) == 2
    assert decode_threads_each(1000) == 2


def test_a_great_machine_has_no_more_decode_threads_than_may_be_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(384)))
    assert decode_threads_each(1) == 256
    assert WorkerOptions(model="m").decode_threads == 256


@pytest.mark.parametrize(
    ("visible", "said", "devices"),
    [
        ("", "auto", ["auto", "auto", "auto"]),
        ("0", "auto", ["auto", "auto", "auto"]),
        ("0,1", "auto", ["auto:0", "auto:1", "auto:0"]),
        ("2,3", "gpu", ["gpu:0", "gpu:1", "gpu:0"]),
        ("0,1", "gpu:1", ["gpu:1", "gpu:1", "gpu:1"]),
        ("0,1", "cpu", ["cpu", "cpu", "cpu"]),
    ],
)
def test_several_gpus_are_taken_in_turn(
    visible: str, said: str, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices_each(3, said) == devices
