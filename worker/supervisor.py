"""The supervisor: N worker processes, restarted when they die, stopped together.

TensorFlow must not be forked, so each process is started afresh and configured by its
environment. The supervisor itself loads neither TensorFlow nor Celery.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from millrace.core.errors import ExitCode
from millrace.core.log import get_logger
from millrace.worker.tuning import gpus

log = get_logger(__name__)

PARENT_FD = "MILLRACE_PARENT_FD"
THREADS = "MILLRACE_THREADS"
DECODE_THREADS = "MILLRACE_DECODE_THREADS"
MOST_DECODE_THREADS = 256
DEVICE = "MILLRACE_DEVICE"
CREW = "MILLRACE_CREW"
METRICS_PORT = "MILLRACE_METRICS_PORT"
METRICS_SOCKET = "MILLRACE_METRICS_SOCKET"
"""Where a process tells its samples to us, who alone serve them."""

HOPELESS = frozenset(
    {
        ExitCode.USAGE,
        ExitCode.NOT_FOUND,
        ExitCode.ACCESS_DENIED,
        ExitCode.MODEL,
        ExitCode.MISSING_EXTRA,
    }
)
"""Exit codes that a restart would only repeat."""

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
STEADY_S = 60.0
"""A process that lived this long starts over with the first delay."""


def threads_each(processes: int) -> int:
    """The engine's threads per process, so that together they fill the machine once."""
    return max(1, len(os.sched_getaffinity(0)) // processes)


def decode_threads_each(processes: int) -> int:
    """Decode threads per process: its share of the cores, and one that takes over where another
    waits for room in a batch."""
    return min(MOST_DECODE_THREADS, threads_each(processes) + 1)


def devices_each(processes: int, said: str) -> list[str]:
    """The device of each process: where there are several GPUs they take turns."""
    count = gpus()
    if count < 2 or said not in ("auto", "gpu"):
        return [said] * processes
    return [f"{said}:{number % count}" for number in range(processes)]


def environments_each(processes: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """What each of so many processes is told beside our own environment: what they are all told,
    and its share of the machine where neither says otherwise."""
    shares = {THREADS: threads_each(processes), DECODE_THREADS: decode_threads_each(processes)}
    each = {name: os.environ.get(name) or str(share) for name, share in shares.items()}
    told = {**each, **environment, CREW: str(processes)}
    said = told.get(DEVICE) or os.environ.get(DEVICE) or "auto"
    return [{**told, DEVICE: device} for device in devices_each(processes, said)]


@dataclass(slots=True)
class _Slot:
    """One of the N processes, across its restarts."""

    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    delay: float = FIRST_DELAY_S
    due: float = 0.0
    failures: int = 0


class Supervisor:
    """Starts with `start`; `poll` is called until it returns an exit code."""

    def __init__(
        self,
        processes: int,
        environment: Mapping[str, str],
        sockets: Sequence[Path] | None = None,
    ) -> None:
        """Each process answers at its socket, if there are `sockets`, when it is asked for
        samples."""
        each = environments_each(processes, environment)
        self._slots = [
            _Slot({**told, METRICS_PORT: "", METRICS_SOCKET: str(sockets[n]) if sockets else ""})
            for n, told in enumerate(each)
        ]
        self._stopping = False
        self._code: int = ExitCode.OK
        # Children watch our end of this pipe: it closes however we die.
        self._child_end, self._our_end = os.pipe()

    def run(self) -> int:
        """Supervise until told to stop by SIGINT or SIGTERM, or until it is hopeless.

        Returns the exit code: 0 after a stop, else the code of the process that failed.
        """

        def forward(number: int, frame: FrameType | None) -> None:
            self.stop()

        previous = {n: signal.signal(n, forward) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.start()
            while (code := self.poll()) is None:
                time.sleep(0.1)
            return code
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def start(self) -> None:
        """Start every process."""
        for slot in self._slots:
            self._spawn(slot)

    def stop(self) -> None:
        """Ask the processes to end, and on a second call at once; none is restarted any more.

        They are always sent SIGTERM: SIGINT is ignored by what a shell's script starts with
        `&`, and makes a traceback of a Python that is just starting.
        """
        self._stopping = True
        for slot in self._slots:
            if slot.process is not None and slot.process.poll() is None:
                slot.process.terminate()

    def poll(self) -> int | None:
        """Look after the processes once; the exit code when all are gone for good."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.process is not None:
                code = slot.process.poll()
                if code is not None:
                    self._ended(slot, code, now)
            elif not self._stopping and now >= slot.due:
                self._spawn(slot)
        alive = any(slot.process is not None for slot in self._slots)
        return self._code if self._stopping and not alive else None

    @property
    def failures(self) -> int:
        """How many processes ended that nobody told to."""
        return sum(slot.failures for slot in self._slots)

    def failures_of(self, number: int) -> int:
        """How often the process of this number did."""
        return self._slots[number].failures

    @property
    def pids(self) -> list[int]:
        return [slot.process.pid for slot in self._slots if slot.process is not None]

    def _spawn(self, slot: _Slot) -> None:
        slot.process = subprocess.Popen(
            [sys.executable, "-m", "millrace.worker.process"],
            env={**os.environ, **slot.environment, PARENT_FD: str(self._child_end)},
            pass_fds=[self._child_end],
            close_fds=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # the terminal's Ctrl-C reaches us alone; we pass it on
        )
        slot.started = time.monotonic()
        if self._stopping:
            # A stop that came while it was being started has passed it by.
            slot.process.terminate()

    def _ended(self, slot: _Slot, code: int, now: float) -> None:
        pid = slot.process.pid if slot.process else 0
        slot.process = None
        if self._stopping:
            if code not in (0, -signal.SIGTERM) and self._code == ExitCode.OK:
                self._code = code if code > 0 else ExitCode.INTERNAL
            return
        if code in HOPELESS:
            self._code = code
            self.stop()
            return
        slot.failures += 1
        if now - slot.started > STEADY_S:
            slot.delay = FIRST_DELAY_S
        slot.due = now + slot.delay
        log.error("a worker process ended; restarting it", pid=pid, code=code, in_s=slot.delay)
        slot.delay = min(LONGEST_DELAY_S, 2 * slot.delay)
