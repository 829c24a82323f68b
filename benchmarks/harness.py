"""One contender, one run: started on a fresh set of files, timed, and its answers checked."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import services
from benchmarks.check import agreement, millrace_answers, peer_answers
from benchmarks.command import run_json
from benchmarks.contenders import Contender, Millrace, Work
from benchmarks.course import Course
from benchmarks.inputs import link_many
from benchmarks.tables import Sample

LONGEST_S = 400
BUCKET = "sets"
STEP = 64
"""Numbers of images are multiples of it."""


def run(contender: Contender, course: Course, images: int, latency_ms: float = 0) -> Sample:
    """Run a contender on `images` files. Raises Failed, Cheated."""
    files = course.directory / BUCKET / f"{course.workload.inputs}-{images}"
    out = course.directory / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    link_many(course.pictures, images, files)
    try:
        return _sample(contender, course, images, files, out, latency_ms)
    finally:
        for scratch in (files, out):
            shutil.rmtree(scratch, ignore_errors=True)


def images_for(rate: float, seconds: float) -> int:
    """As many images as take about that long, at least a few batches."""
    return max(1, round(rate * seconds / STEP)) * STEP


def _sample(
    contender: Contender, course: Course, images: int, files: Path, out: Path, latency_ms: float
) -> Sample:
    """What a run on these files gave; afterwards nothing runs any more."""
    with ExitStack() as stack:
        given: dict[str, str] = {}
        if not isinstance(contender, Millrace):
            given |= stack.enter_context(services.redis())
        source, stop_store = str(files), None
        if course.workload.storage == "s3":
            source = f"s3://{BUCKET}/{files.name}"
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
        said = run_json(contender.command(work), services.environment(given), LONGEST_S)
        wall_s = time.perf_counter() - begun
        store_cpu_s = None if stop_store is None else stop_store()
    if isinstance(contender, Millrace):
        seconds = images / said["rate_images_per_s"]
        answers = millrace_answers(answers_at)
    else:
        seconds = said["seconds"]
        answers = peer_answers(answers_at)
    share = agreement(answers, images, course.reference[contender.resize])
    return Sample(
        images=images, seconds=seconds, wall_s=wall_s, agreement=share, store_cpu_s=store_cpu_s
    )
