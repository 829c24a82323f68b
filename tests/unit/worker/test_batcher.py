"""The micro-batcher: every image gets its own answer, in full batches and without waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.core.errors import ItemError
from millrace.worker.batcher import REGROW_AFTER, BatchLimits, MicroBatcher, Row
from tests.support import capture_logs, wait_until

Batch = npt.NDArray[np.uint8]
WITHIN_S = 20


def image(number: int) -> Batch:
    """A picture that carries a number, so that an answer can be told from another's."""
    return np.frombuffer(number.to_bytes(4, "big"), np.uint8)


def number_of(row: Row) -> int:
    return int.from_bytes(row.astype(np.uint8).tobytes(), "big")


def echo(batch: Batch) -> Row:
    return batch.astype(np.float32)


class Answers:
    """What came back, by image."""

    def __init__(self) -> None:
        self.rows: dict[int, Row | Exception] = {}
        self.order: list[int] = []
        self.shares: list[int] = []

    def expect(self, number: int) -> Callable[[Row | Exception, int], None]:
        def on_result(answer: Row | Exception, us: int) -> None:
            assert number not in self.rows, "answered twice"
            self.rows[number] = answer
            self.order.append(number)
            self.shares.append(us)

        return on_result

    def numbers(self) -> dict[int, int]:
        """The number in each answered row, by image; images that failed are left out."""
        return {
            number: number_of(row)
            for number, row in self.rows.items()
            if not isinstance(row, Exception)
        }

    @property
    def failed(self) -> set[int]:
        return {number for number, row in self.rows.items() if isinstance(row, Exception)}


