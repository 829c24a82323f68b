"""Real Redis, scripts, queue, producers and storage beside the model, driven step by step.

Each helper does one thing to both and asserts that they answer alike.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import orjson
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant

from millrace.core.bitmaps import set_bits
from millrace.core.claims import Answer, Finish, Lease, ModelIdentity
from millrace.core.errors import ItemError, JobConflict, JobNotFound, Stage
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory, decode_rows
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import encode_lines, error_line, prediction_line, tally
from millrace.core.reconcile import Reconciler
from millrace.core.services import Services
from millrace.core.topology import JobKeys, QueueKeys
from millrace.producer import control
from tests.unit.core.delivery_model import MAX_ATTEMPTS, JobModel, Outcome, World
from tests.unit.core.support import NO_TIME, a_worker

QUEUE = "millrace.tiny"
KEYS = QueueKeys(QUEUE)
LONG_S = 3600  # nothing runs out by itself, however slow the machine
NO_MESSAGE = ("", 0)
"""Stands for what is in the queue and no message of ours."""


class Killed(BaseException):
    """The producer's process ends here."""


class NothingSuch(Exception):
    """There is nothing this step could happen to."""


@dataclass(eq=False)
class InHand:
    """A chunk as the worker that claimed it sees it."""

    lease: Lease
    job: JobModel
    worker: int
    poison: bool
    wrote: bool = False

    @property
    def committed(self) -> bool:
        """What is written goes again if it comes too late."""
        return self.wrote and self.lease.chunk in self.job.objects


def read_message(entry: bytes) -> tuple[str, int]:
    try:
        _, fields, _ = orjson.loads(base64.b64decode(orjson.loads(entry)["body"]))
    except (ValueError, KeyError):
        return NO_MESSAGE
    return fields["job"], fields["chunk"]


