"""Whether decoding takes the cores that the model predicts with.

A model on the CPU that shares its cores with decoding never starves: it is only slow, and fair
scheduling keeps its batches full until decoding costs a multiple of predicting. So the CPU time of
each tells which of them is the limit, where they compete at all.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

CROWDED = 1.5
"""Decoding that takes so many times its CPU time waits for cores. Where predicting uses no core,
on a GPU say, decode threads outnumber the cores by one, and it takes hardly longer."""


class Lap(NamedTuple):
    """A thread's clocks when it began to decode an image, in seconds."""

    wall: float
    cpu: float

    @classmethod
    def begin(cls) -> Lap:
        return cls(time.perf_counter(), time.thread_time())


class Crowding:
    """Of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wall = 0.0
        self._cpu = 0.0
        self._process = time.process_time()

    def decoded(self, since: Lap) -> int:
        """This thread has decoded an image; returns the microseconds of CPU that took."""
        wall, cpu = time.perf_counter() - since.wall, time.thread_time() - since.cpu
        with self._lock:
            self._wall += wall
            self._cpu += cpu
        return int(cpu * 1e6)

    def take(self) -> float:
        """The share of its time that the model lost to decoding since this was last asked: 0
        where decoding did not wait for cores, or took less of them than all the rest did."""
        with self._lock:
            now = time.process_time()
            wall, cpu, process = self._wall, self._cpu, now - self._process
            self._wall, self._cpu, self._process = 0.0, 0.0, now
        if wall <= CROWDED * cpu or 2 * cpu <= process:
            return 0.0
        return min(1.0, cpu / process)