class Gate:
    """A `predict` that notes each batch and waits until it is opened."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, batch: Batch) -> Row:
        self.batches.append([number_of(row) for row in batch])
        self.entered.set()
        assert self.open.wait(WITHIN_S)
        return echo(batch)


@contextmanager
def running(
    predict: Callable[[Batch], Row],
    size: int,
    max_delay_s: float = 0.0,
    out_of_memory: type[Exception] = MemoryError,
) -> Iterator[MicroBatcher]:
    """A started batcher, stopped at the end."""
    batcher = MicroBatcher(predict, BatchLimits(size, max_delay_s), out_of_memory=out_of_memory)
    batcher.start()
    try:
        yield batcher
    finally:
        batcher.stop()


@settings(max_examples=25, deadline=None)
@given(
    submitters=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    size=st.integers(1, 9),
    delay=st.sampled_from([0.0, 0.002]),
)
def test_each_result_goes_to_its_caller_in_the_order_of_submission(
    submitters: list[int], size: int, delay: float
) -> None:
    sizes: list[int] = []

    def predict(batch: Batch) -> Row:
        sizes.append(len(batch))
        return echo(batch)

    answers = [Answers() for _ in submitters]
    together = threading.Barrier(len(submitters))

    def submit(who: int) -> None:
        together.wait(WITHIN_S)
        for n in range(submitters[who]):
            number = who * 1000 + n
            batcher.submit(image(number), answers[who].expect(number))

    with running(predict, size, delay) as batcher:
        threads = [threading.Thread(target=submit, args=(who,)) for who in range(len(submitters))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WITHIN_S)
    for who, count in enumerate(submitters):
        own = [who * 1000 + n for n in range(count)]
        assert answers[who].order == own
        assert answers[who].numbers() == {number: number for number in own}
    assert sum(sizes) == sum(submitters)
    assert all(n <= size for n in sizes)


def test_under_load_batches_are_full_and_merge_the_submitters() -> None:
    gate, answers = Gate(), Answers()
    with running(gate, 8) as batcher:
        batcher.submit(image(0), answers.expect(0))
        assert gate.entered.wait(WITHIN_S)
        for n in range(8):  # two submitters in turn, while the model is busy
            for number in (100 + n, 200 + n):
                batcher.submit(image(number), answers.expect(number))
        gate.open.set()
    assert [len(batch) for batch in gate.batches] == [1, 8, 8]
    assert all(len({number // 100 for number in batch}) == 2 for batch in gate.batches[1:])
    assert len(answers.rows) == 17


def test_a_full_batch_does_not_wait_for_the_delay() -> None:
    answers = Answers()
    with running(echo, 4, max_delay_s=3600) as batcher:
        for n in range(4):
            batcher.submit(image(n), answers.expect(n))
        wait_until(lambda: len(answers.rows) == 4, WITHIN_S, "a full batch is predicted")


def test_a_lone_image_is_not_held_longer_than_the_delay() -> None:
    answers = Answers()
    started = time.monotonic()
    with running(echo, 1000, max_delay_s=0.2) as batcher:
        batcher.expect(2)
        batcher.submit(image(1), answers.expect(1))
        wait_until(lambda: answers.rows, WITHIN_S)
        took = time.monotonic() - started
    assert took >= 0.19


def test_a_batch_does_not_wait_for_what_will_not_come() -> None:
    answers = Answers()
    with running(echo, 1000, max_delay_s=3600) as batcher:
        batcher.expect(3)
        for n in range(2):
            batcher.submit(image(n), answers.expect(n))
        assert not answers.rows
        batcher.expect(-1)
        wait_until(lambda: len(answers.rows) == 2, WITHIN_S, "the batch is predicted")


def test_a_batch_waits_for_what_is_on_its_way() -> None:
    gate, answers = Gate(), Answers()
    gate.open.set()
    with running(gate, 4, max_delay_s=3600) as batcher:
        batcher.expect(6)
        for n in range(6):
            batcher.submit(image(n), answers.expect(n))
        wait_until(lambda: len(answers.rows) == 6, WITHIN_S, "all are predicted")
    assert gate.batches == [[0, 1, 2, 3], [4, 5]]


def test_pixels_may_change_once_they_are_submitted() -> None:
    answers = Answers()
    pixels = image(7).copy()
    with running(echo, 8, max_delay_s=3600) as batcher:
        batcher.expect(2)
        batcher.submit(pixels, answers.expect(7))
        pixels[...] = image(8)
        batcher.submit(pixels, answers.expect(8))
        wait_until(lambda: len(answers.rows) == 2, WITHIN_S, "both are predicted")
    assert answers.numbers() == {7: 7, 8: 8}


def test_a_trickle_does_not_put_the_first_image_off() -> None:
    first = threading.Event()
    with running(echo, 4096, max_delay_s=0.05) as batcher:
        batcher.submit(image(0), lambda row, us: first.set())
        deadline = time.monotonic() + WITHIN_S
        while not first.is_set() and time.monotonic() < deadline:
            batcher.submit(image(1), lambda row, us: None)
            first.wait(0.001)
        assert first.is_set()


@settings(max_examples=40, deadline=None)
@given(bad=st.sets(st.integers(0, 29)), size=st.integers(1, 16))
def test_a_failing_image_fails_alone(bad: set[int], size: int) -> None:
    def predict(batch: Batch) -> Row:
        found = bad.intersection(number_of(row) for row in batch)
        if found:
            raise RuntimeError(f"not {sorted(found)}")
        return echo(batch)

    answers = Answers()
    with running(predict, size, 0.002) as batcher:
        for n in range(30):
            batcher.submit(image(n), answers.expect(n))
    assert answers.failed == bad
    assert answers.numbers() == {n: n for n in range(30) if n not in bad}
    assert all(str(answers.rows[n]) == f"not [{n}]" for n in bad)
    assert answers.order == list(range(30))


def test_a_picture_of_another_shape_does_not_hurt_the_others() -> None:
    answers = Answers()
    batcher = MicroBatcher(lambda batch: echo(batch).reshape(len(batch), -1), BatchLimits(8, 0.01))
    for n in range(8):
        pixels = np.zeros(5, np.uint8) if n == 3 else image(n)
        batcher.submit(pixels, answers.expect(n))
    batcher.start()
    batcher.stop()
    assert {n: number for n, number in answers.numbers().items() if n != 3} == {
        n: n for n in range(8) if n != 3
    }


@pytest.mark.parametrize("off_by", [-1, 1])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_a_wrong_number_of_rows_is_an_error_of_every_image(off_by: int, size: int) -> None:
    def predict(batch: Batch) -> Row:
        return np.resize(echo(batch), (len(batch) + off_by, 4))

    answers = Answers()
    with running(predict, size, 0.002) as batcher:
        for n in range(11):
            batcher.submit(image(n), answers.expect(n))
    assert answers.failed == set(range(11))
    assert answers.order == list(range(11))


class NoRoomError(Exception):
    """An out-of-memory of the test's own."""


