"""The micro-batcher: images of several chunks in flight become full batches.

Pure: it knows neither TensorFlow nor Celery, only a `predict` function that takes a batch
[n, …] and answers row for row.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

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

REGROW_AFTER = 64
"""Batches without an out-of-memory before the size grows again."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`size`: images in a full batch. `max_delay_s`: longest wait for a batch to fill."""

    size: int
    max_delay_s: float


class MicroBatcher:
    """One thread that gathers, predicts and hands results back in the order of arrival.

    `submit` blocks while two full batches wait, so memory is bounded by that. A batch that
    fails is halved down to the image at fault; one that does not fit in memory also makes
    the following ones smaller for a while.
    """

    def __init__(
        self,
        predict: Callable[[npt.NDArray[np.uint8]], Row],
        limits: BatchLimits,
        *,
        out_of_memory: type[Exception] = MemoryError,
    ) -> None:
        self._predict = predict
        self._limits = limits
        self._out_of_memory = out_of_memory
        self._size = limits.size
        self._calm = 0
        self._waiting: queue.Queue[tuple[npt.NDArray[np.uint8], OnResult] | None] = queue.Queue(
            maxsize=2 * limits.size
        )
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._predicting_since: float | None = None
        self.waiting = Stopwatch()
        """Runs while the thread waits for images."""

    def start(self) -> None:
        self._thread.start()

    def submit(self, image: npt.NDArray[np.uint8], on_result: OnResult) -> None:
        """Queue one image; `on_result` is called from the batcher's thread."""
        self._waiting.put((image, on_result))

    def stop(self) -> None:
        """Predict what was submitted before, then end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def predicting_for(self) -> float:
        """Seconds the prediction under way has lasted; 0 between predictions."""
        since = self._predicting_since
        return 0.0 if since is None else time.monotonic() - since

    def _run(self) -> None:
        stopping = False
        while not stopping:
            with self.waiting:
                batch, stopping = self._gather()
            if batch:
                self._answer(batch)

    def _gather(self) -> tuple[list[tuple[npt.NDArray[np.uint8], OnResult]], bool]:
        """The next batch, and whether it is the last."""
        first = self._waiting.get()
        if first is None:
            return [], True
        batch = [first]
        deadline = time.monotonic() + self._limits.max_delay_s
        while len(batch) < self._size:
            try:
                item = self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if item is None:
                return batch, True
            batch.append(item)
        return batch, False

    def _answer(self, batch: list[tuple[npt.NDArray[np.uint8], OnResult]]) -> None:
        failure: Exception | None = None
        started = time.perf_counter()
        self._predicting_since = time.monotonic()
        try:
            rows = self._predict(np.stack([image for image, _ in batch]))
            if len(rows) != len(batch):
                raise ValueError(f"{len(batch)} images in, {len(rows)} rows out")
        except Exception as error:
            failure = error
        self._predicting_since = None
        if failure is not None:
            self._halve(batch, failure)
            return
        share = int((time.perf_counter() - started) * 1e6 / len(batch))
        self._regrow()
        for (_, on_result), row in zip(batch, rows, strict=True):
            _hand_back(on_result, row, share)

    def _halve(self, batch: list[tuple[npt.NDArray[np.uint8], OnResult]], error: Exception) -> None:
        """Try the halves of a batch that failed; a failing image alone keeps its error."""
        if isinstance(error, self._out_of_memory):
            self._size, self._calm = max(1, len(batch) // 2), 0
            log.warning("out of memory; smaller batches", batch_size=self._size)
            error = ItemError(
                Stage.INFER, "out_of_memory", f"no room even for one: {error}"[:300], retryable=True
            )
        if len(batch) == 1:
            _hand_back(batch[0][1], error, 0)
            return
        middle = len(batch) // 2
        self._answer(batch[:middle])
        self._answer(batch[middle:])

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
