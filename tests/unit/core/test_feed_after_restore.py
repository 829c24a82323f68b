"""Feeding a job whose record was made anew: what is finished is passed over."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace.core.claims import Answer, Finish, Lease
from millrace.core.errors import AlreadyExists
from millrace.core.feed import Feeder
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.restored import Restored
from millrace.core.services import Services
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_tally, a_worker

QUEUE = "millrace.tiny"


def restored(services: Services, chunks: int, done: set[int]) -> JobSpec:
    """A job of two images a chunk; of the finished ones, the even chunks hold an error."""
    spec = a_spec()
    failed = [chunk for chunk in sorted(done) if chunk % 2 == 0]
    with suppress(AlreadyExists):
        JobDirectory(services.stores, spec.directory).create_spec(spec)
    services.jobs.restore(
        spec,
        Restored(
            parts=1,
            chunks=chunks,
            total=2 * chunks,
            succeeded=2 * len(done) - len(failed),
            failed=len(failed),
            done=sorted(done),
            with_errors=failed,
            by_code={"decode/bad_image": len(failed)} if failed else {},
            samples=[],
            listing_complete=True,
        ),
    )
    return spec


class Play:
    """A producer and workers at a restored job; every message sent is remembered."""

    def __init__(self, services: Services, spec: JobSpec, done: set[int], window: int) -> None:
        self.services, self.spec, self.window = services, spec, window
        self.done = set(done)
        self.sent: list[int] = []
        self.held: list[Lease] = []
        self.worker = a_worker(services)
        self.feeder = Feeder(services.jobs, services.queue, window=window)

    def waiting(self) -> set[int]:
        return {chunk for _, chunk in self.services.queue.waiting(QUEUE)}

    def feed(self) -> None:
        before = self.waiting()
        count = self.feeder.feed(self.spec)
        new = self.waiting() - before
        assert len(new) == count
        assert not new & self.done, "a finished chunk was sent"
        assert len(self.waiting() - self.done) <= self.window, "more than the window waits"
        self.sent += new

    def claim(self) -> None:
        """Take the next message, if there is one."""
        before = self.waiting()
        if self.services.redis.raw.rpop(QUEUE) is None:
            return
        (chunk,) = before - self.waiting()
        answer, lease = self.worker.claim(QUEUE, "job", chunk, MODEL)
        assert (answer is Answer.DONE) == (chunk in self.done)
        if answer.holds_lease:
            self.held.append(lease)

    def finish(self) -> None:
        """Finish the chunk that is longest in hand, if there is one."""
        if self.held:
            self._count(self.held.pop(0))

    def finish_late(self, chunk: int) -> None:
        """What a worker does that has had the chunk in hand since before the restoration."""
        self._count(Lease(QUEUE, "job", chunk, "other/token", 1))

    def _count(self, lease: Lease) -> None:
        failed = int(lease.chunk % 2 == 0)
        answer, ready = self.worker.finish(lease, a_tally(2 - failed, failed), NO_TIME)
        known = lease.chunk in self.done
        assert answer is (Finish.REPEAT if known else Finish.FIRST)
        self.done.add(lease.chunk)
        if ready:
            self.services.finalizer.finalize("job")


def test_finished_chunks_are_passed_over(services: Services) -> None:
    spec = restored(services, 30, {0, 1, 5, 9, 12})
    play = Play(services, spec, {0, 1, 5, 9, 12}, window=8)
    play.feed()
    assert sorted(play.sent) == [2, 3, 4, 6, 7, 8, 10, 11]
    play.feed()
    assert len(play.sent) == 8
    for _ in range(3):
        play.claim()
    play.feed()
    assert sorted(play.sent[8:]) == [13, 14, 15]


@pytest.mark.parametrize("window", [1, 3, 8])
def test_a_long_finished_beginning_does_not_fill_the_window(
    services: Services, window: int
) -> None:
    done = set(range(90))
    play = Play(services, restored(services, 100, done), done, window)
    play.feed()
    assert sorted(play.sent) == [*range(90, 90 + window)]


def test_a_finished_end_is_not_sent(services: Services) -> None:
    done = set(range(3, 10))
    play = Play(services, restored(services, 10, done), done, window=8)
    play.feed()
    play.feed()
    assert sorted(play.sent) == [0, 1, 2]


def test_lost_messages_of_a_restored_job_are_sent_again(services: Services) -> None:
    done = {0, 2, 3, 11}
    spec = restored(services, 12, done)
    play = Play(services, spec, done, window=4)
    play.feed()
    assert play.waiting() == {1, 4, 5, 6}
    services.redis.raw.delete(QUEUE)
    assert play.feeder.feed_missing(spec, services.queue.waiting(QUEUE)) == 4
    assert play.waiting() == {1, 4, 5, 6}


def test_a_restored_job_with_nothing_sent_has_nothing_missing(services: Services) -> None:
    spec = restored(services, 12, {0, 5})
    assert services.feeder.feed_missing(spec, set()) == 0


@st.composite
def jobs(draw: st.DrawFn) -> tuple[int, set[int], int, list[str | int]]:
    """Chunks, the finished ones, a window, and what happens then."""
    chunks = draw(st.integers(1, 14))
    numbers = st.integers(0, chunks - 1)
    step = st.one_of(st.sampled_from(["feed", "claim", "finish"]), numbers)
    return (
        chunks,
        draw(st.sets(numbers)),
        draw(st.integers(1, 5)),
        draw(st.lists(step, max_size=25)),
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(jobs())
def test_what_is_missing_is_sent_and_the_job_ends_whatever_the_order(
    services: Services, job: tuple[int, set[int], int, list[str | int]]
) -> None:
    chunks, done, window, steps = job
    services.redis.raw.flushdb()
    spec = restored(services, chunks, done)
    play = Play(services, spec, done, window)
    late = set()
    for step in steps:
        if isinstance(step, int):
            late.add(step)
            play.finish_late(step)
        else:
            getattr(play, step)()
    for _ in range(chunks):
        play.feed()
        play.claim()
        play.finish()
    while play.held:
        play.finish()
    if services.jobs.settle(services.jobs.record("job")):
        services.finalizer.finalize("job")  # everything was done from the beginning
    assert len(play.sent) == len(set(play.sent)), "a chunk was sent twice"
    assert not set(play.sent) & done
    assert set(play.sent) | late | done == set(range(chunks))
    record = services.jobs.record("job")
    assert record.state.terminal
    assert record.counts.succeeded + record.counts.failed == record.counts.total == 2 * chunks
    assert record.counts.failed == len(range(0, chunks, 2))
    assert record.done == chunks
