"""Fetch → decode → predict, overlapped by threads; several chunks share one pipeline.

An image moves on by itself: a fetch thread hands its bytes to a decode thread, which hands
the pixels to the micro-batcher, whose answer is the image's outcome. Any error on the way
is the outcome too. What is in flight at once is bounded by a budget of images, and what of it is
still encoded by one of bytes.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from millrace.core.errors import (
    AccessDenied,
    ItemError,
    MillraceError,
    ObjectNotFound,
    ObjectTooLarge,
    OutsideRoot,
    SourceChanged,
    Stage,
    StorageUnavailable,
)
from millrace.core.log import carried, get_logger
from millrace.core.manifest import ManifestRow
from millrace.core.record import TimingTotals
from millrace.core.sizes import MIB
from millrace.worker.byte_budget import ByteBudget
from millrace.worker.crowding import Crowding, Lap
from millrace.worker.starvation import Starvation, Stopwatch

log = get_logger(__name__)

ENCODED_BYTES = 256 * MIB
"""Enough for fifty photographs of 5 MB."""

T = TypeVar("T")
Fetch = Callable[[ManifestRow], bytes]
Decode = Callable[[bytes], npt.NDArray[np.uint8]]


class Batcher(Protocol):
    """What the pipeline needs of the micro-batcher."""

    waiting: Stopwatch

    def expect(self, images: int) -> None: ...

    def submit(
        self, image: npt.NDArray[np.uint8], on_result: Callable[[Any, int], None]
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Threads:
    """Threads per stage, how many images may be in flight in all of them together, and how many
    bytes of them may be fetched or being fetched, but not decoded."""

    fetch: int
    decode: int
    in_flight: int
    encoded_bytes: int = ENCODED_BYTES


@dataclass(slots=True)
class Image:
    """One image on its way: its row, then its scores or its error, and the time it took; of
    decoding, the CPU time."""

    row: ManifestRow
    scores: npt.NDArray[np.float32] | None = None
    error: ItemError | None = None
    fetch_us: int = 0
    decode_us: int = 0
    infer_us: int = 0


@dataclass(slots=True)
class _Countdown:
    """Opens when every image of a chunk has its outcome."""

    left: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    opened: threading.Event = field(default_factory=threading.Event)

    def tick(self) -> None:
        with self.lock:
            self.left -= 1
            if self.left == 0:
                self.opened.set()


class Pipeline:
    """Shared by the chunks in flight; `run` is called from one thread per chunk."""

    def __init__(self, decode: Decode, batcher: Batcher, threads: Threads) -> None:
        self._decode = decode
        self._batcher = batcher
        self._threads = threads
        self.starvation = Starvation(batcher.waiting.seconds)
        """For whoever has chunks in hand."""
        self.in_flight = threads.in_flight
        """Images at most, of all chunks together."""
        self._crowding = Crowding()
        self._budget = threading.BoundedSemaphore(threads.in_flight)
        self._encoded = ByteBudget(threads.encoded_bytes)
        self._fetchers = ThreadPoolExecutor(threads.fetch, thread_name_prefix="fetch")
        self._decoders = ThreadPoolExecutor(threads.decode, thread_name_prefix="decode")

    def run(
        self,
        rows: Sequence[ManifestRow],
        fetch: Fetch,
        under_way: Callable[[], None] = lambda: None,
        largest: int | None = None,
    ) -> list[Image]:
        """The images of a chunk, each with scores or an error, in the order of `rows`.

        `under_way` is called when all of them are being fetched, or further. What is listed
        larger than `largest` bytes is what `fetch` refuses unread: no room is made for it.
        """
        images = [Image(row) for row in rows]
        if not images:
            return images
        countdown = _Countdown(len(images))
        self._batcher.expect(len(images))
        for image in images:
            self._budget.acquire()
            size = max(0, image.row.size or 0)
            expected = size if largest is None or size <= largest else None
            self._fetchers.submit(carried(self._fetch_one), image, expected, fetch, countdown)
        under_way()
        countdown.opened.wait()
        return images

    def for_each(self, action: Callable[[T], None], items: Iterable[T]) -> None:
        """Run a storage action for many items, in the fetch threads. Raises the first error."""
        pairs = [(carried(action), item) for item in items]
        for _ in self._fetchers.map(lambda pair: pair[0](pair[1]), pairs):
            pass

    def timing(self, images: Sequence[Image], write_us: int) -> TimingTotals:
        """The time a chunk's images took, by stage. What the model waited since the last chunk
        is put down to the stage that, spread over its threads, took this one longest; and to
        decoding, if that holds the cores, its share of the time in which the model predicted."""
        fetch = sum(image.fetch_us for image in images)
        decode = sum(image.decode_us for image in images)
        infer = sum(image.infer_us for image in images)
        took = {
            "fetch": fetch / self._threads.fetch,
            "decode": decode / self._threads.decode,
            "write": write_us / max(1, self.starvation.chunks),
        }
        lost = int(infer * self._crowding.take())
        waited = Counter(
            {f"wait_{max(took, key=lambda stage: took[stage])}": self.starvation.take_us()}
        )
        waited["wait_decode"] += lost
        return TimingTotals(fetch, decode, infer - lost, write_us, **waited)

    def close(self) -> None:
        """End the threads; nothing may be running."""
        self._fetchers.shutdown()
        self._decoders.shutdown()

    def _fetch_one(
        self, image: Image, expected: int | None, fetch: Fetch, countdown: _Countdown
    ) -> None:
        if expected is not None:
            self._encoded.take(expected)
        size = expected or 0
        started = time.perf_counter()
        try:
            data = fetch(image.row)
        except BaseException as error:
            # A panic in a native library is no Exception; the chunk would wait for it for ever.
            image.fetch_us = _us_since(started)
            self._encoded.give_back(size)
            self._withdraw(image, fetch_error(error), countdown)
            return
        image.fetch_us = _us_since(started)
        # A manifest of the user's own may know no size, or another.
        self._encoded.correct(size, len(data))
        self._decoders.submit(carried(self._decode_one), image, data, countdown)

    def _decode_one(self, image: Image, data: bytes, countdown: _Countdown) -> None:
        try:
            self._hand_over(image, data, countdown)
        finally:
            # Not before: while the pixels wait for room in a batch, this thread keeps the bytes.
            self._encoded.give_back(len(data))

    def _hand_over(self, image: Image, data: bytes, countdown: _Countdown) -> None:
        began = Lap.begin()
        try:
            pixels = self._decode(data)
        except BaseException as error:
            image.decode_us = self._crowding.decoded(began)
            self._withdraw(image, as_item_error(error, Stage.DECODE), countdown)
            return
        image.decode_us = self._crowding.decoded(began)

        told = carried(as_item_error)  # a batch is of several jobs

        def on_result(answer: npt.NDArray[np.float32] | Exception, us: int) -> None:
            image.infer_us = us
            if isinstance(answer, Exception):
                self._fail(image, told(answer, Stage.INFER), countdown)
            else:
                image.scores = answer
                self._done(countdown)

        try:
            self._batcher.submit(pixels, on_result)
        except Exception as error:  # no memory for another buffer, say
            self._withdraw(image, as_item_error(error, Stage.INFER), countdown)

    def _withdraw(self, image: Image, error: ItemError, countdown: _Countdown) -> None:
        self._batcher.expect(-1)
        self._fail(image, error, countdown)

    def _fail(self, image: Image, error: ItemError, countdown: _Countdown) -> None:
        image.error = error
        self._done(countdown)

    def _done(self, countdown: _Countdown) -> None:
        self._budget.release()
        countdown.tick()


def fetch_error(error: BaseException) -> ItemError:
    """The error line a failed fetch becomes."""
    codes: list[tuple[type[MillraceError], str, bool]] = [
        (ObjectNotFound, "not_found", False),
        (OutsideRoot, "outside_input", False),
        (AccessDenied, "access_denied", False),
        (SourceChanged, "source_changed", False),
        (ObjectTooLarge, "too_large", False),
        (StorageUnavailable, "storage_unavailable", True),
    ]
    for kind, code, retryable in codes:
        if isinstance(error, kind):
            return ItemError(Stage.FETCH, code, error.message, retryable=retryable)
    return as_item_error(error, Stage.FETCH)


def as_item_error(error: BaseException, stage: Stage) -> ItemError:
    """Any other failure of one image as its error line: code `internal`."""
    if isinstance(error, ItemError):
        return error
    log.error("an image failed unexpectedly", stage=str(stage), exc_info=error)
    return ItemError(stage, "internal", f"{type(error).__name__}: {error}"[:300], retryable=True)


def _us_since(started: float) -> int:
    return int((time.perf_counter() - started) * 1e6)
