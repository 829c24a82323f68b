"""What Redis and storage must hold of some jobs on one queue, said in sets and counters.

The Lua scripts keep pointers and counters, so that they cost the same at any job size; here every
number is worked out anew from what happened. Both are played side by side and compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from millrace.core.claims import Answer, Finish
from millrace.core.job import TRANSITIONS, JobState, Priority

CHUNK_SIZE, PART_ROWS, LEAST_WINDOW, MAX_ATTEMPTS = 2, 4, 2, 2
CHUNKS_PER_PART = PART_ROWS // CHUNK_SIZE

S = JobState
TAKES_WORK = (S.QUEUED, S.ENQUEUING, S.RUNNING)
GOES_ON = (*TAKES_WORK, S.PAUSED)
COUNTS = (*GOES_ON, S.CANCELLING)


@dataclass
class Outcome:
    """A chunk's object: how many of its images failed, and how."""

    failed: int
    code: str


@dataclass
class Held:
    """A lease as Redis keeps it."""

    token: str
    expired: bool = False


@dataclass
class JobModel:
    """One job. What Redis keeps of it begins anew with `forget`, what storage keeps does not."""

    id: str
    images: int
    """In the input; `listed` of them stand in the manifest."""
    most: int | None
    share: float | None
    has_deadline: bool
    priority: Priority
    listed: int = 0
    whole: bool = False
    """`manifest/complete.json` stands."""
    objects: dict[int, Outcome] = field(default_factory=dict)
    summary: tuple[JobState, str | None] | None = None
    published_model: str = ""
    """The version that the summary names."""
    deleted: bool = False
    finalizer_died: bool = False

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Redis knows nothing of the job."""
        self.known = False
        self.state = S.QUEUED
        self.ending: JobState | None = None
        self.reason: str | None = None
        self.model = ""
        self.factor = self.priority.window_factor
        self.listing_complete = self.overdue = self.finalizer_died = False
        self.fed = self.cancelled = 0
        self.done: dict[int, Outcome] = {}
        self.leases: dict[int, Held] = {}
        self.attempts: dict[int, int] = {}

    @property
    def chunks(self) -> int:
        return -(-self.listed // CHUNK_SIZE)

    def rows(self, chunk: int) -> int:
        return min(CHUNK_SIZE, self.listed - chunk * CHUNK_SIZE)

    @property
    def failed(self) -> int:
        return sum(outcome.failed for outcome in self.done.values())

    @property
    def succeeded(self) -> int:
        return sum(map(self.rows, self.done)) - self.failed

    @property
    def pending(self) -> int:
        return self.listed - self.succeeded - self.failed - self.cancelled

    @property
    def missing(self) -> set[int]:
        """Sent once, and neither finished nor in hand."""
        return set(range(self.fed)) - set(self.done) - set(self.leases)

    def become(self, state: JobState) -> None:
        assert state in TRANSITIONS[self.state], f"{self.state} → {state}"
        self.state = state

    # --- moving on ---

    def give_up(self, ending: JobState, reason: str) -> None:
        self.become(S.CANCELLING)
        self.ending, self.reason = ending, reason

    def judge(self) -> None:
        if self.state not in GOES_ON:
            return
        too_many = self.most is not None and self.failed > self.most
        if self.share is not None and self.listing_complete:
            too_many |= self.failed > self.share * self.listed + 1e-6
        if self.overdue:
            self.give_up(S.EXPIRED, "deadline_exceeded")
        elif too_many:
            self.give_up(S.FAILED, "error_threshold_exceeded")

    def settle(self) -> bool:
        """True if the job moved to finalizing now."""
        self.judge()
        finished = self.listing_complete and len(self.done) == self.chunks
        drained = self.state is S.CANCELLING and not self.leases
        if self.state not in COUNTS or not (finished or drained):
            return False
        self.become(S.FINALIZING)
        return True

    def finalize(self) -> None:
        if self.state is not S.FINALIZING or self.finalizer_died:
            return
        if self.ending and (
            self.pending or not self.listing_complete or self.reason == "error_threshold_exceeded"
        ):
            state, reason = self.ending, self.reason
        elif not self.listed:
            state, reason = S.FAILED, "no_inputs"
        else:
            worst = S.COMPLETED_WITH_ERRORS if self.succeeded else S.FAILED
            state, reason = worst if self.failed else S.SUCCEEDED, None
        self.cancelled = self.pending
        self.reason = reason
        self.become(state)
        self.summary, self.published_model = (state, reason), self.model
        # What was committed and never counted would contradict the summary.
        self.objects = dict(self.done)

    # --- chunks ---

    def claim(self, chunk: int, token: str, model: str) -> tuple[Answer, int]:
        self.judge()
        if chunk >= self.chunks:
            return Answer.UNKNOWN, 0
        if self.state in (S.CANCELLING, S.CANCELLED, S.EXPIRED):
            return (Answer.EXPIRED if self.ending is S.EXPIRED else Answer.CANCELLED), 0
        if self.state is S.PAUSED:
            return Answer.PAUSED, 0
        if self.state not in TAKES_WORK or chunk in self.done:
            return Answer.DONE, 0
        if self.model not in ("", model):
            return Answer.WRONG_MODEL, 0
        if chunk in self.leases and not self.leases[chunk].expired:
            return Answer.BUSY, 0
        self.leases[chunk] = Held(token)
        self.attempts[chunk] = self.attempts.get(chunk, 0) + 1
        self.model = model
        if self.state is not S.RUNNING:
            self.become(S.RUNNING)
        poison = self.attempts[chunk] > MAX_ATTEMPTS
        return (Answer.POISON if poison else Answer.OK), self.attempts[chunk]

    def finish(self, chunk: int) -> tuple[Finish, bool]:
        """Counts what stands in storage, whoever wrote it."""
        if not self.known:
            return Finish.UNKNOWN, False
        self.leases.pop(chunk, None)
        if chunk in self.done:
            return Finish.REPEAT, self.settle()
        if self.state not in COUNTS:
            return Finish.LATE, False
        self.done[chunk] = self.objects[chunk]
        self.attempts.pop(chunk, None)
        return Finish.FIRST, self.settle()

    def release(self, chunk: int, token: str, *, forget_attempt: bool) -> bool:
        if chunk not in self.leases or self.leases[chunk].token != token:
            return False
        del self.leases[chunk]
        if forget_attempt:
            self.attempts[chunk] -= 1
        return self.settle()


class World:
    """The jobs, the queue they share, and the workers that say they are alive."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobModel] = {}
        self.queue: Counter[tuple[str, int]] = Counter()
        self.slots: dict[str, int] = {}

    def wipe(self) -> None:
        """Redis comes back empty."""
        for job in self.jobs.values():
            job.forget()
        self.queue.clear()
        self.slots.clear()

    # --- feeding ---

    def send(self, job: JobModel, chunks: Iterable[int]) -> None:
        self.queue.update((job.id, chunk) for chunk in chunks)

    def feed(self, job: JobModel) -> None:
        if not job.known or job.state not in TAKES_WORK:
            return
        window = math.ceil(max(LEAST_WINDOW, 2 * sum(self.slots.values())) * job.factor)
        # Chunks claimed ahead of the pointer count as taken from the window too.
        waiting = len(set(range(job.fed)) - set(job.done)) - len(job.leases)
        while waiting < window and job.fed < job.chunks:
            if job.fed not in job.done:
                self.send(job, [job.fed])
                waiting += 1
            job.fed += 1

    def feed_missing(self, job: JobModel, waiting: set[tuple[str, int]]) -> None:
        if job.state in TAKES_WORK:
            self.send(job, (c for c in job.missing if (job.id, c) not in waiting))

    # --- looking after ---

    def free_expired(self) -> None:
        for job in self.jobs.values():
            for chunk, held in list(job.leases.items()):
                if held.expired:
                    job.release(chunk, held.token, forget_attempt=False)

    def look_after(self, job: JobModel) -> None:
        if job.state is S.CANCELLING:
            self.free_expired()
        job.settle()
        job.finalize()

    def look(self, job: JobModel) -> None:
        """Somebody reads the status."""
        overdue = job.overdue and not job.state.terminal
        if overdue or job.state in (S.CANCELLING, S.FINALIZING):
            self.look_after(job)

    def tick(self) -> None:
        self.free_expired()
        waiting = set(+self.queue)
        for job in self.jobs.values():
            if not job.known or job.state.terminal:
                continue
            job.settle()
            job.finalize()
            if job.state in (S.ENQUEUING, S.RUNNING):
                self.feed_missing(job, waiting)
                self.feed(job)

    # --- what a person does; False if it is refused ---

    def pause(self, job: JobModel) -> bool:
        if job.state in TAKES_WORK:
            job.become(S.PAUSED)
        return job.state is S.PAUSED

    def resume(self, job: JobModel) -> bool:
        if job.state is S.PAUSED:
            job.become(S.RUNNING)
        if job.state not in TAKES_WORK:
            return False
        self.feed_missing(job, set(+self.queue))
        self.feed(job)
        return True

    def cancel(self, job: JobModel) -> bool:
        if job.state.terminal or job.state is S.FINALIZING:
            return False
        if job.state in GOES_ON:
            job.give_up(S.CANCELLED, "requested")
            job.settle()
        self.look_after(job)
        return True

    def prioritize(self, job: JobModel, priority: Priority) -> bool:
        if job.state.terminal or job.state is S.FINALIZING:
            return False
        if job.state in GOES_ON:
            job.factor = priority.window_factor
        self.feed(job)
        return True

    # --- listing ---

    def list_on(self, job: JobModel, meanwhile: Callable[[int], bool]) -> None:
        """List the rest of the input. `meanwhile` happens after each part; False: killed."""
        for number in range(-(-(job.images - job.listed) // PART_ROWS)):
            refused = job.state not in GOES_ON
            if not refused:
                job.listed = min(job.images, job.listed + PART_ROWS)
                if job.state is S.QUEUED:
                    job.become(S.ENQUEUING)
                self.feed(job)
            if not meanwhile(number):
                return
            if refused:
                return
        job.whole = job.listing_complete = True
        if job.state is S.ENQUEUING:
            job.become(S.RUNNING)
        if job.settle():
            job.finalize()

    def go_on(self, job: JobModel, meanwhile: Callable[[int], bool]) -> bool:
        if (job.state is S.PAUSED or job.listing_complete) and not self.resume(job):
            return False
        if not job.listing_complete:
            if job.state not in GOES_ON:
                return False
            self.feed(job)
            self.list_on(job, meanwhile)
        return True

    def restore(self, job: JobModel) -> bool:
        """Make what Redis holds of a job anew from storage."""
        if job.summary and job.summary[1] not in (None, "no_inputs"):
            return False
        job.known, job.done, job.model = True, dict(job.objects), job.published_model
        job.listing_complete = job.whole or job.listed % PART_ROWS != 0
        job.state = S.RUNNING if job.chunks else S.QUEUED
        self.look_after(job)
        self.feed(job)
        return True
