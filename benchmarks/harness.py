"""One contender, one run: started on a fresh set of files, timed, and its answers checked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks import services
from benchmarks.check import agreement, millrace_answers, peer_answers
from benchmarks.contenders import Contender, Millrace, Work
from benchmarks.course import Course
from benchmarks.inputs import link_many
from benchmarks.tables import Sample

LONGEST_S = 400
BUCKET = "sets"
STEP = 64
"""Numbers of images are multiples of it."""


class Failed(Exception):
    """A contender ended in an error; its last words."""


def run(contender: Contender, course: Course, images: int, latency_ms: float = 0) -> Sample:
    """Run a contender on `images` files. Raises Failed, Cheated."""
    name = f"{course.workload.inputs}-{images}"
    link_many(course.pictures, images, course.directory / BUCKET / name)
    out = course.directory / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    with ExitStack() as stack:
        given: dict[str, str] = {}
        if not isinstance(contender, Millrace):
            given |= stack.enter_context(services.redis())
        source, stop_store = str(course.directory / BUCKET / name), None
        if course.workload.storage == "s3":
            source = f"s3://{BUCKET}/{name}"
            clients, stop_store = stack.enter_context(services.store(course.directory, latency_ms))
            given |= clients
        answers_at = out / ("bench" if isinstance(contender, Millrace) else "answers")
        work = Work(
            course.bundle,
            source,
            out if isinstance(contender, Millrace) else answers_at,
            course.workload,
        )
        begun = time.perf_counter()
        said = _run(contender.command(work), services.environment(given))
        wall_s = time.perf_counter() - begun
        store_cpu_s = None if stop_store is None else stop_store()
    if isinstance(contender, Millrace):
        seconds = images / said["rate_images_per_s"]
        answers = millrace_answers(answers_at)
    else:
        seconds = said["seconds"]
        answers = peer_answers(answers_at)
    share = agreement(answers, images, course.reference[contender.resize])
    shutil.rmtree(course.directory / BUCKET / name)
    shutil.rmtree(out)
    return Sample(
        images=images, seconds=seconds, wall_s=wall_s, agreement=share, store_cpu_s=store_cpu_s
    )


def images_for(rate: float, seconds: float) -> int:
    """As many images as take about that long, at least a few batches."""
    return max(1, round(rate * seconds / STEP)) * STEP


def _run(command: Sequence[str], environment: dict[str, str]) -> Any:
    """The JSON a command prints last. Raises Failed."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that all it started can be ended with it
    )
    try:
        said, complaint = process.communicate(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        raise Failed(f"not done within {LONGEST_S} s") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        raise Failed(_last_line(complaint) or f"exit code {process.returncode}")
    # millrace prints its status over several lines, peers one line at the end.
    return json.loads(said if said.lstrip().startswith("{") else said.strip().splitlines()[-1])


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
