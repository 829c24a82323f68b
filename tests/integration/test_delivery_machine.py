"""Whatever is delivered, lost, repeated or interrupted, in whatever order: every image counts once.

Hypothesis plays producers, workers and people against the real scripts, queue and finalizer, and
the same story to a model; after every step Redis must hold exactly what the model holds.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from millrace.core import chunks as chunk_arithmetic
from millrace.core.feed import Feeder
from millrace.core.job import JobState, Priority
from millrace.core.services import Services
from millrace.core.storage import Location
from millrace.core.topology import JobKeys
from millrace.producer import control, recover
from millrace.producer.job import Job
from millrace.producer.submit import submit_spec
from millrace.producer.verify import verify
from tests.unit.core.delivery_model import CHUNK_SIZE, LEAST_WINDOW, PART_ROWS, JobModel
from tests.unit.core.delivery_rig import (
    KEYS,
    NO_MESSAGE,
    QUEUE,
    DeliveryRig,
    NothingSuch,
    read_message,
)
from tests.unit.core.support import a_spec

STEPS = {
    # a worker's
    "take": 6,
    "work": 3,
    "write": 6,
    "finish": 6,
    "finish_and_die": 2,
    "finish_again": 1,
    "take_again": 2,
    "take_over": 5,
    "fail": 4,
    "stop": 2,
    "heartbeat": 3,
    # messages'
    "duplicate": 2,
    "lose": 2,
    "lose_all": 1,
    "litter": 1,
    "stray": 2,
    # what befalls
    "die": 1,
    "expire": 3,
    "deadline_passes": 2,
    "finalizer_dies": 2,
    "finalizer_locks_expire": 1,
    "wipe": 1,
    # what sets it right
    "tick": 3,
    "look": 1,
    "restore": 3,
    # people's
    "go_on": 3,
    "submit_again": 1,
    "pause": 1,
    "resume": 2,
    "prioritize": 1,
    "cancel": 2,
    "delete": 1,
}
"""What may happen next, and how often. One rule for all of it: Hypothesis leaves half of a
machine's rules out of each story, and without workers there is none."""

MOST_AT_ONCE = 2
NOBODY = "nobody"
LITTER = [b"", b"garbage", b"{}", b'{"body": "AAAA"}']
FAILED = [0, 0, 0, 1, 2]
INTERRUPTIONS = [*[None] * 6, "kill", "kill", "pause", "cancel"]
"""Of a producer, after a part."""

numbers = count()
pick = st.integers(0, 19)
"""One of what there is then, counted round."""
asked: Any = {
    "images": st.sampled_from([3, 5, 7, 9, 1, 2, 4, 0, 12, 14]),
    "threshold": st.sampled_from([None, None, None, "2", "40%", "40%"]),
    "deadline": st.booleans(),
    "priority": st.sampled_from(Priority),
    "interruption": st.sampled_from(INTERRUPTIONS),
    "part": st.integers(0, 1),
}


