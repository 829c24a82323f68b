"""The worker process that `benchmarks.bookkeeping` measures: the real one, whose fetch, decode
and predict cost next to nothing. When it is told to stop it writes where its CPU time went.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.synthetic import SyntheticStores
from millrace.core import services
from millrace.core.bundle import Bundle
from millrace.core.claims import Claims
from millrace.core.feed import Feeder
from millrace.core.jobdir import JobDirectory
from millrace.core.jobstore import JobStore
from millrace.worker import engine, inference, process
from millrace.worker.pipeline import Pipeline
from millrace.worker.predictor import Pixels, Predictor, Scores
from millrace.worker.tuning import EngineName, Tuning

REPORT = "BOOKKEEPING_REPORT"
"""The environment variable that names the file to write."""

CLASSES, SIDE = 1000, 224

REDIS = "claim, finish, feed"
COMMIT = "commit"
HAND_OVERS = "hand-overs"
LINES = "rows, lines, JSON, top-k"
CELERY = "Celery's consumer"
CHUNK = "chunk"
REST = "heartbeat, reconciler, …"


class NoModel(Predictor):
    """Predicts random scores that were drawn before."""

    engine = EngineName.AUTO
    output_shape = (CLASSES,)

    def __init__(self, bundle: Bundle, tuning: Tuning) -> None:
        super().__init__(bundle, tuning)
        scores = np.random.default_rng(7).random((4096, CLASSES), np.float32)
        self._scores: Scores = scores / scores.sum(axis=1, keepdims=True)

    def _run(self, pixels: Pixels) -> Scores:
        return self._scores[: len(pixels)]


class NoDecoder:
    """Every image is the same pixels."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._pixels = np.full((SIDE, SIDE, 3), 127, np.uint8)

    def decode(self, data: bytes) -> npt.NDArray[np.uint8]:
        return self._pixels


class Meter:
    """CPU seconds by what they were spent on, since `start`."""

    def __init__(self) -> None:
        self._within = defaultdict[str, float](float)
        """Of the chunks' threads, by the call they were spent in."""
        self._lock = threading.Lock()
        self._before: dict[int, float] = {}
        self._process_before = 0.0

    def start(self) -> None:
        self._before = _cpu_of_threads()
        self._process_before = time.process_time()

    def timed(self, owner: type, name: str, what: str) -> None:
        """Meter a method that a chunk's thread calls."""
        method: Callable[..., Any] = getattr(owner, name)

        @wraps(method)
        def metered(*args: Any, **kwargs: Any) -> Any:
            started = time.thread_time()
            try:
                return method(*args, **kwargs)
            finally:
                spent = time.thread_time() - started
                with self._lock:
                    self._within[what] += spent

        setattr(owner, name, metered)

    def report(self) -> dict[str, float]:
        """What the process spent: `whole`, and its parts."""
        whole = time.process_time() - self._process_before
        by_thread = defaultdict[str, float](float)
        for ident, seconds in _cpu_of_threads().items():
            by_thread[_kind(ident)] += seconds - self._before.get(ident, 0.0)
        within = self._within
        return {
            "whole": whole,
            REDIS: within[REDIS],
            # With obstore's own threads, which Python does not know.
            COMMIT: within[COMMIT] + whole - sum(by_thread.values()),
            HAND_OVERS: within[HAND_OVERS] + by_thread[HAND_OVERS],
            # What a chunk's thread does itself, between the calls that are metered.
            LINES: by_thread[CHUNK] - sum(within.values()),
            CELERY: by_thread[CELERY],
            REST: by_thread[REST],
        }


def _cpu_of_threads() -> dict[int, float]:
    return {
        thread.ident: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.ident is not None
    }


def _kind(ident: int) -> str:
    name = next(thread.name for thread in threading.enumerate() if thread.ident == ident)
    if name.startswith(("fetch", "decode", "batcher")):
        return HAND_OVERS
    if name.startswith("chunk"):
        return CHUNK
    return CELERY if name == "MainThread" else REST


def main() -> int:
    meter = Meter()
    load, begin_stop = engine.Engine.load, engine.Engine.begin_stop

    def start(self: engine.Engine) -> None:
        load(self)
        meter.start()

    def stop(self: engine.Engine) -> int:
        Path(os.environ[REPORT]).write_text(json.dumps(meter.report()))
        return begin_stop(self)

    stand_ins: list[tuple[Any, str, Any]] = [
        (inference, "load_predictor", NoModel),
        (inference, "ImageDecoder", NoDecoder),
        (services, "Stores", SyntheticStores),
        (engine.Engine, "load", start),
        (engine.Engine, "begin_stop", stop),
    ]
    for owner, name, stand_in in stand_ins:
        setattr(owner, name, stand_in)
    for owner, name, what in (
        (JobStore, "spec", REDIS),
        (Claims, "claim", REDIS),
        (Claims, "finish", REDIS),
        (Feeder, "feed", REDIS),
        (JobDirectory, "create_chunk", COMMIT),
        (Pipeline, "run", HAND_OVERS),
    ):
        meter.timed(owner, name, what)
    return process.main()


if __name__ == "__main__":
    sys.exit(main())