class DeliveryRig(RuleBasedStateMachine):
    def __init__(self, services: Services) -> None:
        super().__init__()
        self.services, self.raw = services, services.redis.raw
        self.raw.flushdb()
        self.reconciler = Reconciler(
            services.jobs,
            services.queue,
            services.feeder,
            services.finalizer,
            worker="machine",
            every_s=LONG_S,
            lease_s=LONG_S,
        )
        self.world = World()
        self.specs: dict[str, JobSpec] = {}
        # Of three workers one serves another version of the model.
        self.models = [ModelIdentity("2" if n == 2 else "1", "sha256:abc") for n in range(3)]
        self.workers = [
            a_worker(services, f"w{n}", lease_s=LONG_S, max_attempts=MAX_ATTEMPTS) for n in range(3)
        ]
        self.in_hand: list[InHand] = []
        self.finished: list[InHand] = []

    @property
    def known(self) -> list[JobModel]:
        return [job for job in self.world.jobs.values() if job.known]

    @property
    def lost(self) -> list[JobModel]:
        return [job for job in self.world.jobs.values() if not (job.known or job.deleted)]

    @property
    def leases(self) -> list[tuple[JobModel, int]]:
        return [(job, chunk) for job in self.known for chunk in job.leases]

    def directory(self, job: JobModel) -> JobDirectory:
        return JobDirectory(self.services.stores, self.specs[job.id].directory)

    def agree(self, allowed: bool, act: Callable[[], object]) -> None:
        """Do what the model has done, or be refused as it was."""
        if allowed:
            act()
        else:
            with pytest.raises(JobConflict):
                act()

    def imagined(self, job: JobModel, what: str | None, when: int) -> Callable[[int], bool]:
        def meanwhile(part: int) -> bool:
            if part == when and what == "pause":
                self.world.pause(job)
            elif part == when and what == "cancel":
                self.world.cancel(job)
            return part != when or what != "kill"

        return meanwhile

    def produce(
        self, job: JobModel, what: str | None, when: int, act: Callable[[Any], object]
    ) -> None:
        """Let a producer list, interrupted after a part."""
        parts = count()

        def told(_: object) -> None:
            if next(parts) != when:
                return
            if what == "kill":
                raise Killed
            if what == "pause":
                self.attempt(lambda: control.pause(self.services, job.id))
            elif what == "cancel":
                self.attempt(lambda: control.cancel(self.services, job.id))

        with suppress(Killed):
            act(told)

    @staticmethod
    def attempt(act: Callable[[], object]) -> None:
        with suppress(JobConflict):
            act()

    def one(self, things: list[Any], which: int) -> Any:
        if not things:
            raise NothingSuch
        return things[which % len(things)]

    def pull(self, position: int) -> tuple[str, int]:
        """Take a message from anywhere in the queue: they may come in any order."""
        entry = self.one(self.raw.lrange(QUEUE, 0, -1), position)
        self.raw.lrem(QUEUE, 1, entry)
        message = read_message(entry)
        self.world.queue[message] -= 1
        return message

    def deliver(self, position: int, worker: int) -> InHand | None:
        name, chunk = self.pull(position)
        return None if name == "" else self.claim(name, chunk, worker)

    def claim(self, name: str, chunk: int, which: int) -> InHand | None:
        which = self.one([0, 1, 0, 1, 2], which)
        worker, model, job = self.workers[which], self.models[which], self.world.jobs.get(name)
        if job is None or not job.known:
            with pytest.raises(JobNotFound):
                self.services.jobs.spec(name)
            answer, _ = worker.claim(QUEUE, name, chunk, model)
            assert answer is Answer.UNKNOWN
            return None
        answer, lease = worker.claim(QUEUE, name, chunk, model)
        assert (answer, lease.attempt) == job.claim(chunk, lease.token, model.version)
        if not answer.holds_lease:
            return None
        taken = InHand(lease, job, which, answer is Answer.POISON)
        self.in_hand.append(taken)
        return taken

    def commit(self, held: InHand, failed: int) -> None:
        """As the runner does: what stands is counted, whoever wrote it."""
        job, chunk = held.job, held.lease.chunk
        failed = job.rows(chunk) if held.poison else min(failed, job.rows(chunk))
        code = "worker_crashed" if held.poison else f"code{failed}"
        outcomes = [
            error_line(row, ItemError(Stage.INFER, code, "it failed"), 1)
            if n < failed
            else prediction_line(row, [{"label": "cat", "index": 3, "score": 0.75}])
            for n, row in enumerate(self.rows(held))
        ]
        directory, plan = self.directory(job), self.specs[job.id].plan
        directory.create_chunk(plan, chunk, encode_lines(outcomes))
        job.objects.setdefault(chunk, Outcome(failed, f"infer/{code}" if failed else ""))
        held.wrote = True

    def rows(self, held: InHand) -> list[ManifestRow]:
        plan = self.specs[held.job.id].plan
        lines = self.directory(held.job).part_lines(plan.part_of(held.lease.chunk))
        return decode_rows(lines, plan, held.lease.chunk)

    @staticmethod
    def to_count(among: list[InHand]) -> list[InHand]:
        return [held for held in among if held.committed]

    def count(self, held: InHand, *, dies: bool = False) -> None:
        """FINISH, and unless the worker dies then, what follows from its answer."""
        job, chunk, plan = held.job, held.lease.chunk, self.specs[held.job.id].plan
        expected = job.finish(chunk)
        standing = self.directory(job).read_chunk(plan, chunk)
        assert standing is not None
        counted = tally(standing, self.rows(held))
        answer, ready = self.workers[held.worker].finish(held.lease, counted, NO_TIME)
        assert (answer, ready) == expected
        if held in self.in_hand:
            self.in_hand.remove(held)
            if answer in (Finish.FIRST, Finish.REPEAT):
                self.finished.append(held)
        if answer is Finish.LATE:
            self.directory(job).delete_chunk(plan, chunk)
            del job.objects[chunk]
        if dies:
            return
        if ready:
            self.finalize(job)
        else:
            self.world.feed(job)
            self.services.feeder.feed(self.specs[job.id])

    def give_back(self, held: InHand, *, stopping: bool) -> None:
        """A worker that is told to stop queues the chunk again; of one that failed, the
        reconciler does, and the attempt counts."""
        self.in_hand.remove(held)
        job, lease = held.job, held.lease
        expected = job.release(lease.chunk, lease.token, forget_attempt=stopping)
        ready = self.workers[held.worker].release(lease, forget_attempt=stopping)
        assert ready == expected
        if ready:
            self.finalize(job)
        elif stopping:
            self.world.send(job, [lease.chunk])
            self.services.queue.send(QUEUE, job.id, [lease.chunk])

    def finalize(self, job: JobModel) -> None:
        job.finalize()
        self.services.finalizer.finalize(job.id)

    def run_out(self, job: JobModel, chunk: int) -> None:
        job.leases[chunk].expired = True
        assert self.raw.zadd(KEYS.leases, {f"{job.id}:{chunk}": 1}, xx=True, ch=True) in (0, 1)

    @invariant()
    def redis_holds_what_the_model_holds(self) -> None:
        jobs = list(self.world.jobs.values())
        pipe = self.raw.pipeline(transaction=False)
        pipe.time()
        pipe.zrange(KEYS.leases, 0, -1, withscores=True)
        pipe.smembers(KEYS.active)
        pipe.lrange(QUEUE, 0, -1)
        for job in jobs:
            keys = JobKeys(job.id)
            pipe.hgetall(keys.record)
            pipe.get(keys.done)
            pipe.get(keys.failed)
            for name in (keys.owners, keys.attempts, keys.errors):
                pipe.hgetall(name)
            pipe.exists(*keys.all)
        (seconds, _), leases, active, queue, *found = pipe.execute()
        assert {member.decode(): score < 1000 * seconds for member, score in leases} == {
            f"{job.id}:{chunk}": job.leases[chunk].expired for job, chunk in self.leases
        }
        assert {name.decode() for name in active} == {
            job.id for job in self.known if not job.state.terminal
        }
        assert Counter(map(read_message, queue)) == +self.world.queue
        for number, job in enumerate(jobs):
            *held, exists = found[7 * number : 7 * number + 7]
            if job.known:
                self.compare(job, *held)
            else:
                assert not exists, "keys of a job that Redis does not know"

    def compare(self, job: JobModel, record: Any, done: Any, failed: Any, *hashes: Any) -> None:
        owners, attempts, errors = (
            {name.decode(): value.decode() for name, value in found.items()} for found in hashes
        )
        now = {name.decode(): value.decode() for name, value in record.items()}
        expected = {
            "state": job.state.value,
            "ending": job.ending or "",
            "reason": job.reason or "",
            "version": job.model,
            "listing_complete": job.listing_complete,
            "total": job.listed,
            "succeeded": job.succeeded,
            "failed": job.failed,
            "skipped": 0,
            "cancelled": job.cancelled,
            "chunks": job.chunks,
            "done": len(job.done),
            "fed": job.fed,
            "ahead": sum(chunk >= job.fed for chunk in job.done),
        }
        assert {name: now[name] for name in expected} == {
            name: str(int(value) if isinstance(value, bool) else value)
            for name, value in expected.items()
        }
        assert job.pending >= 0
        assert set(set_bits(done or b"")) == set(job.done)
        assert set(set_bits(failed or b"")) == {c for c, o in job.done.items() if o.failed}
        assert owners == {str(chunk): held.token for chunk, held in job.leases.items()}
        assert attempts == {str(chunk): str(times) for chunk, times in job.attempts.items()}
        by_code = Counter[str]()
        for outcome in job.done.values():
            by_code[outcome.code] += outcome.failed
        assert errors == {code: str(images) for code, images in (+by_code).items()}
        assert not (job.state.terminal and job.leases)