class DeliveryMachine(DeliveryRig):
    @initialize(**asked)
    def begin(self, **asked: Any) -> None:
        self.submit(**asked)

    @precondition(lambda self: sum(not job.state.terminal for job in self.known) < MOST_AT_ONCE)
    @rule(**asked)
    def submit(
        self,
        images: int,
        threshold: str | None,
        deadline: bool,
        priority: Priority,
        interruption: str | None,
        part: int,
    ) -> None:
        uri = f"memory://input-{images}"
        store = self.services.stores.open(Location.parse(uri))
        for n in range(images):
            store.put(f"{n:02}.jpg", b"image")
        spec = a_spec(
            f"job-{next(numbers):09}",
            input={"uri": uri},
            chunk_size=CHUNK_SIZE,
            priority=priority,
            error_threshold=threshold,
            deadline="2999-01-01T00:00:00Z" if deadline else None,
        )
        job = JobModel(
            spec.job_id,
            images,
            most=2 if threshold == "2" else None,
            share=0.4 if threshold == "40%" else None,
            has_deadline=deadline,
            priority=priority,
        )
        job.known = True
        self.specs[job.id], self.world.jobs[job.id] = spec, job
        self.world.list_on(job, self.imagined(job, interruption, part))
        self.produce(job, interruption, part, lambda told: submit_spec(self.services, spec, told))

    @rule(
        what=st.sampled_from([what for what, often in STEPS.items() for _ in range(often)]),
        which=pick,
        other=pick,
    )
    def step(self, what: str, which: int, other: int) -> None:
        """What cannot happen now leaves time for the next message, or for the reconciler."""
        for possible in (what, "take", "tick"):
            with suppress(NothingSuch):
                getattr(self, possible)(which, other)
                return

    # --- a worker's steps ---

    def take(self, which: int, other: int) -> None:
        self.deliver(which, other)

    def work(self, which: int, other: int) -> None:
        """A message's way when nothing goes wrong."""
        held = self.deliver(which, other)
        if held:
            self.commit(held, 0)
            self.count(held)

    def write(self, which: int, other: int) -> None:
        self.commit(self.one(self.in_hand, which), self.one(FAILED, other))

    def finish(self, which: int, _: int) -> None:
        self.count(self.one(self.to_count(self.in_hand), which))

    def finish_and_die(self, which: int, _: int) -> None:
        self.count(self.one(self.to_count(self.in_hand), which), dies=True)

    def finish_again(self, which: int, _: int) -> None:
        """A client that got no answer asks once more."""
        self.count(self.one(self.to_count(self.finished), which))

    def take_again(self, which: int, other: int) -> None:
        """What somebody has, or had, is delivered to somebody once more."""
        held = self.one(self.in_hand or self.finished, which)
        self.claim(held.job.id, held.lease.chunk, other)

    def take_over(self, which: int, other: int) -> None:
        """After the lease has run out, and its owner does not know it."""
        job, chunk = self.one(self.leases, which)
        self.run_out(job, chunk)
        self.claim(job.id, chunk, other)

    def fail(self, which: int, _: int) -> None:
        self.give_back(self.one(self.in_hand, which), stopping=False)

    def stop(self, which: int, _: int) -> None:
        self.give_back(self.one(self.in_hand, which), stopping=True)

    def heartbeat(self, which: int, _: int) -> None:
        worker = which % len(self.workers)
        mine = [held for held in self.in_hand if held.worker == worker]
        for held in mine:
            kept = held.job.leases.get(held.lease.chunk)
            if kept is not None and kept.token == held.lease.token:
                kept.expired = False
        self.world.slots[f"1|w{worker}"] = 1
        self.workers[worker].renew(QUEUE, f"1|w{worker}", [held.lease for held in mine])

    # --- what becomes of messages ---

    def duplicate(self, which: int, _: int) -> None:
        entry = self.one(self.raw.lrange(QUEUE, 0, -1), which)
        self.raw.lpush(QUEUE, entry)
        self.world.queue[read_message(entry)] += 1

    def lose(self, which: int, _: int) -> None:
        self.pull(which)

    def lose_all(self, *_: int) -> None:
        self.raw.delete(QUEUE)
        self.world.queue.clear()

    def litter(self, which: int, _: int) -> None:
        self.raw.lpush(QUEUE, self.one(LITTER, which))
        self.world.queue[NO_MESSAGE] += 1

    def stray(self, which: int, other: int) -> None:
        """A message from another time: not fed yet, finished long ago, or of no chunk at all."""
        name, chunk = self.one([*self.world.jobs, NOBODY], which), other % 8
        self.services.queue.send(QUEUE, name, [chunk])
        self.world.queue[name, chunk] += 1

    # --- what befalls ---

    def die(self, which: int, _: int) -> None:
        """A worker; its leases stay until they run out."""
        worker = which % len(self.workers)
        self.in_hand = [held for held in self.in_hand if held.worker != worker]
        self.world.slots.pop(f"1|w{worker}", None)
        self.raw.zadd(KEYS.fleet, {f"1|w{worker}": 1}, xx=True)

    def expire(self, which: int, _: int) -> None:
        self.run_out(*self.one(self.leases, which))

    def deadline_passes(self, which: int, _: int) -> None:
        job = self.one([job for job in self.known if job.has_deadline], which)
        job.overdue = True
        self.raw.hset(JobKeys(job.id).record, "deadline_ms", 1)

    def finalizer_dies(self, which: int, _: int) -> None:
        """With its lock in its hand."""
        job = self.one([job for job in self.known if job.state is JobState.FINALIZING], which)
        job.finalizer_died = True
        self.raw.set(JobKeys(job.id).finalizer, "dead")

    def finalizer_locks_expire(self, *_: int) -> None:
        for job in self.known:
            if job.finalizer_died:
                job.finalizer_died = False
                self.raw.delete(JobKeys(job.id).finalizer)

    def wipe(self, *_: int) -> None:
        self.one(self.known, 0)
        self.raw.flushdb()
        self.world.wipe()

    # --- what sets it right ---

    def tick(self, *_: int) -> None:
        self.raw.delete(KEYS.reconciler)
        self.world.tick()
        assert self.reconciler.tick(QUEUE)
        assert not self.reconciler.tick(QUEUE), "twice within the interval"

    def look(self, which: int, _: int) -> None:
        job = self.one(self.known, which)
        self.world.look(job)
        status = Job(self.services, job.id).status()
        assert (status.state, status.counts.pending) == (job.state, job.pending)

    def restore(self, which: int, _: int) -> None:
        job = self.one(self.lost, which)
        allowed = self.world.restore(job)
        self.agree(allowed, lambda: recover.restore(self.services, self.directory(job)))

    # --- what people ask for ---

    def go_on(self, which: int, other: int) -> None:
        job = self.one(self.known, which)
        interruption, part = self.one(INTERRUPTIONS, other), other % 2
        allowed = self.world.go_on(job, self.imagined(job, interruption, part))
        self.agree(
            allowed,
            lambda: self.produce(
                job, interruption, part, lambda told: recover.go_on(self.services, job.id, told)
            ),
        )

    def submit_again(self, which: int, _: int) -> None:
        """Nothing happens, but for the refusal of a job that only storage knows."""
        job = self.one(self.known + self.lost, which)
        begun = job.known or job.listed == 0
        if begun and not job.known:
            job.known = True
            self.world.list_on(job, lambda _: True)
        again = self.specs[job.id].model_copy(update={"created_at": datetime.now(UTC)})
        self.agree(begun, lambda: submit_spec(self.services, again))

    def pause(self, which: int, _: int) -> None:
        job = self.one(self.known, which)
        self.agree(self.world.pause(job), lambda: control.pause(self.services, job.id))

    def resume(self, which: int, _: int) -> None:
        job = self.one(self.known, which)
        self.agree(self.world.resume(job), lambda: control.resume(self.services, job.id))

    def prioritize(self, which: int, other: int) -> None:
        job, priority = self.one(self.known, which), self.one(list(Priority), other)
        allowed = self.world.prioritize(job, priority)
        self.agree(allowed, lambda: control.set_priority(self.services, job.id, priority))

    def cancel(self, which: int, _: int) -> None:
        job = self.one(self.known, which)
        self.agree(self.world.cancel(job), lambda: control.cancel(self.services, job.id))

    def delete(self, which: int, _: int) -> None:
        job = self.one([job for job in self.known if job.state.terminal], which)
        control.delete(self.services, job.id)
        job.forget()
        job.deleted = True

    # --- the end ---

    def teardown(self) -> None:
        """What was lost is made anew, what stands still goes on, dead workers' leases run out:
        then workers that stay alive bring every job to its end."""
        if sys.exc_info()[0] is not None:
            return  # it has failed already
        self.finalizer_locks_expire()
        while self.in_hand:
            self.commit(self.in_hand[0], 0)
            self.count(self.in_hand[0])
        for lease in self.leases:
            self.run_out(*lease)
        for number in reversed(range(len(self.lost))):
            self.restore(number, 0)
        for number, _ in enumerate(self.known):
            self.tick()
            if not self.known[number].state.terminal:
                self.go_on(number, 0)
        for turn in range(30):
            self.tick()
            while self.world.queue.total():
                self.work(0, turn)  # by all workers in turn: a job is pinned to one version
            self.redis_holds_what_the_model_holds()
            if all(job.state.terminal for job in self.known):
                break
        for job in self.known:
            self.check_end(job)

    def check_end(self, job: JobModel) -> None:
        assert job.state.terminal
        assert job.pending == 0
        if job.ending is None:
            assert (job.cancelled, set(job.done)) == (0, set(range(job.chunks)))
            assert job.listed == job.images
        # A worker that died between writing and counting after its job had ended leaves an object.
        if set(job.objects) == set(job.done):
            assert verify(self.services, self.directory(job)).findings == []


def test_whatever_is_delivered_in_whatever_order_every_image_is_counted_once(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_arithmetic, "PART_ROWS", PART_ROWS)
    services.feeder = Feeder(services.jobs, services.queue, window=LEAST_WINDOW)

    class Machine(DeliveryMachine):
        def __init__(self) -> None:
            super().__init__(services)

    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=60, stateful_step_count=50, report_multiple_bugs=False),
    )
