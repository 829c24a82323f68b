"""The micro-batcher: images of several chunks in flight become full batches.

Pure: it knows neither TensorFlow nor Celery, only a `predict` function that takes a batch
[n, …] and answers row for row.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.core.errors import ItemError, Stage
from millrace.core.log import get_logger
from millrace.worker.starvation import Stopwatch

log = get_logger(__name__)

Row = npt.NDArray[np.float32]
OnResult = Callable[[Row | Exception, int], None]
"""Called once per image with its row of scores or why there is none, and its share of the
prediction time in microseconds."""

BUFFERS = 3
"""One is predicted, one is full and next, one is being filled."""

REGROW_AFTER = 64
"""Batches without an out-of-memory before the size grows again."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`size`: images in a full batch. `max_delay_s`: longest wait for a batch to fill."""

    size: int
    max_delay_s: float


@dataclass(slots=True)
class _Batch:
    """A buffer and who waits for its rows."""

    buffer: npt.NDArray[Any]
    takers: list[OnResult] = field(default_factory=list)
    unwritten: int = 0
    """Rows that are taken, but whose pixels are still being copied."""
    since: float = field(default_factory=time.monotonic)


class MicroBatcher:
    """One thread that predicts batches and hands results back in the order of arrival.

    `submit` copies an image straight into its row of the next batch, and blocks while there is
    no room in the `BUFFERS` there are, so memory is bounded by them. A batch is predicted
    when it is full, when no image is on its way to it, or when the delay is over. One
    that fails is halved down to the image at fault; one that does not fit in memory also makes
    the following ones smaller for a while.
    """

    def __init__(
        self,
        predict: Callable[[npt.NDArray[np.uint8]], Row],
        limits: BatchLimits,
        *,
        out_of_memory: type[Exception] = MemoryError,
        predicted: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        """`predicted` is told of each batch that was: its images, and the seconds it took."""
        self._predict = predict
        self._limits = limits
        self._out_of_memory = out_of_memory
        self._predicted = predicted
        self._size = limits.size
        self._calm = 0
        lock = threading.Lock()
        self._room = threading.Condition(lock)
        self._work = threading.Condition(lock)
        self._expected = 0
        self._free: list[npt.NDArray[Any]] = []
        self._buffers = 0
        self._filling: _Batch | None = None
        self._full: deque[_Batch] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._predicting_since: float | None = None
        self.waiting = Stopwatch()
        """Runs while the thread waits for images."""

    def start(self) -> None:
        self._thread.start()

    def expect(self, images: int) -> None:
        """So many images are on their way here, or, if negative, will not come after all.

        While some are, an unfinished batch waits for them.
        """
        with self._work:
            self._expected += images
            if self._expected <= 0:
                self._work.notify()

    def submit(self, image: npt.NDArray[np.uint8], on_result: OnResult) -> None:
        """Take one image that was expected; `on_result` is called from the batcher's thread.

        All images have the shape of the first: one that has not gets a ValueError at once.
        """
        with self._room:
            self._room.wait_for(lambda: self._filling or self._free or self._buffers < BUFFERS)
            batch = self._filling or self._begin(image)
            self._expected -= 1
            fits = image.shape == batch.buffer.shape[1:]
            if fits:
                row = batch.buffer[len(batch.takers)]
                batch.takers.append(on_result)
                batch.unwritten += 1
                if len(batch.takers) == self._limits.size:
                    self._close()
        if fits:
            row[...] = image
        else:
            error = ValueError(f"{image.shape} where {batch.buffer.shape[1:]} is batched")
            _hand_back(on_result, error, 0)
        with self._work:
            batch.unwritten -= fits
            self._work.notify()

    def stop(self) -> None:
        """Predict what was submitted before, then end the thread."""
        with self._work:
            self._stopping = True
            self._work.notify()
        self._thread.join()

    def predicting_for(self) -> float:
        """Seconds the prediction under way has lasted; 0 between predictions."""
        since = self._predicting_since
        return 0.0 if since is None else time.monotonic() - since

    def _begin(self, image: npt.NDArray[np.uint8]) -> _Batch:
        if self._free:
            buffer = self._free.pop()
        else:
            buffer = np.empty((self._limits.size, *image.shape), image.dtype)
            self._buffers += 1
        self._filling = _Batch(buffer)
        return self._filling

    def _close(self) -> None:
        assert self._filling is not None
        self._full.append(self._filling)
        self._filling = None

    def _run(self) -> None:
        while True:
            with self.waiting:
                batch = self._next()
            if batch is None:
                return
            self._answer_all(batch.buffer[: len(batch.takers)], batch.takers)
            with self._room:
                self._free.append(batch.buffer)
                self._room.notify_all()

    def _next(self) -> _Batch | None:
        """The next batch, all of it written; None when there will be none any more."""
        with self._work:
            while True:
                if self._full and not self._full[0].unwritten:
                    return self._full.popleft()
                patience = self._patience()
                if patience == 0.0:
                    self._close()
                elif self._stopping and not self._full and not self._filling:
                    return None
                else:
                    self._work.wait(patience)

    def _patience(self) -> float | None:
        """How long the batch that is being filled may wait for more; None for ever."""
        if self._full or not self._filling:
            return None
        if self._expected <= 0 or self._stopping:
            return 0.0
        return max(0.0, self._filling.since + self._limits.max_delay_s - time.monotonic())

    def _answer_all(self, pixels: npt.NDArray[Any], takers: list[OnResult]) -> None:
        """In batches of the size that fits in memory at present."""
        begin = 0
        while begin < len(pixels):
            end = begin + self._size
            self._answer(pixels[begin:end], takers[begin:end])
            begin = end

    def _answer(self, pixels: npt.NDArray[Any], takers: list[OnResult]) -> None:
        failure: Exception | None = None
        started = time.perf_counter()
        self._predicting_since = time.monotonic()
        try:
            rows = self._predict(pixels)
            if len(rows) != len(pixels):
                raise ValueError(f"{len(pixels)} images in, {len(rows)} rows out")
        except Exception as error:
            failure = error
        self._predicting_since = None
        if failure is not None:
            self._halve(pixels, takers, failure)
            return
        seconds = time.perf_counter() - started
        self._predicted(len(pixels), seconds)
        share = int(seconds * 1e6 / len(pixels))
        self._regrow()
        for on_result, row in zip(takers, rows, strict=True):
            _hand_back(on_result, row, share)

    def _halve(self, pixels: npt.NDArray[Any], takers: list[OnResult], error: Exception) -> None:
        """Try the halves of a batch that failed; a failing image alone keeps its error."""
        if isinstance(error, self._out_of_memory):
            self._size, self._calm = max(1, len(pixels) // 2), 0
            log.warning("out of memory; smaller batches", batch_size=self._size)
            error = ItemError(
                Stage.INFER, "out_of_memory", f"no room even for one: {error}"[:300], retryable=True
            )
        if len(pixels) == 1:
            _hand_back(takers[0], error, 0)
            return
        middle = len(pixels) // 2
        self._answer(pixels[:middle], takers[:middle])
        self._answer(pixels[middle:], takers[middle:])

    def _regrow(self) -> None:
        if self._size < self._limits.size:
            self._calm += 1
            if self._calm >= REGROW_AFTER:
                self._size, self._calm = min(self._limits.size, 2 * self._size), 0


def _hand_back(on_result: OnResult, answer: Row | Exception, us: int) -> None:
    try:
        on_result(answer, us)
    except Exception:
        # A caller's mistake must not end the thread that everybody's images go through.
        log.exception("an image's result was not taken")
