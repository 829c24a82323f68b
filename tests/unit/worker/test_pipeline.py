"""Fetch → decode → predict: every row gets its own outcome, in order, whatever happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.core.bottleneck import bottleneck_of
from millrace.core.chunks import DEFAULT_CHUNK_SIZE
from millrace.core.errors import (
    AccessDenied,
    AlreadyExists,
    ItemError,
    MillraceError,
    ObjectNotFound,
    ObjectTooLarge,
    SourceChanged,
    Stage,
    StorageUnavailable,
)
from millrace.core.log import about
from millrace.core.manifest import ManifestRow
from millrace.core.record import TimingTotals
from millrace.worker.batch_size import LARGEST
from millrace.worker.batcher import BUFFERS, BatchLimits, MicroBatcher
from millrace.worker.pipeline import Fetch, Image, Pipeline, Threads, fetch_error
from tests.support import capture_logs, wait_until

Batch = npt.NDArray[np.uint8]
BATCH = 4
THREADS = Threads(fetch=4, decode=2, in_flight=16)
WITHIN_S = 20


def rows(count: int, first: int = 0) -> list[ManifestRow]:
    return [ManifestRow(f"{n:04d}") for n in range(first, first + count)]


def fetch(row: ManifestRow) -> bytes:
    return row.key.encode()


def decode(data: bytes) -> Batch:
    return np.frombuffer(data, np.uint8)


def echo(batch: Batch) -> npt.NDArray[np.float32]:
    return batch.astype(np.float32)


def key_of(image: Image) -> str:
    """The key whose bytes came through every stage into this image's scores."""
    assert image.scores is not None
    return image.scores.astype(np.uint8).tobytes().decode()


@contextmanager
def running(
    decode: Callable[[bytes], Batch] = decode,
    predict: Callable[[Batch], npt.NDArray[np.float32]] = echo,
    threads: Threads = THREADS,
) -> Iterator[Pipeline]:
    batcher = MicroBatcher(predict, BatchLimits(BATCH, 0.001))
    batcher.start()
    pipeline = Pipeline(decode, batcher, threads)
    try:
        yield pipeline
    finally:
        pipeline.close()
        batcher.stop()


def test_each_image_comes_through_with_its_own_scores() -> None:
    with running() as pipeline:
        images = pipeline.run(rows(40), fetch)
    assert [image.row for image in images] == rows(40)
    assert [key_of(image) for image in images] == [row.key for row in rows(40)]
    assert all(image.error is None for image in images)


