"""One picture, answered by the workers: a job of one image at high priority, ahead of the others.

The picture is kept below the configured uploads while its job runs, and everything of it is
removed afterwards: at once, or by a later round if this server dies meanwhile.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import anyio
from structlog.contextvars import bind_contextvars

from millrace.core.errors import (
    Busy,
    ItemError,
    JobConflict,
    JobNotFound,
    MillraceError,
    NotFound,
    NoWorkers,
    ServerUnavailable,
    Stage,
    Unavailable,
    WaitTimeout,
)
from millrace.core.job import JobSpec, JobState, Priority
from millrace.core.jobdir import JobDirectory
from millrace.core.log import get_logger
from millrace.core.model_ref import ModelRef
from millrace.core.outcome import decode_outcome
from millrace.core.services import Services
from millrace.core.storage import Location
from millrace.core.topology import JobKeys
from millrace.producer import control
from millrace.producer.http.duties import Duties
from millrace.producer.http.pool import Pool
from millrace.producer.page import ONE_PICTURE
from millrace.producer.submit import make_spec, submit_spec

P = ParamSpec("P")
T = TypeVar("T")

log = get_logger(__name__)

AT_ONCE = 32
CLEARERS = 4
LOOK_S, LOOK_LATER_S = 0.02, 0.2
ENDED_WITHIN_S = 60.0
CLEARED_WITHIN_S = 3.0
FORGOTTEN_AFTER_S = 900.0
"""A picture this old is of a server that died: no request waits so long."""

THE_PICTURES_OWN = frozenset({Stage.DECODE, Stage.PREPROCESS})
"""Stages whose errors are about the picture, and not about us."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker said of a picture."""

    model: dict[str, Any]
    predictions: list[dict[str, Any]]
    took_s: float


