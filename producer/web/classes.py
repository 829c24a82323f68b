"""How often each class is the best one, counted a chunk at a time while somebody looks.

A chunk's object never changes, so each is read once and added to the job's counts; what a page
shows is what was counted so far. Looking never reads anything: it only asks for more.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from threading import Lock

from millrace.core.bitmaps import set_bits
from millrace.core.errors import MillraceError, ObjectTooLarge
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.log import get_logger
from millrace.core.services import Services
from millrace.producer.http.pool import Pool
from millrace.producer.web.gallery import best_of
from millrace.producer.web.job_files import JobFiles
from millrace.producer.web.outcomes import outcomes_of

log = get_logger(__name__)

JOBS_KEPT = 64
MOST_LABELS = 30_000
"""Labels come from models and objects that others made; more of them are counted as others."""
STRIDE_S = 2.0
"""Counting one job goes on for so long before the next one's turn."""
AGAIN_S = 30.0
"""When storage did not answer, how long it is left alone."""


@dataclass(slots=True)
class Counted:
    """Of one job. `chunks` are those that are counted, `left` says whether some are waiting."""

    chunks: bytearray = field(default_factory=bytearray)
    best: Counter[str] = field(default_factory=Counter)
    others: int = 0
    images: int = 0
    """With a prediction that is a class."""
    too_large: int = 0
    """Chunks that are passed over."""
    failed_at: float | None = None
    """When reading failed last, by `time.monotonic`."""

    @property
    def resting(self) -> bool:
        """Whether it failed a moment ago, so that nothing is read now."""
        return self.failed_at is not None and time.monotonic() - self.failed_at < AGAIN_S

    def add(self, chunk: int, labels: Counter[str] | None) -> None:
        """Of a chunk that is too large there are none."""
        index = chunk >> 3
        self.chunks.extend(b"\0" * (index + 1 - len(self.chunks)))
        self.chunks[index] |= 0x80 >> (chunk & 7)
        if labels is None:
            self.too_large += 1
            return
        for label, images in labels.items():
            self.images += images
            if label in self.best or len(self.best) < MOST_LABELS:
                self.best[label] += images
            else:
                self.others += images

    def missing(self, finished: bytes) -> bytes:
        """The bits of `finished` that are not counted yet."""
        width = max(len(finished), len(self.chunks))
        done = int.from_bytes(finished.ljust(width, b"\0"))
        counted = int.from_bytes(bytes(self.chunks).ljust(width, b"\0"))
        return (done & ~counted).to_bytes(width)


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """`top` are the most frequent (label, images), `more` all images of the other classes;
    `waiting` counts finished chunks that are to be counted yet: none while they cannot be read,
    of which `away` tells. `too_large` are the chunks that are passed over."""

    top: list[tuple[str, int]]
    more: int
    classes: int
    images: int
    waiting: int
    away: bool = False
    too_large: int = 0


class Classes:
    """Counts in one thread of its own, job by job, as long as somebody asks."""

    def __init__(self, services: Services, files: JobFiles) -> None:
        self._services = services
        self._files = files
        self._lock = Lock()
        self._jobs: OrderedDict[JobSpec, Counted] = OrderedDict()
        self._asked: deque[JobSpec] = deque()
        self._pool = Pool(1, "classes")
        self._closed = False

    def of(self, spec: JobSpec, finished: bytes, most: int) -> ClassCounts:
        """What is counted so far; the rest of the `finished` chunks is asked for."""
        with self._lock:
            counted = self._jobs.setdefault(spec, Counted())
            self._jobs.move_to_end(spec)
            if len(self._jobs) > JOBS_KEPT:
                self._jobs.popitem(last=False)
            missing = sum(1 for _ in set_bits(counted.missing(finished)))
            away = missing > 0 and counted.resting
            waiting = 0 if away else missing
            if waiting and spec not in self._asked and not self._closed:
                self._asked.append(spec)
                self._pool.submit(self._count_next)
            top = counted.best.most_common(most)
            shown = sum(images for _, images in top)
            classes = len(counted.best) + bool(counted.others)
            return ClassCounts(
                top,
                counted.images - shown,
                classes,
                counted.images,
                waiting,
                away,
                counted.too_large,
            )

    def close(self) -> None:
        """Count no more; nobody waits for the chunk that is being read."""
        self._closed = True
        self._pool.close()

    def _count_next(self) -> None:
        """Count the job that has waited longest, for a while."""
        with self._lock:
            spec = self._asked.popleft()
            counted = self._jobs.get(spec)
        if counted is not None:
            try:
                self._count(spec, counted)
            except MillraceError as error:
                counted.failed_at = time.monotonic()
                log.warning("classes are not counted", job=spec.job_id, error=error.message)
            except Exception as error:
                log.error("counting classes failed", job=spec.job_id, exc_info=error)

    def _count(self, spec: JobSpec, counted: Counted) -> None:
        until = time.monotonic() + STRIDE_S
        directory = self._files.directory(spec)
        for chunk in set_bits(counted.missing(self._services.jobs.done_bitmap(spec.job_id))):
            if self._closed or time.monotonic() > until:
                return
            labels = _best_labels(directory, spec, chunk)
            with self._lock:
                counted.add(chunk, labels)


def _best_labels(directory: JobDirectory, spec: JobSpec, chunk: int) -> Counter[str] | None:
    """None if the chunk is too large."""
    best = map(best_of, outcomes_of(directory, spec, chunk))
    try:
        return Counter(one["label"] for one in best if one is not None)
    except ObjectTooLarge:
        return None
