"""What one worker process counts of its work, and how it shows it when it is asked.

Counted once for each batch and each chunk, never for each image alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from millrace.core import metrics as m
from millrace.core.claims import Finish
from millrace.core.metrics import Counts, Sample
from millrace.core.outcome import Tally
from millrace.core.record import TimingTotals
from millrace.core.running import Running
from millrace.worker.pipeline import Image

_US = 1e-6
_ENDED = {
    Finish.FIRST: "counted",
    Finish.REPEAT: "repeat",
    Finish.LATE: "late",
    Finish.UNKNOWN: "unknown",
}


class Meters:
    """Safe to use from several threads."""

    def __init__(self, model: str, model_version: str) -> None:
        self._model, self._version = model, model_version
        self._counts = Counts()
        self._batch_size = 0
        self._running: Running | None = None
        self._load_s: float | None = None
        self.leases: Callable[[], int] = lambda: 0
        self.queues: Callable[[], dict[str, int]] = dict
        """Messages that wait, by queue; empty while Redis is away."""

    def loaded(self, running: Running, seconds: float) -> None:
        """The model is loaded and warm."""
        self._running, self._batch_size, self._load_s = running, running.batch_size, seconds

    def batch(self, images: int, seconds: float) -> None:
        """A batch was predicted."""
        self._counts.observe(m.BATCH_IMAGES, (images,))
        if self._batch_size:
            self._counts.observe(m.BATCH_FILL, (images / self._batch_size,))
        self._counts.observe(m.STAGE_SECONDS, (seconds,), "infer")

    def chunk(
        self, answer: Finish, tally: Tally, images: Sequence[Image], timing: TimingTotals
    ) -> None:
        """A chunk was committed. Its images count where they are counted in the job."""
        counts = self._counts
        counts.add(m.CHUNKS, 1, self._model, _ENDED[answer])
        if answer is Finish.FIRST:
            counts.add(m.IMAGES, tally.succeeded, self._model, "succeeded", "", "")
            for where, failed in tally.by_code.items():
                stage, _, code = where.partition("/")
                counts.add(m.IMAGES, failed, self._model, "failed", stage, code)
        fetched = [image.fetch_us * _US for image in images if image.fetch_us]
        decoded = [image.decode_us * _US for image in images if image.decode_us]
        counts.observe(m.STAGE_SECONDS, fetched, "fetch")
        counts.observe(m.STAGE_SECONDS, decoded, "decode")
        counts.observe(m.STAGE_SECONDS, (timing.write * _US,), "write")
        waited = {
            "fetch": timing.wait_fetch,
            "decode": timing.wait_decode,
            "write": timing.wait_write,
        }
        for stage, us in waited.items():
            if us:
                counts.add(m.MODEL_WAITED, us * _US, stage)

    def given_back(self) -> None:
        """A chunk was not finished here."""
        self._counts.add(m.CHUNKS, 1, self._model, "given_back")

    def samples(self) -> list[Sample]:
        """All of it, and how the process is now."""
        running = self._running
        found = [
            *self._counts.samples(),
            Sample(m.READY, int(running is not None)),
            Sample(m.LEASES, self.leases()),
            Sample(m.CPU, time.process_time()),
            Sample(
                m.INFO,
                1,
                (
                    self._model,
                    self._version,
                    running.engine if running else "",
                    running.precision if running else "",
                    version("millrace"),
                ),
            ),
            *(Sample(m.QUEUE_CHUNKS, chunks, (queue,)) for queue, chunks in self.queues().items()),
        ]
        resident = resident_bytes()
        if resident is not None:
            found.append(Sample(m.RSS, resident))
        if self._load_s is not None:
            found.append(Sample(m.LOAD_SECONDS, self._load_s))
        return found


def resident_bytes() -> int | None:
    """Of this process, where the system tells."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