class Predictions:
    """Raises UsageError if the uploads lie where jobs may not read."""

    def __init__(self, services: Services, uploads: str | None) -> None:
        self._services = services
        self._uploads = None if uploads is None else Location.parse(uploads)
        if self._uploads is not None:
            services.stores.allowed.check(self._uploads.uri)
        self._duties = Duties(services.redis)
        self._askers = Pool(AT_ONCE, "predict")
        self._clearers = Pool(CLEARERS, "clear")
        self._clearing: set[str] = set()
        self._lock = threading.Lock()
        self._open = 0

    async def predict(
        self, picture: bytes, model: ModelRef, top_k: int | None, timeout_s: float
    ) -> Answer:
        """What the model says of a picture. Raises NotFound without a place for uploads,
        ModelNotFound, NoWorkers, Busy, ItemError for a picture that cannot be read, WaitTimeout.
        """
        self.refuse_crowd()
        began = time.monotonic()
        job = f"predict-{secrets.token_hex(12)}"
        bind_contextvars(job=job)
        self._open += 1
        try:
            with anyio.fail_after(timeout_s):
                spec = await self._soon(self._spec, job, model, top_k, timeout_s)
                return await self._answer(spec, picture, began)
        except TimeoutError:
            raise WaitTimeout(f"there was no answer within {timeout_s:g} s") from None
        finally:
            self._open -= 1

    def refuse_crowd(self) -> None:
        """Raises Busy if no more pictures may be asked about now."""
        if self._open >= AT_ONCE:
            raise Busy(f"{self._open} pictures are being predicted already")

    async def _answer(self, spec: JobSpec, picture: bytes, began: float) -> Answer:
        job = spec.job_id
        submitted = self._begin(self._submit, spec, picture)
        try:
            await asyncio.wrap_future(submitted)
            while not await self._soon(self._ended, job):
                # Who has waited for long does not notice a little more.
                waited = time.monotonic() - began
                await anyio.sleep(min(max(LOOK_S, waited / 10), LOOK_LATER_S))
            predictions = await self._soon(self._outcome, spec)
            return Answer(spec.model.model_dump(), predictions, time.monotonic() - began)
        finally:
            # Storage may stand still in the middle of it, and nobody waits any more.
            submitted.add_done_callback(lambda _: self._clear_soon(job))

    async def _soon(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it in a thread. Who waits for it may leave before it has ended."""
        return await asyncio.wrap_future(self._begin(function, *args, **kwargs))

    def _begin(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future = self._askers.submit(function, *args, **kwargs)
        if future is None:
            raise ServerUnavailable("the server is stopping")
        return future

    def clear_forgotten(self) -> None:
        """Remove what servers that died have left."""
        for job in self._duties.open("clear", older_than_s=FORGOTTEN_AFTER_S):
            self._clear_soon(job)

    def close(self) -> None:
        """What was not removed by then is for the next server."""
        self._askers.close()
        self._clearers.close(CLEARED_WITHIN_S)

    def _spec(self, job: str, model: ModelRef, top_k: int | None, timeout_s: float) -> JobSpec:
        if self._uploads is None:
            raise NotFound(
                "this server has no place for uploads", hint="it is set with MILLRACE_UPLOADS"
            )
        place = self._uploads.child(job)
        spec = make_spec(
            self._services,
            place.child("in").uri,
            model=model,
            output=place.uri,
            chunk_size=1,
            priority=Priority.HIGH,
            top_k=top_k,
            job_id=job,
            deadline=f"{math.ceil(timeout_s) + 1}s",
            labels={ONE_PICTURE: "yes"},
        )
        live = [seen.info for seen in self._services.fleet.workers() if not seen.lost]
        if not any(spec.queue in info.queues.split() for info in live):
            raise NoWorkers(f"no worker serves {model}", hint=f"millrace worker --model {model}")
        return spec

    def _submit(self, spec: JobSpec, picture: bytes) -> None:
        self._duties.add("clear", spec.job_id)
        place = Location.parse(spec.input.uri)
        self._services.stores.open(place).put(f"{place.prefix}picture", picture)
        submit_spec(self._services, spec)
        self._services.queue.hurry(spec.queue, spec.job_id)

    def _ended(self, job: str) -> bool:
        """Whether the picture has an outcome, or will not get one."""
        with self._services.redis.errors():
            record = JobKeys(job).record
            done, state = self._services.redis.raw.hmget(record, "done", "state")
        return state is None or int(done or 0) > 0 or JobState(state.decode()).terminal

    def _outcome(self, spec: JobSpec) -> list[dict[str, Any]]:
        body = JobDirectory(self._services.stores, spec.directory).read_chunk(spec.plan, 0)
        if not body:
            record = self._services.jobs.record(spec.job_id)
            if record.state is JobState.EXPIRED:
                raise WaitTimeout("no worker answered in time")
            raise Unavailable(f"the picture got no answer: {record.reason or record.state}")
        outcome = decode_outcome(body.splitlines()[0])
        if "error" in outcome:
            error = outcome["error"]
            stage, message = Stage(error["stage"]), error.get("message", error["code"])
            if stage in THE_PICTURES_OWN:
                raise ItemError(stage, error["code"], message)
            raise Unavailable(f"{stage}: {message}")
        predictions: list[dict[str, Any]] = outcome["predictions"]
        return predictions

    def _clear_soon(self, job: str) -> None:
        with self._lock:
            if job in self._clearing:
                return
            self._clearing.add(job)
        if self._clearers.submit(self._clear, job) is None:
            log.info("left for the next server to clear", job=job)

    def _clear(self, job: str) -> None:
        """End the job, then remove its record, its directory and the picture."""
        assert self._uploads is not None
        try:
            self._end(job)
            place = self._uploads.child(job)
            self._services.stores.open(place).delete_all(place.prefix)
            self._duties.done("clear", job)
        except MillraceError as error:
            log.warning("left to be cleared later", job=job, error=error.message)
        finally:
            self._clearing.discard(job)

    def _end(self, job: str) -> None:
        until = time.monotonic() + ENDED_WITHIN_S
        while True:
            try:
                if self._services.jobs.record(job).state.terminal:
                    control.delete(self._services, job)
                    return
                self._push(job)
            except JobNotFound:
                return
            if time.monotonic() > until:
                raise JobConflict(f"job {job} has not ended yet")
            time.sleep(LOOK_S * 5)

    def _push(self, job: str) -> None:
        """Towards its end: cancel what runs, finalize what waits for it."""
        state = self._services.jobs.record(job).state
        if state in (JobState.CANCELLING, JobState.FINALIZING):
            control.try_to_look_after(self._services, job)
        else:
            try:
                control.cancel(self._services, job)
            except JobConflict:
                return