class Small:
    """A `predict` that has room for few images, and notes what it was asked for."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def __call__(self, batch: Batch) -> Row:
        self.sizes.append(len(batch))
        if len(batch) > self.room:
            raise NoRoomError(f"no room for {len(batch)}")
        return echo(batch)


def test_out_of_memory_makes_smaller_batches_and_loses_no_image() -> None:
    model, answers = Small(room=2), Answers()
    batcher = MicroBatcher(model, BatchLimits(8, 0.0), out_of_memory=NoRoomError)
    for n in range(16):
        batcher.submit(image(n), answers.expect(n))
    batcher.start()
    batcher.stop()
    assert answers.numbers() == {n: n for n in range(16)}
    assert answers.order == list(range(16))
    # The second eight come in twos at once: what did not fit is not tried again and again.
    assert model.sizes == [8, 4, 2, 2, 4, 2, 2, 2, 2, 2, 2]


def test_batches_grow_again_when_memory_is_back() -> None:
    model, answers = Small(room=2), Answers()
    total = 8 + 2 * REGROW_AFTER + 4 * REGROW_AFTER + 64
    with running(model, 8, max_delay_s=3600, out_of_memory=NoRoomError) as batcher:
        batcher.expect(total)
        for n in range(total):
            if n == 8:
                wait_until(lambda: len(answers.rows) == 8, WITHIN_S)
                model.room, model.sizes = 8, []
            batcher.submit(image(n), answers.expect(n))
    assert answers.numbers() == {n: n for n in range(total)}
    first_larger = next(at for at, size in enumerate(model.sizes) if size > 2)
    assert first_larger >= REGROW_AFTER - 4  # the first eight ended in a few calm batches
    assert max(model.sizes) == 8


def test_an_image_that_never_fits_is_named() -> None:
    answers = Answers()
    with running(Small(room=0), 4, out_of_memory=NoRoomError) as batcher:
        for n in range(6):
            batcher.submit(image(n), answers.expect(n))
    assert answers.failed == set(range(6))
    assert {error.code for error in answers.rows.values() if isinstance(error, ItemError)} == {
        "out_of_memory"
    }


def test_a_caller_that_fails_on_its_result_harms_nobody_else() -> None:
    def failing(row: Row | Exception, us: int) -> None:
        raise RuntimeError("no hands")

    def picky(batch: Batch) -> Row:
        if any(number_of(row) == 5 for row in batch):
            raise ValueError("not five")
        return echo(batch)

    answers = Answers()
    with capture_logs() as logs, running(picky, 4, 0.002) as batcher:
        for n in range(8):
            # One caller fails on its scores, and one on why there are none.
            batcher.submit(image(n), failing if n in (1, 5) else answers.expect(n))
    assert answers.numbers() == {n: n for n in range(8) if n not in (1, 5)}
    assert [entry["event"] for entry in logs] == ["an image's result was not taken"] * 2


def test_stop_answers_what_was_submitted_before() -> None:
    gate, answers = Gate(), Answers()
    batcher = MicroBatcher(gate, BatchLimits(4, 3600))
    batcher.start()
    for n in range(6):
        batcher.submit(image(n), answers.expect(n))
    assert gate.entered.wait(WITHIN_S)
    stopping = threading.Thread(target=batcher.stop)
    stopping.start()
    gate.open.set()
    stopping.join(WITHIN_S)
    assert not stopping.is_alive()
    assert answers.numbers() == {n: n for n in range(6)}


def test_submit_blocks_while_two_full_batches_wait() -> None:
    gate, answers = Gate(), Answers()
    size, submitted = 4, 0
    done = threading.Event()

    def submit() -> None:
        nonlocal submitted
        for n in range(20):
            batcher.submit(image(n), answers.expect(n))
            submitted += 1
        done.set()

    with running(gate, size) as batcher:
        batcher.submit(image(99), answers.expect(99))
        assert gate.entered.wait(WITHIN_S)
        threading.Thread(target=submit, daemon=True).start()
        wait_until(lambda: submitted == 2 * size, WITHIN_S, "two full batches wait")
        assert not done.wait(0.2)
        assert submitted == 2 * size
        gate.open.set()
        assert done.wait(WITHIN_S)
    assert len(answers.rows) == 21


def test_the_images_of_a_batch_share_its_time() -> None:
    spent: list[float] = []

    def predict(batch: Batch) -> Row:
        started = time.perf_counter()
        while time.perf_counter() - started < 0.02:
            pass
        spent.append(time.perf_counter() - started)
        return echo(batch)

    answers = Answers()
    batcher = MicroBatcher(predict, BatchLimits(8, 0.0))
    for n in range(8):
        batcher.submit(image(n), answers.expect(n))
    batcher.start()
    batcher.stop()
    assert len(spent) == 1
    assert len(set(answers.shares)) == 1
    assert spent[0] * 1e6 - 8 <= sum(answers.shares) < spent[0] * 1e6 + 1e6
