"""One message to its end: claim → run → commit → count → feed."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.core.claims import Answer, Claims, Finish, Lease, ModelIdentity
from millrace.core.errors import (
    ItemError,
    JobNotFound,
    LocationNotAllowed,
    MillraceError,
    ObjectTooLarge,
    OutsideRoot,
    RedisUnavailable,
    SpecMismatch,
    Stage,
    Unavailable,
)
from millrace.core.job import JobSpec, JobState, Layout, Reason
from millrace.core.jobdir import JobDirectory, decode_rows
from millrace.core.log import about, get_logger
from millrace.core.manifest import ManifestRow
from millrace.core.message import ChunkMessage
from millrace.core.outcome import Tally, encode_lines, error_line, prediction_line, tally
from millrace.core.record import TimingTotals
from millrace.core.services import Services
from millrace.core.storage import Location
from millrace.worker.careful import Careful
from millrace.worker.in_hand import InHand
from millrace.worker.meters import Meters
from millrace.worker.own_jobs import BegunWithAnotherError, OwnJobs
from millrace.worker.pipeline import Image, Pipeline, as_item_error
from millrace.worker.turns import Turns

log = get_logger(__name__)

PredictionsOf = Callable[[npt.NDArray[np.float32], int | None], list[dict[str, Any]]]

PARTS_KEPT = 16
"""Some megabytes each. Jobs share a queue chunk by chunk: more of them would read theirs anew."""

_HOPELESS = (SpecMismatch, LocationNotAllowed, ObjectTooLarge)
"""What is so whoever runs the chunk."""

AGAIN_S = 1.0
"""How often a committed chunk is counted again while Redis is away."""


@dataclass(frozen=True, slots=True)
class Model:
    """What the runner needs of the loaded model."""

    identity: ModelIdentity
    queues: tuple[str, ...]
    predictions_of: PredictionsOf


class ChunkRunner:
    """Handles messages; safe to call from several threads."""

    def __init__(
        self,
        services: Services,
        claims: Claims,
        pipeline: Pipeline,
        model: Model,
        in_hand: InHand,
        under_way: Callable[[float], None] = lambda share: None,
        meters: Meters | None = None,
    ) -> None:
        """`under_way` is called by a chunk's thread when all its images are, with the share of the
        pipeline that they fill: time for the next."""
        self._services = services
        self._claims = claims
        self._pipeline = pipeline
        self._model = model
        self._in_hand = in_hand
        self._under_way = under_way
        self._meters = meters or Meters("", model.identity.version)
        self._own = OwnJobs(services, model.identity, model.queues)
        self._turns = Turns()
        self._careful = Careful(claims, pipeline)
        self._parts: OrderedDict[tuple[JobSpec, int], list[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def handle(self, message: ChunkMessage) -> None:
        """Run a chunk if the claim allows it; anything else drops the message.

        A failure gives the lease back, and the reconciler sends the chunk again. Raises
        nothing: a message never stops a worker.
        """
        with about(job=message.job, chunk=message.chunk):
            self._handle(message)

    def _handle(self, message: ChunkMessage) -> None:
        try:
            spec = self._services.jobs.spec(message.job)
            if spec.queue not in self._model.queues:
                log.warning("dropped a chunk of another model", queue=spec.queue)
                return
            answer, lease = self._claims.claim(
                spec.queue, message.job, message.chunk, self._model.identity
            )
        except JobNotFound:
            log.warning("dropped a message of a job that does not exist")
            return
        except MillraceError as error:
            log.error("could not claim a chunk", error=error.message)
            return
        if answer is Answer.WRONG_MODEL:
            self._own.hand_over(spec, message.chunk)
            return
        if not answer.holds_lease:
            log.info("dropped a message", answer=str(answer))
            return
        if self._in_hand.renewed(lease):
            log.info("claimed a chunk that is in hand; its lease had run out")
            return
        if not self._in_hand.add(lease):
            self.hand_back(lease)
            return
        images = 0
        try:
            with self._pipeline.starvation.chunk():
                images = self._run(spec, lease, give_up=answer is Answer.POISON)
        except BegunWithAnotherError as error:
            self._own.repin(lease.job, error.model)
            self._give_back(lease, forget_attempt=True)
        except Unavailable as error:
            # Not the chunk's fault, and not held against it.
            log.warning("a service is away; a chunk will run again", error=error.message)
            self._give_back(lease, forget_attempt=True)
        except MillraceError as error:
            log.error("a chunk cannot be run in its job's directory", error=error.message)
            if answer is Answer.POISON or isinstance(error, _HOPELESS):
                self._give_up(lease)
            self._give_back(lease, forget_attempt=False)
        except Exception as error:
            log.error("a chunk failed; it will run again", exc_info=error)
            self._give_back(lease, forget_attempt=False)
        finally:
            self._in_hand.remove(lease, images)

    def hand_back(self, lease: Lease) -> None:
        """Give a lease back because the worker stops: no failed attempt, and queued again."""
        with about(job=lease.job, chunk=lease.chunk):
            try:
                self._careful.stopped(lease)
                if self._claims.release(lease, forget_attempt=True):
                    self._services.finalizer.finalize(lease.job)
                else:
                    self._services.queue.send(lease.queue, lease.job, [lease.chunk])
            except MillraceError as error:
                log.warning("a chunk comes back when its lease expires", error=error.message)

    def _run(self, spec: JobSpec, lease: Lease, *, give_up: bool) -> int:
        """Run a leased chunk and count it; returns how many images it held."""
        directory = JobDirectory(self._services.stores, spec.directory)
        rows = decode_rows(
            self._part(directory, spec, spec.plan.part_of(lease.chunk)), spec.plan, lease.chunk
        )
        # A chunk that was claimed before may have been committed before.
        standing = directory.read_chunk(spec.plan, lease.chunk) if lease.attempt > 1 else None
        images: list[Image] = []
        started = time.perf_counter()
        if standing is None:
            if give_up:
                images = [Image(row, error=_given_up(lease)) for row in rows]
            else:
                images = self._predict(spec, lease, rows)
            body = encode_lines(self._line(image, spec, lease) for image in images)
            started = time.perf_counter()
            standing = directory.create_chunk(spec.plan, lease.chunk, body)
        counted = tally(standing, rows)
        if spec.layout is Layout.PER_IMAGE:
            keyed = zip((row.key for row in rows), standing.splitlines(), strict=True)
            self._pipeline.for_each(lambda item: directory.put_by_key(*item), keyed)
        write_us = int((time.perf_counter() - started) * 1e6)
        self._count(spec, lease, counted, images, write_us)
        return len(rows)

    def _predict(self, spec: JobSpec, lease: Lease, rows: list[ManifestRow]) -> list[Image]:
        fetch, largest = self._fetcher(spec), self._services.settings.max_object_bytes

        def under_way() -> None:
            self._under_way(len(rows) / self._pipeline.in_flight)

        if lease.attempt > 1:
            with self._in_turn(lease, self._turns.alone()):
                return self._careful.run(lease, rows, fetch)
        with self._turns.shared(wait=False) as has_turn:
            if has_turn:
                return self._pipeline.run(rows, fetch, under_way, largest)
        with self._in_turn(lease, self._turns.shared()):
            return self._pipeline.run(rows, fetch, under_way, largest)

    @contextmanager
    def _in_turn(self, lease: Lease, turn: AbstractContextManager[object]) -> Iterator[None]:
        """Wait. Other chunks may kill the process meanwhile: that is no attempt at this one."""
        self._claims.count_attempt(lease, -1)
        with turn:
            self._claims.count_attempt(lease, +1)
            yield

    def _count(
        self, spec: JobSpec, lease: Lease, counted: Tally, images: list[Image], write_us: int
    ) -> None:
        timing = self._pipeline.timing(images, write_us)
        answer, ready = self._finish(lease, counted, timing)
        self._meters.chunk(answer, counted, images, timing)
        if answer is Finish.LATE:
            # The job ended without this chunk and says so; an object would contradict it.
            JobDirectory(self._services.stores, spec.directory).delete_chunk(spec.plan, lease.chunk)
        log.info(
            "finished a chunk",
            job=lease.job,
            chunk=lease.chunk,
            succeeded=counted.succeeded,
            failed=counted.failed,
            answer=str(answer),
        )
        try:
            if ready:
                self._services.finalizer.finalize(lease.job)
            else:
                self._services.feeder.feed(spec)
        except MillraceError as error:
            log.warning("left to the reconciler", job=lease.job, error=error.message)

    def _finish(self, lease: Lease, counted: Tally, timing: TimingTotals) -> tuple[Finish, bool]:
        """Count a committed chunk, however long Redis is away: nothing else could be done
        meanwhile, and to give it back would be to run it again.

        Raises RedisUnavailable if the worker is told to stop before; then others count it.
        """
        while True:
            try:
                return self._claims.finish(lease, counted, timing)
            except RedisUnavailable as error:
                log.warning(
                    "a committed chunk waits for Redis",
                    job=lease.job,
                    chunk=lease.chunk,
                    error=error.message,
                )
                if self._in_hand.wait_closed(AGAIN_S):
                    raise

    def _give_up(self, lease: Lease) -> None:
        """End a job whose manifest cannot be read or whose output cannot be written."""
        try:
            self._services.jobs.stop(lease.job, JobState.FAILED, Reason.JOB_DIRECTORY_UNUSABLE)
        except MillraceError as error:
            log.warning("left to the next claim", job=lease.job, error=error.message)

    def _give_back(self, lease: Lease, *, forget_attempt: bool) -> None:
        """Free a chunk that failed; the reconciler sends it again, which spaces the tries."""
        self._meters.given_back()
        try:
            if self._claims.release(lease, forget_attempt=forget_attempt):
                self._services.finalizer.finalize(lease.job)
        except MillraceError as error:
            log.warning("left to the reconciler", job=lease.job, error=error.message)

    def _line(self, image: Image, spec: JobSpec, lease: Lease) -> bytes:
        if image.scores is not None and image.error is None:
            try:
                return prediction_line(
                    image.row, self._model.predictions_of(image.scores, spec.top_k)
                )
            except Exception as error:
                image.error = as_item_error(error, Stage.INFER)
        failure = image.error or ItemError(Stage.INFER, "internal", "no answer", retryable=True)
        return error_line(image.row, failure, lease.attempt)

    def _fetcher(self, spec: JobSpec) -> Callable[[ManifestRow], bytes]:
        """Reads one image of the job's input."""
        source = Location.parse(spec.input.uri)
        store = self._services.stores.open(source)
        limit = self._services.settings.max_object_bytes

        def fetch(row: ManifestRow) -> bytes:
            if not row.key.startswith(source.prefix):
                raise OutsideRoot(f"{row.key!r} is not under {source}")
            if row.size is not None and row.size > limit:
                raise ObjectTooLarge(f"{row.key}: {row.size} bytes, over the limit of {limit}")
            return store.get(row.key, if_match=row.etag, max_bytes=limit)

        return fetch

    def _part(self, directory: JobDirectory, spec: JobSpec, part: int) -> list[bytes]:
        """A manifest part's lines; it never changes, so the last few are kept."""
        key = (spec, part)
        with self._lock:
            if key in self._parts:
                self._parts.move_to_end(key)
                return self._parts[key]
        # What is asked for comes from Redis; nothing is read or written that storage denies.
        directory.confirm(spec)
        self._own.confirm(directory, spec)
        lines = directory.part_lines(part)
        with self._lock:
            self._parts[key] = lines
            if len(self._parts) > PARTS_KEPT:
                self._parts.popitem(last=False)
        return lines


def _given_up(lease: Lease) -> ItemError:
    return ItemError(
        Stage.INFER,
        "worker_crashed",
        f"its chunk was claimed {lease.attempt - 1} times and never finished",
        retryable=True,
    )
