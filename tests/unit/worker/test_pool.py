"""The thread pool: a chunk that ends wakes the event loop, which looks for free slots."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from kombu.asynchronous import Hub, get_event_loop, set_event_loop

from millrace.worker.pool import MOST, ChunkPool, all_under_way
from tests.support import wait_until


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A real event loop, as Celery's worker runs it."""
    before = get_event_loop()
    made = Hub()
    set_event_loop(made)
    yield made
    made.close()
    set_event_loop(before)


@pytest.fixture
def quiet() -> Iterator[socket.socket]:
    """A connection on which nothing comes."""
    here, there = socket.socketpair()
    with here, there:
        yield here


@pytest.fixture
def pool() -> Iterator[ChunkPool]:
    made = ChunkPool(1)
    made.start()
    yield made
    made.stop()


def test_a_chunk_that_ends_wakes_the_loop(quiet: socket.socket, hub: Hub, pool: ChunkPool) -> None:
    polling = threading.Event()
    # With a connection and something to do later it sleeps for ten seconds, and not for a tenth.
    hub.add_reader(quiet.fileno(), lambda: None)
    hub.timer.max_interval = 10
    hub.call_later(3600, lambda: None)
    hub.call_soon(polling.set)

    def chunk() -> None:
        assert polling.wait(20)  # the loop is about to sleep, or sleeps already

    pool.apply_async(chunk)
    turns = hub.create_loop()
    started = time.monotonic()
    next(turns)
    # Nothing else would wake it before these are over.
    assert time.monotonic() - started < 9


def test_without_a_loop_it_is_an_ordinary_pool(pool: ChunkPool) -> None:
    before = get_event_loop()
    set_event_loop(None)
    try:
        done = threading.Event()
        pool.apply_async(done.set)
        assert done.wait(20)
    finally:
        set_event_loop(before)


def test_it_runs_as_many_chunks_at_once_as_it_has_slots(hub: Hub) -> None:
    pool = ChunkPool(3)
    pool.start()
    together = threading.Barrier(4)
    for _ in range(3):
        pool.apply_async(together.wait, (20,))
    together.wait(20)
    pool.stop()


def ignored(result: object) -> None:
    """What Celery would do with a task's result."""


def test_no_further_chunk_is_wanted_until_the_images_of_all_are_under_way(hub: Hub) -> None:
    pool = ChunkPool(3)
    pool.start()
    may_enter, entered, may_end = threading.Event(), threading.Event(), threading.Event()

    def chunk() -> None:
        assert may_enter.wait(20)
        all_under_way(1.5)
        all_under_way(0.0)  # saying it twice changes nothing
        entered.set()
        assert may_end.wait(20)

    first = pool.apply_async(chunk, callback=ignored)
    assert pool.num_processes == 0
    may_enter.set()
    assert entered.wait(20)
    assert pool.num_processes == 3
    entered.clear()
    second = pool.apply_async(chunk, callback=ignored)
    assert entered.wait(20)
    may_end.set()
    first.get(20)
    second.get(20)
    wait_until(lambda: pool.num_processes == MOST)
    pool.stop()


def test_of_small_chunks_more_are_wanted_until_they_fill_the_pipeline(hub: Hub) -> None:
    pool = ChunkPool(3)
    pool.start()
    may_end = threading.Event()

    def chunk() -> None:
        all_under_way(0.125)
        assert may_end.wait(20)

    for _ in range(7):
        pool.apply_async(chunk, callback=ignored)
        wait_until(lambda: pool.num_processes == MOST)
    last = pool.apply_async(chunk, callback=ignored)
    wait_until(lambda: pool.num_processes == 3)
    may_end.set()
    last.get(20)
    wait_until(lambda: pool.num_processes == MOST)
    pool.stop()


def test_a_chunk_that_ends_before_its_images_are_under_way_makes_room(hub: Hub) -> None:
    pool = ChunkPool(2)
    pool.start()
    pool.apply_async(lambda: None, callback=ignored).get(20)
    wait_until(lambda: pool.num_processes == 2)
    pool.stop()


def test_outside_a_chunk_nothing_is_said() -> None:
    all_under_way(1.0)