def test_outcomes_are_in_row_order_whatever_finishes_first() -> None:
    last_fetched = threading.Event()

    def backwards(row: ManifestRow) -> bytes:
        if row.key == "0003":
            last_fetched.set()
        else:
            assert last_fetched.wait(WITHIN_S)
        return fetch(row)

    with running() as pipeline:
        images = pipeline.run(rows(4), backwards)
    assert [key_of(image) for image in images] == ["0000", "0001", "0002", "0003"]


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(1, 60),
    not_found=st.sets(st.integers(0, 59)),
    broken=st.sets(st.integers(0, 59)),
    unpredictable=st.sets(st.integers(0, 59)),
)
def test_every_row_has_one_outcome_and_failures_stay_with_their_image(
    count: int, not_found: set[int], broken: set[int], unpredictable: set[int]
) -> None:
    def some(row: ManifestRow) -> bytes:
        if int(row.key) in not_found:
            raise ObjectNotFound(row.key)
        return fetch(row)

    def picky(data: bytes) -> Batch:
        if int(data) in broken:
            raise ItemError(Stage.DECODE, "corrupt", "broken")
        return decode(data)

    def moody(batch: Batch) -> npt.NDArray[np.float32]:
        if any(int(row.tobytes()) in unpredictable for row in batch):
            raise RuntimeError("not this one")
        return echo(batch)

    with running(picky, moody) as pipeline:
        images = pipeline.run(rows(count), some)
    assert [image.row for image in images] == rows(count)
    for n, image in enumerate(images):
        if n in not_found:
            assert image.error is not None
            assert (image.error.stage, image.error.code) == (Stage.FETCH, "not_found")
        elif n in broken:
            assert image.error is not None
            assert (image.error.stage, image.error.code) == (Stage.DECODE, "corrupt")
        elif n in unpredictable:
            assert image.error is not None
            assert (image.error.stage, image.error.code) == (Stage.INFER, "internal")
        else:
            assert image.error is None
            assert key_of(image) == image.row.key


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (ObjectNotFound("gone"), "not_found", False),
        (AccessDenied("no"), "access_denied", False),
        (SourceChanged("other"), "source_changed", False),
        (ObjectTooLarge("huge"), "too_large", False),
        (StorageUnavailable("down"), "storage_unavailable", True),
        (AlreadyExists("what?"), "internal", True),
        (MillraceError("what?"), "internal", True),
        (ValueError("what?"), "internal", True),
        (MemoryError(), "internal", True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_failed_fetch_becomes_its_code(error: Exception, code: str, retryable: bool) -> None:
    def failing(row: ManifestRow) -> bytes:
        raise error

    with running() as pipeline:
        (image,) = pipeline.run(rows(1), failing)
    assert image.scores is None
    assert image.error is not None
    assert (image.error.stage, image.error.code) == (Stage.FETCH, code)
    assert image.error.retryable is retryable
    assert str(error) in image.error.message


def test_an_item_error_of_a_fetch_is_kept() -> None:
    error = ItemError(Stage.PREPROCESS, "odd", "as it is", retryable=True)
    assert fetch_error(error) is error


@pytest.mark.parametrize("stage", [Stage.DECODE, Stage.INFER])
def test_an_item_error_is_kept_and_anything_else_is_internal(stage: Stage) -> None:
    def decoding(data: bytes) -> Batch:
        if stage is Stage.DECODE:
            raise failure
        return decode(data)

    def predicting(batch: Batch) -> npt.NDArray[np.float32]:
        raise failure

    failure: Exception = ItemError(stage, "of_its_own", "as said", retryable=True)
    with running(decoding, predicting) as pipeline:
        (image,) = pipeline.run(rows(1), fetch)
    assert image.error is failure

    failure = KeyError("x" * 5000)
    with running(decoding, predicting) as pipeline:
        (image,) = pipeline.run(rows(1), fetch)
    assert image.error is not None
    assert (image.error.stage, image.error.code) == (stage, "internal")
    assert image.error.retryable
    assert image.error.message.startswith("KeyError: ")
    assert len(image.error.message) <= 300


class Panic(BaseException):
    """What a native library may raise that is no Exception."""


@pytest.mark.parametrize("stage", [Stage.FETCH, Stage.DECODE])
@pytest.mark.parametrize("error", [Panic, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_is_an_error_line_too(
    stage: Stage, error: type[BaseException]
) -> None:
    def fetching(row: ManifestRow) -> bytes:
        if stage is Stage.FETCH and row.key == "0001":
            raise error("unwrapped a None")
        return fetch(row)

    def decoding(data: bytes) -> Batch:
        if stage is Stage.DECODE and data == b"0001":
            raise error("unwrapped a None")
        return decode(data)

    # With a budget of one image and one thread a stage, whatever is lost stops what follows.
    with running(decoding, threads=Threads(1, 1, 1)) as pipeline:
        found: list[Image] = []
        thread = threading.Thread(
            target=lambda: found.extend(pipeline.run(rows(4), fetching)), daemon=True
        )
        thread.start()
        thread.join(WITHIN_S)
        assert not thread.is_alive()
    assert [image.row for image in found] == rows(4)
    assert [image.row.key for image in found if image.error is None] == ["0000", "0002", "0003"]
    failed = found[1].error
    assert failed is not None
    assert (failed.stage, failed.code, failed.retryable) == (stage, "internal", True)
    assert failed.message == f"{error.__name__}: unwrapped a None"


@pytest.mark.parametrize("stage", ["fetch", "decode", "infer"])
def test_the_lines_of_every_thread_are_about_the_job_whose_image_it_is(stage: str) -> None:
    """Two jobs at once, whose images meet in one batch."""

    def failing(here: str, then: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(given: Any) -> Any:
            if here == stage:
                raise RuntimeError("unforeseen")
            return then(given)

        return call

    def run(job: str) -> None:
        with about(job=job):
            pipeline.run(rows(BATCH // 2), failing("fetch", fetch))

    with (
        capture_logs() as logs,
        running(failing("decode", decode), failing("infer", echo)) as pipeline,
        ThreadPoolExecutor(2) as chunks,
    ):
        wait([chunks.submit(run, job) for job in ("a", "b")])
    said = [(entry["event"], entry["job"]) for entry in logs]
    line = "an image failed unexpectedly"
    assert sorted(said) == [(line, "a")] * (BATCH // 2) + [(line, "b")] * (BATCH // 2)


def test_a_chunk_of_no_rows_is_done_at_once() -> None:
    with running() as pipeline:
        found: list[list[Image]] = []
        thread = threading.Thread(target=lambda: found.append(pipeline.run([], fetch)), daemon=True)
        thread.start()
        thread.join(WITHIN_S)
        assert not thread.is_alive()
    assert found == [[]]


KIB = bytes(1024)


@pytest.mark.parametrize("known", [True, False], ids=["sizes known", "sizes unknown"])
def test_no_more_bytes_are_fetched_than_the_budget_while_the_model_is_blocked(known: bool) -> None:
    """Of unknown sizes each fetch thread may find one more."""
    limit, fetchers = 8, 3
    gate = threading.Event()
    fetched: list[str] = []

    def large(row: ManifestRow) -> bytes:
        fetched.append(row.key)
        return KIB

    def blocked(batch: Batch) -> npt.NDArray[np.float32]:
        assert gate.wait(WITHIN_S)
        return echo(batch[:, :1])

    many = [row._replace(size=len(KIB) if known else None) for row in rows(100)]
    threads = Threads(fetchers, 1, in_flight=100, encoded_bytes=limit * len(KIB))
    with (
        running(predict=blocked, threads=threads) as pipeline,
        ThreadPoolExecutor(1) as slot,
    ):
        handled = slot.submit(pipeline.run, many, large)
        try:
            # The batcher has filled its buffers: with an image each, if they were slow to come.
            wait_until(lambda: len(fetched) >= BUFFERS + limit, WITHIN_S)
            wait([handled], 0.1)  # time enough to fetch another, if it did
            assert len(fetched) <= BUFFERS * BATCH + limit + (0 if known else fetchers)
        finally:
            gate.set()
        assert [image.error for image in handled.result(WITHIN_S)] == [None] * 100


def test_what_is_larger_than_the_budget_passes_alone() -> None:
    lock = threading.Lock()
    now = 0
    beside: list[int] = []

    def counting(row: ManifestRow) -> bytes:
        nonlocal now
        with lock:
            now += 1
            if row.size == 5 * len(KIB):
                beside.append(now - 1)
        return bytes(row.size or 0)

    def counted(data: bytes) -> Batch:
        nonlocal now
        with lock:
            now -= 1
        return decode(data[:4])

    some = [
        row._replace(size=len(KIB) * (5 if number % 7 == 3 else 1))
        for number, row in enumerate(rows(40))
    ]
    threads = Threads(4, 2, in_flight=40, encoded_bytes=3 * len(KIB))
    with running(counted, threads=threads) as pipeline, ThreadPoolExecutor(1) as slot:
        images = slot.submit(pipeline.run, some, counting).result(WITHIN_S)
    assert [image.error for image in images] == [None] * 40
    assert beside == [0] * sum(row.size == 5 * len(KIB) for row in some)


def test_what_is_refused_unread_waits_for_no_room() -> None:
    gate, last = threading.Event(), threading.Event()
    large, limit = 50 * len(KIB), 5 * len(KIB)

    def refusing(row: ManifestRow) -> bytes:
        if row.size == large:
            raise ObjectTooLarge("unread")
        if row.key == "0004":
            last.set()
        return fetch(row)

    def held(data: bytes) -> Batch:
        assert gate.wait(WITHIN_S)
        return decode(data)

    some = [row._replace(size=large if row.key == "0001" else 4) for row in rows(5)]
    threads = Threads(1, 1, in_flight=5, encoded_bytes=limit)
    with running(held, threads=threads) as pipeline, ThreadPoolExecutor(1) as slot:
        handled = slot.submit(pipeline.run, some, refusing, lambda: None, limit)
        try:
            assert last.wait(WITHIN_S), "though the first one's bytes are held"
        finally:
            gate.set()
        codes = [image.error and image.error.code for image in handled.result(WITHIN_S)]
    assert codes == [None, "too_large", None, None, None]


@pytest.mark.parametrize("stage", [Stage.FETCH, Stage.DECODE, Stage.INFER])
def test_the_bytes_of_what_fails_are_given_back(stage: Stage) -> None:
    def fails(at: Stage) -> None:
        if at is stage:
            raise RuntimeError("not this one")

    def fetching(row: ManifestRow) -> bytes:
        fails(Stage.FETCH)
        return KIB

    def decoding(data: bytes) -> Batch:
        fails(Stage.DECODE)
        return decode(data)

    def predicting(batch: Batch) -> npt.NDArray[np.float32]:
        fails(Stage.INFER)
        return echo(batch)

    # With room for one image, whatever is kept stops what follows.
    many = [row._replace(size=len(KIB)) for row in rows(20)]
    threads = Threads(4, 2, 16, encoded_bytes=len(KIB))
    with running(decoding, predicting, threads) as pipeline, ThreadPoolExecutor(1) as slot:
        images = slot.submit(pipeline.run, many, fetching).result(WITHIN_S)
    assert {image.error.stage for image in images if image.error} == {stage}
    assert all(image.error for image in images)


@pytest.mark.parametrize("in_flight", [1, 3, 16])
def test_no_more_than_the_budget_is_between_fetch_and_answer(in_flight: int) -> None:
    lock = threading.Lock()
    now = most = 0

    def counting(row: ManifestRow) -> bytes:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        return fetch(row)

    def answering(batch: Batch) -> npt.NDArray[np.float32]:
        nonlocal now
        with lock:
            now -= len(batch)
        return echo(batch)

    with running(predict=answering, threads=Threads(8, 2, in_flight)) as pipeline:
        threads = [
            threading.Thread(target=pipeline.run, args=(rows(50, 100 * n), counting))
            for n in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WITHIN_S)
    assert now == 0
    assert 1 <= most <= in_flight


def test_the_budget_fills_and_then_waits() -> None:
    fetched: list[str] = []
    gate = threading.Event()

    def predict(batch: Batch) -> npt.NDArray[np.float32]:
        assert gate.wait(WITHIN_S)
        return echo(batch)

    def noting(row: ManifestRow) -> bytes:
        fetched.append(row.key)
        return fetch(row)

    with running(predict=predict, threads=Threads(8, 2, 6)) as pipeline:
        thread = threading.Thread(target=pipeline.run, args=(rows(20), noting))
        thread.start()
        wait_until(lambda: len(fetched) == 6, WITHIN_S)
        thread.join(0.1)  # time enough to fetch a seventh, if it did
        assert len(fetched) == 6
        gate.set()
        thread.join(WITHIN_S)
    assert len(fetched) == 20


def test_failures_give_their_place_in_the_budget_back() -> None:
    def failing(row: ManifestRow) -> bytes:
        raise ObjectNotFound(row.key)

    def refusing(data: bytes) -> Batch:
        raise ItemError(Stage.DECODE, "corrupt", "broken")

    def crashing(batch: Batch) -> npt.NDArray[np.float32]:
        raise RuntimeError("crash")

    seams: list[tuple[Fetch, Callable[[bytes], Batch]]] = [
        (failing, decode),
        (fetch, refusing),
        (fetch, decode),
    ]
    for fetching, decoding in seams:
        with running(decoding, crashing, Threads(2, 2, 2)) as pipeline:
            for _ in range(3):
                images = pipeline.run(rows(9), fetching)
                assert all(image.error is not None for image in images)


def test_several_chunks_share_one_pipeline() -> None:
    found: dict[int, list[Image]] = {}
    together = threading.Barrier(4)

    def fetching(row: ManifestRow) -> bytes:
        if row.key.endswith("00"):
            together.wait(WITHIN_S)  # every chunk has begun before the first goes on
        return fetch(row)

    with running(threads=Threads(8, 2, 64)) as pipeline:

        def run(chunk: int) -> None:
            found[chunk] = pipeline.run(rows(30, 100 * chunk), fetching)

        threads = [threading.Thread(target=run, args=(chunk,)) for chunk in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WITHIN_S)
    for chunk in range(4):
        assert [key_of(image) for image in found[chunk]] == [
            row.key for row in rows(30, 100 * chunk)
        ]


def test_times_are_counted_by_stage() -> None:
    with running() as pipeline:
        images = pipeline.run(rows(5), fetch)
        timing = pipeline.timing(images, write_us=77)
    assert timing.write == 77
    assert timing.fetch == sum(image.fetch_us for image in images)
    assert timing.decode == sum(image.decode_us for image in images)
    assert timing.infer == sum(image.infer_us for image in images)


def work(seconds: float) -> None:
    """Take so much CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def timed(
    *, fetching: float = 0, decoding: float = 0, predicting: float = 0, writing: float = 0
) -> TimingTotals:
    """Of a chunk whose stages take so many seconds an image, and the last so many for all of it;
    decoding and predicting take them of the CPU, which Python gives to one thread at a time."""

    def slow_fetch(row: ManifestRow) -> bytes:
        if fetching:  # a sleep of no time would give the core up, and wait for its turn
            time.sleep(fetching)
        return fetch(row)

    def slow_decode(data: bytes) -> Batch:
        work(decoding)
        return decode(data)

    def slow_predict(batch: Batch) -> npt.NDArray[np.float32]:
        work(predicting * len(batch))
        return echo(batch)

    with running(slow_decode, slow_predict) as pipeline, pipeline.starvation.chunk():
        images = pipeline.run(rows(80), slow_fetch)
        started = time.perf_counter()
        time.sleep(writing)
        return pipeline.timing(images, int((time.perf_counter() - started) * 1e6))


@pytest.mark.parametrize(
    ("seconds", "stage"),
    [
        ({"fetching": 0.02}, "fetch"),
        ({"decoding": 0.01}, "decode"),
        ({"predicting": 0.01}, "predict"),
        ({"writing": 0.5}, "write"),
        # Both take the same core: the two decode threads get more of it than the model does, so it
        # has full batches all the while.
        ({"decoding": 0.012, "predicting": 0.008}, "decode"),
        ({"decoding": 0.004, "predicting": 0.012}, "predict"),
    ],
)
def test_the_slow_stage_is_the_bottleneck(seconds: dict[str, float], stage: str) -> None:
    found = bottleneck_of(timed(**seconds))
    assert found is not None
    assert found.stage == stage


def test_decoding_is_counted_in_cpu_time() -> None:
    timing = timed(decoding=0.012, predicting=0.008)
    assert timing.decode == pytest.approx(80 * 12_000, rel=0.2)


def test_closing_ends_the_threads() -> None:
    before = set(threading.enumerate())
    with running() as pipeline:
        pipeline.run(rows(20), fetch)
        started = [thread.name for thread in set(threading.enumerate()) - before]
        assert any(name.startswith("fetch") for name in started)
        assert any(name.startswith("decode") for name in started)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(("size", "chunk"), [(16, 75), (LARGEST, DEFAULT_CHUNK_SIZE)])
def test_under_load_batches_are_full(size: int, chunk: int) -> None:
    """Chunks of no multiple of the batch, some images missing: their ends are merged. By themselves
    they would fill 0.78 and 0.66 of their batches. With the chunks that are in hand by default
    there are images enough for the largest batches."""
    sizes: list[int] = []

    def predict(batch: Batch) -> npt.NDArray[np.float32]:
        sizes.append(len(batch))
        time.sleep(0.0002 * len(batch))  # the model is the limit, and its cores are not ours
        return echo(batch)

    def some(row: ManifestRow) -> bytes:
        if int(row.key) % 3 == 0:
            raise ObjectNotFound("gone")
        return fetch(row)

    limits = BatchLimits(size, max_delay_s=3600)
    batcher = MicroBatcher(predict, limits)
    batcher.start()
    pipeline = Pipeline(decode, batcher, Threads(fetch=16, decode=2, in_flight=4 * size + 16))
    with ThreadPoolExecutor(3) as slots:
        chunks = slots.map(lambda _: pipeline.run(rows(chunk), some), range(24))
        predicted = sum(image.error is None for images in chunks for image in images)
    pipeline.close()
    batcher.stop()
    assert sum(sizes) == predicted == 24 * (chunk - len(range(0, chunk, 3)))
    assert predicted / (len(sizes) * limits.size) >= 0.9


def test_an_image_that_finds_no_room_is_an_error_of_its_own() -> None:
    class Full(MicroBatcher):
        def submit(self, image: Batch, on_result: Any) -> None:
            raise MemoryError("no buffer")

    batcher = Full(echo, BatchLimits(4, 0.001))
    batcher.start()
    pipeline = Pipeline(decode, batcher, THREADS)
    images = pipeline.run(rows(3), fetch)
    pipeline.close()
    batcher.stop()
    assert [(image.error.stage, image.error.code) for image in images if image.error] == [
        (Stage.INFER, "internal")
    ] * 3
