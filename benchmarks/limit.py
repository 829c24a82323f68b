"""The limit of a machine: what decoding and predicting alone would allow.

`python -m benchmarks.limit --model BUNDLE --images DIR` decodes and predicts in a bare loop, in
as many processes at once as there are cores (for busy neighbours slow a core down), and prints
the CPU seconds of one image as JSON. Nothing is fetched, queued or written.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.command import Failed, run_json
from benchmarks.contenders import CORES
from benchmarks.inputs import jpegs
from benchmarks.services import environment
from benchmarks.tables import Cost

if TYPE_CHECKING:
    from millrace.worker.predictor import Pixels

BATCHES = (4, 16, 32)
"""The cheapest of them counts."""

PICTURES = 64
"""At most so many are decoded, in turn."""

LOOP_S = 1.5
"""How long each bare loop runs."""

LONGEST_S = 300


class NotMeasured(Exception):
    """The bare loop cannot run here."""


def measure(model: Path, images: Path, engine: str, precision: str) -> Cost:
    """Run this module as a process of its own, in the environment that contenders get.

    Raises NotMeasured with its last line.
    """
    command = [sys.executable, "-m", "benchmarks.limit", "--model", str(model)]
    command += ["--images", str(images), "--engine", engine, "--precision", precision]
    command += ["--seconds", str(LOOP_S)]
    try:
        return Cost.model_validate(run_json(command, environment(), LONGEST_S))
    except Failed as error:
        raise NotMeasured(str(error)) from error


def open_session(model: Path, engine: str, precision: str) -> Any:
    """A loaded model with one thread, as a worker would hold it. Raises NotMeasured."""
    from millrace.core.bundle import read_bundle
    from millrace.core.errors import MillraceError
    from millrace.worker.engines import load_predictor
    from millrace.worker.tuning import EngineName, Precision, Tuning

    tuning = Tuning(engine=EngineName(engine), precision=Precision(precision), threads=1)
    try:
        return load_predictor(read_bundle(model), tuning)
    except MillraceError as error:
        raise NotMeasured(error.message) from error


def cpu_per_turn(turn: Callable[[], object], seconds: float) -> float:
    """CPU seconds of one call, over as many as fit in some seconds, and at least one."""
    begun, used, turns = time.perf_counter(), time.process_time(), 0
    while not turns or time.perf_counter() - begun < seconds:
        turn()
        turns += 1
    return (time.process_time() - used) / turns


_together: Barrier
"""Of the processes of one measurement; each is given it once, at its start."""


def _meet_at(barrier: Barrier) -> None:
    global _together
    _together = barrier


def _one_core(asked: argparse.Namespace) -> tuple[float, ...]:
    """What each process does. If one fails, nobody waits for it. Raises NotMeasured, for not
    every error reads back from another process, and BrokenBarrierError if another failed."""
    try:
        return _measured(asked, _together)
    except BrokenBarrierError:
        raise
    except Exception as error:
        _together.abort()
        known = isinstance(error, NotMeasured)
        raise NotMeasured(str(error) if known else f"{type(error).__name__}: {error}") from None


def on_all_cores(asked: argparse.Namespace) -> list[tuple[float, ...]]:
    """What each core's process measured. Raises NotMeasured with the reason of the first that
    failed, also where one was killed."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(CORES, fresh, _meet_at, (fresh.Barrier(CORES),)) as pool:
        crew = [pool.submit(_one_core, asked) for _ in range(CORES)]
        errors = [error for each in crew if (error := each.exception())]
    # The others tell only that one did not come to where they meet.
    errors.sort(key=lambda error: isinstance(error, BrokenBarrierError))
    if errors:
        first = errors[0]
        raise first if isinstance(first, NotMeasured) else NotMeasured(f"{first!r}")
    return [each.result() for each in crew]


def _measured(asked: argparse.Namespace, together: Barrier) -> tuple[float, ...]:
    """CPU seconds to decode and to predict an image, and, if asked, to do both in turns;
    `together` makes all processes do the same at a time."""
    from millrace.core.bundle import read_bundle
    from millrace.worker.images import ImageDecoder
    from millrace.worker.options import MAX_PIXELS

    session = open_session(asked.model, asked.engine, asked.precision)
    card = read_bundle(asked.model).card
    decoder = ImageDecoder(card, max_pixels=MAX_PIXELS, exact=asked.exact_decode)
    pictures = [path.read_bytes() for path in jpegs(asked.images)[:PICTURES]]
    number = 0

    def decode() -> Pixels:
        nonlocal number
        number += 1
        return decoder.decode(pictures[number % len(pictures)])

    decode()
    together.wait()
    decode_s = cpu_per_turn(decode, asked.seconds)
    shape = (max(BATCHES), *session.input_shape)
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    predict_s = []
    for batch in BATCHES:
        session.predict(pixels[:batch])
        together.wait()
        spent = cpu_per_turn(lambda batch=batch: session.predict(pixels[:batch]), asked.seconds)  # type: ignore[misc]
        predict_s.append(spent / batch)
    if not asked.in_turns:
        return decode_s, min(predict_s)
    batch = BATCHES[predict_s.index(min(predict_s))]

    def both() -> None:
        for row in range(batch):
            pixels[row] = decode()
        session.predict(pixels[:batch])

    together.wait()
    return decode_s, min(predict_s), cpu_per_turn(both, asked.seconds) / batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--engine", default="tensorflow")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--exact-decode", action="store_true")
    parser.add_argument("--seconds", type=float, default=LOOP_S, help="of each bare loop")
    parser.add_argument("--in-turns", action="store_true", help="also measure both, batch by batch")
    asked = parser.parse_args()
    try:
        found = on_all_cores(asked)
    except NotMeasured as error:
        sys.exit(str(error))
    means = (statistics.mean(column) for column in zip(*found, strict=True))
    print(json.dumps(dict(zip(("decode_s", "predict_s", "in_turns_s"), means, strict=False))))


if __name__ == "__main__":
    main()
